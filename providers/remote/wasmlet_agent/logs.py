"""`GET /v1/pods/{uid}/containers/{container}/logs`: what the query asks for, and the log."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from datetime import UTC, datetime

from aiohttp import web

from wasmlet.errors import InvalidInput
from wasmlet.provider import LogOptions
from wasmlet_agent.breaking import breaking_off
from wasmlet_agent.queries import flag, number

_FIRST_SECONDS = 0.25
"""How long the headers of a log that is followed wait for its first piece, which may be an error instead."""


def log_options(query: Mapping[str, str]) -> LogOptions:
    """What a query asks for.

    Raises:
        InvalidInput: it cannot be read.
    """
    return LogOptions(
        follow=flag(query, "follow"),
        previous=flag(query, "previous"),
        timestamps=flag(query, "timestamps"),
        since_time=_since(query.get("since")),
        tail_lines=number(query, "tail", least=0),
        limit_bytes=number(query, "limit", least=1),
    )


async def send_log(request: web.Request, pieces: AsyncGenerator[bytes, None], *, follow: bool) -> web.StreamResponse:
    """Answer with a log, as fast as the caller reads it.

    An error with the first piece is raised. A later one breaks the connection off, for the status is sent by then.
    """
    async with contextlib.aclosing(pieces):
        first = asyncio.ensure_future(anext(pieces, None))
        try:
            await asyncio.wait([first], timeout=_FIRST_SECONDS if follow else None)
            if first.done():
                first.result()
            answer = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
            await answer.prepare(request)
            with breaking_off(request):
                piece = await first
                while piece is not None:
                    await answer.write(piece)
                    piece = await anext(pieces, None)
                await answer.write_eof()
        finally:
            if not first.done():
                first.cancel()
                await asyncio.wait([first])
        return answer


def _since(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(f"since: expected a time in RFC 3339, found {text[:40]!r}") from None
    if found.tzinfo is None:
        raise InvalidInput("since: expected a time with a zone")
    try:
        return found.astimezone(UTC)
    except OverflowError:
        raise InvalidInput(f"since: expected a time of the years 1 to 9999, found {text[:40]!r}") from None
