"""Pods go to the disk, several at a time: while one write waits for the disk, what comes meanwhile is collected."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from wasmlet.concurrency import in_thread
from wasmlet_agent.pods.store import KeptPod, Store

_Waiting = tuple[str, KeptPod, "asyncio.Future[None]"]


class Keeper:
    """Keeps pods.

    Args:
        spawn: runs a coroutine as a task that the agent owns.
    """

    def __init__(self, store: Store, spawn: Callable[[Coroutine[Any, Any, Any]], object]) -> None:
        self._store = store
        self._spawn = spawn
        self._waiting: list[_Waiting] = []
        self._busy = False

    async def keep(self, uid: str, kept: KeptPod) -> None:
        """Return when the pod is on the disk. Of one pod there is one call at a time.

        Raises:
            OSError: it cannot be kept.
        """
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((uid, kept, done))
        if not self._busy:
            self._busy = True
            self._spawn(self._work())
        await done

    async def _work(self) -> None:
        try:
            while self._waiting:
                taken, self._waiting = self._waiting, []
                try:
                    failed = await in_thread(self._store.keep, {uid: kept for uid, kept, _ in taken})
                except OSError as error:
                    failed = dict.fromkeys((uid for uid, _, _ in taken), error)
                for uid, _, done in taken:
                    if done.done():  # whoever waited has left
                        continue
                    if (why := failed.get(uid)) is None:
                        done.set_result(None)
                    else:
                        done.set_exception(why)
        finally:
            self._busy = False
