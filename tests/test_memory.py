"""What many things have left that have ended is freed, and not after each of them."""

from __future__ import annotations

import asyncio

import pytest

from wasmlet import memory
from wasmlet.memory import MANY, Leftovers


async def test_what_many_have_left_is_freed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PAUSE_SECONDS", 0.001)
    freed = asyncio.Queue[None]()
    leftovers = Leftovers(lambda: freed.put_nowait(None))
    for turn in range(2):
        for _ in range(MANY - 1):
            leftovers.add()
        assert leftovers.planned is False
        for _ in range(MANY):
            leftovers.add()
        assert leftovers.planned
        await asyncio.wait_for(freed.get(), 60)
        assert (turn, freed.qsize()) == (turn, 0)
    leftovers.close()
