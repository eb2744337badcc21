"""Which capabilities an actor is granted: those that its signature claims and its pod asks for.

wascc.wasmlet.dev/capabilities: logging, extras           names; `wascc:` may be left out
wascc.wasmlet.dev/keyvalue: memory                        or redis://HOST[:PORT][/DATABASE], with an egress grant;
                                                          several as BINDING=redis://...; rediss:// for TLS
wascc.wasmlet.dev/messaging: nats://HOST[:PORT]           with an egress grant; tls:// for TLS
wascc.wasmlet.dev/subscriptions: orders.new, audit.>      the subjects whose messages the actor is told
wascc.wasmlet.dev/acme.clock: '{"zone": "UTC"}'           acme:clock of another distribution, and its settings

A volume that the container mounts asks for `wascc:blobstore`. `wascc:http_server` needs no asking, as components that
serve need none: a port, or the variable `PORT`, says where.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Collection, Iterator
from typing import Any
from urllib.parse import urlsplit

import attrs

from wasmlet import Refused
from wasmlet.model.pod import Container, Pod

PREFIX = "wascc.wasmlet.dev/"
HTTP, BLOBS, KEYVALUE, MESSAGING = "wascc:http_server", "wascc:blobstore", "wascc:keyvalue", "wascc:messaging"
OWN = (BLOBS, "wascc:extras", HTTP, KEYVALUE, "wascc:logging", MESSAGING)
"""The capabilities that every node with this provider has."""
_EGRESS = "wasmlet.dev/egress"
_TOKEN_MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_SCHEMES = {"keyvalue": ("redis", "rediss"), "messaging": ("nats", "tls")}
_SECRETS = {"keyvalue": "REDIS_PASSWORD", "messaging": "NATS_TOKEN, or NATS_USER and NATS_PASSWORD"}
_MOST_NAMES, _MOST_SETTINGS, _LONGEST = 64, 32, 4096
_OTHER = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]*)\.([A-Za-z0-9][A-Za-z0-9_-]*)")


@attrs.frozen
class Asked:
    """What a pod asks for, for one of its containers.

    Attributes:
        names: of capabilities.
        settings: by the name of a capability.
        bindings: for the blob store: from the name of a volume to the path of its mount. If there is only one, the name
            `default` is for it, too.
    """

    names: tuple[str, ...]
    settings: dict[str, dict[str, str]]
    bindings: dict[str, str]

    @classmethod
    def of(cls, pod: Pod, container: Container) -> Asked:
        """What the pod asks for this container.

        Raises:
            Refused: an annotation is not valid; the error names it.
        """
        names: dict[str, None] = {}
        settings: dict[str, dict[str, str]] = {}
        for key, value in pod.annotations.items():
            if key.startswith(PREFIX):
                for name, found in _annotation(key.removeprefix(PREFIX), value):
                    names[name] = None
                    settings[name] = settings.get(name, {}) | found
                if len(names) > _MOST_NAMES:  # the actor is told of each, and so is the pod's owner, by an event
                    raise Refused(
                        f"metadata.annotations[{key}]", f"the pod asks for more than {_MOST_NAMES} capabilities"
                    )
        ports = [port for port in container.raw.get("ports") or () if (port.get("protocol") or "TCP") == "TCP"]
        bus = settings.get(MESSAGING, {})
        if MESSAGING in names and not bus:
            raise _refused("capabilities", f"{PREFIX}messaging beside it, which names the server", "none")
        if "subscriptions" in bus and "url" not in bus:
            raise _refused("subscriptions", f"{PREFIX}messaging beside it, which names the server", "none")
        if ports:
            names[HTTP] = None
        bindings = _bindings(container)
        if bindings:
            names[BLOBS] = None
        return cls(tuple(names), settings, bindings)


@attrs.frozen
class Decision:
    """What an actor is granted.

    Attributes:
        granted: names of capabilities.
        refused: why an actor does not get the others that it claims or is asked for, by name.
        unclaimed: of these, those that the pod asks for and the signature does not claim.
    """

    granted: tuple[str, ...]
    refused: dict[str, str]
    unclaimed: tuple[str, ...]


def decide(claimed: Collection[str], asked: Collection[str], installed: Collection[str]) -> Decision:
    """What an actor is granted.

    Args:
        claimed: by its signature.
        asked: by its pod.
        installed: what this node has.
    """
    claimed, refused = dict.fromkeys(claimed), {}  # a signature may name one twice
    for name in claimed:
        if name not in installed:
            refused[name] = "this node does not have it"
        elif name not in asked and name != HTTP:
            refused[name] = f"its pod does not ask for it ({_advice(name)})"
    unclaimed = tuple(name for name in asked if name not in claimed)
    refused |= dict.fromkeys(unclaimed, "its signature does not claim it")
    return Decision(tuple(name for name in claimed if name not in refused), refused, unclaimed)


def annotations_for(claimed: Collection[str]) -> dict[str, str]:
    """The annotations by which a pod asks for these capabilities; words in capital letters are to be filled in."""
    words = [name.removeprefix("wascc:") for name in claimed if name not in (HTTP, BLOBS, KEYVALUE, MESSAGING)]
    found = {"capabilities": ", ".join(words)} if words else {}
    if KEYVALUE in claimed:
        found["keyvalue"] = "memory"
    if MESSAGING in claimed:
        found |= {"messaging": "nats://HOST:4222", "subscriptions": "SUBJECT"}
    annotations = {PREFIX + key: value for key, value in found.items()}
    return annotations | ({_EGRESS: "HOST:4222"} if MESSAGING in claimed else {})


def _advice(name: str) -> str:
    """How a pod asks for a capability."""
    if name == BLOBS:
        return "a volume that the container mounts does"
    if name in (KEYVALUE, MESSAGING):
        return f"annotation {PREFIX}{name.partition(':')[2]} does"
    return f"annotation {PREFIX}capabilities does"


def _annotation(key: str, value: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The capabilities that an annotation asks for, with their settings.

    Raises:
        Refused: it is not valid.
    """
    if key == "capabilities":
        for word in re.split(r"[\s,]+", value.strip()):
            if word:
                yield (word if ":" in word else f"wascc:{word}"), {}
    elif key == "keyvalue" and value == "memory":
        yield KEYVALUE, {}
    elif key == "keyvalue":
        yield KEYVALUE, _urls(value)
    elif key == "messaging":
        yield MESSAGING, {"url": _url(key, value)}
    elif key == "subscriptions":
        yield MESSAGING, {"subscriptions": _subjects(value)}
    elif (found := _OTHER.fullmatch(key)) and f"{found[1]}:{found[2]}" not in OWN:
        yield f"{found[1]}:{found[2]}", _settings(key, value)
    else:
        raise _refused(key, "capabilities, keyvalue, messaging, subscriptions, or the name of a capability", key)


