"""The settings of `PluginProvider`, and the HTTP client that follows from them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import attrs
import httpx
from wasmlet_agent.protocol.addresses import is_loopback

from wasmlet import ConfigError, Quantity
from wasmlet.kube.connections import keepalive
from wasmlet.options import option
from wasmlet_remote.link import tls_context

PROTOCOL = "interlink"
ANSWER_SECONDS = 50.0
"""How long a plugin may take to answer: it may hand a job to a queue that is slow. A node gives a call a minute."""
CALLS = 4
"""Requests at once, beside logs: httpx gets slower with more, and few plugins do two things at a time."""


def _readable(settings: Any, field: attrs.Attribute[Any], path: Path | None) -> None:
    if path is None:
        return
    try:
        path.read_bytes()
    except OSError as error:
        raise ConfigError(f"--{field.name.replace('_', '-')} {path}: {error.strerror}") from None


def _endpoint(settings: Any, field: attrs.Attribute[Any], text: str) -> None:
    """TLS, or plain HTTP to this machine: pods and their secrets go there."""
    if not text:
        return
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.query or url.fragment:
        raise ConfigError(f"--endpoint: expected a URL such as https://plugin.example:4000, found {text!r}")
    if url.scheme == "http" and not is_loopback(url.host):
        raise ConfigError(
            f"--endpoint: plain http goes to a loopback address only, found {url.host}; "
            "use https, or a tunnel that ends on this machine"
        )


def _capacity(settings: Any, field: attrs.Attribute[Any], entries: tuple[str, ...]) -> None:
    for entry in entries:
        name, _, amount = entry.partition("=")
        try:
            Quantity.parse(amount)
        except ValueError:
            name = ""
        if not name:
            raise ConfigError(f"--capacity: expected a resource and a quantity, as cpu=64, found {entry!r}")


def _protocol(settings: Any, field: attrs.Attribute[Any], name: str) -> None:
    if name != PROTOCOL:
        raise ConfigError(f"--protocol: expected {PROTOCOL}, found {name!r}")


@attrs.frozen(kw_only=True)
class InterlinkConfig:
    """Where the plugin is, how it knows us, and what the node gives."""

    endpoint: str = option(
        "",
        help="URL of the plugin, as https://plugin.example:4000; plain http to a loopback address only.",
        validator=[_endpoint],
    )
    protocol: str = option(PROTOCOL, help="What is spoken at the endpoint.", validator=[_protocol])
    tls_ca_file: Path | None = option(
        None, help="Certificates that vouch for the endpoint; the system's without it.", validator=[_readable]
    )
    tls_cert_file: Path | None = option(
        None, help="Certificate (PEM) that is shown to the endpoint.", validator=[_readable]
    )
    tls_key_file: Path | None = option(None, help="Private key of --tls-cert-file.", validator=[_readable])
    token_file: Path | None = option(
        None, help="File with a bearer token for the endpoint; read again when it is refused.", validator=[_readable]
    )
    capacity: tuple[str, ...] = option(
        ("cpu=100", "memory=128Gi"),
        help="What the node gives, since a plugin does not say; may be given again.",
        validator=[_capacity],
    )

    def __attrs_post_init__(self) -> None:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ConfigError("--tls-cert-file and --tls-key-file: expected both or neither, found one of them")

    @property
    def resources(self) -> Mapping[str, str]:
        """The node's capacity, by resource."""
        return dict(entry.split("=", 1) for entry in self.capacity)

    def client(self) -> httpx.AsyncClient:
        """A client of the endpoint. It follows no redirects, and knows no proxy but what the endpoint is.

        Raises:
            ConfigError: there is no endpoint, or a file has not what it should have.
        """
        if not self.endpoint:
            raise ConfigError("which plugin? Give --endpoint URL, as https://plugin.example:4000")
        return httpx.AsyncClient(
            base_url=self.endpoint,
            auth=_Bearer(self.token_file) if self.token_file else None,
            headers={"Accept-Encoding": "identity"},
            transport=httpx.AsyncHTTPTransport(
                verify=tls_context(self) if self.endpoint.startswith("https:") else False,
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=CALLS),
                trust_env=False,
                socket_options=keepalive(),
            ),
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=10.0),
            trust_env=False,
        )


class _Bearer(httpx.Auth):
    """Shows the token of a file, which is read again when the token is refused: others may renew it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._token = ""

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        tried = self._token
        if tried:
            request.headers["Authorization"] = f"Bearer {tried}"
            response = yield request
            if response.status_code != 401:
                return
        self._token = await asyncio.to_thread(self._read)
        if self._token != tried:
            request.headers["Authorization"] = f"Bearer {self._token}"
            yield request

    def _read(self) -> str:
        try:
            return self._path.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--token-file {self._path} cannot be read: {error}") from None
