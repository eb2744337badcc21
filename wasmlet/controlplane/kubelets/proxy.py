"""`pods/log` and GETs of `nodes/proxy`: passes the request on to a kubelet, and streams the answer back.

The kubelet is called at https://<address>:<port>/containerLogs/..., or at the path that follows `proxy`, with the API
server's own client certificate.
"""

from __future__ import annotations

from urllib.parse import quote, unquote

import aiohttp
from aiohttp import web
from yarl import URL

from wasmlet.controlplane.kubelets.registered import (
    ANSWER,
    CONNECT_SECONDS,
    Kubelets,
    container_of,
    refused,
    unreachable,
)
from wasmlet.controlplane.storage.kinds import core
from wasmlet.controlplane.storage.status import Cause, Object, bad_request, invalid

_OPTIONS = {
    "follow",
    "previous",
    "sinceSeconds",
    "sinceTime",
    "timestamps",
    "tailLines",
    "limitBytes",
    "stream",
}


def _check(request: web.BaseRequest) -> None:
    """Refuse options that make no sense.

    Raises:
        ApiError: 422 with every cause.
    """
    params, causes = request.query, []
    for key, least in (("tailLines", 0), ("limitBytes", 1), ("sinceSeconds", 1)):
        text = params.get(key)
        if text is None:
            continue
        try:
            if int(text) < least:
                causes.append(Cause.invalid(key, int(text), f"must be greater than or equal to {least}"))
        except ValueError:
            raise bad_request(f"{key} is a number, found {text!r}") from None
    if "sinceSeconds" in params and "sinceTime" in params:
        causes.append(Cause.forbidden("sinceSeconds", "at most one of `sinceTime` or `sinceSeconds` may be specified"))
    if causes:
        error = invalid(core("pods"), "", causes)
        error.message = error.message.replace('Pod ""', 'PodLogOptions ""', 1)
        raise error


class LogProxy:
    """Streams logs, and other answers to a GET, from kubelets."""

    def __init__(self, kubelets: Kubelets) -> None:
        self._kubelets = kubelets
        self._session: aiohttp.ClientSession | None = None
        self._open: set[aiohttp.ClientResponse] = set()

    def end(self) -> None:
        """Cut all streams."""
        for answer in list(self._open):
            answer.close()

    async def close(self) -> None:
        self.end()
        if self._session is not None:
            await self._session.close()

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._kubelets.context, limit=0),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
                auto_decompress=False,
            )
        return self._session

    async def logs(self, request: web.BaseRequest, pod: Object) -> web.StreamResponse:
        """Answer a request for a log.

        Raises:
            ApiError: 400 for the container, 404 for the node, whatever the kubelet says, 500 if it cannot be reached.
        """
        _check(request)
        container = container_of(pod, request.query.get("container", ""))
        node = pod["spec"].get("nodeName")
        if not node:
            return web.Response(content_type="text/plain")
        meta = pod["metadata"]
        path = "/".join(quote(part, safe="") for part in (meta["namespace"], meta["name"], container))
        url = f"{self._kubelets.url(node)}/containerLogs/{path}"
        kept = [
            part for part in request.rel_url.raw_query_string.split("&") if unquote(part.partition("=")[0]) in _OPTIONS
        ]
        target = URL(url + ("?" + "&".join(kept) if kept else ""), encoded=True)
        return await self._stream(request, node, target)

    async def node(self, request: web.BaseRequest, name: str, path: str) -> web.StreamResponse:
        """Answer a GET of a path of the node's own API.

        Raises:
            ApiError: 404 for the node, whatever the kubelet says, 500 if it cannot be reached.
        """
        url = f"{self._kubelets.url(name)}/{quote(path, safe='/')}"
        query = request.rel_url.raw_query_string
        return await self._stream(request, name, URL(url + ("?" + query if query else ""), encoded=True))

    async def _stream(self, request: web.BaseRequest, node: str, target: URL) -> web.StreamResponse:
        try:
            answer = await self._client().get(target, allow_redirects=False)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise unreachable(node, error) from None
        self._open.add(answer)
        try:
            if answer.status >= 300:
                raise refused(answer.status, await answer.content.read(ANSWER))
            out = web.StreamResponse(headers={"Content-Type": answer.headers.get("Content-Type", "text/plain")})
            out.enable_chunked_encoding()
            await out.prepare(request)
            try:
                async for chunk in answer.content.iter_any():
                    await out.write(chunk)
            except aiohttp.ClientError:
                # The connection breaks, because a stream that ended in good order would look like the end of the log.
                if request.transport is not None:
                    request.transport.close()
                return out
            await out.write_eof()
            return out
        finally:
            self._open.discard(answer)
            answer.close()
