"""`wascc:http_server`: each HTTP request becomes a call of the actor.

A kubelet's probe of the path `/` asks for the actor's health (`HealthRequest`). Everything else goes to the actor.
"""

from __future__ import annotations

import re
import select
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgpack
import wasmtime

from .actor import trap_words
from .borrowed import bodies, connections, exchanges, fields, instances, turns
from .failures import GuestError
from .host import Busy, Host
from .messages import MOST_BYTES, BadMessage, Packed, both, decoded, encoded, octets, of_texts

MOST_BODY = MOST_BYTES // 2
"""Bytes of a request's body, which the actor gets in one piece."""
LIMITS = connections.Limits(body=MOST_BODY)
_PROBE = b"kube-probe/"
_READ = 64 * 1024
_WANTS_LIST = ("expected a sequence", "byte array")
"""Words in the error of an actor that got a body as bytes, and expects a list of numbers."""
_NO_HEALTH = ("bad dispatch", "Could not find function")
"""Words in the error of an actor that does not know `HealthRequest`: one in Rust, and one in AssemblyScript."""
_NAME, _VALUE = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+"), re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
"""Of a field. Source: RFC 9110, section 5."""
_MOST_FIELDS = 64 * 1024
"""Bytes of all fields of an answer."""
_STATUS_OF = {"HTTP-request-body-size": (413, "the request's body is too large"),
              "connection-timeout": (408, "the request has not come in time")}  # fmt: skip
_OWN = frozenset(("content-length", "transfer-encoding", "date"))
"""Header fields that the server sets by itself; an actor's are dropped."""


Parts = tuple[int, list[tuple[str, bytes]], bytes]
"""Status, fields and body of an answer."""


class Answer(NamedTuple):
    """What goes back; see `exchanges`."""

    status: int
    fields: list[tuple[str, bytes]]
    body: None = None


class Server:
    """Serves requests by one actor.

    Args:
        log: takes a line of the container's log.
    """

    def __init__(self, host: Host, log: Callable[[str], None], seconds: float) -> None:
        self._host, self._log, self._seconds = host, log, seconds
        self._body_as_list = False
        """The actor reads bodies as lists of numbers: an older one."""

    def handle(self, exchange: exchanges.Exchange, turn: turns.Turn) -> tuple[int, str] | None:
        """Serve a request. Returns None, or the status and the text for the client if it has failed."""
        try:
            body = _body(exchange, turn)
            turn.begin({})  # the actor may be at something else
            if _is_probe(exchange):
                self._check_health(turn.until)
                answer: Parts = 200, [("content-type", b"text/plain; charset=utf-8")], b"ok\n"
            else:
                answer = self._ask(exchange, body, turn.until)
            turn.end()
            _answer(exchange, turn, *answer)
        except bodies.Broken as error:
            return _STATUS_OF.get(error.code[0], (400, "the request has not come to its end"))
        except (Busy, instances.TimedOut):
            self._log(f"{exchange.title}: the actor has taken longer than {self._seconds:g} s")
            return 504, "the actor has taken too long"
        except GuestError as error:
            self._log(f"{exchange.title}: the actor answers with an error: {' '.join(str(error)[:1000].splitlines())}")
            return 500, "the actor failed"
        except BadMessage as error:
            self._log(f"{exchange.title}: the actor's answer cannot be read: {error}")
            return 500, "the actor failed"
        except (wasmtime.WasmtimeError, wasmtime.Trap, instances.Trapped) as error:
            self._log(f"{exchange.title}: the actor has failed: {trap_words(error)}")
            return 500, "the actor failed"
        return None

    def _check_health(self, until: float) -> None:
        """Ask the actor for its health; one that has nothing to say of it is well."""
        try:
            self._host.call("HealthRequest", encoded({"placeholder": True}), until)
        except GuestError as error:
            if not any(words in str(error) for words in _NO_HEALTH):
                raise

    def _ask(self, exchange: exchanges.Exchange, body: bytes, until: float) -> Parts:
        incoming = exchange.incoming
        path, _, query = (incoming.path or "/").partition("?")
        request: dict[str, Any] = {
            "method": exchange.method,
            "path": path,
            "queryString": query,
            "header": _header(exchange),
        }
        try:
            return _read(self._call(request, body, until))
        except GuestError as error:
            if self._body_as_list or not all(words in str(error) for words in _WANTS_LIST):
                raise
            found = _read(self._call(request, body, until, as_list=True))
            self._body_as_list = True
            return found

    def _call(self, request: dict[str, Any], body: bytes, until: float, *, as_list: bool = False) -> bytes:
        if as_list or self._body_as_list:
            message = encoded(both(request) | {"body": Packed(msgpack.packb(list(body)))})
        else:
            message = of_texts(both(request) | {"body": body})
        return self._host.call("HandleRequest", message, until)


