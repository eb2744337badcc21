"""Registry credentials: where a user and a password come from, and which of them apply to an image.

Docker's `config.json` and both types of pull secrets hold the same kind of entries. An entry applies to every image
whose name begins with the entry's key. `*` in a key matches one part of a host name; a port must be equal. If several
entries apply, they are tried in turn, the most specific first. All this is as in the kubelet. `helpers` handles the
credentials that Docker keeps with a credential helper.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fnmatch
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

import attrs
import orjson

from wasmlet.artifacts.errors import ArtifactError
from wasmlet.artifacts.references import DEFAULT_REGISTRY

DOCKER_HUB = "https://index.docker.io/v1/"
"""The name of Docker Hub in `config.json`, and in requests to credential helpers."""

_HUB_HOST = "index.docker.io"
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")
DOCKERCFG, DOCKERCONFIGJSON = "kubernetes.io/dockercfg", "kubernetes.io/dockerconfigjson"


@attrs.frozen
class Secret:
    """The Secret object that a credential came from: a pod's pull secret.

    Attributes:
        credential: SHA-256 of the user and the password, hexadecimal. It shows whether two secrets hold the same
            credential (`access`); the kubelet compares these, too.
    """

    namespace: str
    name: str
    uid: str
    credential: str


@attrs.frozen
class Credential:
    """A user and a password, or a token, for a registry.

    Attributes:
        identity_token: trade it for access at the registry's token server (`identitytoken`), instead of a password.
        registry_token: send it as it is (`registrytoken`).
        secret: the pod's pull secret that it comes from; None for the node's own credentials.
    """

    username: str = ""
    password: str = attrs.field(default="", repr=False)
    identity_token: str = attrs.field(default="", repr=False)
    registry_token: str = attrs.field(default="", repr=False)
    secret: Secret | None = None


class Keychain(Protocol):
    """Finds credentials."""

    async def credentials(self, name: str) -> Sequence[Credential]:
        """The credentials to try for an image, best first; `name` is its registry and repository.

        An empty result means: ask the registry without credentials.
        """
        ...


@attrs.frozen
class Keyring:
    """Credentials, each with the key that image names must begin with: host, optional port and path, no scheme."""

    entries: tuple[tuple[str, Credential], ...] = ()

    async def credentials(self, name: str) -> Sequence[Credential]:
        return self.lookup(name)

    def lookup(self, name: str) -> list[Credential]:
        """The credentials for an image, most specific first, as the kubelet's `BasicDockerKeyring` finds them."""
        keyed = sorted(self.entries, key=lambda entry: entry[0], reverse=True)
        found = [credential for key, credential in keyed if _matches(key, name)]
        if not found and name.partition("/")[0] == DEFAULT_REGISTRY:
            found = [credential for key, credential in keyed if key == _HUB_HOST]
        return list(dict.fromkeys(found))


@attrs.frozen
class Keychains:
    """Several keychains, asked in this order."""

    parts: tuple[Keychain, ...]

    async def credentials(self, name: str) -> Sequence[Credential]:
        return [credential for part in self.parts for credential in await part.credentials(name)]


def auths_of(config: Mapping[str, Any]) -> Keyring:
    """Read the `auths` of a configuration: a mapping from registry to `{"username", "password", "auth", ...}`.

    Raises:
        ArtifactError: an entry is not of that form; the message does not show what it holds.
    """
    entries = []
    for place, entry in config.items():
        if not isinstance(entry, Mapping):
            raise ArtifactError(f"the credentials for {place!r} are no object with username and password, or auth")
        texts = {name: value for name, value in fields(entry).items() if isinstance(value, str)}
        username, password = texts.get("username", ""), texts.get("password", "")
        if auth := texts.get("auth"):
            username, password = _decoded(place, auth)
        credential = Credential(username, password, texts.get("identitytoken", ""), texts.get("registrytoken", ""))
        if username or credential.identity_token or credential.registry_token:
            with contextlib.suppress(ValueError):  # a key that is no address matches no image, as in the kubelet
                entries.append((_key(place), credential))
    return Keyring(tuple(entries))


