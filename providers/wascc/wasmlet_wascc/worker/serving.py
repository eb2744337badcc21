"""`wascc:http_server`: requests of HTTP, each a call of the actor's.

A probe that names no path (`/`) asks the actor for its health; everything else is the actor's own.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import wasmtime

from .actor import trap_words
from .borrowed import bodies, connections, exchanges, fields, instances, turns
from .failures import GuestError
from .host import Busy, Host
from .messages import MOST_BYTES, BadMessage, both, decoded, encoded, octets

MOST_BODY = MOST_BYTES // 4
"""Bytes of a request's body, which the actor gets in one piece."""
LIMITS = connections.Limits(body=MOST_BODY)
_PROBE = b"kube-probe/"
_READ = 64 * 1024
_OWN = frozenset(("content-length", "transfer-encoding", "date"))
"""Fields of an answer that are the server's to say."""


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
        """Serve a request; the status and the words for the client where that has failed."""
        try:
            body = _body(exchange, turn)
            turn.begin({})  # the actor may be at something else
            if _is_probe(exchange):
                self._host.call("HealthRequest", encoded({"placeholder": True}), turn.until)
                _answer(exchange, 200, [("content-type", b"text/plain; charset=utf-8")], b"ok\n")
                return None
            _answer(exchange, *self._ask(exchange, body, turn.until))
        except bodies.Broken:
            return 400, "the request has not come to its end"
        except (Busy, instances.TimedOut):
            self._log(f"{exchange.title}: the actor has taken longer than {self._seconds:g} s")
            return 504, "the actor has taken too long"
        except GuestError as error:
            self._log(f"{exchange.title}: the actor answers with an error: {str(error)[:1000]}")
            return 500, "the actor failed"
        except BadMessage as error:
            self._log(f"{exchange.title}: the actor's answer cannot be read: {error}")
            return 500, "the actor failed"
        except (wasmtime.WasmtimeError, wasmtime.Trap, instances.Trapped) as error:
            self._log(f"{exchange.title}: the actor has failed: {trap_words(error)}")
            return 500, "the actor failed"
        return None

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
            if self._body_as_list or "sequence" not in str(error):
                raise
            self._body_as_list = True
            return _read(self._call(request, body, until))

    def _call(self, request: dict[str, Any], body: bytes, until: float) -> bytes:
        whole = both(request) | {"body": list(body) if self._body_as_list else body}
        return self._host.call("HandleRequest", encoded(whole), until)


def _body(exchange: exchanges.Exchange, turn: turns.Turn) -> bytes:
    """All of a request's body.

    Raises:
        bodies.Broken: it does not come to its end, in time or at all.
    """
    found = bytearray()
    while (piece := exchange.take(_READ)) is not None:
        found += piece
        if not piece:
            polled = dict(exchange.reads())
            poll = select.poll()
            for descriptor, events in polled.items():
                poll.register(descriptor, events)
            left = turn.until - time.monotonic()
            if left <= 0:
                raise bodies.Broken(("connection-timeout", None))
            turn.begin(polled)
            poll.poll(left * 1000)
            turn.end()
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
        raise BadMessage(f"expected statusCode to be a number from 200 to 599, found {str(status)[:40]}")
    header = found.get("header") or {}
    if not isinstance(header, dict):
        raise BadMessage("expected header to be a map")
    pairs = [
        (str(name).lower(), str(value).encode("latin-1", "replace"))
        for name, value in header.items()
        if str(name).lower() not in _OWN and not fields.is_forbidden(str(name))
    ]
    return status, pairs, octets(found.get("body"))


def _answer(exchange: exchanges.Exchange, status: int, pairs: list[tuple[str, bytes]], body: bytes) -> None:
    exchange.response = Answer(status, pairs)  # type: ignore[assignment]
    if body:
        exchange.send(body)
    exchange.end([])
