"""Creates many pods with few requests: pods that arrive while other requests are on their way go out together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, suppress
from typing import Protocol

import attrs
from wasmlet_agent.protocol import MOST_BATCH, SEQUENCE_HEADER
from wasmlet_agent.protocol.codec import decode, encode
from wasmlet_agent.protocol.failures import Stale, error_of
from wasmlet_agent.protocol.messages import BatchedAnswer, BatchedPod

from wasmlet import InvalidInput, WasmletError
from wasmlet_remote.bodies import Body
from wasmlet_remote.link import Away

AT_ONCE = 2
"""How many new requests may be on their way. Pods that arrive meanwhile are collected for the next one."""
NEW_SECONDS = 1.0
"""A request counts as new for so long. After that the next one is sent, so that a slow pod does not delay others."""
WHOLE_SECONDS = 75.0
"""What a request may take: longer than an agent gives the call for a pod."""
_BYTES = 1024 * 1024
"""Of the bodies in one request, about."""


class Agent(Protocol):
    """Requests to an agent, as `RemoteProvider` makes them; they fail where it is away."""

    async def ask(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> bytes: ...
    def lines(self, path: str, body: bytes) -> AsyncGenerator[bytes, None]: ...


@attrs.frozen(eq=False)
class _Pod:
    uid: str
    body: Body
    done: asyncio.Future[None]

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class Creates:
    """Gives pods to the agent, several in one request. `put` adds a pod, and `run` sends them.

    Args:
        sequence: the numbers of requests.
    """

    def __init__(self, agent: Agent, sequence: Iterator[int]) -> None:
        self._agent = agent
        self._sequence = sequence
        self._waiting: deque[_Pod] = deque()
        self._some = asyncio.Event()
        self._stopped = False

    async def put(self, uid: str, body: Body) -> None:
        """Have the agent create a pod, and wait until it has done so. The body is not compressed.

        Raises:
            WasmletError: as a `PUT` of the pod.
        """
        if self._stopped:
            raise WasmletError("the provider has stopped")
        pod = _Pod(uid, body, asyncio.get_running_loop().create_future())
        self._waiting.append(pod)
        self._some.set()
        await pod.done

    async def run(self) -> None:
        """Hand over what there is, until cancelled."""
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
            for pod in self._waiting:
                pod.fail(WasmletError("the provider has stopped"))

    def _taken(self) -> dict[str, _Pod]:
        """What goes in one request, by UID."""
        wanted: dict[str, _Pod] = {}
        size = 0
        while self._waiting and len(wanted) < MOST_BATCH and size < _BYTES and self._waiting[0].uid not in wanted:
            pod = self._waiting.popleft()
            if not pod.done.done():  # whoever waited may have left
                wanted[pod.uid] = pod
                size += len(pod.body.content)
        if not self._waiting:
            self._some.clear()
        return wanted

    async def _send(self, wanted: dict[str, _Pod], places: asyncio.Semaphore) -> None:
        """Send pods, as long as somebody waits for at least one of them. Raises nothing."""
        work = asyncio.ensure_future(self._hand_over(wanted))
        told = asyncio.ensure_future(asyncio.wait([pod.done for pod in wanted.values()]))
        try:
            await asyncio.wait([work, told], timeout=NEW_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            places.release()
            await asyncio.wait([work, told], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (work, told):
                task.cancel()
            await asyncio.gather(work, told, return_exceptions=True)
            for pod in wanted.values():
                pod.fail(WasmletError("the provider has stopped"))

    async def _hand_over(self, wanted: dict[str, _Pod]) -> None:
        if len(wanted) > 1:
            try:
                async with asyncio.timeout(WHOLE_SECONDS):
                    await self._many(wanted)
                return
            except (Away, Stale, TimeoutError) as error:
                for pod in wanted.values():
                    pod.fail(Away(str(error) or "the agent has not answered for each pod in time"))
                return
            except WasmletError:  # the request as a whole is refused, as by an agent that knows none of its kind
                pass
        for pod in wanted.values():
            if pod.done.done():
                continue
            try:
                headers = pod.body.headers | {SEQUENCE_HEADER: str(next(self._sequence))}
                await self._agent.ask("PUT", f"/pods/{pod.uid}", pod.body.content, headers)
            except Exception as error:
                pod.fail(error)
            else:
                if not pod.done.done():
                    pod.done.set_result(None)

    async def _many(self, wanted: dict[str, _Pod]) -> None:
        body = bytearray()
        for pod in wanted.values():
            body += encode(BatchedPod(pod.uid, next(self._sequence))) + b"\n" + pod.body.content + b"\n"
        async with aclosing(self._agent.lines("/pods", bytes(body))) as lines:
            del body
            async for line in lines:
                with suppress(InvalidInput):  # what makes no sense answers for no pod
                    answer = decode(BatchedAnswer, line)
                    named = wanted.get(answer.uid)
                    if named is None or named.done.done():
                        continue
                    if answer.failure is None:
                        named.done.set_result(None)
                    else:
                        named.fail(error_of(answer.failure))
        if not all(pod.done.done() for pod in wanted.values()):
            raise Away("the agent has ended its answer before it had answered for each pod")
