"""The reference provider does all that the contract asks."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from wasmlet.testing import ProviderContract, ReferenceProvider


def script(
    *, lines: Sequence[str] = (), exit_code: int | None = None, after: float = 0.0, stubborn: bool = False
) -> dict[str, Any]:
    """The contract's container, as the reference provider plays it."""
    args = ["ignore"] if stubborn else []
    for line in lines:
        args += ["print", line]
    if after:
        args += ["sleep", str(after)]
    if exit_code is not None:
        args += ["exit", str(exit_code)]
    return {"image": "none", "command": ["script"], "args": args}


def command(
    *, says: str = "", complains: str = "", copies: bool = False, stays: bool = False, exit_code: int = 0
) -> list[str]:
    """The contract's command, as the reference provider plays it."""
    words = ["echo", says, ";"] if says else []
    words += ["complain", complains, ";"] if complains else []
    words += ["cat", ";"] if copies else []
    return words + (["sleep", "100000"] if stays else ["exit", str(exit_code)])


def serving() -> tuple[dict[str, Any], int]:
    """The reference provider's ports echo."""
    return script() | {"ports": [{"containerPort": 8080}]}, 8080


class TestReferenceProvider(ProviderContract):
    """One instance for all "processes": its memory is the machine on which pods go on."""

    survives = True
    moment_seconds = 0.05
    container = staticmethod(script)
    command = staticmethod(command)
    serving = staticmethod(serving)

    @functools.cached_property
    def the_one(self) -> ReferenceProvider:
        return ReferenceProvider()

    def make_provider(self) -> ReferenceProvider:
        return self.the_one

    def refused(self) -> dict[str, Any]:
        return {"hostPID": True}
