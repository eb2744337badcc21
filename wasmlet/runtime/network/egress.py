"""The rules for which destinations a pod may connect to ("dial"): parses the annotations, and `--egress-max`.

    wasmlet.dev/egress: "api.example.com:443, *.example.org:443, db.default.svc:5432, 10.0.0.0/8:*, [fd00::/8]:443"

An entry is a DNS name, `*.` and a DNS name for all names below it, an address or a network (of IPv6 in brackets), then
a colon and a port, a range of ports (`8000-8999`) or `*`; `*` alone is everything. What is none of that is refused as a
whole, because a grant that is only partly understood is not what its author meant.
"""

from __future__ import annotations

import ipaddress
import json
import re
from urllib.parse import urlsplit

from wasmlet.errors import Refused, WasmletError
from wasmlet.model.pod import Pod
from wasmlet.worker.grants import MAX_NAME, MAX_RULES, Rule

ANNOTATION = "wasmlet.dev/egress"
KRUSTLET_ANNOTATION = "alpha.wasi.krustlet.dev/allowed-domains"
"""Of Krustlet's pods: a JSON list of origins (`https://api.example.com`)."""
KRUSTLET_ALL = "insecure:allow-all"

MAX_TEXT = 4096
"""Bytes of one annotation, and of `--egress-max`."""
EVERYTHING = Rule(name="*")

_LABEL = re.compile(r"[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?")
_ENTRY = re.compile(r"(?:\[(?P<bracketed>[^\[\]]*)\]|(?P<plain>[^:\[\]]*)):(?P<ports>[^:]*)")
_PORTS = re.compile(r"(?P<first>[0-9]{1,5})(?:-(?P<last>[0-9]{1,5}))?")
_FORM = "expected HOST:PORT with a DNS name, an address or a network (of IPv6 in brackets), and a port, a range or *"
_NUMERIC = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
"""IPv4 addresses in IPv6 form. Rules use the IPv4 form instead."""
_SCHEME_PORTS = {"http": 80, "https": 443}
_SHOWN = 80
"""How many characters of a wrong text an error message shows."""


class EgressError(WasmletError):
    """It is no list of rules; the message says what was expected and found."""


def of_pod(pod: Pod) -> tuple[Rule, ...]:
    """Whom the pod was granted to dial; nobody without an annotation.

    Raises:
        Refused: an annotation is no grant; names the annotation.
    """
    rules: dict[Rule, None] = {}
    for name, read in ((ANNOTATION, parse), (KRUSTLET_ANNOTATION, parse_origins)):
        text = pod.annotations.get(name)
        if text is None:
            continue
        try:
            rules |= dict.fromkeys(read(text))
        except EgressError as error:
            raise Refused(f"metadata.annotations[{name}]", str(error)) from None
    if len(rules) > MAX_RULES:
        raise Refused(f"metadata.annotations[{KRUSTLET_ANNOTATION}]", f"expected at most {MAX_RULES} rules in all")
    return tuple(rules)


def parse(text: str) -> tuple[Rule, ...]:
    """The rules of a text, in its order.

    Raises:
        EgressError: it is none.
    """
    _check_size(text)
    entries = [entry.strip() for entry in text.split(",")]
    if len(entries) > MAX_RULES:
        raise EgressError(f"expected at most {MAX_RULES} entries, found {len(entries)}")
    return tuple(map(_rule, entries))


def parse_origins(text: str) -> tuple[Rule, ...]:
    """The rules of Krustlet's annotation: a JSON list of origins, or of `insecure:allow-all`.

    Raises:
        EgressError: it is none.
    """
    _check_size(text)
    if text.strip() == KRUSTLET_ALL:
        return (EVERYTHING,)
    try:
        origins = json.loads(text)
    except (ValueError, RecursionError):
        origins = None
    if not isinstance(origins, list) or not all(isinstance(origin, str) for origin in origins):
        raise EgressError(f'expected a JSON list of origins such as ["https://api.example.com"], found {_found(text)}')
    if len(origins) > MAX_RULES:
        raise EgressError(f"expected at most {MAX_RULES} origins, found {len(origins)}")
    return tuple(map(_of_origin, origins))


