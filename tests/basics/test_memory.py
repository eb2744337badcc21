"""What many things have left that have ended is freed, not after each of them, and seldom where little is found."""

from __future__ import annotations

import asyncio

import pytest

from wasmlet import memory
from wasmlet.memory import LITTLE, MANY, MOST, Leftovers


class Freed:
    """Notes what is done: "collected", "trimmed"."""

    def __init__(self) -> None:
        self.done = asyncio.Queue[str]()
        self.finds = 0
        """How many objects a collection finds."""

    def collect(self) -> int:
        self.done.put_nowait("collected")
        return self.finds

    def trim(self) -> None:
        self.done.put_nowait("trimmed")

    async def next(self) -> list[str]:
        """What is done next, at the end of which memory is given back."""
        found = []
        while found[-1:] != ["trimmed"]:
            found.append(await asyncio.wait_for(self.done.get(), 60))
        assert self.done.empty()
        return found


@pytest.fixture
def freed(monkeypatch: pytest.MonkeyPatch) -> Freed:
    monkeypatch.setattr(memory, "PAUSE_SECONDS", 0.001)
    return Freed()


def end(leftovers: Leftovers, count: int) -> None:
    for _ in range(count):
        leftovers.add()


async def test_what_many_have_left_is_freed_at_once(freed: Freed) -> None:
    leftovers = Leftovers(freed.collect, freed.trim)
    freed.finds = LITTLE * 2 * MANY
    for _ in range(3):
        end(leftovers, MANY - 1)
        assert leftovers.planned is False
        end(leftovers, MANY)
        assert leftovers.planned
        assert await freed.next() == ["collected", "trimmed"]
    leftovers.close()


async def test_where_little_is_found_it_is_looked_for_seldom(freed: Freed) -> None:
    leftovers = Leftovers(freed.collect, freed.trim)
    often = []
    for _ in range(2 * MOST // MANY - 1):
        end(leftovers, MANY)
        often.append("collected" in await freed.next())
    assert [at + 1 for at, collected in enumerate(often) if collected] == [1, 3, 7, 15, 31]
    freed.finds = LITTLE * MOST
    end(leftovers, MOST)
    assert await freed.next() == ["collected", "trimmed"]
    for _ in range(2):
        end(leftovers, MANY)
        assert await freed.next() == ["collected", "trimmed"]
    leftovers.close()
