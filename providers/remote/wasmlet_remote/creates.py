"""Pods that are handed over at once go to the agent together: a request has what came while others were away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Protocol

import attrs
from wasmlet_agent.protocol import MOST_BATCH, SEQUENCE_HEADER
from wasmlet_agent.protocol.codec import decode, encode
from wasmlet_agent.protocol.failures import error_of
from wasmlet_agent.protocol.messages import BatchedAnswer, BatchedPod

from wasmlet_remote.bodies import Body
from wasmlet_remote.link import Away

_AT_ONCE = 2
"""Requests that are under way: while they are, what comes is collected."""
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


class Creates:
    """Hands pods over. `run` does so.

    Args:
        sequence: the numbers of requests.
    """

    def __init__(self, agent: Agent, sequence: Iterator[int]) -> None:
        self._agent = agent
        self._sequence = sequence
        self._waiting: asyncio.Queue[_Pod] = asyncio.Queue()

    async def put(self, uid: str, body: Body) -> None:
        """Have the agent take a pod on; the body is not packed.

        Raises:
            WasmletError: as a `PUT` of the pod.
        """
        pod = _Pod(uid, body, asyncio.get_running_loop().create_future())
        self._waiting.put_nowait(pod)
        await pod.done

    async def run(self) -> None:
        """Hand over what there is, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            pods = [await self._waiting.get()]
            size = len(pods[0].body.content)
            while len(pods) < MOST_BATCH and size < _BYTES and not self._waiting.empty():
                pods.append(self._waiting.get_nowait())
                size += len(pods[-1].body.content)
            wanted = {pod.uid: pod for pod in pods if not pod.done.done()}  # whoever waited may have left
            try:
                if len(wanted) == 1:
                    await self._one(*wanted.values())
                elif wanted:
                    await self._many(wanted)
            except Exception as error:
                for pod in wanted.values():
                    if not pod.done.done():
                        pod.done.set_exception(error)
            finally:
                for pod in wanted.values():
                    pod.done.cancel()

    async def _one(self, pod: _Pod) -> None:
        headers = pod.body.headers | {SEQUENCE_HEADER: str(next(self._sequence))}
        await self._agent.ask("PUT", f"/pods/{pod.uid}", pod.body.content, headers)
        if not pod.done.done():
            pod.done.set_result(None)

    async def _many(self, wanted: dict[str, _Pod]) -> None:
        body = bytearray()
        for pod in wanted.values():
            body += encode(BatchedPod(pod.uid, next(self._sequence))) + b"\n" + pod.body.content + b"\n"
        async with aclosing(self._agent.lines("/pods", bytes(body))) as lines:
            async for line in lines:
                answer = decode(BatchedAnswer, line)
                named = wanted.get(answer.uid)
                if named is None or named.done.done():
                    continue
                if answer.failure is None:
                    named.done.set_result(None)
                else:
                    named.done.set_exception(error_of(answer.failure))
        if not all(pod.done.done() for pod in wanted.values()):
            raise Away("the agent has ended its answer before it had answered for each pod")
