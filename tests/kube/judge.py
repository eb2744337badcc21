"""An API server with TLS on loopback that notes who came, and a row of a table that kubectl and wasmlet both answer."""

from __future__ import annotations

import asyncio
import base64
import datetime
import http.server
import ipaddress
import json
import os
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import attrs
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from wasmlet.errors import WasmletError
from wasmlet.kube import Client, Identity, errors, load_identity

V1, V1BETA1 = "client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"
_LIFE = datetime.timedelta(days=2)


@attrs.frozen
class Pki:
    """An authority, a server of it and a client of it, in PEM.

    Attributes:
        server: certificate and key.
    """

    authority: bytes
    server: bytes
    certificate: bytes
    key: bytes

    @classmethod
    def made(cls, *, identifiers: bool = True, common_name_only: bool = False) -> Pki:
        """Certificates with key identifiers and usages, or as simple as EKS makes them."""
        owner, server, client = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
        names: list[x509.GeneralName] = [
            x509.DNSName("localhost"),
            x509.DNSName("api.test"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        ]
        root = _signed("authority", owner, "authority", owner, authority=True, identifiers=identifiers)
        of_server = _signed(
            "127.0.0.1", server, "authority", owner, names=[] if common_name_only else names, identifiers=identifiers
        )
        of_client = _signed("node", client, "authority", owner, identifiers=identifiers)
        return cls(root, of_server + _pem(server), of_client, _pem(client))


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _signed(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    by: ec.EllipticCurvePrivateKey,
    *,
    authority: bool = False,
    names: list[x509.GeneralName] | None = None,
    identifiers: bool,
) -> bytes:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _LIFE)
        .not_valid_after(now + _LIFE)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if identifiers:
        usage = x509.KeyUsage(True, False, False, False, False, authority, authority, False, False)
        builder = (
            builder.add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
        )
    return builder.sign(by, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@attrs.frozen
class Caller:
    """Who came, as far as the server can see."""

    authorization: str | None
    certificate: bool
    impersonated: tuple[tuple[str, str], ...]


def jwt(year: int) -> str:
    """An ID token that ends with a year."""
    end = datetime.datetime(year, 12, 31, tzinfo=datetime.UTC).timestamp()
    claims = base64.urlsafe_b64encode(json.dumps({"sub": "alice", "exp": int(end)}).encode()).decode().rstrip("=")
    return f"e30.{claims}.signed"


class Server:
    """Accepts the token `good`, the user `alice` with password `secret`, and the clients of its authority."""

    def __init__(self, pki: Pki, directory: Path, *, tls: bool = True) -> None:
        self.pki = pki
        self.seen: list[Caller] = []
        self.refreshed: list[str] = []
        """The refresh tokens that came to the issuer, which is the same server."""
        self.refresh_token = "refresh"
        """The one that the issuer takes."""
        self.rotates = False
        """Whether it takes each but once, and gives another."""
        self.tokens_end = 2999
        """The year in which the ID tokens end that it gives."""
        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.handle_error = lambda *_: None  # type: ignore[method-assign]
        if tls:
            file = directory / "server.pem"
            file.write_bytes(pki.server)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(file)
            context.load_verify_locations(cadata=pki.authority.decode())
            context.verify_mode = ssl.CERT_OPTIONAL
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self._http.server_port
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"

    @contextmanager
    def serving(self) -> Iterator[Server]:
        thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            thread.join()
            self._http.server_close()

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        server, basic = self, "Basic " + base64.b64encode(b"alice:secret").decode()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                """The token endpoint of an issuer."""
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                server.refreshed.append(form["refresh_token"][0])
                known = form["grant_type"] == ["refresh_token"] and form["refresh_token"] == [server.refresh_token]
                answer = {"token_type": "Bearer", "access_token": "a", "id_token": jwt(server.tokens_end)}
                if known and server.rotates:
                    server.refresh_token = answer["refresh_token"] = f"{server.refresh_token}+"
                self._answer(200 if known else 401, answer)

            def do_GET(self) -> None:
                if self.path == "/.well-known/openid-configuration":
                    self._answer(200, {"issuer": server.url, "token_endpoint": f"{server.url}/token"})
                    return
                given = self.headers.get("Authorization")
                certificate = isinstance(self.connection, ssl.SSLSocket) and bool(self.connection.getpeercert())
                names = {name.lower() for name in self.headers if name.startswith("Impersonate-")}
                told = sorted({(name, value) for name in names for value in self.headers.get_all(name, [])})
                server.seen.append(Caller(given, certificate, tuple(told)))
                known = given in ("Bearer good", f"Bearer {jwt(2999)}", basic) or (certificate and given is None)
                body: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 401}
                if known:
                    body = {"kind": "APIResourceList", "groupVersion": "v1", "resources": []}
                self._answer(200 if known else 401, body)

            def _answer(self, status: int, body: Mapping[str, Any]) -> None:
                text = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(text)

        return Handler