def fields(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Read a JSON object as Go's encoding/json does: field names match in any case; the result has them in lower case.

    If a name comes several times, the last value counts. Objects are merged, and null is ignored.
    """
    found: dict[str, Any] = {}
    for name, value in raw.items():
        folded, before = name.casefold(), found.get(name.casefold())
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            found[folded] = {**before, **value}
        elif value is not None:
            found[folded] = value
    return found


@attrs.frozen
class PullSecrets:
    """The result of reading a pod's pull secrets.

    Attributes:
        keyring: the credentials of all secrets that could be read.
        missing: names of the secrets that do not exist; the pull goes on without them.
        warnings: one message for each secret that exists and cannot be used: wrong type, or not readable.
    """

    keyring: Keyring
    missing: tuple[str, ...]
    warnings: tuple[str, ...]


def pull_secrets(namespace: str, names: Iterable[str], secrets: Mapping[str, Mapping[str, Any]]) -> PullSecrets:
    """The keyring of a pod's `imagePullSecrets`.

    Args:
        names: the names of the secrets, from the manifest.
        secrets: the Secret objects by name. One that is not in it does not exist; the kubelet ignores that, too.
    """
    entries: list[tuple[str, Credential]] = []
    missing, warnings = [], []
    for name in dict.fromkeys(names):
        raw = secrets.get(name)
        if raw is None:
            missing.append(name)
            continue
        try:
            entries += _of_secret(namespace, name, raw).entries
        except ArtifactError as error:
            warnings.append(f'Image pull secret "{namespace}/{name}" cannot be used: {error}')
    return PullSecrets(Keyring(tuple(entries)), tuple(missing), tuple(warnings))


def _of_secret(namespace: str, name: str, raw: Mapping[str, Any]) -> Keyring:
    kind, data = raw.get("type"), raw.get("data") or {}
    key = {DOCKERCFG: ".dockercfg", DOCKERCONFIGJSON: ".dockerconfigjson"}.get(str(kind))
    if key is None:
        raise ArtifactError(f"expected type {DOCKERCONFIGJSON} or {DOCKERCFG}, found {kind}")
    if key not in data:
        raise ArtifactError(f"it has no key {key}")
    try:
        content = base64.b64decode(data[key], validate=True)
        config = orjson.loads(content)
    except (binascii.Error, ValueError, TypeError):
        raise ArtifactError(f"{key} is not JSON in base64") from None
    if kind == DOCKERCONFIGJSON and isinstance(config, dict):
        config = fields(config).get("auths") or {}
    if not isinstance(config, dict):
        raise ArtifactError(f"{key} is no object with credentials by registry")
    uid = str((raw.get("metadata") or {}).get("uid") or "")
    found = auths_of(config)
    return Keyring(tuple((key, _from(Secret(namespace, name, uid, ""), one)) for key, one in found.entries))


def _from(secret: Secret, credential: Credential) -> Credential:
    parts = (credential.username, credential.password, credential.identity_token, credential.registry_token)
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return attrs.evolve(credential, secret=attrs.evolve(secret, credential=digest))


def _decoded(place: str, auth: str) -> tuple[str, str]:
    """The user and the password of an `auth`, as the kubelet's `decodeDockerConfigFieldAuth` reads it.

    Bytes that are not UTF-8 are kept (surrogateescape), because a password may contain any bytes.
    """
    content = _from_base64(auth) or b""
    username, colon, password = content.decode("utf-8", "surrogateescape").partition(":")
    if not colon:
        raise ArtifactError(f"auth of {place!r} is not USER:PASSWORD in base64 (the standard alphabet, with + and /)")
    return username, password.strip("\0")


def _from_base64(text: str) -> bytes | None:
    """Decode as Go does, None where Go fails.

    Go's decoders skip newlines, and each accepts one alphabet. If the text ends with "=", the kubelet uses the decoder
    that requires padding, otherwise the one that forbids it.
    """
    plain = text.replace("\r", "").replace("\n", "")
    if not _BASE64.fullmatch(plain) or (plain.endswith("=") and len(plain) % 4) or len(plain.rstrip("=")) % 4 == 1:
        return None
    return base64.b64decode(plain + "=" * (-len(plain) % 4))


def _key(place: str) -> str:
    """The key of an entry: without the scheme, and without the API version at the end of Docker's old addresses."""
    parts = urlsplit(place if "://" in place else f"https://{place}")
    path = parts.path
    if path.startswith(("/v1/", "/v2/")) or path in ("/v1", "/v2"):
        path = path[3:]
    return parts.netloc.rpartition("@")[2] + (path if path != "/" else "")


def _matches(key: str, name: str) -> bool:
    """Whether a key applies to an image name, as the kubelet's `URLsMatch`: host part by part, port, path prefix."""
    (host, port, path), (its_host, its_port, its_path) = _split(key), _split(name)
    parts, its_parts = host.split("."), its_host.split(".")
    return (
        port == its_port
        and len(parts) == len(its_parts)
        and its_path.startswith(path)
        and all(fnmatch.fnmatchcase(part, pattern) for pattern, part in zip(parts, its_parts, strict=True))
    )


def _split(place: str) -> tuple[str, str, str]:
    authority, slash, path = place.partition("/")
    host, colon, port = authority.rpartition(":")
    return (host, port, slash + path) if colon and port.isdigit() else (authority, "", slash + path)
