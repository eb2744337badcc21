"""Carrying out a resize of a container that goes on: its control group gets the new limits, and then it has them.

`resizing` decides what is possible. What the kernel will not have now (a limit of memory below what is in use) is tried
again for as long as it is wanted; meanwhile the pod says that its resize is in progress, and why, as with a kubelet.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from wasmlet.errors import WasmletError
from wasmlet.runtime import limits
from wasmlet.runtime.resizing import changed, needs_restart
from wasmlet.runtime.waiting import first_of
from wasmlet.worker import wire

if TYPE_CHECKING:
    from wasmlet.runtime.container import ContainerLife

RETRY_SECONDS = 10.0


class Resizer:
    """Of one container.

    Attributes:
        error: why what is wanted could not be had when it was tried last; "" where it could.
    """

    def __init__(self, life: ContainerLife) -> None:
        self._life = life
        self._again = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.error = ""

    def begin(self) -> None:
        """Have the present instance's limits become those that are set aside for it; `life.given` is these then."""
        self._again.set()
        if self._task is None or self._task.done():
            self._task = self._life.pod.around.background(self._run())

    def _wanted(self) -> bool:
        life = self._life
        differs = bool(changed(life.given, life.resources))
        return life.lives and differs and not needs_restart(life.spec, life.given, life.resources)

    async def _run(self) -> None:
        life, client = self._life, self._life.pod.around.client
        while self._wanted() and (record := life.record) is not None:
            self._again.clear()
            wanted = life.resources
            try:
                await client.resize(record.id, limits.as_message(wanted))
            except WasmletError as error:
                self.error = str(error)
                life.pod.publish()
                pause = life.pod.around.clock.sleep(RETRY_SECONDS)
                await first_of(pause, self._again.wait(), client.wait(record.id, wire.ENDED))
                continue
            if life.record is not None and life.record.id == record.id:
                life.given = wanted
            self.error = ""
            life.pod.publish()
        self.error = ""
        life.pod.publish()