@attrs.define
class At:
    """Where a row of the table is answered: a directory of its own, the server, and the environment of the callers."""

    directory: Path
    server: Server
    other: Pki
    """Of another authority than the server's."""
    env: dict[str, str] = attrs.field(factory=dict)

    @property
    def authority(self) -> str:
        return base64.b64encode(self.server.pki.authority).decode()

    def file(self, name: str, content: str | bytes | Mapping[str, Any]) -> Path:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Mapping):
            content = yaml.safe_dump(dict(content), sort_keys=False)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def plugin(self, body: str, name: str = "plugin") -> str:
        path = self.file(name, f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return str(path)

    def says(self, answer: object, name: str = "plugin") -> str:
        """A credential plugin that prints this."""
        text = answer if isinstance(answer, str) else json.dumps(answer)
        return self.plugin(f"cat <<'E'\n{text}\nE", name)

    def config(
        self, user: Mapping[str, Any] | None = None, cluster: Mapping[str, Any] | None = None, **top: Any
    ) -> dict[str, Any]:
        """A kubeconfig with these fields; without any it is good. A value that is Ellipsis takes a field out."""
        fields = {"server": self.server.url, "certificate-authority-data": self.authority, **(cluster or {})}
        made = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "k", "cluster": {k: v for k, v in fields.items() if v is not ...}}],
            "users": [{"name": "u", "user": {"token": "good"} if user is None else user}],
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
            "current-context": "c",
            **{name.replace("_", "-"): value for name, value in top.items()},
        }
        return {name: value for name, value in made.items() if value is not ...}


def credential(version: str = V1, **status: Any) -> dict[str, Any]:
    return {"apiVersion": version, "kind": "ExecCredential", "status": status}


def issued(at: At, **config: Any) -> dict[str, Any]:
    """A user of OpenID Connect. A value that is Ellipsis takes a field out."""
    fields = {
        "idp-issuer-url": at.server.url,
        "idp-certificate-authority-data": at.authority,
        "client-id": "wasmlet",
        "client-secret": "s",
        **{name.replace("_", "-"): value for name, value in config.items()},
    }
    kept = {name: value for name, value in fields.items() if value is not ...}
    return {"auth-provider": {"name": "oidc", "config": kept}}


def plugged(command: str, **more: Any) -> dict[str, Any]:
    """A user whose credentials a plugin gives. A value that is Ellipsis takes a field out."""
    fields = {"apiVersion": V1, "command": command, "interactiveMode": "Never", **more}
    return {"exec": {name: value for name, value in fields.items() if value is not ...}}


async def kubectl_says(
    kubectl: Path, kubeconfig: Path | None, env: Mapping[str, str], seconds: int = 10
) -> tuple[bool, str]:
    """Whether kubectl reaches the server, and what it has to say."""
    given = ["--kubeconfig", str(kubeconfig)] if kubeconfig is not None else []
    process = await asyncio.create_subprocess_exec(
        kubectl,
        *given,
        f"--request-timeout={seconds}s",
        "get",
        "--raw",
        "/api/v1",
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd="/",
    )
    said, _ = await process.communicate()
    return process.returncode == 0, said.decode()[-600:]


async def wasmlet_says(kubeconfig: Path | None) -> tuple[bool, str]:
    """The same of wasmlet, in this process and its environment."""
    try:
        async with asyncio.timeout(30), Client(await load_identity(kubeconfig)) as client:
            await client.get("/api/v1")
    except WasmletError as error:
        return False, str(error)
    return True, ""


def environment(more: Mapping[str, str], home: Path) -> dict[str, str]:
    """The environment of both callers: nobody's proxies, kubeconfig or cluster."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and name != "KUBECONFIG" and not name.startswith("KUBERNETES_")
    }
    return {**kept, "HOME": str(home), **more}


async def accepted(identity: Identity) -> bool:
    """Whether the API server knows who this is."""
    async with Client(identity) as client:
        try:
            await client.get("/api/v1")
        except errors.Unauthorized:
            return False
    return True
