"""Which checks of the contract suite find which broken provider."""

from __future__ import annotations

from typing import Any

from wasmlet.testing import ReferenceProvider

FOUND_BY: dict[type[ReferenceProvider], dict[str, str]] = {}
"""Provider to the checks that it fails (without their parameters), each with the method that its message names."""


def found_by(**checks: str) -> Any:
    """Which checks fail, under which name of a method."""

    def mark(provider: type[ReferenceProvider]) -> type[ReferenceProvider]:
        FOUND_BY[provider] = checks
        return provider

    return mark
