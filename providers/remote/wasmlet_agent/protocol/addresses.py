"""Checks of addresses and host names in the settings of an agent or a node loop."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from wasmlet.errors import ConfigError


def is_loopback(host: str) -> bool:
    """Whether a host of a URL is this machine: what goes there needs no TLS."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_host(name: str) -> bool:
    """Whether a resolver can be asked for a name; it raises something unforeseen for one that no DNS can have."""
    try:
        return bool(name.encode("idna"))
    except UnicodeError:
        return False


def host_of(authority: str) -> str:
    """The host of `HOST:PORT` or `HOST`, as in a request's Host; "" where it has another form."""
    try:
        return urlsplit(f"//{authority}").hostname or ""
    except ValueError:
        return ""


def listen_address(text: str) -> tuple[str, int]:
    """Address and port of `--listen`.

    Raises:
        ConfigError: it has another form than ADDRESS:PORT.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        ipaddress.ip_address(host)
        if not port.isdigit() or int(port) > 65535:
            raise ValueError
    except ValueError:
        raise ConfigError(f"--listen: expected ADDRESS:PORT, found {text!r}") from None
    return host, int(port)
