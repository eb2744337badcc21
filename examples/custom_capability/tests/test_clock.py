"""The clock is a capability as actors expect one, and tells the time."""

from __future__ import annotations

import time
from typing import Any, ClassVar

import pytest
from wasmlet_clock import Clock
from wasmlet_wascc.capability import Context
from wasmlet_wascc.testing import CapabilityContract, context


class TestContract(CapabilityContract):
    module: ClassVar[str] = "wasmlet_clock"
    examples: ClassVar[tuple[tuple[str, Any], ...]] = (("Now", None), ("Now", {}))

    def make(self, given: Context) -> Clock:
        return Clock(given)


def test_it_tells_the_time_and_moves_it() -> None:
    told = Clock(context({"offset": "3600"})).call("default", "Now", None)["seconds"]
    assert told - time.time() == pytest.approx(3600, abs=5)
