"""The reference provider does all that the contract asks, and the suite asks no more: one call at a time for a pod."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.node.trouble import Troubled
from wasmlet.testing import ProviderContract, ReferenceProvider
from wasmlet.testing.contract import ContractBroken
from wasmlet.testing.contract.trial import Trial


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


class Slow(Troubled):
    """A provider without a stream of changes, each of whose calls takes a few turns of the event loop."""

    def __init__(self) -> None:
        super().__init__(self._turns)

    @staticmethod
    async def _turns(call: str, after: bool) -> None:
        for _ in range(3):
            await asyncio.sleep(0)

    def changes(self) -> Any:
        return None


class TestPolledProvider(TestReferenceProvider):
    """The suite polls, and calls for one pod never overlap all the same."""

    @functools.cached_property
    def the_one(self) -> ReferenceProvider:
        return Slow()

    @pytest.fixture(autouse=True)
    def one_call_at_a_time(self) -> Iterator[None]:
        yield
        assert isinstance(self.the_one, Slow)
        assert self.the_one.overlaps == []


async def test_a_check_whose_calls_overlap_fails(tmp_path: Path) -> None:
    """So whoever writes checks of their own cannot ask for more than the node loop does."""
    async with Trial(TestPolledProvider(), tmp_path / "state") as trial:
        pod, other = trial.pod(), await trial.running()
        first = asyncio.ensure_future(trial.creating(pod))
        await asyncio.sleep(0)
        with pytest.raises(ContractBroken, match=r"^pod_status: expected no other call for the pod under way"):
            await trial.status(pod)
        await trial.status(other)
        await first
        await trial.status(pod)
