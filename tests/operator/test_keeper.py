"""The control loop of a pool, without an operator around it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.operator.test_draining import opened
from wasmlet.kube import errors
from wasmlet.operator.keeper import SETTLE_SECONDS, Keeper


async def test_a_look_after_a_conflict_comes_after_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    async def ask() -> dict[str, Any]:
        nonlocal asked
        asked += 1
        raise errors.Conflict(409, "Conflict", "StatefulSet edge has pods again")

    async with asyncio.timeout(30), opened() as (rig, _):
        monkeypatch.setattr(rig.shared.fleet, "in_sync", lambda: asyncio.sleep(0))
        looking = asyncio.create_task(Keeper("edge", "uid", rig.shared, ask, removing=True).run())
        for number in (1, 2):
            assert await rig.clock.next_sleep() == pytest.approx(SETTLE_SECONDS)
            assert asked == number
            rig.clock.advance(SETTLE_SECONDS)
            while asked == number:  # noqa: ASYNC110 - looked at
                await asyncio.sleep(0)
        looking.cancel()
        await asyncio.wait([looking])
