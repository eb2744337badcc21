"""The formats of strings that a schema of a custom resource may demand; a format that is not here is not checked."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable
from datetime import date, datetime
from urllib.parse import urlsplit

_UUID = r"[0-9a-f]{8}-?[0-9a-f]{4}-?%s[0-9a-f]{3}-?%s[0-9a-f]{3}-?[0-9a-f]{12}"
_ANY = "[0-9a-f]"
_LABEL = r"[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?"
_SHORT = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_LONG = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_DURATION = re.compile(
    r"[-+]?(\d+(\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)((\d+(\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h))*|[-+]?0"
)
_UNITS = (
    "ns|nano|nanosecond|nanoseconds|us|µs|μs|micro|microsecond|microseconds|ms|milli|millisecond|milliseconds|"
    "s|sec|second|seconds|m|min|minute|minutes|h|hr|hour|hours|d|day|days|w|wk|week|weeks"
)
_SCALA = re.compile(rf"(\d+(\.\d+)?\s*({_UNITS})\s*)+")
_DATE_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ](\d{2}:\d{2}(:\d{2}([.,]\d{1,9})?)?)([Zz]|[-+]\d{2}:?\d{2})?", re.ASCII)


def _matches(pattern: str, flags: int = 0) -> Callable[[str], bool]:
    compiled = re.compile(pattern, flags | re.ASCII)
    return lambda text: compiled.fullmatch(text) is not None


def _tries(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    return check


def _date_time(text: str) -> datetime:
    if not _DATE_TIME.fullmatch(text):
        raise ValueError
    return datetime.fromisoformat(text.replace(",", "."))


def _uri(text: str) -> None:
    """What Go's `url.ParseRequestURI` takes: a path, or a URL with a scheme; no spaces, no control characters."""
    parts = urlsplit(text)
    if any(ord(char) <= 32 or ord(char) == 127 for char in text) or not (parts.scheme or text.startswith("/")):
        raise ValueError
    _ = parts.port


def _cidr(text: str) -> None:
    address, slash, bits = text.partition("/")
    if not slash or not bits.isascii() or not bits.isdigit() or int(bits) > ipaddress.ip_address(address).max_prefixlen:
        raise ValueError


def _base64(text: str) -> None:
    try:
        base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError from error


def _hostname(text: str) -> bool:
    return len(text) <= 253 and all(re.fullmatch(_LABEL, part) for part in text.removesuffix(".").split("."))


_IGNORE = re.IGNORECASE
_FORMATS: dict[str, Callable[[str], bool]] = {
    "uri": _tries(_uri),
    "email": _matches(r"[^\s@]+@[^\s@]+"),
    "hostname": _hostname,
    "ipv4": _tries(ipaddress.IPv4Address),
    "ipv6": _tries(ipaddress.IPv6Address),
    "cidr": _tries(_cidr),
    "mac": _matches(
        r"([0-9a-f]{2}[:-]){5}[0-9a-f]{2}|([0-9a-f]{2}[:-]){7}[0-9a-f]{2}|([0-9a-f]{4}\.){2,3}[0-9a-f]{4}", _IGNORE
    ),
    "uuid": _matches(_UUID % (_ANY, _ANY), _IGNORE),
    "uuid3": _matches(_UUID % ("3", _ANY), _IGNORE),
    "uuid4": _matches(_UUID % ("4", "[89ab]"), _IGNORE),
    "uuid5": _matches(_UUID % ("5", "[89ab]"), _IGNORE),
    "hexcolor": _matches(r"#?([0-9a-f]{3}|[0-9a-f]{6})", _IGNORE),
    "byte": _tries(_base64),
    "password": lambda text: True,
    "date": _tries(date.fromisoformat),
    "datetime": _tries(_date_time),
    "duration": lambda text: bool(_DURATION.fullmatch(text) or _SCALA.fullmatch(text)),
    "k8sshortname": _matches(_SHORT),
    "k8slongname": lambda text: len(text) <= 253 and re.fullmatch(_LONG, text) is not None,
}


def check(name: str) -> Callable[[str], bool] | None:
    """The function that tells whether a text is of a format; None where that format is not checked."""
    return _FORMATS.get(name.replace("-", ""))
