"""`GET /v1/changes`: the stream of changes, a JSON object a line."""

from __future__ import annotations

import asyncio

from aiohttp import web

from wasmlet_agent.agent import Agent
from wasmlet_agent.breaking import breaking_off
from wasmlet_agent.protocol import BEAT_SECONDS
from wasmlet_agent.protocol.messages import Hello, line_out

_WRITE_SECONDS = 60.0
"""How long a reader may leave unread what was sent."""
_TOGETHER = 32
"""Lines that are written at once at most: each write costs both sides more than a line."""


async def send_changes(request: web.Request, agent: Agent, after: int) -> web.StreamResponse:
    """Answer with what is newer than a number, and then with each change, until the session is over."""
    changes, over = agent.changes, agent.sessions.over
    answer = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "X-Accel-Buffering": "no"})
    await answer.prepare(request)
    with breaking_off(request):
        await _write(answer, line_out(Hello(changes.instance, changes.n, agent.now())))
        ended = asyncio.ensure_future(over.wait())
        loop = asyncio.get_running_loop()
        beat_at = loop.time() + BEAT_SECONDS
        try:
            while not over.is_set():
                told = asyncio.ensure_future(changes.told.wait())
                try:
                    lines = list(changes.newer(after))
                    for begin in range(0, len(lines), _TOGETHER):
                        some = lines[begin : begin + _TOGETHER]
                        await _write(answer, b"".join(map(line_out, some)))
                        if over.is_set():  # from now on it counts what the next node loop is sent
                            break
                        after = some[-1].n
                        changes.sent(after)
                    left = max(0.0, beat_at - loop.time())
                    await asyncio.wait([told, ended], timeout=left, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    told.cancel()
                if loop.time() >= beat_at:  # whatever else is told: only beats say how often probes have failed
                    await _write(answer, line_out(agent.beat(after)))
                    beat_at = loop.time() + BEAT_SECONDS
        finally:
            ended.cancel()
        await answer.write_eof()
    return answer


async def _write(answer: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(_WRITE_SECONDS):
        await answer.write(data)
