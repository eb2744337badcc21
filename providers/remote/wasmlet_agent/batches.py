"""Requests for many pods, each of which has an answer in a line of its own.

`POST /v1/pods` creates pods, and answers for each as soon as it is taken on. A pod is two lines of the body: a
`BatchedPod`, and the `PodRequest` that a `PUT` would have as its body. `POST /v1/deletes` has pods end, and
`POST /v1/forgets` tells of ends that need not be kept any more; both answer at once. A pod is one line there, a
`BatchedDelete` or a `BatchedForget`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Sequence
from typing import TypeVar

import structlog
from aiohttp import web

from wasmlet.concurrency import in_thread
from wasmlet.errors import InvalidInput, WasmletError
from wasmlet.failures import described
from wasmlet.model.pod import PodKey
from wasmlet_agent.agent import Agent
from wasmlet_agent.breaking import breaking_off
from wasmlet_agent.pods.fences import Fence
from wasmlet_agent.pods.store import check_uid
from wasmlet_agent.protocol import LARGE, MOST_BATCH
from wasmlet_agent.protocol.codec import decode, encode
from wasmlet_agent.protocol.failures import failure_of
from wasmlet_agent.protocol.messages import BatchedAnswer, BatchedDelete, BatchedForget, BatchedPod, PodRequest
from wasmlet_agent.queries import span

L = TypeVar("L", BatchedDelete, BatchedForget)

log = structlog.get_logger(__name__)

_WRITE_SECONDS = 60.0
"""How long a caller may leave unread what was sent."""

_Pod = tuple[BatchedPod, bytes]


def read_batch(body: bytes) -> list[_Pod]:
    """The pods of a body, each with what a `PUT` would have as its body.

    Raises:
        InvalidInput: it is of another form, or has too many pods or one twice.
    """
    lines = body.split(b"\n", 2 * MOST_BATCH)  # what is left over is one line, however many it has
    if not lines[-1]:
        lines.pop()
    if not lines or len(lines) % 2:
        raise InvalidInput(f"expected two lines for each of 1 to {MOST_BATCH} pods, found another number")
    found = [(decode(BatchedPod, head), pod) for head, pod in zip(lines[::2], lines[1::2], strict=True)]
    _check_heads([head for head, _ in found])
    return found


def read_lines(kind: type[L], body: bytes) -> list[L]:
    """The pods of a body that has a line for each.

    Raises:
        InvalidInput: it is of another form, or has too many pods or one twice.
    """
    lines = body.split(b"\n", MOST_BATCH)
    if not lines[-1]:
        lines.pop()
    if not 1 <= len(lines) <= MOST_BATCH:
        raise InvalidInput(f"expected a line for each of 1 to {MOST_BATCH} pods, found another number")
    found = [decode(kind, line) for line in lines]
    _check_heads(found)
    return found


def _check_heads(heads: Sequence[BatchedPod | BatchedDelete | BatchedForget]) -> None:
    for head in heads:
        check_uid(head.uid)
        if head.sequence < 1:
            raise InvalidInput(f"sequence: expected a number from 1 on, found {head.sequence}")
    if len({head.uid for head in heads}) < len(heads):
        raise InvalidInput("uid: expected each pod once, found one twice")


async def create_batch(request: web.Request, agent: Agent, session: int, body: bytes) -> web.StreamResponse:
    """Take the pods on, and answer for each as soon as it is."""
    pods = read_batch(body) if len(body) < LARGE else await in_thread(read_batch, body)
    answer = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "X-Accel-Buffering": "no"})
    await answer.prepare(request)
    with breaking_off(request):
        left = {asyncio.ensure_future(_create(agent, session, pod)) for pod in pods}
        del pods, body  # not kept until the slowest of them is taken on
        try:
            while left:
                done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
                async with asyncio.timeout(_WRITE_SECONDS):
                    await answer.write(b"".join(encode(task.result()) + b"\n" for task in done))
        finally:  # where the caller has left; what has begun for a pod goes on
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
        await answer.write_eof()
    return answer


async def delete_batch(agent: Agent, session: int, body: bytes) -> bytes:
    """Have the pods end in their own time. Returns the lines of the answer."""
    pods = read_lines(BatchedDelete, body)
    for one in pods:
        span(one.grace, "grace")

    async def delete(one: BatchedDelete) -> None:
        key = PodKey(one.namespace, one.name, one.uid)
        await agent.pods.delete(key, Fence(session, one.sequence), one.grace, keeps=one.keep)

    return b"".join([await _answered(one.uid, delete(one), "a pod cannot be ended") for one in pods])


async def forget_batch(agent: Agent, session: int, body: bytes) -> bytes:
    """Keep the ends of the pods no longer. Returns the lines of the answer."""
    forgets = (
        _answered(one.uid, agent.pods.forget(one.uid, Fence(session, one.sequence)), "an end is kept on")
        for one in read_lines(BatchedForget, body)
    )
    return b"".join(await asyncio.gather(*forgets))


async def _answered(uid: str, work: Awaitable[None], event: str) -> bytes:
    try:
        await work
    except Exception as error:
        return encode(_refused(uid, error, event)) + b"\n"
    return encode(BatchedAnswer(uid)) + b"\n"


async def _create(agent: Agent, session: int, pod: _Pod) -> BatchedAnswer:
    head, body = pod
    try:
        digest, request = _read(body) if len(body) < LARGE else await in_thread(_read, body)
        agent.sessions.check(session)  # it may have ended meanwhile
        await agent.pods.create(head.uid, Fence(session, head.sequence), digest, request)
    except Exception as error:
        return _refused(head.uid, error, "a pod cannot be created")
    return BatchedAnswer(head.uid)


def _refused(uid: str, error: Exception, event: str) -> BatchedAnswer:
    if not isinstance(error, WasmletError):
        log.error(event, uid=uid, **described(error))
    return BatchedAnswer(uid, failure_of(error)[1])


def _read(body: bytes) -> tuple[str, PodRequest]:
    return hashlib.sha256(body).hexdigest(), decode(PodRequest, body)
