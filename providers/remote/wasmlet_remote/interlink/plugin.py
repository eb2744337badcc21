"""The plugin API of interLink, its four routes; every answer is bounded in size and time.

    POST /create   a pod with the content of its volumes   -> {PodUID, PodJID}
    POST /delete   a pod
    GET  /status   a list of pods, as the request's body   -> a list of statuses
    GET  /getLogs  which log, as the request's body        -> text

Plugins differ. What was seen in public ones and is allowed for here: `/create` may want its object in a list; `/status`
is asked for one pod at a time, since some answer for the first one only; `/status` of no pod may be an error, and is an
answer all the same; there is no other route to ask for health.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson

from wasmlet import WasmletError
from wasmlet_remote.interlink.config import ANSWER_SECONDS, CALLS

MOST_ANSWER = 8 * 1024 * 1024
"""Bytes of an answer that is not a log."""
_TEXT = 300
"""Characters of an error's text that are told."""
_AWAY = frozenset({502, 503, 504})
"""What a proxy answers for a plugin that is not there."""


class PluginError(WasmletError):
    """The plugin has answered with an error.

    Attributes:
        status: the HTTP status.
        detail: what the plugin says, in a line.
    """

    def __init__(self, route: str, status: int, detail: str) -> None:
        super().__init__(f"the interLink plugin answered {route} with HTTP {status}{detail and f': {detail}'}")
        self.status = status
        self.detail = detail


class Away(WasmletError):
    """The plugin does not answer."""


class Plugin:
    """A plugin. Close the client when nothing is asked any more."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._slots = asyncio.Semaphore(CALLS)
        self._wants_list = False

    async def create(self, body: Mapping[str, Any]) -> Any:
        """Hand over a pod; returns the JSON that comes back.

        Raises:
            PluginError: it was refused.
            Away: nobody knows whether it has begun.
        """
        forms = [[body], body] if self._wants_list else [body, [body]]
        try:
            return await self._ask("POST", "/create", forms[0])
        except PluginError as error:
            if error.status not in (400, 422):
                raise
            first = error
        try:
            answer = await self._ask("POST", "/create", forms[1])
        except PluginError as error:
            raise (first if error.status in (400, 422) else error) from None
        self._wants_list = not self._wants_list
        return answer

    async def delete(self, pod: Mapping[str, Any]) -> None:
        """End a pod; raises as `create`."""
        await self._ask("POST", "/delete", pod)

    async def status(self, pod: Mapping[str, Any]) -> Any:
        """The JSON that comes back for one pod; raises as `create`."""
        return await self._ask("GET", "/status", [pod])

    async def ping(self) -> None:
        """Return when the plugin answers, whatever it answers.

        Raises:
            Away: it does not.
        """
        async with self._slots, self._answer("GET", "/status", []) as response:
            if response.status_code in _AWAY:
                raise Away(f"the interLink plugin is away: HTTP {response.status_code}")

    async def logs(self, body: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
        """The log in pieces, which may go on for as long as its container; raises as `create`."""
        async with self._answer("GET", "/getLogs", body, endless=True) as response:
            whole = response.headers.get("content-type", "").startswith("application/json")
            if whole or response.status_code != 200:
                async with asyncio.timeout(ANSWER_SECONDS):
                    content = await _read(response, "/getLogs")
                if response.status_code != 200:
                    raise _error("/getLogs", response.status_code, content)
                yield _text(content)
                return
            async for piece in response.aiter_raw():
                yield piece

    async def _ask(self, method: str, route: str, body: Any) -> Any:
        async with self._slots, self._answer(method, route, body) as response:
            content = await _read(response, route)
        if response.status_code in _AWAY:
            raise Away(f"the interLink plugin is away: HTTP {response.status_code}")
        if response.status_code != 200:
            raise _error(route, response.status_code, content)
        if not content.strip():
            return None
        try:
            return orjson.loads(content)
        except orjson.JSONDecodeError:
            return content.decode("utf-8", "replace")

    @asynccontextmanager
    async def _answer(
        self, method: str, route: str, body: Any, *, endless: bool = False
    ) -> AsyncGenerator[httpx.Response, None]:
        """The answer's head, within the time that an answer may take; with `endless` its body may take any time."""
        request = self._client.build_request(
            method,
            route,
            content=orjson.dumps(body),
            headers={"Content-Type": "application/json"},
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=10.0, read=None) if endless else httpx.USE_CLIENT_DEFAULT,
        )
        limit = asyncio.timeout(ANSWER_SECONDS)
        try:
            async with limit:
                response = await self._client.send(request, stream=True)
                if endless:
                    limit.reschedule(None)
                try:
                    yield response
                finally:
                    await response.aclose()
        except TimeoutError:
            if not limit.expired():
                raise
            raise Away(f"the interLink plugin did not answer {route} within {ANSWER_SECONDS:g} s") from None
        except httpx.HTTPError as error:
            raise Away(f"the interLink plugin does not answer {route}: {_said(error)}") from None


async def _read(response: httpx.Response, route: str) -> bytes:
    content = bytearray()
    async for piece in response.aiter_raw():
        content += piece
        if len(content) > MOST_ANSWER:
            raise WasmletError(f"the interLink plugin answered {route} with more than {MOST_ANSWER >> 20} MiB")
    return bytes(content)


def _error(route: str, status: int, content: bytes) -> PluginError:
    """What the plugin says, without what it was sent: an answer may repeat the request, secrets and all."""
    try:
        detail = orjson.loads(content)["detail"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return PluginError(route, status, "")
    if isinstance(detail, list):
        entries = [entry for entry in detail if isinstance(entry, dict)]
        detail = "; ".join(f"{_path(entry.get('loc'))}: {entry.get('msg')}" for entry in entries)
    return PluginError(route, status, " ".join(str(detail).split())[:_TEXT])


def _path(location: Any) -> str:
    return ".".join(map(str, location)) if isinstance(location, list) else str(location)


def _text(content: bytes) -> bytes:
    """The text of a log; a plugin may send it as a string in JSON."""
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError:
        return content
    return found.encode("utf-8", "surrogatepass") if isinstance(found, str) else content


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
