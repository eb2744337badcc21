"""What the node loop asks of the shim, over a connection that is kept up (`connection`).

Requests wait for the connection; `run` may be repeated, because the shim starts an id only once. What belongs to one
connection, execs and those who are attached, ends with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from wasmlet.runtime.shim.connection import ShimConnection, ShimError
from wasmlet.runtime.shim.records import ContainerRecord

__all__ = ["ShimClient", "ShimError"]

KILL_SECONDS = 10.0
"""How long the end of a command that was killed is waited for."""


class ShimClient(ShimConnection):
    """The shim of one state directory."""

    async def run(
        self,
        container_id: str,
        *,
        labels: Mapping[str, Any],
        log_path: str,
        zygote: Mapping[str, str],
        spec: bytes,
        module: int,
        settings: Mapping[str, Any],
        mounts: Sequence[int] = (),
        message: Mapping[str, Any] | None = None,
    ) -> ContainerRecord:
        """Start a container; return once the shim has it, which is before the guest begins.

        Args:
            log_path: relative to the state directory, below `logs/`.
            settings: how its log and its streams are to be, as `wire` has it.
            spec: the JSON that only the child reads.
            module: descriptor of the compiled module, which stays the caller's; so do those of `mounts`.
            message: where its termination message is, as `wire` has it.

        Raises:
            ShimError: the shim refuses.
        """
        memory = os.memfd_create("spec", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            _fill(memory, spec)
            own = {"id": container_id, "labels": labels, "log": log_path, "zygote": zygote, "message": message}
            reply = await self._ask("run", {**settings, **own}, (memory, module, *mounts))
        finally:
            os.close(memory)
        record = ContainerRecord.of(reply["container"])
        self.records.setdefault(container_id, record)
        return self.records[container_id]

    async def stop(self, container_id: str, grace: float) -> None:
        """Have the container interrupted at once, and killed after `grace` seconds; return before it has ended."""
        await self._ask("stop", {"id": container_id, "grace": grace})

    async def resize(self, container_id: str, resources: Mapping[str, int | None]) -> None:
        """Have a running container limited in another way; `resources` as `wire` has them.

        Raises:
            ShimError: that is not possible (now).
        """
        await self._ask("resize", {"id": container_id, "resources": resources})

    def holds_memory(self, record: ContainerRecord) -> bool:
        """Whether the kernel holds this container's limit of memory, so that it can be changed while it runs."""
        return bool(record.group) and "memory" in self.groups

    async def inherited(self, container_id: str) -> list[int]:
        """Descriptors of what a running container was given: spec, compiled module, mounts; the caller closes them.

        Raises:
            ShimError: it does not run.
        """
        descriptors: list[int] = (await self._ask("given", {"id": container_id}))["descriptors"]
        return descriptors

    async def exec(
        self, container_id: str, zygote: Mapping[str, str], spec: bytes, descriptors: Sequence[int], *, own: bool
    ) -> ContainerRecord:
        """Run a second instance in a running container; return how it ended. Cancelled: it is killed first.

        Args:
            descriptors: its stdin, stdout, stderr, compiled module and mounts, which stay the caller's.
            own: the module is the container's own.

        Raises:
            ShimError: the container does not run, or the connection is lost, with which the instance ends.
        """
        name = secrets.token_hex(16)
        memory = os.memfd_create("spec", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            _fill(memory, spec)
            fields = {"id": name, "container": container_id, "zygote": zygote, "own": own}
            await self._connected.wait()
            asked = asyncio.ensure_future(self._ask_once("exec", fields, (*descriptors[:3], memory, *descriptors[3:])))
            try:
                reply = await asyncio.shield(asked)
            except asyncio.CancelledError:
                self._post("stop", {"id": name, "grace": 0})
                await _ended(asked)
                raise
            except ConnectionError:
                raise ShimError("the connection to the shim was lost, and with it the command") from None
        finally:
            os.close(memory)
        return ContainerRecord.of(reply["exec"])

    async def attach(self, container_id: str, *, stdin: bool) -> dict[str, Any]:
        """Attach to the stdin of a running container, or to its output, over the present connection.

        Returns:
            `token`, for `detach`. Of stdin, `descriptors`: the end to write to, or nothing if it has none; the caller
            closes it. Of output, `position`: file and offset in the log at which to begin.

        Raises:
            ShimError: it does not run, or the connection was lost.
        """
        await self._connected.wait()
        try:
            return await self._ask_once("attach", {"id": container_id, "stdin": stdin})
        except ConnectionError:
            raise ShimError("the connection to the shim was lost") from None

    def detach(self, token: int) -> None:
        """Leave what `attach` gave; done soon. Where the connection was lost meanwhile, that has done it."""
        self._post("detach", {"token": token})

    async def forget(self, container_ids: Sequence[str]) -> None:
        """Drop the records of containers that have ended."""
        for begin in range(0, len(container_ids), 500):
            await self._ask("forget", {"ids": list(container_ids[begin : begin + 500])})
        for container_id in container_ids:
            self.records.pop(container_id, None)

    async def warm(self, zygote: Mapping[str, str]) -> None:
        """Have a zygote ready before it is needed."""
        await self._ask("warm", {"zygote": zygote})

    async def ping(self) -> None:
        """Return when the shim has answered."""
        await self._ask("hello", {})

    async def shutdown(self, *, force: bool) -> None:
        """End the shim and return when it has ended; with containers running only if `force`, and then they are killed.

        The client is closed after that.

        Raises:
            ShimError: containers are running.
        """
        await self._stop_keeping()
        try:
            await self._ask_once("shutdown", {"force": force})
        except ShimError:
            self._keeper = asyncio.create_task(self._keep())
            raise
        except ConnectionError:
            pass
        else:
            await self._lost.wait()
        self._disconnect()


async def _ended(task: asyncio.Future[Any]) -> None:
    """Wait until it is done, whoever cancels, but not for a shim that does not answer at all."""
    deadline = asyncio.get_running_loop().time() + KILL_SECONDS
    while not task.done() and (left := deadline - asyncio.get_running_loop().time()) > 0:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([task], timeout=left)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _fill(memory: int, spec: bytes) -> None:
    """Put a spec into a memory file, which neither blocks nor comes up short; nobody can change it from here on."""
    os.pwrite(memory, spec, 0)
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
