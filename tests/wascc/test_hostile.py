"""Servers that mean no good, and such that are broken: what an actor's process takes of them is bounded and named."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from wasmlet_wascc.worker import links, serving
from wasmlet_wascc.worker.capabilities import messaging
from wasmlet_wascc.worker.capabilities.keyvalue import KeyValue
from wasmlet_wascc.worker.capabilities.messaging import Messaging
from wasmlet_wascc.worker.capability import Context, HostError
from wasmlet_wascc.worker.messages import BadMessage

Script = Callable[[socket.socket], None]


@contextlib.contextmanager
def server(script: Script) -> Iterator[int]:
    """A server that treats each of its clients so, one after the other; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):  # the listener is closed, at the end
                while True:
                    connection, _ = listener.accept()
                    connection.settimeout(30)
                    with connection, contextlib.suppress(OSError):  # the client has had enough
                        script(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(30)


def says(*pieces: bytes) -> Script:
    """Whatever it is asked, it says this, and waits until the client goes."""

    def script(connection: socket.socket) -> None:
        connection.recv(4096)
        for piece in pieces:
            connection.sendall(piece)
        while connection.recv(4096):
            pass

    return script


def slowly(byte: bytes, seconds: float = 0.02) -> Script:
    """It says this byte, and says it again, and never comes to an end."""

    def script(connection: socket.socket) -> None:
        while True:
            connection.sendall(byte)
            time.sleep(seconds)

    return script


def link_to(port: int, until: Callable[[], float]) -> links.SocketLink:
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    connection.setblocking(False)
    return links.SocketLink(connection.detach(), "redis.test", until)


def asked(script: Script, seconds: float = 30.0, operation: str = "Get", **message: Any) -> str:
    """What an actor is told that asks a redis like this, and has so long for it."""
    with server(script) as port:
        until = time.monotonic() + seconds
        made: list[links.SocketLink] = []

        def dial(host: str, port: int) -> links.SocketLink:
            made.append(link_to(port, lambda: until))
            return made[-1]

        def nothing(*_: object) -> None:
            raise AssertionError

        given = Context(
            {"default": f"redis://127.0.0.1:{port}"}, {}, {}, nothing, dial, nothing, nothing, lambda: until
        )
        try:
            with pytest.raises(HostError) as refused:
                KeyValue(given).call("default", operation, {"key": "a"} | message)
        finally:
            for link in made:
                link.close()
        return str(refused.value)


TOO_LARGE = "redis answers with more than"
NO_REDIS = "what answers is no redis"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"$1000000000\r\n", TOO_LARGE),
        (b"*1000000000\r\n", TOO_LARGE),
        (b"*4294967295\r\n", TOO_LARGE),
        (b"*2\r\n" + (b"*60000\r\n" + b":1\r\n" * 60_000) * 2, TOO_LARGE),
        (b"*3\r\n" + (b"$4000000\r\n" + b"x" * 4_000_000 + b"\r\n") * 3, TOO_LARGE),
        (b"*1\r\n" * 50, NO_REDIS),
        (b"*-2\r\n", NO_REDIS),
        (b"$-5\r\n", NO_REDIS),
        (b"$abc\r\n", NO_REDIS),
        (b":" + b"9" * 10_000 + b"\r\n", NO_REDIS),
        (b"%1\r\n+a\r\n+b\r\n", NO_REDIS),
        (b"\r\n", NO_REDIS),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", NO_REDIS),
        (b"$1\r\nabcdefgh", "redis sends more than it says"),
        (b"+" + b"x" * 1_000_000, "redis sends a line that is too long"),
        (b"*1\r\n:1\r\n", f"{NO_REDIS}: expected a text"),
    ],
    ids=lambda value: repr(value[:20]) if isinstance(value, bytes) else "",
)
def test_a_redis_that_answers_nonsense(said: bytes, words: str) -> None:
    assert words in asked(says(said))


def test_lists_of_other_things_are_none() -> None:
    message = {"start": 0, "stop": -1}
    assert f"{NO_REDIS}: expected a list" in asked(says(b"+OK\r\n"), operation="Range", **message)
    assert f"{NO_REDIS}: expected a text" in asked(says(b"*1\r\n*1\r\n:1\r\n"), operation="Range", **message)


def test_a_redis_that_is_silent() -> None:
    assert asked(says(), 0.3) == "redis.test does not answer in time"


def test_nobody_waits_for_a_silent_redis_as_long_as_a_call_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "_SILENT_SECONDS", 0.3)
    assert asked(says(), 100.0) == "redis.test does not answer in time"


@pytest.mark.parametrize("byte", [b"+", b"*1\r\n"])
def test_a_redis_that_never_comes_to_an_end(byte: bytes) -> None:
    """Its bytes come often enough, so that only the end of the call ends it, or a bound."""
    said = asked(slowly(byte), 1.0)
    assert said in ("redis.test does not answer in time", NO_REDIS)


def test_a_redis_that_hangs_up() -> None:
    assert asked(lambda connection: None, operation="Set", value="b").startswith("redis has closed the connection")


class Over(Exception):
    """The test has seen enough."""


