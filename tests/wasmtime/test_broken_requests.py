"""Requests of a guest that cannot be sent: it is told so and goes on. Functions are called as by a component."""

from __future__ import annotations

from typing import Any

import pytest
from wasmlet_wasmtime.p2 import outgoing, streams, world
from wasmlet_wasmtime.p2.bodies import BodyOutput, Broken, OutgoingBody
from wasmlet_wasmtime.p2.fields import Pairs
from wasmlet_wasmtime.p2.http import OutgoingRequest
from wasmlet_wasmtime.p2.instances import Failed

from tests.wasmtime.calling import guest_of

OFFERED = (outgoing, streams)
SIZE = "HTTP-request-body-size"
LATE = ("HTTP-response-timeout", None)


def request_to(authority: str, scheme: str = "HTTP") -> OutgoingRequest:
    request = OutgoingRequest([])
    request.method, request.scheme, request.authority = ("post", None), (scheme, None), authority
    return request


def call(name: str, *arguments: Any) -> Any:
    return world.functions[name](guest_of(None), *arguments)


def test_a_body_that_was_written_before_the_request_was_refused() -> None:
    request = request_to("example.com")
    request.body = OutgoingBody(None, SIZE)
    request.body.write(b"some bytes")
    future = call("wasi:http/outgoing-handler.handle", request, None)
    assert future.ready()
    assert future.call.answer == (False, ("HTTP-request-denied", None))


def test_a_name_that_tls_does_not_take() -> None:
    future = call("wasi:http/outgoing-handler.handle", request_to(".example.com", "HTTPS"), None)
    assert future.ready()
    assert future.call.answer == (False, ("HTTP-request-URI-invalid", None))


class Breaking:
    """A sink that breaks after it was asked for room so many times."""

    def __init__(self, times: int) -> None:
        self._left = times

    def _break(self) -> None:
        if self._left <= 0:
            raise Broken(LATE)

    def writes(self) -> list[tuple[int, int]]:
        return []

    def room(self) -> int:
        self._break()
        self._left -= 1
        return 100

    def send(self, data: bytes) -> None:
        self._break()

    def push(self) -> None:
        self._break()

    def sent(self) -> bool:
        self._break()
        return False

    def end(self, trailers: Pairs) -> None:
        pass

    def abandon(self) -> None:
        pass


@pytest.mark.parametrize("name", ["flush", "blocking-flush"])
def test_a_connection_that_breaks_while_a_body_is_flushed(name: str) -> None:
    body = OutgoingBody(None, SIZE)
    body.attach(Breaking(1))
    with pytest.raises(Failed) as found:
        call(f"wasi:io/streams.[method]output-stream.{name}", BodyOutput(body))
    kind, error = found.value.payload
    assert (kind, error.http) == ("last-operation-failed", LATE)


def test_a_connection_that_breaks_while_it_is_waited_for_room() -> None:
    body = OutgoingBody(None, SIZE)
    body.attach(Breaking(0))
    assert streams.Drained(BodyOutput(body)).ready()
