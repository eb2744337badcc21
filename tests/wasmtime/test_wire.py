"""The bytes of a connection that a guest asked for, by TLS: both ways, its end, and a server that is not trusted."""

from __future__ import annotations

import contextlib
import datetime
import os
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from wasmlet_wasmtime.p2 import wire
from wasmlet_wasmtime.p2.bodies import Broken
from wasmlet_wasmtime.p2.wire import Wire

NAME = "server.test"
BODY = os.urandom(1_000_000)
"""More than the system's buffers hold, so that both sides have to wait."""
SECONDS = 30.0


@pytest.fixture
def pem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A certificate for NAME, with its key; it is trusted."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = tmp_path / "server.pem"
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    context = ssl.create_default_context()
    context.load_verify_locations(file)
    monkeypatch.setitem(wire._trusted, ("http/1.1",), context)
    return file


@contextlib.contextmanager
def echo(pem: Path, *, says_goodbye: bool = True) -> Iterator[socket.socket]:
    """A connection to a server of TLS that sends back BODY when it has all of it, and then ends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    ours, theirs = socket.socketpair()
    theirs.settimeout(SECONDS)

    def serve() -> None:
        with theirs, contextlib.suppress(OSError):  # where the client refuses it
            secure = context.wrap_socket(theirs, server_side=True)
            with secure:
                got = b""
                while len(got) < len(BODY):
                    got += secure.recv(65536)
                secure.sendall(got)
                if says_goodbye:
                    secure.unwrap()

    thread = threading.Thread(target=serve)
    thread.start()
    ours.setblocking(False)
    try:
        yield ours
    finally:
        ours.close()
        thread.join(SECONDS)


def talk(one: Wire, out: bytearray) -> None:
    """Send BODY, and take what comes until the end."""
    sent = False
    while True:
        if one.shake() and not sent:
            sent = True
            one.plain += BODY
        one.write()
        data = one.receive() if one.shaken else None
        if data is None:
            waits = select.poll()
            for descriptor, events in one.polls():
                waits.register(descriptor, events)
            assert waits.poll(SECONDS * 1000)
        elif not data:
            return
        else:
            out += data


@contextlib.contextmanager
def wired(sock: socket.socket, host: str) -> Iterator[Wire]:
    one = Wire(host)
    assert not one.connected
    one.descriptor = sock.detach()
    try:
        yield one
    finally:
        descriptor = one.descriptor
        one.close()
        assert not one.connected
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_bytes_go_both_ways_to_the_end(pem: Path) -> None:
    out = bytearray()
    with echo(pem) as sock, wired(sock, NAME) as one:
        talk(one, out)
    assert out == BODY


def test_an_end_that_is_not_said_is_no_end(pem: Path) -> None:
    """Somebody else may have cut it."""
    out = bytearray()
    with echo(pem, says_goodbye=False) as sock, wired(sock, NAME) as one:
        with pytest.raises(Broken) as raised:
            talk(one, out)
        assert one.ended
    assert out == BODY
    assert raised.value.code == ("connection-terminated", None)


def test_a_server_that_is_another_one_is_told_nothing(pem: Path) -> None:
    with echo(pem) as sock, wired(sock, "other.test") as one:
        with pytest.raises(Broken) as raised:
            talk(one, bytearray())
        assert not one.plain
    assert raised.value.code == ("TLS-certificate-error", None)


def test_what_is_no_tls(pem: Path) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs, wired(ours, NAME) as one:
        theirs.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        with pytest.raises(Broken) as raised:
            talk(one, bytearray())
    assert raised.value.code == ("TLS-protocol-error", None)
