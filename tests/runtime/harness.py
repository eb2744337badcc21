"""A provider under test with real processes: `async with Runtime(...) as runtime:`; nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

from tests.worker.harness import children, kill, wait_gone
from wasmlet.clock import Clock
from wasmlet.errors import WasmletError
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod, PodKey, Raw
from wasmlet.model.status import ContainerStatus, PodStatus, Running, Terminated, Waiting
from wasmlet.provider import LogOptions, NodeContext, PodEvent, StatusChanged
from wasmlet.runtime import RuntimeConfig, RuntimeProvider
from wasmlet.testing.clock import FakeClock

PATIENCE = 30.0


async def removed(path: Path) -> None:
    """Return when there is nothing at this path. The shim removes a pod's last directories when the pod is gone."""
    async with asyncio.timeout(PATIENCE):
        while await asyncio.to_thread(path.exists):
            pass


def files_of(state_dir: Path) -> set[str]:
    """All files below a state directory, and directories of pods, but for compiled modules, which are kept."""
    found: set[str] = set()
    # Not rglob(), which fails of a directory that goes meanwhile.
    for base, directories, names in os.walk(state_dir):
        here = Path(base).relative_to(state_dir)
        if "compiled" not in here.parts:
            found |= {str(here / name) for name in (*names, *(directories if here.name == "pods" else ()))}
    return found


