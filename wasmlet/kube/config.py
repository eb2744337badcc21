"""Where the API server is and who we are to it.

`load_identity` reads the same configuration as kubectl, and gives it the same meaning. The module `kubeconfig` reads
the files, `exec_plugin` and `oidc` get credentials from a plugin or an issuer, and `authorization` makes the header. An
`Identity` holds values and a TLS context, and writes no temporary files.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

import attrs
import structlog
from multidict import CIMultiDict

from wasmlet.clock import Clock, SystemClock
from wasmlet.errors import ConfigError
from wasmlet.kube import exec_plugin, grants, oidc
from wasmlet.kube.authorization import Authorization, Fixed, TokenFile, basic, bearer, escaped, sendable
from wasmlet.kube.grants import Granted
from wasmlet.kube.kubeconfig import HELP, Cluster, Kubeconfig, User, load, named_files
from wasmlet.proxies import Proxies, proxy_url
from wasmlet.tls import client_context, show, unverified_context

log = structlog.get_logger(__name__)

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@attrs.define
class Identity:
    """An API server and the credentials to use with it.

    Attributes:
        server: base URL without a trailing slash.
        ssl_context: None for plain http.
        server_hostname: the name that the server's certificate must have, if that is not the host of the URL.
        authority: the CA that signed the server's certificate, as a file or in PEM; a first guess at the CA of the
            cluster's clients.
        certificate: path of our client certificate, where it is in a file.
        source: the kubeconfig that was asked for; None means the default places (see `load_identity`).
        until: when the credentials end and have to be read anew; None means that it is not known.
    """

    server: str
    ssl_context: ssl.SSLContext | None
    server_hostname: str | None
    proxy: str | None
    authority: Path | bytes | None
    certificate: Path | None
    source: Path | None
    context: str | None
    until: datetime | None
    _authorization: Authorization
    _impersonated: tuple[tuple[str, str], ...]
    _clock: Clock
    _granted: Granted = attrs.field(repr=False)
    node: str = ""
    """The name of the node that requests impersonate; "" if they impersonate no node."""
    _lines: tuple[str | None, bytes] | None = attrs.field(default=None, init=False, repr=False)
    """`Authorization`, and all headers with it as lines."""

    async def headers(self) -> CIMultiDict[str]:
        """Headers that say who sends a request; a token file is read again when it is time."""
        headers = CIMultiDict(self._impersonated)
        if (value := await self._authorization.header()) is not None:
            headers["Authorization"] = value
        return headers

    async def lines(self) -> bytes:
        """The same headers as lines of a request in HTTP/1.1."""
        value = await self._authorization.header()
        if self._lines is None or self._lines[0] != value:
            headers = "".join(f"{name}: {text}\r\n" for name, text in (await self.headers()).items())
            self._lines = value, headers.encode()
        return self._lines[1]

    async def reload(self) -> Identity:
        """The same identity with its credentials read anew."""
        found = await load_identity(self.source, self.context, clock=self._clock, refused=self._granted)
        return found.as_node(self.node) if self.node else found

    def as_node(self, name: str) -> Identity:
        """The same credentials, with which requests are made as a node: `system:node:NAME` in group `system:nodes`.

        Whoever has them needs the right to impersonate that user and that group; the API server then looks at what
        the node may do, by the rules for nodes.

        Raises:
            ConfigError: the kubeconfig says already as whom requests are made.
        """
        if self._impersonated and not self.node:
            raise ConfigError(
                "the kubeconfig's user has `as`, and --impersonate-node makes requests as the node: leave one out"
            )
        headers = (("Impersonate-User", f"system:node:{name}"), ("Impersonate-Group", "system:nodes"))
        return attrs.evolve(self, impersonated=headers, node=name)


async def load_identity(
    kubeconfig: Path | None = None,
    context: str | None = None,
    *,
    clock: Clock | None = None,
    refused: Granted | None = None,
) -> Identity:
    """Load the API server's address and our credentials.

    Without `kubeconfig`: the files that `KUBECONFIG` lists, else the service account of the pod we run in, else
    `~/.kube/config`.

    Args:
        refused: what a plugin or an issuer gave before, and the API server does not accept any more.

    Raises:
        ConfigError: nothing usable was found; the message names the file and what is wrong with it.
    """
    clock = clock or SystemClock()
    where, found = await asyncio.to_thread(_found, kubeconfig)
    try:
        if isinstance(found, Kubeconfig):
            cluster, user = found.chosen(context)
        else:
            cluster, user = found
        _server(cluster.server)  # wrong ones are refused before a plugin is run
        cluster, user = await asyncio.to_thread(_with_contents, cluster, user)
        granted = await _granted(cluster, user, clock, refused)
        return await asyncio.to_thread(_identity, cluster, user, granted, (kubeconfig, context), clock)
    except ConfigError as error:
        raise ConfigError(f"{where} cannot be used: {error}") from None


def _found(kubeconfig: Path | None) -> tuple[str, Kubeconfig | tuple[Cluster, User]]:
    """What describes the API server, and what to call it in an error."""
    listed = named_files(os.environ) if kubeconfig is None else [kubeconfig]
    where = f"kubeconfig {os.pathsep.join(map(str, listed))}"
    if listed:
        config = load(listed)
        if not config.empty:
            return where, config
    if kubeconfig is None and (in_cluster := _in_cluster()) is not None:
        return "the pod's service account", in_cluster
    if not listed:
        listed = [Path.home() / ".kube" / "config"]
        where = f"kubeconfig {listed[0]}"
        config = load(listed)
        if not config.empty:
            return where, config
    present = [path for path in listed if path.exists()]
    if not present:
        raise ConfigError(f"{where}: there is no such file; {HELP}")
    if any(path.read_bytes().strip() for path in present):
        raise ConfigError(f"{where} cannot be used: it has no clusters, contexts and users")
    raise ConfigError(f"{where}: the file is empty; {HELP}")


def _in_cluster() -> tuple[Cluster, User] | None:
    """The service account of the pod we run in."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
    token, authority = SERVICE_ACCOUNT / "token", SERVICE_ACCOUNT / "ca.crt"
    if not host or not port or not token.is_file():
        return None
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    try:
        client_context(authority.read_bytes())
        file = str(authority)
    except (OSError, ValueError) as error:
        log.warning("the pod has no CA that can be used: the system's count", file=str(authority), error=str(error))
        file = ""
    return Cluster(server, authority_file=file), User(token_file=str(token))