def _check_size(text: str) -> None:
    size = len(text.encode(errors="surrogatepass"))
    if size > MAX_TEXT:
        raise EgressError(f"expected at most {MAX_TEXT} bytes, found {size}")


def _rule(entry: str) -> Rule:
    if entry == "*":
        return EVERYTHING
    if not entry:
        raise EgressError(f"{_FORM}, found an empty entry")
    if "://" in entry:
        raise EgressError(f"{_FORM}, found {_found(entry)}: leave the scheme out, and name the port")
    match = _ENTRY.fullmatch(entry)
    if match is None:
        raise EgressError(f"{_FORM}, found {_found(entry)}")
    first, last = _ports(match["ports"], entry)
    host = match["plain"] if match["bracketed"] is None else match["bracketed"]
    name, cidr = _host(host, entry, bracketed=match["bracketed"] is not None)
    return Rule(name, cidr, first, last)


def _ports(text: str, entry: str) -> tuple[int, int]:
    if text == "*":
        return 1, 65535
    match = _PORTS.fullmatch(text)
    first = int(match["first"]) if match else 0
    last = int(match["last"] or first) if match else 0
    if not 0 < first <= last <= 65535:
        raise EgressError(f"expected a port from 1 to 65535, a range such as 8000-8999, or *, found {_found(entry)}")
    return first, last


def _host(host: str, entry: str, *, bracketed: bool) -> tuple[str, str]:
    """Parse the host of an entry: (name, network), of which one is ""."""
    if host == "*" and not bracketed:
        return "*", ""
    # A text that looks like an address is never a name, because some resolvers would read it as an address.
    if bracketed or "/" in host or _NUMERIC.fullmatch(host.removesuffix(".").rpartition(".")[2]):
        return "", _network(host, entry, bracketed=bracketed)
    return _name(host, entry), ""


def _network(text: str, entry: str, *, bracketed: bool) -> str:
    try:
        found = ipaddress.ip_network(text)
    except ValueError as error:
        found, why = None, f": {error}" if "host bits" in str(error) else ""
    else:
        why = ""
    odd = "%" in text or text.partition("/")[2].strip("0123456789") != ""
    if isinstance(found, ipaddress.IPv6Network):
        odd = odd or found.subnet_of(_MAPPED)
    if found is None or (found.version == 6) != bracketed or odd:
        form = "a network of IPv6 such as [fd00::/8]" if bracketed else "a network such as 10.0.0.0/8"
        raise EgressError(f"expected {form}, found {_found(entry)}{why}")
    return str(found)


def _name(text: str, entry: str) -> str:
    name = text.lower().removesuffix(".") if text.isascii() else ""
    labels = name.removeprefix("*.").split(".")
    if len(name) > MAX_NAME or not all(map(_LABEL.fullmatch, labels)):
        raise EgressError(
            f"expected a DNS name, or *. and a DNS name (other letters than a to z as xn--), found {_found(entry)}"
        )
    return name


def _of_origin(origin: str) -> Rule:
    if origin == KRUSTLET_ALL:
        return EVERYTHING
    form = f"expected an origin such as https://api.example.com or http://api.example.com:8080, found {_found(origin)}"
    try:
        parts = urlsplit(origin)
        port = parts.port if parts.port is not None else _SCHEME_PORTS.get(parts.scheme, 0)
        host = parts.hostname or ""
    except ValueError:
        raise EgressError(form) from None
    plain = parts.path in ("", "/") and not (parts.query or parts.fragment) and "@" not in parts.netloc
    if parts.scheme not in _SCHEME_PORTS or not plain or not host or "*" in host or "/" in host:
        raise EgressError(form)
    return _rule(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


def _found(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
