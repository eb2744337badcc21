"""`pods/log`: the API server's side of kubectl logs, passed on to the kubelet of the pod's node and streamed back.

The kubelet is called at https://<address>:<port>/containerLogs/... with the API server's own client certificate. Its
serving certificate is not verified, which is what an API server does without `--kubelet-certificate-authority`.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from urllib.parse import quote, unquote

import aiohttp
import orjson
from aiohttp import web
from yarl import URL

from wasmlet.testing.kinds import core
from wasmlet.testing.registry import Registry
from wasmlet.testing.status import ApiError, Cause, Object, bad_request, invalid, not_found

ADDRESSES = ("InternalIP", "ExternalIP", "Hostname")
"""Which of a node's addresses is dialled, the best first."""
DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
CONNECT_SECONDS = 10.0
ANSWER = 64 * 1024
"""The most bytes of a kubelet's error that are passed on."""
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
_REASONS = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 405: "MethodNotAllowed"}


def container_of(pod: Object, wanted: str) -> str:
    """Which container's log is meant.

    Raises:
        ApiError: 400, none of that name, or several to choose from.
    """
    spec, name = pod["spec"], pod["metadata"]["name"]
    main = [item["name"] for item in spec.get("containers") or ()]
    first = [item["name"] for item in spec.get("initContainers") or ()]
    extra = [item["name"] for item in spec.get("ephemeralContainers") or ()]
    if wanted:
        if wanted not in (*main, *first, *extra):
            raise bad_request(f"container {wanted} is not valid for pod {name}")
        return wanted
    chosen = (pod["metadata"].get("annotations") or {}).get(DEFAULT_CONTAINER)
    if chosen in main:
        return str(chosen)
    if len(main) == 1:
        return str(main[0])
    choices = f"choose one of: [{' '.join(main)}]"
    if first:
        choices += f" or one of the init containers: [{' '.join(first)}]"
    raise bad_request(f"a container name must be specified for pod {name}, {choices}")


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
    """Streams logs from kubelets. `context` carries the client certificate; made when it is first needed."""

    def __init__(self, registry: Registry, certificate: str, key: str, *, addresses: Sequence[str] = ADDRESSES) -> None:
        self._registry = registry
        self._certificate = certificate
        self._key = key
        self._addresses = addresses
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
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.load_cert_chain(self._certificate, self._key)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=context, limit=0),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
                auto_decompress=False,
            )
        return self._session

    def _kubelet(self, node: str) -> str:
        """The URL of a node's kubelet.

        Raises:
            ApiError: 404, no such node; 500, it says nothing of where it is.
        """
        record = self._registry.store["nodes"].get("", node)
        if record is None:
            raise not_found(core("nodes"), node)
        status = record.raw.get("status") or {}
        port = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port") or 10250
        known = {item.get("type"): item.get("address") for item in status.get("addresses") or ()}
        for kind in self._addresses:
            if address := known.get(kind):
                host = f"[{address}]" if ":" in str(address) else address
                return f"https://{host}:{port}"
        raise ApiError(
            500,
            "InternalError",
            f"Internal error occurred: no preferred addresses found; node {node} has {sorted(known)}, "
            f"expected one of {list(self._addresses)}",
        )

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
        url = f"{self._kubelet(node)}/containerLogs/{path}"
        kept = [
            part for part in request.rel_url.raw_query_string.split("&") if unquote(part.partition("=")[0]) in _OPTIONS
        ]
        target = URL(url + ("?" + "&".join(kept) if kept else ""), encoded=True)
        try:
            answer = await self._client().get(target)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise ApiError(
                500, "InternalError", f"Internal error occurred: the kubelet of node {node} cannot be reached: {error}"
            ) from None
        self._open.add(answer)
        try:
            if answer.status >= 300:
                raise await _failure(answer)
            out = web.StreamResponse(headers={"Content-Type": answer.headers.get("Content-Type", "text/plain")})
            out.enable_chunked_encoding()
            await out.prepare(request)
            try:
                async for chunk in answer.content.iter_any():
                    await out.write(chunk)
            except aiohttp.ClientError:
                if request.transport is not None:  # what is missing must not look like the end of the log
                    request.transport.close()
                return out
            await out.write_eof()
            return out
        finally:
            self._open.discard(answer)
            answer.close()


async def _failure(answer: aiohttp.ClientResponse) -> ApiError:
    """What a kubelet says when it has no log, as the API server passes it on."""
    body = await answer.content.read(ANSWER)
    text = body.decode(errors="replace").strip()
    try:
        said = orjson.loads(body)
        if isinstance(said, dict) and said.get("kind") == "Status":
            text = str(said.get("message", text))
    except orjson.JSONDecodeError:
        pass
    if answer.status >= 500:
        return ApiError(500, "InternalError", f"Internal error occurred: {text}")
    return ApiError(answer.status, _REASONS.get(answer.status, "Unknown"), text or f"the kubelet said {answer.status}")