def _server(text: str) -> str:
    """A server as kubeconfigs name it, as a URL without a trailing slash; without a scheme it is plain HTTP."""
    try:
        if any(character <= " " for character in text):  # urlsplit would pass over them
            raise ValueError
        parts = urlsplit(text)
        if not parts.scheme or not parts.netloc:
            parts = urlsplit(f"http://{text}")
            if parts.path not in ("", "/"):
                raise ValueError
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise ValueError
    except ValueError:
        shown = text.rpartition("@")[2]  # before it may stand a password
        raise ConfigError(f"expected a server as https://HOST:PORT, found {shown!r}") from None
    return parts._replace(query="", fragment="").geturl().rstrip("/")


def _with_contents(cluster: Cluster, user: User) -> tuple[Cluster, User]:
    """The same with the contents of the files that they name."""
    authority = cluster.authority or _contents("certificate-authority", cluster.authority_file)
    if cluster.authority_file and not authority:
        raise ConfigError(f"certificate-authority {cluster.authority_file}: the file is empty")
    if user.certificate_file or user.certificate:
        user = attrs.evolve(
            user,
            certificate=user.certificate or _contents("client-certificate", user.certificate_file),
            key=user.key or _contents("client-key", user.key_file),
        )
    return attrs.evolve(cluster, authority=authority), user


def _contents(field: str, file: str) -> bytes:
    if not file:
        return b""
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ConfigError(f"{field} {file}: {error.strerror or error}") from None


