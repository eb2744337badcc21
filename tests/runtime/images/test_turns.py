"""Whose turn it is to be compiled."""

from __future__ import annotations

import asyncio

import pytest

from wasmlet.runtime.images.turns import ORDERS, Turns

SMALL, MEDIUM, LARGE = 100, ORDERS[0] + 1, ORDERS[1] + 1


class Run:
    """Modules that are compiled until told, on a clock that stands still."""

    def __init__(self, places: int) -> None:
        self.now = 0.0
        self.turns = Turns(places, lambda: self.now)
        self.begun: list[str] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._done: dict[str, asyncio.Event] = {}

    async def come(self, name: str, size: int) -> None:
        self._done[name] = asyncio.Event()
        self._tasks[name] = asyncio.create_task(self._compile(name, size))
        await self._settle()

    async def _compile(self, name: str, size: int) -> None:
        async with self.turns.of(size):
            self.begun.append(name)
            await self._done[name].wait()

    async def end(self, name: str) -> None:
        self._done[name].set()
        await self._tasks[name]
        await self._settle()

    async def cancel(self, *names: str) -> None:
        for name in names:
            self._tasks[name].cancel()
        await asyncio.wait([self._tasks[name] for name in names])
        await self._settle()

    async def _settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


@pytest.mark.parametrize("places", [1, 2])
async def test_each_order_of_size_has_places_of_its_own(places: int) -> None:
    run = Run(places)
    for size in (LARGE, MEDIUM, SMALL):
        for number in range(places + 1):
            await run.come(f"{size} {number}", size)
    assert run.begun == [f"{size} {number}" for size in (LARGE, MEDIUM, SMALL) for number in range(places)]


async def test_small_ones_go_first_for_a_while() -> None:
    run = Run(1)
    await run.come("first", LARGE)
    await run.come("second", LARGE + 30 * 2**20)
    await run.come("smaller", LARGE)
    await run.end("first")
    assert run.begun[-1] == "smaller"
    for number in range(100):
        run.now += 1
        await run.come(f"next {number}", LARGE)
        await run.end(run.begun[-1])
        if run.begun[-1] == "second":
            break
    assert 25 < number < 35


async def test_one_that_leaves_hands_its_turn_on() -> None:
    run = Run(1)
    for name in ("a", "b", "c", "d"):
        await run.come(name, SMALL)
    await run.cancel("b")
    run._done["a"].set()
    await run._tasks["a"]  # and c was given the place, which it does not know yet
    await run.cancel("c")
    assert run.begun[-1] == "d"
    await run.end("d")
    await run.come("e", SMALL)
    assert run.begun[-1] == "e"
