"""A provider on trial: started, called as the node loop calls it, followed, and left without pods.

Every call goes through `Trial.call`, which has a time limit and says in a provider author's words what came of it.
The checks themselves are in the modules beside this one.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any, Protocol, Self, cast

from wasmlet.errors import NotFound, Unsupported
from wasmlet.model.pod import Pod, PodKey
from wasmlet.model.status import ContainerStatus, PodStatus
from wasmlet.provider import Change, LogOptions, NodeContext, PodRecord, Provider, StatusChanged
from wasmlet.testing.contract.pods import NODE_IP, inputs, pod_of
from wasmlet.testing.contract.turns import TakesTurns
from wasmlet.testing.contract.verdict import (
    ADVICE,
    ALL_CONTAINERS,
    NOT_FOUND,
    SLOW,
    ContractBroken,
    awaitable,
    broken,
    demand,
    ended,
    runs,
    shown,
)

__tracebackhide__ = True  # pytest hides this module's calls in tracebacks, so that those of the provider are seen

LOOK_SECONDS = 0.02
"""How often a provider is asked for what it does in its own time."""
CLEANUP_SECONDS = 10.0


class Hooks(Protocol):
    """What a trial needs of the author's class; `Suite` says what each is."""

    @property
    def accept_seconds(self) -> float: ...

    @property
    def patience_seconds(self) -> float: ...

    @property
    def many(self) -> int: ...

    def make_provider(self) -> Provider: ...

    def container(
        self, *, lines: Sequence[str] = (), exit_code: int | None = None, after: float = 0.0, stubborn: bool = False
    ) -> dict[str, Any]: ...


