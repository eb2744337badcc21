"""The requests of the node loop to the shim. `connection` keeps the connection up.

Requests wait until there is a connection. `run` may be sent again, because the shim starts an id only once. Execs and
attaches belong to one connection, and end with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fcntl
import itertools
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wasmlet.clock import Clock
from wasmlet.runtime.shim.connection import ShimConnection, ShimError
from wasmlet.runtime.shim.records import ContainerRecord
from wasmlet.worker import messages, wire
from wasmlet.worker.fields import Resources, ZygoteKey

__all__ = ["ShimClient", "ShimError"]

KILL_SECONDS = 10.0
"""How long the end of a command that was killed is waited for."""

MOST_FORGOTTEN = 500
"""How many containers' records one message drops."""


class ShimClient(ShimConnection):
    """The shim of one state directory; see `ShimConnection`."""

    def __init__(
        self,
        state_dir: Path,
        clock: Clock,
        idle_exit: float,
        changed: Callable[[ContainerRecord], None],
        *,
        cgroups: bool = True,
    ) -> None:
        super().__init__(state_dir, clock, idle_exit, changed, cgroups=cgroups)
        self._cancelled = self._settled = 0
        """Counts the starts that were cancelled after they were sent, and those of them that the shim has handled."""
        self._ended: dict[str, None] = {}
        """The containers whose records are to be dropped, in the order in which that was asked for."""
        self._left: set[str] = set()
        """Those whose records are dropped, but not all logs, as their callers have yet to be told."""
        self._forgetting = asyncio.Lock()

    async def run(self, request: messages.Run, spec: bytes, module: int, mounts: Sequence[int] = ()) -> ContainerRecord:
        """Start a container; return once the shim has it or, if the request says `wait`, when the guest has begun.

        Args:
            spec: the JSON that only the child reads.
            module: descriptor of the compiled module, which stays the caller's; so do those of `mounts`.

        Raises:
            ShimError: the shim refuses, or is too old to give the container the sockets that it was granted.
        """
        await self._connected.wait()
        grant = request.network
        if grant is not None and messages.NETWORK not in self._extensions:
            if not (grant.ports or grant.egress):
                return await self.run(dataclasses.replace(request, network=None), spec, module, mounts)
            raise ShimError(
                "an older wasmlet has started the shim that runs this node's containers, and it knows no networks of "
                "pods: the container can have no sockets until that shim has ended. Drain the node, or delete its "
                "pods, and start it again"
            )
        with _sealed(spec) as file:
            try:
                reply = await self._ask(request, (file, module, *mounts))
            except asyncio.CancelledError:
                self._cancelled += 1
                raise
            except wire.WireError as error:
                raise ShimError(
                    f"what the shim has to know of the container does not fit into one message ({error}): the names in "
                    "the pod's hostAliases and its rules of egress are the most of that; make them fewer or shorter"
                ) from None
        known = self.records.get(request.id)  # most replies are events, too
        if known is None:
            known = self.records[request.id] = ContainerRecord.of(reply["container"])
        return known

    async def settled(self) -> None:
        """Return when the shim has handled all starts that were cancelled after they were sent: `records` has them."""
        if (cancelled := self._cancelled) > self._settled:
            await self.ping()
            self._settled = max(self._settled, cancelled)

    async def stop(self, container_id: str, grace: float) -> None:
        """Have the container interrupted at once, and killed after `grace` seconds; return before it has ended."""
        await self._ask(messages.Stop(container_id, grace))

    async def resize(self, container_id: str, resources: Mapping[str, int | None]) -> None:
        """Have a running container limited in another way; `resources` as `wire` has them.

        Raises:
            ShimError: that is not possible (now).
        """
        await self._ask(messages.Resize(container_id, Resources.of(resources)))

    def holds_memory(self, record: ContainerRecord) -> bool:
        """Whether the kernel holds this container's limit of memory, so that it can be changed while it runs."""
        return bool(record.group) and "memory" in self.groups

    async def inherited(self, container_id: str) -> list[int]:
        """Descriptors of what a running container was given: spec, compiled module, mounts; the caller closes them.

        Raises:
            ShimError: it does not run.
        """
        descriptors: list[int] = (await self._ask(messages.Given(container_id)))["descriptors"]
        return descriptors

    @property
    def makes_directories(self) -> bool:
        """Whether the shim makes the directory of a termination message: an older shim does not."""
        return messages.MAKE_MESSAGE in self._extensions

    @property
    def takes_commands(self) -> bool:
        """Whether `exec_command` is possible: an older shim cannot."""
        return messages.EXEC_COMMAND in self._extensions

    async def exec_command(self, container_id: str, command: Sequence[str], streams: Sequence[int]) -> ContainerRecord:
        """Run a second instance of a running container's module, with other arguments; as `exec`.

        Args:
            streams: descriptors of its stdin, stdout and stderr, which stay the caller's.
        """
        request = messages.Exec(secrets.token_hex(16), container_id, command=True)
        with _sealed(json.dumps(list(command)).encode()) as file:
            return await self._exec(request, (*streams, file))

    async def exec(
        self, container_id: str, zygote: ZygoteKey, spec: bytes, descriptors: Sequence[int], *, own: bool
    ) -> ContainerRecord:
        """Run a second instance in a running container; return how it ended. Cancelled: it is killed first.

        Args:
            descriptors: its stdin, stdout, stderr, compiled module and mounts, which stay the caller's.
            own: it runs the container's own module, not one from a file.

        Raises:
            ShimError: the container does not run, or the connection is lost, with which the instance ends.
        """
        request = messages.Exec(secrets.token_hex(16), container_id, zygote, own)
        with _sealed(spec) as file:
            return await self._exec(request, (*descriptors[:3], file, *descriptors[3:]))

    async def _exec(self, request: messages.Exec, descriptors: tuple[int, ...]) -> ContainerRecord:
        await self._connected.wait()
        asked = asyncio.ensure_future(self._ask_once(request, descriptors))
        try:
            reply = await asyncio.shield(asked)
        except asyncio.CancelledError:
            self._post(messages.Stop(request.id))
            await _ended(asked)
            raise
        except ConnectionError:
            raise ShimError("the connection to the shim was lost, and with it the command") from None
        finally:
            del asked  # or an error that it has, and this call, would hold each other
        return ContainerRecord.of(reply["exec"])

    async def attach(self, container_id: str, *, stdin: bool) -> tuple[messages.Attached, list[int]]:
        """Attach to the stdin of a running container, or to its output, over the present connection.

        Returns:
            What `detach` needs and, for output, where in the log to begin. Of stdin the descriptor to write to, or none
            if it has no stdin; the caller closes it.

        Raises:
            ShimError: it does not run, or the connection was lost.
        """
        await self._connected.wait()
        try:
            reply = await self._ask_once(messages.Attach(container_id, stdin))
        except ConnectionError:
            raise ShimError("the connection to the shim was lost") from None
        return messages.Attached.of(reply), reply["descriptors"]

    def detach(self, token: int) -> None:
        """Leave what `attach` gave; done soon. Where the connection was lost meanwhile, that has done it."""
        self._post(messages.Detach(token))

    async def forget(self, container_ids: Sequence[str]) -> list[str]:
        """Drop the records and logs of containers that have ended. What several callers want goes in one message.

        Returns:
            Those of them of whose pods some log may be left.
        """
        self._ended.update(dict.fromkeys(container_ids))
        async with self._forgetting:
            while not self._ended.keys().isdisjoint(container_ids):
                some = tuple(itertools.islice(self._ended, MOST_FORGOTTEN))
                reply = await self._ask(messages.Forget(some, logs=True))
                self._left.update(reply.get("left", some))  # an older shim leaves all logs
                for container_id in some:
                    self.records.pop(container_id, None)
                    self._ended.pop(container_id, None)
        left = [container_id for container_id in container_ids if container_id in self._left]
        self._left.difference_update(left)
        return left

    async def warm(self, zygote: ZygoteKey, *, network: bool = False) -> None:
        """Have a zygote ready before it is needed, and with `network` what opens guests' sockets."""
        await self._ask(messages.Warm(zygote, network))

    async def ping(self, never_at: tuple[tuple[str, int], ...] = ()) -> None:
        """Return when the shim has answered.

        Args:
            never_at: where the node's own API is now, which no guest dials; () says nothing of it.
        """
        await self._ask(messages.Hello(never_at))

    async def shutdown(self, *, force: bool) -> None:
        """End the shim and return when it has ended; with containers running only if `force`, and then they are killed.

        The client is closed after that.

        Raises:
            ShimError: containers are running.
        """
        await self._stop_keeping()
        try:
            await self._ask_once(messages.Shutdown(force))
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


@contextlib.contextmanager
def _sealed(content: bytes) -> Iterator[int]:
    """A memory file, which neither blocks nor comes up short; nobody can change it."""
    memory = os.memfd_create("spec", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.pwrite(memory, content, 0)
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
        yield memory
    finally:
        os.close(memory)
