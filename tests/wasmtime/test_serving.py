"""A component that serves, against clients and handlers that are up to no good: bounded, and nothing leaks."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from wasmlet_wasmtime.p2.front import MOST_CONNECTIONS

from tests.wasmtime.serving import HEAD, Served, body, everything, serving, status


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(seconds=2) as found:
        yield found


@pytest.fixture(scope="module")
def reused() -> Iterator[Served]:
    with serving(reuse=True, seconds=2) as found:
        yield found


@pytest.fixture(scope="module")
def impatient() -> Iterator[Served]:
    """One that takes little, and waits for little."""
    with serving(seconds=2, limits={"body": 1000, "head_seconds": 1, "idle_seconds": 1, "write_seconds": 1}) as found:
        yield found


@pytest.mark.parametrize(
    ("request_", "statuses"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", (400,)),
        (HEAD + b"Host: y\r\n\r\n", (400,)),
        (
            b"POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            (400,),
        ),
        (
            b"POST /count HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
            (400,),
        ),
        (b"POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", (400,)),
        (b"POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nhello", (400,)),
        (b"POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 6\r\n\r\nhello!", (400,)),
        (b"POST /count HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", (400, 501)),
        (b"POST /count HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", (400, 501)),
        (b"POST /count HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", (400,)),
        (b"POST /count HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", (400,)),
        (b"POST /count HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", (501,)),
        (b"GET /hello HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n", (400,)),
        (b"GET /hello HTTP/1.1\nHost: x\n\n", (400,)),
        (b"GET /hello\r\n\r\n", (505,)),
        (b"GET /hello\x00 HTTP/1.1\r\nHost: x\r\n\r\n", (400,)),
        (HEAD + b"X: a\x00b\r\n\r\n", (400,)),
        (HEAD + b"X\x01: a\r\n\r\n", (400,)),
        (b"GET hello HTTP/1.1\r\nHost: x\r\n\r\n", (400,)),
        (b"GET file:///etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", (400,)),
        (b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n", (501,)),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (400, 505)),
        (b"POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n", (400, 413)),
        (b"POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n", (413,)),
        (HEAD + b"X: " + b"y" * 200_000 + b"\r\n\r\n", (431,)),
        (b"GET /" + b"y" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", (431,)),
        (HEAD + b"X: y\r\n" * 20_000 + b"\r\n", (431,)),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(600), (400,)),
        (b"\r\n" * 10, (400, 0)),
        (b"", (0,)),
    ],
)
def test_what_is_no_request(served: Served, request_: bytes, statuses: tuple[int, ...]) -> None:
    answer = served.say(request_)
    assert status(answer) in statuses, answer[:300]
    assert answer.count(b"HTTP/1.1 ") <= 1
    assert status(served.get("/hello")) == 200


def test_bodies_that_break_off_or_are_no_chunks(served: Served) -> None:
    chunked = b"POST /count HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    for rest in (
        b"5\r\nhel",
        b"zz\r\nhello\r\n0\r\n\r\n",
        b"-1\r\n\r\n",
        b"5\r\nhelloX\r\n0\r\n\r\n",
        b"f" * 40 + b"\r\n",
    ):
        answer = served.say(chunked + rest)
        assert (status(answer), body(answer)) == (400, b"broken"), (rest, answer)
    answer = served.say(b"POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello")
    assert (status(answer), body(answer)) == (400, b"broken")


def test_a_guest_that_fails_because_of_a_bad_body_is_not_to_blame(served: Served, impatient: Served) -> None:
    answer = served.say(b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
    assert status(answer) == 400
    assert b"body is not valid" in body(answer)
    large = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n" + b"x" * 1001
    assert status(impatient.say(large)) == 413


def test_requests_behind_each_other_are_answered_in_their_order(served: Served) -> None:
    paths = ["/status?201", "/sleep?50", "/status?202", "/hello", "/status?203"]
    requests = b"".join(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for path in paths)
    answer = served.say(requests)
    found = [int(part.split(b" ", 1)[0]) for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert found == [201, 200, 202, 200, 203]


def test_a_body_that_nobody_reads_does_not_become_a_request(served: Served) -> None:
    smuggled = b"GET /status?299 HTTP/1.1\r\nHost: x\r\n\r\n"
    with served.connect() as sock:
        sock.sendall(
            b"POST /hello HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(smuggled) + smuggled + HEAD + b"\r\n"
        )
        sock.shutdown(socket.SHUT_WR)
        answer = everything(sock)
    assert b"299" not in answer
    assert answer.count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize("chunk", [b"1\r\na\r\n" * 200, b"1;" + b"x" * 1000 + b"\r\na\r\n"])
def test_a_long_body_that_nobody_reads_ends_its_connection(served: Served, chunk: bytes) -> None:
    with served.connect() as sock:
        sock.sendall(b"POST /sleep?300 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 600)
        assert status(everything(sock)) == 200
    assert status(served.get("/hello")) == 200


def test_a_refused_head_is_answered_by_a_head(served: Served) -> None:
    answer = served.say(b"HEAD /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
    assert status(answer) == 413
    assert answer.endswith(b"\r\n\r\n")


def test_upgrades_are_not_taken(served: Served) -> None:
    answer = served.say(HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n")
    assert status(answer) == 200
    answer = served.say(
        HEAD + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
    )
    assert status(answer) == 200
    head = b"POST /count HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\n"
    answers = served.say((head + b"hello") * 2)
    assert answers.count(b"HTTP/1.1 200") == 2
    assert body(answers[answers.rindex(b"HTTP/1.1") :]) == b"5"


def test_older_clients_are_answered_up_to_the_end_of_the_connection(served: Served) -> None:
    for path in ("/hello", "/pieces?3"):
        answer = served.say(f"GET {path} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".encode() * 2)
        assert status(answer) == 200
        assert answer.count(b"HTTP/1.1 ") == 1
        assert b"\r\nconnection: close\r\n" in answer
        assert b"chunked" not in answer


def test_who_waits_to_be_told_to_go_on_is_told(served: Served) -> None:
    with served.connect() as sock:
        sock.sendall(b"POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        assert sock.recv(4096).startswith(b"HTTP/1.1 100 ")
        sock.sendall(b"hello")
        sock.shutdown(socket.SHUT_WR)
        assert body(everything(sock)) == b"5"


def test_trailers_come_and_go(served: Served) -> None:
    answer = served.say(
        b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 42\r\n\r\n"
    )
    assert answer.endswith(b"5\r\nhello\r\n0\r\nx-sum: 42\r\n\r\n")


def test_waiting_for_a_body_or_a_time(served: Served) -> None:
    head = b"POST /race?200 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
    with served.connect() as sock:
        sock.sendall(head)
        assert body(everything(sock)) == b"time"
    assert body(served.say(head + b"hello")) == b"body"


def test_a_slow_body_takes_no_longer_than_a_handler_may(served: Served) -> None:
    began = time.monotonic()
    with served.connect() as sock:
        sock.sendall(b"POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        answer = b""
        sock.settimeout(0.2)
        while not answer:
            with contextlib.suppress(ConnectionError):
                sock.sendall(b"x")
            with contextlib.suppress(TimeoutError):
                answer = sock.recv(4096)
    assert status(answer) == 504
    assert 1.5 < time.monotonic() - began < 60  # with a byte each time, the body would take 200 seconds


def test_clients_that_take_their_time_are_sent_away(impatient: Served) -> None:
    """One whose head never ends, one that says nothing, one that asks nothing more, and one that takes nothing."""
    before = impatient.counts()
    with contextlib.ExitStack() as stack:
        silent, asked, deaf = (stack.enter_context(impatient.connect()) for _ in range(3))
        asked.sendall(HEAD + b"\r\n")
        deaf.sendall(b"GET /much?50000 HTTP/1.1\r\nHost: x\r\n\r\n")
        slow = stack.enter_context(impatient.connect())
        slow.sendall(b"GET /hello HTTP/1.1\r\nHost: x\r\nX: ")
        slow.settimeout(0.2)
        end = time.monotonic() + 30
        said = None
        while said is None and time.monotonic() < end:
            with contextlib.suppress(ConnectionError):
                slow.sendall(b"y")
            try:
                said = slow.recv(4096)
            except TimeoutError:
                continue
            except ConnectionError:
                said = b""
        assert said == b""
        assert everything(silent) == b""
        assert everything(asked).count(b"HTTP/1.1 200") == 1
        impatient.settle(before)  # the handler that writes to the deaf one has ended, too
    assert status(impatient.get("/hello")) == 200


def test_a_body_in_chunks_that_is_larger_than_it_may_be(impatient: Served) -> None:
    head = b"POST /count HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"64\r\n" + b"x" * 100 + b"\r\n"
    assert body(impatient.say(head + chunk * 10 + b"0\r\n\r\n")) == b"1000"
    answer = impatient.say(head + chunk * 11 + b"0\r\n\r\n")
    assert (status(answer), body(answer)) == (400, b"broken")
    assert status(impatient.say(b"POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n")) == 413


def test_more_connections_than_it_takes_wait(served: Served) -> None:
    before = served.counts()
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(served.connect()) for _ in range(MOST_CONNECTIONS)]
        late = stack.enter_context(served.connect())
        late.sendall(HEAD + b"Connection: close\r\n\r\n")
        assert served.counts()["descriptors"] <= before["descriptors"] + MOST_CONNECTIONS
        for sock in socks[:100]:
            sock.close()
        assert status(everything(late)) == 200
    served.settle(before)


def test_handlers_that_go_wrong(served: Served) -> None:
    before = served.counts()
    for path, expected in (
        ("/trap", 500), ("/none", 500), ("/refuse", 500), ("/hold", 500), ("/spin", 504), ("/sleep?60000", 504),
        ("/twice", 200), ("/leak?1000", 200), ("/leak?100000", 500), ("/length?5", 200),
    ):  # fmt: skip
        assert status(served.get(path)) == expected, path
    late = served.get("/trap-late")
    assert status(late) == 200
    assert not late.endswith(b"0\r\n\r\n")  # so that the client knows that it is not all
    too_short = served.get("/length?9")
    assert status(too_short) in (0, 500) or len(body(too_short)) < 9
    assert body(served.get("/forbidden")) == b"1"
    served.settle(before)


def test_a_reused_instance_may_keep_things_but_not_without_end(reused: Served) -> None:
    assert status(reused.get("/hello")) == 200
    before = reused.counts()
    assert before["instances"] == 1
    assert status(reused.get("/leak?1000")) == 200
    assert reused.counts()["resources"] >= before["resources"] + 1000
    assert status(reused.get("/leak?20000")) == 500  # which ends this instance
    assert status(reused.get("/hello")) == 200
    after = reused.counts()
    assert after["instances"] == 1
    assert after["descriptors"] <= before["descriptors"]
    assert after["resources"] <= before["resources"]


def test_clients_that_go_away(served: Served) -> None:
    before = served.counts()
    for path in (b"/much?1000", b"/pieces?5", b"/echo", b"/sleep?300"):
        with served.connect() as sock:
            sock.sendall(b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    assert status(served.get("/hello")) == 200
    served.settle(before)


def test_a_client_that_reads_nothing_keeps_nobody_else_from_being_served(served: Served) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            sock = stack.enter_context(served.connect())
            sock.sendall(b"GET /much?5000 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert status(served.get("/hello")) == 200


def test_a_thousand_connections_at_once(served: Served) -> None:
    before = served.counts()
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(served.connect()) for _ in range(1000)]
        for sock in socks:
            sock.sendall(HEAD + b"\r\n")
        for sock in socks:
            answer = b""
            while b"hello, component" not in answer:
                part = sock.recv(4096)
                assert part
                answer += part
        assert status(served.get("/hello")) == 200
    served.settle(before)


def test_what_a_guest_asks_of_others(served: Served) -> None:
    """The other is served by the same component: nothing here listens but that."""
    assert body(served.get(f"/fetch/http/127.0.0.1:{served.port}/hello")) == b"hello, component\n"
    before = served.counts()
    assert body(served.get(f"/fetch/http/127.0.0.1:{served.port}/hello")) == b"hello, component\n"
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began = time.monotonic()
        answer = served.get(f"/fetch/http/127.0.0.1:{silent.getsockname()[1]}/")
        assert status(answer) in (502, 504)
        assert time.monotonic() - began < 10
    for wrong, code in (
        (b"no HTTP at all\r\n\r\n", b"error 35"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"error 25"),
        (b"", b"error 25"),
        (b"HTTP/1.1 101 X\r\n\r\n", b"error 35"),
    ):
        with answering(wrong) as port:
            assert body(served.get(f"/fetch/http/127.0.0.1:{port}/")) == code, wrong
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello") as port:
        assert b"[broken]" in served.get(f"/fetch/http/127.0.0.1:{port}/")
    with answering(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000 + b"\r\n\r\n") as port:
        assert status(served.get(f"/fetch/http/127.0.0.1:{port}/")) == 502
    served.settle(before)


@pytest.mark.parametrize("concurrency", [1, 8])
def test_told_to_end_it_answers_what_it_has_begun_and_takes_nothing_else(concurrency: int) -> None:
    """Whether a thread is free to look after the connections or all wait for their clients."""
    head = b"POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    with serving(concurrency=concurrency) as served, contextlib.ExitStack() as stack:
        idle, silent, begun = (stack.enter_context(served.connect()) for _ in range(3))
        idle.sendall(HEAD + b"\r\n")
        greeting = b""
        while b"hello, component\n" not in greeting or (b"chunked" in greeting and not greeting.endswith(b"0\r\n\r\n")):
            greeting += idle.recv(4096)
        begun.sendall(head)
        assert begun.recv(4096).startswith(b"HTTP/1.1 100 ")  # a guest waits for the body
        served.interrupt()
        assert served.refuses()
        if concurrency > 1:
            assert idle.recv(4096) == silent.recv(4096) == b""
        begun.sendall(b"hello" + HEAD + b"\r\n")
        answer = everything(begun)
        assert (status(answer), answer.count(b"HTTP/1.1 ")) == (200, 1)
        assert b"\r\nconnection: close\r\n" in answer.lower()
        begun.close()
        assert served.ended() == 143


def test_told_to_end_while_nothing_goes_on() -> None:
    with serving() as served:
        served.interrupt()
        assert served.ended() == 143


@contextlib.contextmanager
def answering(data: bytes) -> Iterator[int]:
    """A server that says this to its first client and closes the connection."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def answer() -> None:
            with contextlib.suppress(OSError):
                sock, _ = listener.accept()
                with sock:
                    sock.recv(65536)
                    sock.sendall(data)

        thread = threading.Thread(target=answer)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)