async def _granted(cluster: Cluster, user: User, clock: Clock, refused: Granted | None) -> Granted:
    """What a credential plugin or an issuer of tokens gives; nothing where the kubeconfig has credentials itself."""
    own = user.token or user.token_file or user.username
    if user.exec is not None:
        if own or user.certificate:
            exec_plugin.check(user.exec)
            return Granted()
        plugin, about = user.exec, json.dumps([cluster.raw(), cluster.extension], sort_keys=True, default=str)
        return await grants.shared((plugin, about), lambda _: exec_plugin.ask(plugin, cluster), refused, clock.now)
    if user.provider is not None:
        provider, name = user.provider, user.provider.name
        if name in ("gcp", "azure"):
            other = {"gcp": "gke-gcloud-auth-plugin", "azure": "kubelogin"}[name]
            raise ConfigError(f"auth-provider {name} is no more; use the credential plugin {other} (exec)")
        if name != "oidc":
            raise ConfigError(f"auth-provider: expected oidc, found {name!r}")
        if not own:
            key = (name, *sorted(provider.config.items()))
            ask = lambda last: oidc.ask(provider, clock.now(), last, refused)  # noqa: E731
            return await grants.shared(key, ask, refused, clock.now)
    return Granted()


def _identity(
    cluster: Cluster, user: User, granted: Granted, asked: tuple[Path | None, str | None], clock: Clock
) -> Identity:
    url = _server(cluster.server)
    parts = urlsplit(url)
    server = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return Identity(
        server=server,
        ssl_context=_ssl_context(cluster, user, granted) if parts.scheme == "https" else None,
        server_hostname=cluster.tls_server_name or None,
        proxy=_kubeconfigs_proxy(cluster.proxy_url) or Proxies.of_environment().before(server),
        authority=Path(cluster.authority_file) if cluster.authority_file else cluster.authority or None,
        certificate=Path(user.certificate_file) if user.certificate_file else None,
        source=asked[0],
        context=asked[1],
        until=granted.until,
        authorization=_authorization(url, user, granted, clock),
        impersonated=_impersonated(user),
        clock=clock,
        granted=granted,
    )


def _authorization(url: str, user: User, granted: Granted, clock: Clock) -> Authorization:
    """The header's source, in Go's order: what the URL has, the kubeconfig itself, and what was granted."""
    in_url = urlsplit(url)
    if in_url.username is not None:
        return basic(unquote(in_url.username), unquote(in_url.password or ""))
    if user.token:
        sendable(user.token, "the user's token")
    if user.token_file:
        return TokenFile.opened(Path(user.token_file), clock, user.token)
    if user.token:
        return bearer(user.token)
    if user.username:
        return basic(user.username, user.password)
    return bearer(granted.token) if granted.token else Fixed()


def _impersonated(user: User) -> tuple[tuple[str, str], ...]:
    """The headers of `as` and its like (apiserver, package authentication)."""
    headers = [("Impersonate-User", user.as_user), ("Impersonate-Uid", user.as_uid)]
    headers += [("Impersonate-Group", group) for group in user.as_groups]
    kept = [(name, sendable(value, name)) for name, value in headers if value]
    return (*kept, *((f"Impersonate-Extra-{escaped(key)}", sendable(value, key)) for key, value in user.as_extra))


def _kubeconfigs_proxy(text: str) -> str | None:
    """The proxy of a kubeconfig, which stands before every server, loopback too."""
    if not text:
        return None
    scheme = text.partition(":")[0].lower()
    if scheme not in ("http", "https", "socks5"):
        raise ConfigError("proxy-url: expected a proxy that begins with http://, https:// or socks5://")
    return proxy_url(text, "proxy-url")


def _ssl_context(cluster: Cluster, user: User, granted: Granted) -> ssl.SSLContext:
    if cluster.insecure and cluster.authority:
        raise ConfigError(
            "expected a certificate authority or insecure-skip-tls-verify: true, found both; the latter lets anybody "
            "stand in for the server, so leave one of them out"
        )
    try:
        context = unverified_context() if cluster.insecure else client_context(cluster.authority or None)
    except ValueError as error:
        raise ConfigError(f"its certificate authority: {error}") from None
    certificate, key = (user.certificate, user.key) if user.certificate else (granted.certificate, granted.key)
    if certificate:
        try:
            show(context, certificate, key)
        except ValueError as error:
            raise ConfigError(f"its client certificate: {error}") from None
    return context
