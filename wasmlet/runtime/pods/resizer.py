"""Resizes a running container: sets the new limits in its control group, and then records them.

`wasmlet.runtime.resizing` decides what is possible. If the kernel refuses for now (a memory limit below the current
usage), this tries again as long as the resize is wanted. Meanwhile the pod's status says that the resize is in
progress, and why it is not done, as with a kubelet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import attrs

from wasmlet.clock import Clock
from wasmlet.concurrency import first_of
from wasmlet.errors import WasmletError
from wasmlet.model.pod import Raw
from wasmlet.runtime import resizing
from wasmlet.runtime.shim.client import ShimClient
from wasmlet.worker import wire

RETRY_SECONDS = 10.0


@attrs.frozen
class Resize:
    """What an instance is to have: the resources of this container of the shim's."""

    container_id: str
    resources: Raw


class Resizer:
    """Carries out the resizes of one container.

    Attributes:
        error: why what is wanted could not be had when it was tried last; "" where it could.
    """

    def __init__(self, client: ShimClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._again = asyncio.Event()
        self.error = ""

    def try_again(self) -> None:
        """Something else is wanted: do not wait for the next try."""
        self._again.set()

    async def run(
        self, *, wanted: Callable[[], Resize | None], resized: Callable[[Resize], None], published: Callable[[], None]
    ) -> None:
        """Have the instance's limits become those that are set aside for it; return when they are.

        Args:
            wanted: the resize that is due; None where the instance has what is set aside for it, or cannot be resized.
            resized: the instance has these resources now.
            published: called after each change of `error` and after each resize.
        """
        while (resize := wanted()) is not None:
            self._again.clear()
            try:
                await self._client.resize(resize.container_id, resizing.as_message(resize.resources))
            except WasmletError as error:
                self.error = str(error)
                published()
                ended = self._client.wait(resize.container_id, wire.ENDED)
                await first_of(self._clock.sleep(RETRY_SECONDS), self._again.wait(), ended)
                continue
            resized(resize)
            self.error = ""
            published()
        self.error = ""
        published()