async def has_files(state_dir: Path, files: set[str]) -> None:
    """Return when `files_of` has these files and no others: some of a pod's go a moment after it."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            while await asyncio.to_thread(files_of, state_dir) != files:
                pass
    assert await asyncio.to_thread(files_of, state_dir) == files


def pod_of(
    *args: str,
    name: str = "web",
    image: str = "",
    restart: str = "Never",
    uid: str | None = None,
    spec: dict[str, Any] | None = None,
    **container: Any,
) -> Pod:
    """A pod with one container, `main`, that runs the driver with these arguments."""
    first = {"name": "main", "image": image, "args": list(args)} | container
    body = {"containers": [first], "restartPolicy": restart, **(spec or {})}
    return Pod({"metadata": {"name": name, "namespace": "default", "uid": uid or f"uid-of-{name}"}, "spec": body})


class Runtime:
    """A started provider, and what it has told so far."""

    def __init__(
        self, make: Callable[..., RuntimeProvider], state_dir: Path, config: RuntimeConfig | None = None
    ) -> None:
        self._make = make
        self.state_dir = state_dir
        self.config = config or RuntimeConfig(allow_local_modules=True)
        self.clock: Clock | None = None
        self.node: Raw = {}
        """The Node as the API has it."""
        self.events: list[PodEvent] = []
        self.history: list[StatusChanged] = []
        self._told = asyncio.Condition()
        self._pids: set[int] = set()

    async def start(self) -> None:
        self.provider = self._make(self.config, clock=self.clock)
        await self.provider.start(NodeContext("node", "127.0.0.1", 10, self.state_dir, node=lambda: self.node))
        self._reader = asyncio.create_task(self._read())
        self._pids.add(self.shim)

    async def stop(self) -> None:
        """The node loop ends; its pods go on."""
        self._reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reader
        await self.provider.stop()

    async def restart(self) -> None:
        """Another node loop takes the place of this one."""
        await self.stop()
        await self.start()

    async def __aenter__(self) -> Runtime:
        self.state_dir.mkdir(mode=0o700, exist_ok=True)
        await self.start()
        return self

    async def __aexit__(self, *failure: object) -> None:
        below = [child for pid in self._pids for child in children(pid)]
        try:
            around = self.provider.services
        except WasmletError:  # the test failed while no node loop ran; the shim and its guests go on
            for pid in (*self._pids, *below):
                with contextlib.suppress(ProcessLookupError):  # guests may end with their shim
                    await asyncio.to_thread(kill, pid)
            if failure[0] is not None:
                return  # which is what the test is about to say
            raise
        with contextlib.suppress(Exception):
            await around.client.shutdown(force=True)
        for uid in list(self.provider._pods):  # pods that a test did not delete
            with contextlib.suppress(WasmletError):
                await around.networks.remove(uid)
        for uid in self.provider._pods if around.users is not None else ():
            around.users.free(uid)
        await self.stop()
        around.storage.remove_orphans(set())  # there may be mounts
        around.storage.memory.close()
        for pid in (*self._pids, *below):
            await asyncio.to_thread(wait_gone, pid)

    @property
    def shim(self) -> int:
        return self.provider.services.client.pid

    @property
    def fake_clock(self) -> FakeClock:
        assert isinstance(self.clock, FakeClock)
        return self.clock

    async def _read(self) -> None:
        async for change in self.provider.changes():
            async with self._told:
                if isinstance(change, PodEvent):
                    self.events.append(change)
                elif isinstance(change, StatusChanged):
                    self.history.append(change)
                self._told.notify_all()

    async def create(self, pod: Pod, inputs: Inputs | None = None) -> PodKey:
        await self.provider.create_pod(pod, inputs or Inputs())
        return pod.key

    async def until(self, key: PodKey, holds: Callable[[PodStatus], bool]) -> PodStatus:
        """The pod's status once it is so."""
        async with asyncio.timeout(PATIENCE), self._told:
            while not holds(status := await self.provider.pod_status(key)):
                await self._told.wait()
            return status

    async def main(self, key: PodKey, holds: Callable[[ContainerStatus], bool], name: str = "main") -> ContainerStatus:
        """The status of one container once it is so."""

        def it_holds(status: PodStatus) -> bool:
            found = status.container(name)
            return found is not None and holds(found)

        found = (await self.until(key, it_holds)).container(name)
        assert found is not None
        return found

    async def running(self, key: PodKey, name: str = "main") -> ContainerStatus:
        return await self.main(key, lambda status: isinstance(status.state, Running), name)

    async def ended(self, key: PodKey, name: str = "main") -> Terminated:
        status = await self.main(key, lambda status: isinstance(status.state, Terminated), name)
        assert isinstance(status.state, Terminated)
        return status.state

    async def waiting(self, key: PodKey, reason: str, name: str = "main") -> Waiting:
        def so(status: ContainerStatus) -> bool:
            return isinstance(status.state, Waiting) and status.state.reason == reason

        status = await self.main(key, so, name)
        assert isinstance(status.state, Waiting)
        return status.state

    async def event(self, key: PodKey, reason: str, part: str = "") -> PodEvent:
        """The first event with this reason and this text in it, once it has come."""
        async with asyncio.timeout(PATIENCE), self._told:
            while True:
                for event in self.events:
                    if event.key == key and event.reason == reason and part in event.message:
                        return event
                await self._told.wait()

    async def log(self, key: PodKey, container: str = "main", **options: Any) -> bytes:
        pieces = self.provider.logs(key, container, LogOptions(**options))
        return b"".join([piece async for piece in _within(pieces)])

    async def logged(self, key: PodKey, part: bytes, container: str = "main") -> bytes:
        """The log up to where it first has this text, once it has."""
        await self.main(key, lambda status: status.container_id != "", container)
        text = b""
        async with contextlib.aclosing(_within(self.provider.logs(key, container, LogOptions(follow=True)))) as pieces:
            async for piece in pieces:
                text += piece
                if part in text:
                    # A guest may write before the shim has told the node of its start.
                    await self.main(key, lambda status: not _starts(status), container)
                    return text
        raise AssertionError(f"the log ended without {part!r}: {text!r}")

    async def output(self, key: PodKey, container: str = "main") -> bytes:
        """The whole log, to the container's end."""
        await self.main(key, lambda status: status.container_id != "", container)
        return await self.log(key, container, follow=True)


def _starts(status: ContainerStatus) -> bool:
    """Whether the first instance of a container is on its way."""
    return isinstance(status.state, Waiting) and status.state.reason in ("ContainerCreating", "PodInitializing")


async def _within(pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with asyncio.timeout(PATIENCE), contextlib.aclosing(pieces):
        async for piece in pieces:
            yield piece