def heard(script: Script, tell: Callable[..., None] | None = None, scheme: str = "nats", connections: int = 1) -> str:
    """What the log says of a NATS server like this, of so many connections."""
    lines: list[str] = []
    with server(script) as port:
        count = itertools.count()

        def dial(host: str, port: int) -> links.SocketLink:
            if next(count) == connections:
                raise Over
            return link_to(port, lambda: time.monotonic() + 30)

        def refuse(*_: object) -> None:
            raise HostError("nobody takes it")

        settings = {"url": f"{scheme}://127.0.0.1:{port}", "subscriptions": "a.>"}
        work: list[Callable[[], None]] = []
        until = lambda: time.monotonic() + 30  # noqa: E731
        Messaging(Context(settings, {}, {}, lines.append, dial, tell or refuse, work.append, until))
        with pytest.raises(Over):
            work[0]()
    return "\n".join(lines)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that was lost is dialled again without a pause."""
    monkeypatch.setattr(messaging, "_PAUSES", (0.0,))


INFO = b"INFO {}\r\n"


def greets(*pieces: bytes) -> Script:
    """A NATS server's first line, then this, and then it hangs up."""

    def script(connection: socket.socket) -> None:
        connection.sendall(INFO)
        got = b""
        while b"SUB a.>" not in got and (more := connection.recv(4096)):
            got += more
        for piece in pieces:
            connection.sendall(piece)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass

    return script


@pytest.mark.parametrize(
    "said", [b"NONSENSE\r\n", b"MSG\r\n", b"MSG a 1 x\r\n", b"MSG a 1 -5\r\n", b"MSG a 1 99999999999999\r\n",
             b"MSG a 1 b c 5\r\n", b"HMSG a 1 5 5\r\nhello\r\n", b"\r\n"],
)  # fmt: skip
def test_a_broker_that_talks_nonsense(said: bytes) -> None:
    assert heard(greets(said)) == "wascc:messaging: what answers is no NATS server; trying again"


def test_what_is_no_broker_at_all() -> None:
    assert "what answers is no NATS server" in heard(lambda c: c.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    assert "the NATS server sends a line that is too long" in heard(lambda c: c.sendall(b"x" * 1_000_000))
    assert "the NATS server has closed the connection" in heard(lambda connection: None)


def test_a_broker_that_is_silent_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "_SILENT_SECONDS", 0.2)
    assert "redis.test does not answer in time" in heard(says())


def test_a_broker_whose_first_line_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messaging, "_HELLO_SECONDS", 0.3)
    assert "the NATS server does not come to an end" in heard(slowly(b"I"))


def test_a_broker_that_falls_silent_is_asked_and_then_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "_PATIENT_SECONDS", 0.2)
    got = bytearray()

    def script(connection: socket.socket) -> None:
        connection.sendall(INFO)
        for _ in range(2):
            while got.count(b"PING\r\n") < 1:
                got.extend(connection.recv(4096))
            connection.sendall(b"PONG\r\n")
            got.clear()
        while more := connection.recv(4096):
            got.extend(more)

    assert "redis.test does not answer in time" in heard(script)
    assert got.count(b"PING\r\n") == 1


@pytest.mark.parametrize(("steady", "said"), [(60.0, 1), (0.0, 3)])
def test_the_loss_of_a_connection_that_has_lasted_is_news(
    monkeypatch: pytest.MonkeyPatch, steady: float, said: int
) -> None:
    """Also if no message has ever come, as to an actor that only publishes."""
    monkeypatch.setattr(messaging, "_STEADY_SECONDS", steady)
    lines = heard(greets(), connections=3).splitlines()
    assert lines == ["wascc:messaging: the NATS server has closed the connection; trying again"] * said


def test_a_message_that_is_too_large_is_passed_over() -> None:
    told: list[Any] = []
    large = b"MSG a.b 1 3000000\r\n" + b"x" * 3_000_000 + b"\r\n"
    said = heard(greets(large, b"MSG a.b 1 5\r\nsmall\r\n"), lambda operation, value: told.append(value["body"]))
    assert told == [b"small"]
    assert "a message to a.b is lost: it has 3000000 bytes, expected at most 1048576" in said


def test_very_many_messages_are_not_as_many_lines() -> None:
    lines = heard(greets(b"MSG a.b 1 0\r\n\r\n" * 10_000)).splitlines()
    assert lines[0] == "wascc:messaging: a message to a.b is lost: nobody takes it"
    assert len(lines) < 100


def test_very_many_complaints_are_not_as_many_lines() -> None:
    assert len(heard(greets(b"-ERR 'no'\r\n" * 1000)).splitlines()) < 30


def test_nothing_is_believed_that_comes_before_tls() -> None:
    said = heard(lambda connection: connection.sendall(INFO + b"MSG a.b 1 5\r\nhello\r\n"), scheme="tls")
    assert "the NATS server says more than it may before TLS" in said


def test_a_broker_that_speaks_no_tls_gets_nothing() -> None:
    got = bytearray()

    def script(connection: socket.socket) -> None:
        connection.sendall(INFO)
        got.extend(connection.recv(4096))
        connection.sendall(b"-ERR 'what?'\r\n")

    assert "does not agree on TLS" in heard(script, scheme="tls")
    assert b"CONNECT" not in got


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"\x81\xaastatusCode", "from 200 to 599, found list"),
        (b"\x82\xaastatusCode\xcc\xc8\xa6header\x81\xa1a", "expected texts in header, found list"),
        (b"\x82\xaastatusCode\xcc\xc8\xa4body", "expected bytes, found list"),
    ],
)
def test_an_answer_of_lists_in_lists_is_the_fault_of_the_actor(start: bytes, words: str) -> None:
    """So many that Python cannot show them."""
    with pytest.raises(BadMessage, match=words):
        serving._read(start + b"\x91" * 1020 + b"\x01")


@pytest.mark.parametrize("status", [b"\xcd\x03\xe7", b"\xc3", b"\xff"])
def test_a_status_that_is_none_is_named(status: bytes) -> None:
    with pytest.raises(BadMessage, match=r"from 200 to 599, found (999|bool|True|-1)"):
        serving._read(b"\x81\xaastatusCode" + status)
