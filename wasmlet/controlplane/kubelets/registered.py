"""How the API server reaches a node's kubelet: its address, the TLS of the connection, and the kubelet's errors.

`proxy` asks for logs this way, `streams` for exec, attach and port-forward. A kubelet's serving certificate is verified
only where the control plane is told to, as in an API server with `--kubelet-certificate-authority`.
"""

from __future__ import annotations

import asyncio
import http.client
import io
import ssl
from collections.abc import Iterable, Sequence
from email.message import Message

import attrs
import orjson

from wasmlet.concurrency import cut
from wasmlet.controlplane.objects.registry import Registry
from wasmlet.controlplane.storage.kinds import core
from wasmlet.controlplane.storage.status import ApiError, Object, bad_request, not_found

ADDRESSES = ("InternalIP", "ExternalIP", "Hostname")
"""The types of a node's addresses, in the order in which they are tried."""
CONNECT_SECONDS = 10.0
HEAD_SECONDS = 60.0
ANSWER = 64 * 1024
"""The most bytes of a kubelet's error, or of the head of its answer, that are read."""
_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
_REASONS = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 405: "MethodNotAllowed"}


def container_of(pod: Object, wanted: str) -> str:
    """The container of a pod that a request means; `wanted` is the name in the request, or "".

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
    chosen = (pod["metadata"].get("annotations") or {}).get(_DEFAULT_CONTAINER)
    if chosen in main:
        return str(chosen)
    if len(main) == 1:
        return str(main[0])
    choices = f"choose one of: [{' '.join(main)}]"
    if first:
        choices += f" or one of the init containers: [{' '.join(first)}]"
    raise bad_request(f"a container name must be specified for pod {name}, {choices}")


def said(body: bytes) -> ApiError | None:
    """The error in a kubelet's answer that is a Status; None where it is something else."""
    try:
        status = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(status, dict) or status.get("kind") != "Status" or not isinstance(status.get("code"), int):
        return None
    return ApiError(status["code"], str(status.get("reason", "")), str(status.get("message", "")))


def refused(status: int, body: bytes) -> ApiError:
    """Convert a kubelet's error answer to the error that the API server passes on."""
    known = said(body)
    text = known.message if known is not None else body.decode(errors="replace").strip()
    if status >= 500:
        return ApiError(500, "InternalError", f"Internal error occurred: {text}")
    return ApiError(status, _REASONS.get(status, "Unknown"), text or f"the kubelet said {status}")


@attrs.frozen
class Head:
    """The beginning of a kubelet's answer; `raw` is all of it, the empty line at its end too."""

    status: int
    headers: Message
    raw: bytes


@attrs.frozen
class Connection:
    """A connection to a kubelet after a request was sent and the head of the answer was read."""

    head: Head
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def body(self) -> bytes:
        """The body of an answer that is not an upgrade, at most `ANSWER` bytes of it."""
        async with asyncio.timeout(CONNECT_SECONDS):
            try:
                if self.head.headers.get("Transfer-Encoding", "").lower() == "chunked":
                    return await self._chunks()
                length = self.head.headers.get("Content-Length", "")
                return await self.reader.readexactly(min(int(length), ANSWER) if length.isdecimal() else ANSWER)
            except asyncio.IncompleteReadError as error:
                return error.partial

    async def _chunks(self) -> bytes:
        out = b""
        while len(out) < ANSWER and (size := int((await self.reader.readline()).partition(b";")[0] or b"0", 16)):
            out += await self.reader.readexactly(min(size, ANSWER))
            await self.reader.readline()
        return out[:ANSWER]

    def close(self) -> None:
        """Close it; what was written still goes out."""
        self.writer.close()


class Kubelets:
    """Knows where kubelets are and how to call them.

    Args:
        certificate, key: files with the API server's own client certificate.
        addresses: which of a node's addresses is dialled, the best first.
        authority: PEM of the authority that has to vouch for kubelets; None takes any certificate.
    """

    def __init__(
        self,
        registry: Registry,
        certificate: str,
        key: str,
        *,
        addresses: Sequence[str] = ADDRESSES,
        authority: str | None = None,
    ) -> None:
        self._registry = registry
        self._addresses = addresses
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.load_cert_chain(certificate, key)
        if authority is None:
            self.context.check_hostname = False
            self.context.verify_mode = ssl.CERT_NONE
        else:
            self.context.load_verify_locations(cadata=authority)

    def features(self, node: str) -> list[str]:
        """What a node declares that it can do (`status.declaredFeatures`)."""
        record = self._registry.store["nodes"].get("", node)
        return list(((record.raw.get("status") or {}) if record else {}).get("declaredFeatures") or ())

    def address(self, node: str) -> tuple[str, int]:
        """Host and port of a node's kubelet.

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
                return str(address), int(port)
        raise ApiError(
            500,
            "InternalError",
            f"Internal error occurred: no preferred addresses found; node {node} has {sorted(known)}, "
            f"expected one of {list(self._addresses)}",
        )

    def url(self, node: str) -> str:
        """The URL of a node's kubelet; raises as `address` does."""
        host, port = self.address(node)
        return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"

    async def ask(self, node: str, method: str, target: str, headers: Iterable[tuple[str, str]]) -> Connection:
        """Send a request without a body and read the head of the answer. Whoever called has to close the connection.

        Raises:
            ApiError: 404, no such node; 500, it cannot be reached or does not talk HTTP.
        """
        host, port = self.address(node)
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host}:{port}", *(f"{key}: {value}" for key, value in headers)]
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                reader, writer = await asyncio.open_connection(host, port, ssl=self.context, limit=ANSWER)
        except (TimeoutError, OSError) as error:
            raise unreachable(node, error) from None
        try:
            writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape"))
            async with asyncio.timeout(HEAD_SECONDS):
                raw = await reader.readuntil(b"\r\n\r\n")
            return Connection(_head(raw), reader, writer)
        except (TimeoutError, OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            cut(writer.transport)
            raise unreachable(node, error) from None
        except BaseException:
            cut(writer.transport)
            raise


def _head(raw: bytes) -> Head:
    first, _, rest = raw.partition(b"\r\n")
    version, _, said = first.partition(b" ")
    if not version.startswith(b"HTTP/1."):
        raise ValueError(f"it does not talk HTTP: {first[:80]!r}")
    try:
        return Head(int(said[:3]), http.client.parse_headers(io.BytesIO(rest)), raw)
    except http.client.HTTPException as error:
        raise ValueError(f"the head of its answer cannot be read: {error}") from None


def unreachable(node: str, error: BaseException) -> ApiError:
    """500 for a kubelet that does not answer."""
    why = str(error) or type(error).__name__
    message = f"Internal error occurred: the kubelet of node {node} cannot be reached: {why}"
    return ApiError(500, "InternalError", message)
