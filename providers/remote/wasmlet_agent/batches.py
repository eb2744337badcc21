"""`POST /v1/pods`: many pods in one request, each answered in a line of its own as soon as it is taken on.

A pod is two lines of the body: a `BatchedPod`, and the `PodRequest` that a `PUT` would have as its body.
"""

from __future__ import annotations

import asyncio
import hashlib

from aiohttp import web

from wasmlet.concurrency import in_thread
from wasmlet.errors import InvalidInput
from wasmlet_agent.agent import Agent
from wasmlet_agent.breaking import breaking_off
from wasmlet_agent.pods.fences import Fence
from wasmlet_agent.pods.store import check_uid
from wasmlet_agent.protocol import LARGE, MOST_BATCH
from wasmlet_agent.protocol.codec import decode, encode
from wasmlet_agent.protocol.failures import failure_of
from wasmlet_agent.protocol.messages import BatchedAnswer, BatchedPod, PodRequest

_WRITE_SECONDS = 60.0
"""How long a caller may leave unread what was sent."""

_Pod = tuple[BatchedPod, bytes]


def read_batch(body: bytes) -> list[_Pod]:
    """The pods of a body, each with what a `PUT` would have as its body.

    Raises:
        InvalidInput: it is of another form, or has too many pods or one twice.
    """
    lines = body.split(b"\n")
    if lines and not lines[-1]:
        lines.pop()
    if not lines or len(lines) % 2 or len(lines) > 2 * MOST_BATCH:
        raise InvalidInput(f"expected two lines for each of 1 to {MOST_BATCH} pods, found {len(lines)} lines")
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
        async with asyncio.TaskGroup() as group:
            left = {group.create_task(_create(agent, session, pod)) for pod in pods}
            while left:
                done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
                async with asyncio.timeout(_WRITE_SECONDS):
                    await answer.write(b"".join(encode(task.result()) + b"\n" for task in done))
        await answer.write_eof()
    return answer


async def _create(agent: Agent, session: int, pod: _Pod) -> BatchedAnswer:
    head, body = pod
    try:
        digest = hashlib.sha256(body).hexdigest()
        await agent.pods.create(head.uid, Fence(session, head.sequence), digest, decode(PodRequest, body))
    except Exception as error:
        return BatchedAnswer(head.uid, failure_of(error)[1])
    return BatchedAnswer(head.uid)