def _urls(value: str) -> dict[str, str]:
    """The URLs of an annotation by the names of their bindings."""
    _without_secrets("keyvalue", value)
    found: dict[str, str] = {}
    for word in re.split(r"[\s,]+", value.strip()):
        binding, equals, url = word.partition("=")
        if not equals or ":" in binding:
            binding, url = "default", word
        if binding in found or len(found) >= _MOST_SETTINGS:
            raise _refused("keyvalue", f"at most {_MOST_SETTINGS} bindings, each once", binding)
        found[binding] = _url("keyvalue", url)
    return found


def _without_secrets(key: str, value: str) -> None:
    """Check that the annotation holds no password.

    The error does not show the value: people who may not read the pod may read its events.

    Raises:
        Refused: it may.
    """
    if "@" in value or "?" in value:
        raise Refused(
            f"metadata.annotations[{PREFIX}{key}]",
            "has '@' or '?', as a URL with a user or a password, which everybody sees who sees the pod; put it into "
            f"the container's variable {_SECRETS[key]}, from a Secret",
        )


def _url(key: str, value: str) -> str:
    _without_secrets(key, value)
    more = "[/DATABASE]" if key == "keyvalue" else ""
    expected = " or ".join(f"{scheme}://HOST[:PORT]{more}" for scheme in _SCHEMES[key])
    expected += ", or memory" if key == "keyvalue" else ""
    try:
        parts = urlsplit(value)
        good = parts.scheme in _SCHEMES[key] and parts.hostname and (parts.port is None or parts.port)
    except ValueError:
        good = False
    path = parts.path.strip("/") if good else ""
    if not good or parts.fragment or (path and not (key == "keyvalue" and path.isdigit())):
        raise _hidden(key, expected)
    return value


def _subjects(value: str) -> str:
    for word in re.split(r"[\s,]+", value.strip()):
        tokens = word.split(".")
        wild = [token for token in tokens if set("*>") & set(token)]
        if not all(tokens) or not {"*", ">"}.issuperset(wild) or ">" in tokens[:-1]:
            raise _refused("subscriptions", "subjects of NATS, as orders.new or audit.>", value)
    return value.strip()


def _settings(key: str, value: str) -> dict[str, str]:
    try:
        found: Any = json.loads(value or "{}") if len(value) <= _LONGEST else None
    except (ValueError, RecursionError):
        found = None
    texts = isinstance(found, dict) and all(isinstance(one, str) for one in found.values())
    if not texts or len(found) > _MOST_SETTINGS:
        raise _hidden(key, f"a JSON object of at most {_MOST_SETTINGS} texts")
    settings: dict[str, str] = found
    return settings


def _bindings(container: Container) -> dict[str, str]:
    mounts = container.raw.get("volumeMounts") or ()
    paths = [(str(one["name"]), posixpath.normpath("/" + str(one["mountPath"]).lstrip("/"))) for one in mounts]
    found = {name: path for name, path in paths if path != _TOKEN_MOUNT}
    if len(found) == 1:
        found.setdefault("default", *found.values())
    return found


def _refused(key: str, expected: str, found: str) -> Refused:
    return Refused(f"metadata.annotations[{PREFIX}{key}]", f"expected {expected}, found {found[:80]!r}")


def _hidden(key: str, expected: str) -> Refused:
    """The error for a value in which a password may be. People who may not read the pod may read its events."""
    return Refused(
        f"metadata.annotations[{PREFIX}{key}]",
        f"expected {expected}; the value is not shown here, since a password may be in it",
    )
