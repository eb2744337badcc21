"""Finds the proxy for a server in the environment variables, by the rules of Go (its package httpproxy).

`HTTPS_PROXY` is for servers with TLS and `HTTP_PROXY` for those without. If the name in capital letters is not set, the
same name in small letters is read. A server on loopback never has a proxy. `NO_PROXY` lists other servers without one:
addresses, networks in CIDR notation, names (with all names below them), names with a leading dot (only the names below
them), each of them perhaps with a port, or `*` for all servers.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

import attrs

from wasmlet.errors import ConfigError

SCHEMES = ("http", "https", "socks5", "socks5h")
_PORTS = {"http": 80, "https": 443}

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@attrs.frozen
class Proxies:
    """The proxies that an environment names.

    Attributes:
        proxies: by the scheme of the server: what an error calls its proxy, and the variable's value.
        no_proxy: the value of `NO_PROXY`; entries are separated by commas.
    """

    proxies: Mapping[str, tuple[str, str]]
    no_proxy: str

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] | None = None) -> Proxies:
        found = os.environ if environment is None else environment

        def either(name: str) -> str:
            return found.get(name) or found.get(name.lower()) or ""

        named = {"http": "HTTP_PROXY", "https": "HTTPS_PROXY"}
        return cls(
            {
                scheme: (f"the proxy in the environment ({name})", value)
                for scheme, name in named.items()
                if (value := either(name))
            },
            either("NO_PROXY"),
        )

    def check(self) -> None:
        """Check that each variable holds the URL of a proxy.

        Raises:
            ConfigError: one does not.
        """
        for name, value in self.proxies.values():
            proxy_url(value, name)

    def before(self, url: str) -> str | None:
        """The URL of the proxy through which the server at `url` is reached; None if there is no proxy.

        Raises:
            ConfigError: the variable for this server does not hold the URL of a proxy.
        """
        parts = urlsplit(url)
        name, value = self.proxies.get(parts.scheme, ("", ""))
        if not value or not parts.hostname or self._bypassed(parts.hostname, parts.port or _PORTS[parts.scheme]):
            return None
        return proxy_url(value, name)

    def _bypassed(self, host: str, port: int) -> bool:
        if host == "localhost":
            return True
        address = _address(host)
        if address is not None and address.is_loopback:
            return True
        name = host.lower()
        if address is None and not name.isascii():
            name = _ascii(name)
        return any(_matches(entry.strip().lower(), name, address, port) for entry in self.no_proxy.split(","))


def proxy_url(value: str, where: str) -> str:
    """The URL of a proxy, as a variable or a kubeconfig names it; HOST:PORT means HTTP.

    Args:
        where: what an error calls the place where the value was found.

    Raises:
        ConfigError: the value is not the URL of a proxy, or the kind of proxy is not known.
    """
    parts = _split(value if "://" in value else f"http://{value}")
    # The value is not shown: it may have a password in it.
    if parts is None or not parts.hostname:
        raise ConfigError(f"{where}: expected the URL of a proxy, as http://proxy.example:3128")
    if parts.scheme not in SCHEMES:
        raise ConfigError(f"{where}: expected a proxy of {', '.join(SCHEMES)}, found scheme {parts.scheme!r}")
    return parts.geturl()


def _split(value: str) -> SplitResult | None:
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        return None
    return parts


def _matches(entry: str, host: str, address: _Address | None, port: int) -> bool:
    """Whether an entry of NO_PROXY covers a server. An entry that makes no sense covers none."""
    if not entry:
        return False
    if entry == "*":
        return True
    if "/" in entry:
        # Python takes a mask (10.0.0.0/255.0.0.0) for a network too; Go, and so kubectl, does not.
        if address is None or not entry.rpartition("/")[2].isdecimal():
            return False
        try:
            network = ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
        return address in network
    name, of_port = _parted(entry)
    if of_port and of_port != str(port):
        return False
    meant = _address(name)
    if meant is not None or address is not None:
        return meant == address
    name = name.removeprefix("*") if name.startswith("*.") else name
    if not name:
        return False
    if not name.isascii():
        name = _ascii(name)
    return host.endswith(name) if name.startswith(".") else host == name or host.endswith(f".{name}")


def _parted(entry: str) -> tuple[str, str]:
    """The host and the port of an entry; the port is "" if it has none. `[...]` without a port stays as it is."""
    if entry.startswith("[") and "]:" in entry:
        host, _, port = entry[1:].partition("]:")
        return host, port
    if entry.count(":") == 1:
        host, _, port = entry.partition(":")
        return host, port
    return entry, ""


def _address(text: str) -> _Address | None:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def _ascii(name: str) -> str:
    try:
        return name.encode("idna").decode("ascii")
    except UnicodeError:
        return name