class Trial:
    """The provider of one check, and what the check does with it. Inside the context it runs and its changes are read.

    Args:
        suite: the author's class, for its hooks and limits.
        state_dir: of the node; a provider that is made again gets the same.
    """

    def __init__(self, suite: Hooks, state_dir: Path) -> None:
        self.suite = suite
        self.state_dir = state_dir
        self._turns = self._new_turns(suite.make_provider())
        self.history: list[StatusChanged] = []
        """What the provider has said of its pods, oldest first: its stream, or what polling found to be different."""
        self.changes_ended = ""
        """Why the stream of changes is no longer read, where that was not our doing."""
        self._names = itertools.count(1)
        self._pods: dict[str, Pod] = {}
        self._reader: asyncio.Task[None] | None = None

    @property
    def provider(self) -> Provider:
        """The author's provider, whose calls for one pod are made one at a time (see `turns`)."""
        return cast("Provider", self._turns)

    @provider.setter
    def provider(self, provider: Provider) -> None:
        self._turns = self._new_turns(provider)

    def _new_turns(self, provider: Provider) -> TakesTurns:
        return TakesTurns(provider, self.suite.accept_seconds)

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.stop_reading()
        ends = [asyncio.ensure_future(self._forget(pod)) for pod in self._pods.values()]
        if ends:
            await self._within(*ends)
        await self._within(asyncio.ensure_future(self._stop()))

    async def _forget(self, pod: Pod) -> None:
        with suppress(Exception):  # the check has said what is wrong; a call of it may not have ended
            await self._turns.provider.delete_pod(pod.key, 0)

    async def _stop(self) -> None:
        with suppress(Exception):
            await self.provider.stop()

    @staticmethod
    async def _within(*tasks: asyncio.Future[None]) -> None:
        """Wait for what ends a check, but not for ever."""
        _, late = await asyncio.wait(tasks, timeout=CLEANUP_SECONDS)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=CLEANUP_SECONDS)

    # --- the node's part

    async def start(self) -> None:
        """Start the provider as a node does, and read its changes."""
        self.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        context = NodeContext("contract", NODE_IP, 10 * self.suite.many, self.state_dir)
        await self.call("start", self.provider.start(context), seconds=self.suite.patience_seconds)
        self.read()

    async def restart(self, meanwhile: Awaitable[object] | None = None) -> None:
        """Stop the provider and start another, as a new process of the node does."""
        await self.stop_reading()
        await self.call("stop", self.provider.stop(), seconds=self.suite.patience_seconds)
        if meanwhile is not None:
            await meanwhile
        self.provider = self.suite.make_provider()
        await self.start()

    def read(self) -> None:
        """Read the changes from now on, or poll where there is no stream."""
        self._reader = asyncio.create_task(self._read(), name="contract: changes")

    async def stop_reading(self) -> None:
        """Leave the stream of changes, as the node loop does when it ends."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader], timeout=CLEANUP_SECONDS)

    async def _read(self) -> None:
        try:
            stream = self.provider.changes()
            if stream is None:
                await self._poll()
                return
            async with aclosing(generator("changes", stream)) as changes:
                async for change in changes:
                    mend = "yield wasmlet.StatusChanged(key, status), wasmlet.PodEvent(...) or wasmlet.NodeChanged()"
                    demand(isinstance(change, Change), "changes", "a wasmlet.Change", repr(change), mend)
                    if isinstance(change, StatusChanged):
                        self.history.append(change)
            self.changes_ended = "the stream ended by itself"
        except ContractBroken as error:
            self.changes_ended = str(error)
        except Exception as error:
            self.changes_ended = f"the stream raised {error!r}"

    async def _poll(self) -> None:
        last: dict[str, PodStatus] = {}
        while True:
            for pod in list(self._pods.values()):
                with suppress(NotFound):
                    status = await self._turns.look(pod.key)
                    if status is not None and last.get(pod.uid) != status:
                        last[pod.uid] = status
                        self.history.append(StatusChanged(pod.key, status))
            await asyncio.sleep(LOOK_SECONDS)

    # --- pods

    def pod(
        self, *, name: str = "", containers: Sequence[str] = ("main",), restart: str = "Never", **wanted: Any
    ) -> Pod:
        """A pod as the API server hands it over: with its defaults filled in, and a UID of its own.

        Args:
            containers: their names; all are alike.
            wanted: what the hook `container` is asked for.
        """
        name = name or f"contract-{next(self._names)}"
        return pod_of([{"name": c} | self.suite.container(**wanted) for c in containers], name, restart=restart)

    async def create(self, *pods: Pod) -> None:
        """Have the pods created, one after another."""
        for pod in pods:
            await self.call("create_pod", self.creating(pod))

    def creating(self, pod: Pod) -> Awaitable[None]:
        """The call that creates the pod, not yet made."""
        self._pods[pod.uid] = pod
        return self.provider.create_pod(pod, inputs())

    async def running(self, **wanted: Any) -> Pod:
        """A pod all of whose containers run; see `pod`."""
        pod = self.pod(**wanted)
        await self.create(pod)
        await self.until(pod, runs, "every container Running")
        return pod

    async def finished(self, exit_code: int, **wanted: Any) -> Pod:
        """A pod all of whose containers have ended by themselves."""
        pod = self.pod(exit_code=exit_code, **wanted)
        await self.create(pod)
        await self.until(pod, ended, "every container Terminated")
        return pod

    async def later(self) -> None:
        """Return when the provider has had the time in which it starts a pod, so that what is wrong has come out."""
        pod = await self.running()
        await self.call("delete_pod", self.provider.delete_pod(pod.key, 0), seconds=self.suite.patience_seconds)
        await asyncio.sleep(LOOK_SECONDS)  # whoever reads the changes had no turn yet, maybe

    # --- calls

    async def call(
        self,
        method: str,
        call: Awaitable[Any],
        *,
        seconds: float | None = None,
        allow: tuple[type[Exception], ...] = (),
    ) -> Any:
        """What the call returns.

        Args:
            seconds: how long it may take; `accept_seconds` without it.
            allow: errors that the caller deals with.
        """
        limit = self.suite.accept_seconds if seconds is None else seconds
        try:
            async with asyncio.timeout(limit) as clock:
                return await awaitable(method, call)
        except ContractBroken:
            raise
        except allow:
            raise
        except TimeoutError as error:
            if not clock.expired():
                broken(method, "no error", repr(error), ADVICE, error)
            broken(
                method,
                f"an answer within {limit:g} s",
                "it had not returned by then",
                SLOW.get(method, "return as soon as there is an answer, and end when cancelled"),
            )
        except NotImplementedError as error:
            broken(method, "wasmlet.Unsupported where the provider cannot do this", repr(error), ADVICE, error)
        except Exception as error:
            broken(method, "no error", repr(error), ADVICE, error)

    async def missing(self, method: str, call: Awaitable[Any], what: str) -> None:
        """See that the call raises `NotFound`."""
        try:
            answer = await self.call(method, call, allow=(Exception,))
        except NotFound:
            return
        except Exception as error:
            broken(method, f"wasmlet.NotFound for {what}", repr(error), NOT_FOUND, error)
        answer = shown(answer) if isinstance(answer, PodStatus) else repr(answer)
        broken(method, f"wasmlet.NotFound for {what}", f"it returned {answer}", NOT_FOUND)

    async def status(self, pod: Pod) -> PodStatus:
        """What `pod_status` says."""
        status = await self.call("pod_status", self.provider.pod_status(pod.key))
        mend = "return wasmlet.PodStatus(containers=(wasmlet.ContainerStatus(name, state), ...))"
        demand(isinstance(status, PodStatus), "pod_status", "a wasmlet.PodStatus", repr(status), mend)
        return status  # type: ignore[no-any-return]

    async def main(self, pod: Pod) -> ContainerStatus:
        """The status of the pod's first container."""
        status = await self.status(pod)
        found = status.container(pod.containers[0].name)
        if found is None:
            broken("pod_status", f"a container {pod.containers[0].name!r}", shown(status), ALL_CONTAINERS)
        return found

    async def records(self) -> Sequence[PodRecord]:
        """What `list_pods` says."""
        records = await self.call("list_pods", self.provider.list_pods())
        right = isinstance(records, Sequence) and all(isinstance(record, PodRecord) for record in records)
        mend = "return [wasmlet.PodRecord(key, status), ...]"
        demand(right, "list_pods", "a sequence of wasmlet.PodRecord", repr(records), mend)
        return records  # type: ignore[no-any-return]

    async def listed(self, pod: Pod) -> PodRecord | None:
        """What `list_pods` says of the pod."""
        return next((record for record in await self.records() if record.key.uid == pod.uid), None)

    async def delete(self, pod: Pod, grace: float = 0, seconds: float | None = None) -> PodStatus:
        """Have the pod ended; its last status."""
        call = self.provider.delete_pod(pod.key, grace)
        status = await self.call(
            "delete_pod", call, seconds=grace + self.suite.patience_seconds if seconds is None else seconds
        )
        mend = "return the pod's status as it was when its last container had ended, before you forget it"
        demand(isinstance(status, PodStatus), "delete_pod", "the pod's last status", repr(status), mend)
        return status  # type: ignore[no-any-return]

    async def gone(self, pod: Pod) -> None:
        """See that nothing is left of a pod whose delete has returned."""
        record = await self.listed(pod)
        mend = "forget the pod before delete_pod returns: what is listed goes on, as far as the node loop knows"
        demand(record is None, "list_pods", "no pod that delete_pod has ended", record and record.key, mend)
        await self.missing("pod_status", self.provider.pod_status(pod.key), "a pod that delete_pod has ended")

    async def until(  # noqa: RET503 - it does not return
        self,
        pod: Pod,
        holds: Callable[[PodStatus], bool],
        what: str,
        *,
        mend: str = "report what becomes of each container as soon as it is known",
    ) -> PodStatus:
        """The pod's status once it is as wanted, by asking for it."""
        status: PodStatus | None = None
        loop = asyncio.get_running_loop()
        end = loop.time() + self.suite.patience_seconds
        while loop.time() < end:
            status = await self.status(pod)
            if holds(status):
                return status
            await asyncio.sleep(LOOK_SECONDS)
        where = f"{what} within {self.suite.patience_seconds:g} s of create_pod"
        broken("pod_status", where, shown(status), mend)

    async def told(self, pod: Pod, holds: Callable[[PodStatus], bool], what: str) -> PodStatus:  # noqa: RET503 - it does not return
        """The first status that the provider's changes had for the pod and that is as wanted, once it has come."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self.suite.patience_seconds
        while True:
            statuses = self.history_of(pod)
            for status in statuses:
                if holds(status):
                    return status
            if loop.time() >= end or self.changes_ended:
                break
            await asyncio.sleep(LOOK_SECONDS)
        found = " / ".join(map(shown, statuses)) or "nothing about this pod"
        found += f"; {self.changes_ended}" if self.changes_ended else ""
        mend = "yield StatusChanged(key, status) whenever a container starts or ends, and never end the stream"
        broken("changes", f"{what} within {self.suite.patience_seconds:g} s", found, mend)

    def history_of(self, pod: Pod) -> list[PodStatus]:
        """What the provider's changes had for the pod, oldest first."""
        return [change.status for change in self.history if change.key.uid == pod.uid]

    # --- logs

    async def log(self, pod: Pod, container: str = "main", **options: Any) -> bytes | None:
        """The container's log; None where the provider keeps none."""
        try:
            read: bytes = await self.call(
                "logs", self._log(pod.key, container, LogOptions(**options)),
                seconds=self.suite.patience_seconds, allow=(Unsupported,),
            )  # fmt: skip
        except Unsupported:
            return None
        return read

    def logs(self, key: PodKey, container: str, **options: Any) -> Awaitable[bytes]:
        """The call that reads a log to its end, not yet made."""
        return self._log(key, container, LogOptions(**options))

    async def _log(self, key: PodKey, container: str, options: LogOptions) -> bytes:
        pieces = generator("logs", self.provider.logs(key, container, options))
        read = []
        async with aclosing(pieces) as stream:
            async for piece in stream:
                mend = "yield bytes, as the container wrote them: text.encode()"
                demand(isinstance(piece, bytes), "logs", "pieces of bytes", repr(piece), mend)
                read.append(piece)
        return b"".join(read)


def generator(method: str, stream: object) -> AsyncGenerator[Any, None]:
    """What the method gave, which has to be an asynchronous generator: a coroutine cannot be read piece by piece."""
    if inspect.iscoroutine(stream):
        stream.close()
    found = f"{type(stream).__name__} {stream!r}"
    mend = f"define it with `async def {method}(...)`, and have a `yield` in it"
    demand(isinstance(stream, AsyncGenerator), method, "an asynchronous generator", found, mend)
    return cast("AsyncGenerator[Any, None]", stream)
