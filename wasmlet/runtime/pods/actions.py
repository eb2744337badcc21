"""The actions of probes and hooks: a command in the container, or a request to the pod's address.

`probes` and `hooks` decide when an action is done. The texts are the kubelet's (`pkg/probe`), because people search
for them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Literal

import attrs

from wasmlet.clock import Clock
from wasmlet.concurrency import first_of
from wasmlet.errors import WasmletError
from wasmlet.model.pod import Container, Raw
from wasmlet.runtime.network import dialing, grpc_health, http_get
from wasmlet.runtime.network.dialing import Place
from wasmlet.runtime.network.http_get import HttpRequest, NoAnswer
from wasmlet.runtime.shim.instances import Target
from wasmlet.runtime.streams.commands import Commands

MAX_OUTPUT = 10 * 1024
"""Characters of a probe's output that are told, as many as the kubelet keeps."""
NETWORK = ("httpGet", "tcpSocket", "grpc")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@attrs.frozen
class Command:
    """A program in the container."""

    words: tuple[str, ...]


@attrs.frozen
class TcpConnect:
    """A connection that is closed at once."""

    port: int


@attrs.frozen
class GrpcCheck:
    """The health check of gRPC."""

    port: int
    service: str


Action = Command | HttpRequest | TcpConnect | GrpcCheck


@attrs.frozen
class Outcome:
    """The result of a probe's action.

    Attributes:
        result: `warning` counts as success, but the pod's owner is told.
        output: details in words, for the pod's owner.
    """

    result: Literal["success", "warning", "failure"]
    output: str


@attrs.frozen
class Asked:
    """The container instance that an action is done on, and how to reach it.

    Attributes:
        pod_ips: the pod's addresses, the main one first; empty where it has none.
        ports: see `Place`.
    """

    target: Target
    commands: Commands
    pod_ips: Callable[[], Sequence[str]]
    ports: Callable[[], Collection[int] | None]

    @property
    def place(self) -> Place:
        """Where the pod is reached: at its main address.

        Raises:
            WasmletError: it has none.
        """
        addresses = self.pod_ips()
        if not addresses:
            raise WasmletError("the pod has no address (yet)")
        return Place(addresses[0], self.ports())


def refusals(raw: Raw, container: Container, *, network: bool, hook: bool = False) -> Iterator[tuple[str, str]]:
    """Paths below a probe or a hook, and why they are refused.

    Args:
        network: whether pods have one here.
        hook: it is a hook, which the API allows `tcpSocket` and no kubelet can run.
    """
    kinds = "exec, httpGet or sleep" if hook else "exec"
    for name in NETWORK:
        if name not in raw:
            continue
        fields = raw[name] or {}
        if hook and name == "tcpSocket":
            yield name, f"no kubelet runs such a hook; expected {kinds}"
        elif not network:
            yield name, f"pods have no network on this node (--network); expected {'exec or sleep' if hook else 'exec'}"
        elif fields.get("host"):
            yield f"{name}.host", "cannot be given, for the node would dial it; expected none: the pod's own address"
        else:
            yield from _bad_headers(name, fields)
            try:
                action_of(raw, container)
            except WasmletError as error:
                yield f"{name}.port", str(error)


def _bad_headers(name: str, fields: Raw) -> Iterator[tuple[str, str]]:
    for index, header in enumerate(fields.get("httpHeaders") or ()):
        if not _TOKEN.fullmatch(str(header.get("name") or "")):
            yield f"{name}.httpHeaders[{index}].name", "is no name of a header"
        if set(str(header.get("value") or "")) & set("\r\n\0"):
            yield f"{name}.httpHeaders[{index}].value", "has a line break or a NUL, which no header has"


def action_of(raw: Raw, container: Container) -> Action:
    """What a probe or hook of the manifest does.

    Args:
        raw: the probe or hook; one that is empty is an empty command.

    Raises:
        WasmletError: it names a port that the container does not have.
    """
    if (http := raw.get("httpGet")) is not None:
        headers = tuple((str(one["name"]), str(one.get("value") or "")) for one in http.get("httpHeaders") or ())
        scheme = str(http.get("scheme") or "HTTP").lower()
        return HttpRequest(scheme, _port(http.get("port"), container), str(http.get("path") or "/"), headers)
    if (tcp := raw.get("tcpSocket")) is not None:
        return TcpConnect(_port(tcp.get("port"), container))
    if (grpc := raw.get("grpc")) is not None:
        return GrpcCheck(_port(grpc.get("port"), container), str(grpc.get("service") or ""))
    return Command(tuple((raw.get("exec") or {}).get("command") or ()))


