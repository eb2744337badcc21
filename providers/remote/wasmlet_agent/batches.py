"""`POST /v1/pods`: many pods in one request, each answered in a line of its own as soon as it is taken on.

A pod is two lines of the body: a `BatchedPod`, and the `PodRequest` that a `PUT` would have as its body.
"""

from __future__ import annotations

import asyncio
import hashlib

import structlog
from aiohttp import web

from wasmlet.concurrency import in_thread
from wasmlet.errors import InvalidInput, WasmletError
from wasmlet.failures import described
from wasmlet_agent.agent import Agent
from wasmlet_agent.breaking import breaking_off
from wasmlet_agent.pods.fences import Fence
from wasmlet_agent.pods.store import check_uid
from wasmlet_agent.protocol import LARGE, MOST_BATCH
from wasmlet_agent.protocol.codec import decode, encode
from wasmlet_agent.protocol.failures import failure_of
from wasmlet_agent.protocol.messages import BatchedAnswer, BatchedPod, PodRequest

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
    for head, _ in found:
        check_uid(head.uid)
        if head.sequence < 1:
            raise InvalidInput(f"sequence: expected a number from 1 on, found {head.sequence}")
    if len({head.uid for head, _ in found}) < len(found):
        raise InvalidInput("uid: expected each pod once, found one twice")
    return found


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


async def _create(agent: Agent, session: int, pod: _Pod) -> BatchedAnswer:
    head, body = pod
    try:
        digest, request = _read(body) if len(body) < LARGE else await in_thread(_read, body)
        agent.sessions.check(session)  # it may have ended meanwhile
        await agent.pods.create(head.uid, Fence(session, head.sequence), digest, request)
    except Exception as error:
        if not isinstance(error, WasmletError):
            log.error("a pod cannot be created", uid=head.uid, **described(error))
        return BatchedAnswer(head.uid, failure_of(error)[1])
    return BatchedAnswer(head.uid)


def _read(body: bytes) -> tuple[str, PodRequest]:
    return hashlib.sha256(body).hexdigest(), decode(PodRequest, body)