def _body(exchange: exchanges.Exchange, turn: turns.Turn) -> bytes:
    """All of a request's body.

    Raises:
        bodies.Broken: it does not come to its end, in time or at all.
    """
    found = bytearray()
    while (piece := exchange.take(_READ)) is not None:
        found += piece
        if not piece:
            if turn.until <= time.monotonic():
                raise bodies.Broken(("connection-timeout", None))
            _wait(exchange.reads(), turn)
    return bytes(found)


def _is_probe(exchange: exchanges.Exchange) -> bool:
    agent = next((value for name, value in exchange.incoming.fields if name == "user-agent"), b"")
    return exchange.method == "GET" and exchange.incoming.path == "/" and agent.startswith(_PROBE)


def _header(exchange: exchanges.Exchange) -> dict[str, str]:
    """The fields of a request; those of one name in one text, as HTTP has it."""
    found: dict[str, str] = {}
    if exchange.incoming.authority:
        found["host"] = exchange.incoming.authority
    for name, value in exchange.incoming.fields:
        text = value.decode("latin-1")
        found[name] = f"{found[name]}, {text}" if name in found else text
    return found


def _read(data: bytes) -> Parts:
    """Status, fields and body of an actor's answer, a map or (older ones) an array.

    Raises:
        BadMessage: it is none.
    """
    found = decoded(data)
    if isinstance(found, (list, tuple)) and len(found) == 4:
        found = dict(zip(("statusCode", "status", "header", "body"), found))  # noqa: B905 - Python 3.10
    if not isinstance(found, dict):
        raise BadMessage(
            f"expected a map, found {type(found).__name__}; actors that speak protobuf, older ones, do not run"
        )
    status = found.get("statusCode", found.get("status_code"))
    if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 599:
        shown = status if isinstance(status, int) else type(status).__name__
        raise BadMessage(f"expected statusCode to be a number from 200 to 599, found {str(shown)[:40]}")
    header = found.get("header") or {}
    if not isinstance(header, dict):
        raise BadMessage("expected header to be a map")
    for value in header.values():
        if not isinstance(value, (str, int, float)):  # a list may be too deep to be shown
            raise BadMessage(f"expected texts in header, found {type(value).__name__}")
    pairs = [_field(str(name), str(value)) for name, value in header.items()]
    body = octets(found.get("body"))
    if len(body) > MOST_BODY:
        raise BadMessage(f"its body has {len(body)} bytes, expected at most {MOST_BODY}")
    if sum(len(name) + len(value) for name, value in pairs) > _MOST_FIELDS:
        raise BadMessage(f"its header has more than {_MOST_FIELDS} bytes")
    return status, [(name, value) for name, value in pairs if name not in _OWN and not fields.is_forbidden(name)], body


def _field(name: str, value: str) -> tuple[str, bytes]:
    """A field of an answer.

    Raises:
        BadMessage: it cannot be one.
    """
    octets_of = value.encode("latin-1", "replace")
    if not _NAME.fullmatch(name) or not _VALUE.fullmatch(octets_of):
        raise BadMessage(f"its header has the field {name[:40]!r}, whose name or value cannot be sent")
    return name.lower(), octets_of.strip()


def _answer(
    exchange: exchanges.Exchange, turn: turns.Turn, status: int, pairs: list[tuple[str, bytes]], body: bytes
) -> None:
    """Send an answer, and wait until the client has taken all of it, so that few answers are in memory at once."""
    exchange.response = Answer(status, pairs)  # type: ignore[assignment]
    if body:
        exchange.send(body)
    exchange.end([])
    while not exchange.sent() and turn.until > time.monotonic():
        _wait(exchange.writes(), turn)


def _wait(wanted: Sequence[tuple[int, int]], turn: turns.Turn) -> None:
    """Wait for the client, until its turn is over at the latest."""
    polled = dict(wanted)
    poll = select.poll()
    for descriptor, events in polled.items():
        poll.register(descriptor, events)
    turn.begin(polled)
    poll.poll(max(0.0, turn.until - time.monotonic()) * 1000)
    turn.end()