def _port(value: object, container: Container) -> int:
    """A number, or the name of one of the container's ports."""
    found: object = value
    if isinstance(value, str):
        named = [port.get("containerPort") for port in container.raw.get("ports") or () if port.get("name") == value]
        found = named[0] if named else int(value) if value.isascii() and value.isdecimal() else None
    if isinstance(found, int) and 0 < found < 65536:
        return found
    raise WasmletError(f"couldn't find port {value!r} among the ports of container {container.name}")


async def probe(action: Action, asked: Asked, seconds: float, clock: Clock) -> Outcome:
    """Do it for a probe.

    Args:
        seconds: how long it may take.

    Raises:
        WasmletError, OSError: it could not be tried at all.
    """
    outcome = Outcome("failure", _timed_out(action, asked.pod_ips(), seconds))

    async def act() -> None:
        nonlocal outcome
        outcome = await _probe(action, asked)

    await first_of(act(), clock.sleep(seconds))
    return outcome


async def _probe(action: Action, asked: Asked) -> Outcome:
    match action:
        case Command():
            target = asked.target
            code, output = await asked.commands.run(target.pod, target.container, action.words)
            return Outcome("failure" if code else "success", output.decode("utf-8", "replace")[:MAX_OUTPUT])
        case HttpRequest():
            return await _http(action, asked.place)
        case TcpConnect():
            place = asked.place
            try:
                await dialing.connects(place, action.port)
            except OSError as error:
                where = _joined(place.address, action.port)
                return Outcome("failure", f"dial tcp {where}: connect: {dialing.words(error)}")
            return Outcome("success", "")
        case GrpcCheck():
            return await _grpc(action, asked.place)


async def _http(request: HttpRequest, place: Place) -> Outcome:
    try:
        answer = await http_get.get(request, place, "probe")
    except NoAnswer as error:
        return Outcome("failure", str(error))
    if answer.redirects:
        body = answer.body.decode("utf-8", "replace")
        return Outcome("warning", f"Probe terminated redirects, Response body: {body}")
    if 200 <= answer.status < 300:
        return Outcome("success", "")
    # Without the body, which may be secret: events are read by more people than logs.
    return Outcome("failure", f"HTTP probe failed with statuscode: {answer.status}")


async def _grpc(action: GrpcCheck, place: Place) -> Outcome:
    where = _joined(place.address, action.port)
    try:
        status = await grpc_health.check(place, action.port, action.service)
    except grpc_health.NotImplementedThere as error:
        words = "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)"
        return Outcome("failure", f"{words}: {error}")
    except NoAnswer as error:
        return Outcome("failure", f"error: health rpc probe failed: {error}")
    except OSError as error:
        return Outcome("failure", f'error: failed to connect service at "{where}": {dialing.words(error)}')
    if status != grpc_health.SERVING:
        return Outcome("failure", f'service unhealthy (responded with "{status}")')
    return Outcome("success", "service healthy")


def _timed_out(action: Action, addresses: Sequence[str], timeout: float) -> str:
    address = addresses[0] if addresses else ""
    match action:
        case Command():
            words = " ".join(action.words)
            return f'command timed out: "{words}" timed out after {timeout:g}s'
        case HttpRequest():
            url = action.url(address) if address else action.path
            return f'Get "{url}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)'
        case TcpConnect():
            return f"dial tcp {_joined(address, action.port)}: i/o timeout"
        case GrpcCheck():
            return f"timeout: health rpc did not complete within {timeout:g}s"


async def request_for_hook(request: HttpRequest, place: Place) -> bool:
    """Make the request of a hook; any answer will do, as at a kubelet.

    Returns:
        Whether a server that speaks no TLS was asked again without it.

    Raises:
        NoAnswer: there was none.
    """
    try:
        await http_get.get(request, place, "lifecycle")
        return False
    except NoAnswer as error:
        if request.scheme != "https" or not error.speaks_http:
            raise
    plain = tuple((name, value) for name, value in request.headers if name.lower() != "authorization")
    await http_get.get(attrs.evolve(request, scheme="http", headers=plain), place, "lifecycle")
    return True


def _joined(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
