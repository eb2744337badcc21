"""Small real servers on loopback for what the node asks of a pod: HTTP, HTTPS, gRPC, and such that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Connection = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def http_server(handler: Handler, tls: ssl.SSLContext | None = None, ip: str = "127.0.0.1") -> AsyncIterator[int]:
    """A server; its port."""
    runner = web.ServerRunner(web.Server(handler))
    await runner.setup()
    site = web.TCPSite(runner, ip, 0, ssl_context=tls)
    await site.start()
    try:
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def tcp_server(talk: Connection, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server that does this with each connection; its port."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def certificate(directory: Path) -> ssl.SSLContext:
    """TLS with a certificate that nobody trusts, for another name, and long expired."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "elsewhere")])
    then = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(then)
        .not_valid_after(then + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("192.0.2.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = directory / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


def health(answers: dict[str, bytes], status: str = "0", message: str = "") -> Connection:
    """A server of gRPC's health check: the answer of each service, as the message's bytes."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        connection.initiate_connection()
        asked = b""
        while received := await reader.read(65536):
            for event in connection.receive_data(received):
                if isinstance(event, DataReceived):
                    asked += event.data
                elif isinstance(event, StreamEnded):
                    service = asked[7:].decode()
                    head = [(":status", "200"), ("content-type", "application/grpc")]
                    if status != "0" or service not in answers:
                        code = status if status != "0" else "5"
                        head += [("grpc-status", code), ("grpc-message", message or "unknown service")]
                        connection.send_headers(event.stream_id, head, end_stream=True)
                    else:
                        data = answers[service]
                        connection.send_headers(event.stream_id, head)
                        connection.send_data(event.stream_id, b"\0" + len(data).to_bytes(4, "big") + data)
                        connection.send_headers(event.stream_id, [("grpc-status", "0")], end_stream=True)
            writer.write(connection.data_to_send())
            await writer.drain()

    return talk
