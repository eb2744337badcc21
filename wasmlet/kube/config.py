"""Where the API server is and who we are to it.

`load_identity` reads a kubeconfig (or the service account that a pod is given) with kubernetes-asyncio, which knows
exec plugins, OIDC and token rotation, and keeps from it the little that `wasmlet.kube.client` needs.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import ssl
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import attrs
import yaml

from wasmlet.errors import ConfigError

_KUBECONFIG_HELP = "give one with --kubeconfig FILE or in KUBECONFIG"


@attrs.define
class Identity:
    """An API server and the credentials to use with it.

    Attributes:
        server: base URL without a trailing slash.
        ssl_context: None for plain http.
        ca_file: path of the CA that signed the server's certificate; a first guess at the CA of the cluster's clients.
        certificate: path of our client certificate, where we have one.
        source: what to read again when the credentials are no longer accepted; None means in-cluster.
    """

    server: str
    ssl_context: ssl.SSLContext | None
    server_hostname: str | None
    proxy: str | None
    ca_file: Path | None
    certificate: Path | None
    source: Path | None
    context: str | None
    _configuration: Any

    async def headers(self) -> dict[str, str]:
        """Headers that authenticate a request; a token that has run out is refreshed first."""
        settings = await self._configuration.auth_settings()
        token = (settings.get("BearerToken") or {}).get("value")
        return {"Authorization": token} if token else {}

    async def reload(self) -> Identity:
        """The same identity with its credentials read anew."""
        return await load_identity(self.source, self.context)


async def load_identity(kubeconfig: Path | None = None, context: str | None = None) -> Identity:
    """Load the API server's address and our credentials.

    Without `kubeconfig`: `KUBECONFIG`, else the service account of the pod we run in, else `~/.kube/config`.

    Raises:
        ConfigError: nothing usable was found; the message names the file and what is wrong with it.
    """
    path = kubeconfig
    if path is None and (named := os.environ.get("KUBECONFIG")):
        path = Path(named.split(os.pathsep)[0])
    in_cluster = path is None and "KUBERNETES_SERVICE_HOST" in os.environ
    if path is None and not in_cluster:
        path = Path.home() / ".kube" / "config"
    # The import alone takes half a second: not on the loop.
    library = await asyncio.to_thread(importlib.import_module, "kubernetes_asyncio.config")
    client = await asyncio.to_thread(importlib.import_module, "kubernetes_asyncio.client")
    configuration = client.Configuration()
    if in_cluster:
        _load_in_cluster(library, configuration)
    else:
        assert path is not None
        await _load_file(library, path, context, configuration)
    return await asyncio.to_thread(_identity, configuration, path, context)


def _load_in_cluster(library: ModuleType, configuration: Any) -> None:
    try:
        library.load_incluster_config(client_configuration=configuration)
    except library.ConfigException as error:
        raise ConfigError(f"the pod's service account cannot be used: {error}; {_KUBECONFIG_HELP}") from None


async def _load_file(library: ModuleType, path: Path, context: str | None, configuration: Any) -> None:
    try:
        text = await asyncio.to_thread(path.read_bytes)
    except FileNotFoundError:
        raise ConfigError(f"kubeconfig {path}: there is no such file; {_KUBECONFIG_HELP}") from None
    except OSError as error:
        raise ConfigError(f"kubeconfig {path}: {error.strerror or error}; {_KUBECONFIG_HELP}") from None
    if not text.strip():
        raise ConfigError(f"kubeconfig {path}: the file is empty; {_KUBECONFIG_HELP}")
    try:
        await library.load_kube_config(
            config_file=str(path), context=context, client_configuration=configuration, persist_config=False
        )
    except (FileNotFoundError, PermissionError) as error:
        raise ConfigError(f"kubeconfig {path} cannot be used: {_unfound(text, context, error)}") from None
    except Exception as error:  # the loader raises whatever a wrong file makes it stumble over
        raise ConfigError(f"kubeconfig {path} cannot be used: {_one_line(error)}") from None
    if not configuration.host or configuration.host == "http://localhost":
        raise ConfigError(f"kubeconfig {path} cannot be used: its current context names no cluster with a server")


def _unfound(text: bytes, context: str | None, error: OSError) -> str:
    """Which file it was that could not be opened, or which credential plugin could not be run."""
    said = _one_line(error)
    try:
        content = yaml.safe_load(text)
        name = context or content["current-context"]
        user = next(each["context"]["user"] for each in content["contexts"] if each["name"] == name)
        plugin = next(each["user"]["exec"] for each in content["users"] if each["name"] == user)
        if error.filename not in (None, plugin["command"]):
            return said
        hint = f"; {' '.join(str(plugin['installHint']).split())}" if plugin.get("installHint") else ""
        return f"its credential plugin {plugin['command']!r} cannot be run: {error.strerror or said}{hint}"
    except (yaml.YAMLError, LookupError, TypeError, StopIteration):
        return said


def _identity(configuration: Any, path: Path | None, context: str | None) -> Identity:
    where = f"kubeconfig {path}" if path else "the pod's service account"
    server = str(configuration.host).rstrip("/")
    ssl_context = None
    if server.startswith("https://"):
        try:
            ssl_context = _ssl_context(configuration)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise ConfigError(f"{where}: a certificate or key in it cannot be used: {_one_line(error)}") from None
    elif not server.startswith("http://"):
        raise ConfigError(f"{where}: expected a server that begins with https://, found {server!r}")
    return Identity(
        server=server,
        ssl_context=ssl_context,
        server_hostname=configuration.tls_server_name,
        proxy=configuration.proxy or _environment_proxy(server),
        ca_file=Path(configuration.ssl_ca_cert) if configuration.ssl_ca_cert else None,
        certificate=Path(configuration.cert_file) if configuration.cert_file else None,
        source=path,
        context=context,
        configuration=configuration,
    )


def _environment_proxy(server: str) -> str | None:
    """The proxy that HTTPS_PROXY and its like name for the server. Looked up once: aiohttp would do it each time."""
    url = urlsplit(server)
    if url.hostname is None or proxy_bypass(url.hostname):
        return None
    return getproxies().get(url.scheme)


def _ssl_context(configuration: Any) -> ssl.SSLContext:
    ssl_context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if configuration.cert_file:
        ssl_context.load_cert_chain(configuration.cert_file, keyfile=configuration.key_file)
    if not configuration.verify_ssl:
        ssl_context.check_hostname = False
        ssl_context.verify_mode = ssl.CERT_NONE
    return ssl_context


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text or type(error).__name__
