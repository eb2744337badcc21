"""Creates, ends and forgets many pods with few requests: what is asked meanwhile goes out together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing
from functools import partial
from typing import Protocol

import attrs
from wasmlet_agent.protocol import MOST_BATCH
from wasmlet_agent.protocol.codec import decode, encode
from wasmlet_agent.protocol.failures import Stale, Starting, error_of
from wasmlet_agent.protocol.messages import BatchedAnswer, BatchedDelete, BatchedForget, BatchedPod

from wasmlet import InvalidInput, PodKey, WasmletError
from wasmlet_remote.bodies import Body
from wasmlet_remote.link import MOST_NONSENSE, Away

AT_ONCE = 2
"""How many new requests of a kind may be on their way. What is asked meanwhile is collected for the next one."""
NEW_SECONDS = 1.0
"""A request counts as new for so long. After that the next one is sent, so that a slow pod does not delay others."""
WHOLE_SECONDS = 75.0
"""What a request may take: longer than an agent gives the call for a pod."""
_BYTES = 1024 * 1024
"""Of the bodies in one request, about."""


@attrs.frozen
class Order:
    """What an agent is asked for one pod: in a request to `/v1/pods/{uid}`, or in one with others.

    Attributes:
        method, action, params, body: of a request for this pod alone: the end of its path, for one. The body is not
            compressed.
        head: gives the first line for this pod in a request for many, with its sequence number; the body is the second.
    """

    uid: str
    method: str
    head: Callable[[int], BatchedPod | BatchedDelete | BatchedForget]
    action: str = ""
    params: Mapping[str, str] = attrs.field(factory=dict)
    body: Body | None = None

    @property
    def content(self) -> bytes:
        return self.body.content if self.body is not None else b""

    def lines(self, sequence: int) -> bytes:
        """The lines for this pod in a request for many."""
        head = encode(self.head(sequence)) + b"\n"
        return head if self.body is None else head + self.body.content + b"\n"


def create(uid: str, body: Body) -> Order:
    """Asks an agent to take a pod on."""
    return Order(uid, "PUT", partial(BatchedPod, uid), body=body)


def delete(key: PodKey, grace_seconds: float, *, keep: bool) -> Order:
    """Asks an agent to end a pod; with `keep` its logs stay."""
    params = {"namespace": key.namespace, "name": key.name, "grace": f"{grace_seconds:g}"}
    params |= {"keep": "true"} if keep else {}
    head = partial(BatchedDelete, key.uid, grace=grace_seconds, namespace=key.namespace, name=key.name, keep=keep)
    return Order(key.uid, "DELETE", head, params=params)


def forget(uid: str) -> Order:
    """Tells an agent that the API has the last status of a pod."""
    return Order(uid, "POST", partial(BatchedForget, uid), "/forget")


class Agent(Protocol):
    """Requests to an agent, as `RemoteProvider` makes them; they fail where it is away."""

    async def alone(self, order: Order) -> None: ...
    def lines(self, path: str, body: bytes) -> AsyncGenerator[bytes, None]: ...


@attrs.frozen(eq=False)
class _Waiting:
    order: Order
    done: asyncio.Future[None]

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class Batches:
    """Sends orders of one kind, several in one request. `put` adds an order, and `run` sends them.

    Args:
        path: of requests for many pods.
        sequence: the numbers of requests.
    """

    def __init__(self, agent: Agent, path: str, sequence: Iterator[int]) -> None:
        self._agent = agent
        self._path = path
        self._sequence = sequence
        self._waiting: deque[_Waiting] = deque()
        self._some = asyncio.Event()
        self._stopped = False

    async def put(self, order: Order) -> None:
        """Ask the agent for something, and wait until it has done it.

        Raises:
            WasmletError: as the same request for this pod alone.
        """
        if self._stopped:
            raise WasmletError("the provider has stopped")
        waiting = _Waiting(order, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._some.set()
        await waiting.done

    async def run(self) -> None:
        """Send what there is, until cancelled."""
        places = asyncio.Semaphore(AT_ONCE)
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await self._some.wait()
                    await places.acquire()
                    if wanted := self._taken():
                        group.create_task(self._send(wanted, places))
                    else:
                        places.release()
        finally:
            self._stopped = True
            for waiting in self._waiting:
                waiting.fail(WasmletError("the provider has stopped"))

    def _taken(self) -> dict[str, _Waiting]:
        """What goes in one request, by UID."""
        wanted: dict[str, _Waiting] = {}
        size = 0
        while self._waiting and len(wanted) < MOST_BATCH and size < _BYTES and self._waiting[0].order.uid not in wanted:
            first = self._waiting.popleft()
            if not first.done.done():  # whoever waited may have left
                wanted[first.order.uid] = first
                size += len(first.order.content)
        if not self._waiting:
            self._some.clear()
        return wanted

    async def _send(self, wanted: dict[str, _Waiting], places: asyncio.Semaphore) -> None:
        """Send orders, as long as somebody waits for at least one of them. Raises nothing."""
        work = asyncio.ensure_future(self._ask(wanted))
        told = asyncio.ensure_future(asyncio.wait([waiting.done for waiting in wanted.values()]))
        try:
            await asyncio.wait([work, told], timeout=NEW_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            places.release()
            await asyncio.wait([work, told], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (work, told):
                task.cancel()
            await asyncio.gather(work, told, return_exceptions=True)
            for waiting in wanted.values():
                waiting.fail(WasmletError("the provider has stopped"))

    async def _ask(self, wanted: dict[str, _Waiting]) -> None:
        if len(wanted) > 1:
            try:
                async with asyncio.timeout(WHOLE_SECONDS):
                    await self._many(wanted)
                return
            except (Away, Stale, Starting, TimeoutError) as error:  # each asks again, with others
                for waiting in wanted.values():
                    waiting.fail(Away(str(error) or "the agent has not answered for each pod in time"))
                return
            except WasmletError:  # the request as a whole is refused, as by an agent that knows none of its kind
                pass
        for waiting in wanted.values():
            if waiting.done.done():
                continue
            try:
                await self._agent.alone(waiting.order)
            except Exception as error:
                waiting.fail(error)
            else:
                if not waiting.done.done():
                    waiting.done.set_result(None)

    async def _many(self, wanted: dict[str, _Waiting]) -> None:
        body = b"".join(waiting.order.lines(next(self._sequence)) for waiting in wanted.values())
        async with aclosing(self._agent.lines(self._path, body)) as lines:
            del body
            nonsense = 0
            async for line in lines:
                try:
                    answer = decode(BatchedAnswer, line)
                except InvalidInput:  # it answers for no pod
                    nonsense += 1
                    if nonsense > MOST_NONSENSE:
                        raise Away("the agent's answer makes no sense") from None
                    continue
                named = wanted.get(answer.uid)
                if named is None or named.done.done():
                    continue
                if answer.failure is None:
                    named.done.set_result(None)
                else:
                    named.fail(error_of(answer.failure))
        if not all(waiting.done.done() for waiting in wanted.values()):
            raise Away("the agent has ended its answer before it had answered for each pod")
