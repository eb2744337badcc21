"""What a signed actor claims: who made it, what it is called, and which capabilities it may use.

The claims are a JSON Web Token in the module's custom section `jwt`, signed with ed25519 by the issuer's nkey. They
hold for one module: they name the hash of the file without that section.
Source: wascap, as waSCC's own host reads it; checked against actors that others have signed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import secrets
import time
from collections.abc import Collection
from typing import Any

import attrs

from wasmlet.artifacts.wasm_reader import NotWasm
from wasmlet_wascc import sections
from wasmlet_wascc.nkeys import BadKey, PublicKey, Seed

ALGORITHM = "Ed25519"
_MOST_BYTES = 64 * 1024
"""Of a token; those of real actors have less than one kilobyte."""
_MOST_CAPABILITIES, _MOST_TAGS, _LONGEST = 64, 64, 256
_SKEW_SECONDS = 60
"""How far clocks may differ, where claims are not valid yet."""
_CAPABILITY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*:[A-Za-z0-9][A-Za-z0-9_.:/-]*")


class BadClaims(ValueError):
    """The module is not signed as it has to be; the message is one sentence for its owner."""


@attrs.frozen
class Claims:
    """What a token says.

    Attributes:
        issuer: the public key of the account that has signed it.
        subject: the public key that names the module.
        capabilities: as `wascc:http_server`.
        not_before, expires: seconds since 1970; None for no such limit.
        issued: likewise.
    """

    issuer: str
    subject: str
    name: str = ""
    capabilities: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    not_before: int | None = None
    expires: int | None = None
    issued: int | None = None
    revision: int | None = None
    version: str = ""

    def check_time(self, now: float) -> None:
        """See whether the claims hold at this time.

        Args:
            now: seconds since 1970.

        Raises:
            BadClaims: they do not.
        """
        if self.expires is not None and now >= self.expires:
            raise BadClaims(f"the actor's claims have expired at {moment(self.expires)}: sign it again")
        if self.not_before is not None and now + _SKEW_SECONDS < self.not_before:
            raise BadClaims(f"the actor's claims are not valid before {moment(self.not_before)}")

    def check_issuer(self, trusted: Collection[str]) -> None:
        """See whether the issuer is one of these; any is, where there are none.

        Raises:
            BadClaims: it is not.
        """
        if trusted and self.issuer not in trusted:
            raise BadClaims(f"the actor is signed by {self.issuer}, who is not among the issuers that this node trusts")


def read(wasm: bytes | memoryview) -> Claims:
    """The claims of a module, verified but for their times and for who is trusted.

    Raises:
        BadClaims: there are none, or they are not those of this module.
        NotWasm: it is damaged.
    """
    found = sections.tokens(wasm)
    if not found:
        raise BadClaims("the actor is not signed: expected a section `jwt` with its claims (`wasmlet wascc sign`)")
    if len(found) > 1:
        raise BadClaims(f"the actor has {len(found)} sections `jwt`, expected one")
    size = found[0].end - found[0].body
    if size > _MOST_BYTES:
        raise BadClaims(f"the actor's claims have {size} bytes, expected at most {_MOST_BYTES}")
    claims, digest = _verified(bytes(wasm[found[0].body : found[0].end]))
    if digest != _digest(wasm[: found[0].start], wasm[found[0].end :]):
        raise BadClaims("the actor has been changed since it was signed: its hash is not the one that its claims name")
    return claims


def signed(wasm: bytes, claims: Claims, account: Seed) -> bytes:
    """The module with these claims, instead of any that it had; `claims.issuer` has to be the account's key.

    Raises:
        NotWasm: it is damaged.
    """
    bare = sections.without(wasm, sections.tokens(wasm))
    body: dict[str, Any] = {
        "jti": base64.b32encode(secrets.token_bytes(15)).decode("ascii"),
        "iat": claims.issued,
        "iss": claims.issuer,
        "sub": claims.subject,
        "exp": claims.expires,
        "nbf": claims.not_before,
        "wascap": {
            "name": claims.name,
            "hash": _digest(bare),
            "tags": list(claims.tags),
            "caps": list(claims.capabilities),
            "rev": claims.revision,
            "ver": claims.version or None,
            "prov": False,
        },
    }
    body = {key: value for key, value in body.items() if value is not None}
    body["wascap"] = {key: value for key, value in body["wascap"].items() if value is not None}
    text = b".".join(_base64(json.dumps(part).encode()) for part in ({"typ": "jwt", "alg": ALGORITHM}, body))
    return sections.appended(bare, text + b"." + _base64(account.sign(text)))


def moment(seconds: int) -> str:
    """A time as text, in UTC."""
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return f"second {seconds}"


def _verified(token: bytes) -> tuple[Claims, str]:
    """The claims of a token whose signature is its issuer's, and the hash in it.

    Raises:
        BadClaims: it is not, or the token is none.
    """
    parts = token.strip().split(b".")
    if len(parts) != 3:
        raise BadClaims("the actor's claims are no JSON Web Token: expected three parts with a dot between them")
    header, body = _object(parts[0], "header"), _object(parts[1], "body")
    if header.get("alg") != ALGORITHM:
        raise BadClaims(f"the actor's claims are signed by {_shown(header.get('alg'))}, expected {ALGORITHM}")
    issuer = _text(body, "iss")
    try:
        key = PublicKey.of(issuer, "account")
    except BadKey as error:
        raise BadClaims(f"the issuer of the actor's claims is no account: {error}") from None
    if not key.verify(_bytes(parts[2], "signature"), b".".join(parts[:2])):
        raise BadClaims(f"the signature of the actor's claims is not that of their issuer, {issuer}")
    subject = _text(body, "sub")
    try:
        PublicKey.of(subject, "module")
    except BadKey as error:
        raise BadClaims(f"the subject of the actor's claims is no module: {error}") from None
    return _claims(body, issuer, subject)


def _claims(body: dict[str, Any], issuer: str, subject: str) -> tuple[Claims, str]:
    own = body.get("wascap")
    if not isinstance(own, dict):
        raise BadClaims("the actor's claims have no object `wascap`")
    if own.get("prov"):
        raise BadClaims("the module is a capability provider, not an actor; this node has providers of its own")
    claims = Claims(
        issuer,
        subject,
        name=_text(own, "name", optional=True),
        capabilities=_texts(own, "caps", _MOST_CAPABILITIES),
        tags=_texts(own, "tags", _MOST_TAGS),
        not_before=_number(body, "nbf"),
        expires=_number(body, "exp"),
        issued=_number(body, "iat"),
        revision=_number(own, "rev"),
        version=_text(own, "ver", optional=True),
    )
    for capability in claims.capabilities:
        if not _CAPABILITY.fullmatch(capability):
            raise BadClaims(f"the actor claims {_shown(capability)}, which is no name of a capability")
    return claims, _text(own, "hash")


def _digest(*parts: bytes | memoryview) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest().upper()


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _bytes(part: bytes, what: str) -> bytes:
    try:
        return base64.b64decode(part + b"=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise BadClaims(f"the {what} of the actor's claims is not base64") from None


def _object(part: bytes, what: str) -> dict[str, Any]:
    text = _bytes(part, what)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise BadClaims(f"the {what} of the actor's claims is no JSON object")
    return found


def _text(body: dict[str, Any], key: str, *, optional: bool = False) -> str:
    value = body.get(key)
    if value is None and optional:
        return ""
    if not isinstance(value, str) or len(value) > _LONGEST or not value.isprintable():
        raise BadClaims(f"`{key}` of the actor's claims is {_shown(value)}, expected a text")
    return value


def _texts(body: dict[str, Any], key: str, most: int) -> tuple[str, ...]:
    value = body.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > most:
        raise BadClaims(f"`{key}` of the actor's claims is no list of at most {most} texts")
    return tuple(_text({key: item}, key) for item in value)


def _number(body: dict[str, Any], key: str) -> int | None:
    value = body.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > 2**53:
        raise BadClaims(f"`{key}` of the actor's claims is {_shown(value)}, expected a whole number")
    return value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


__all__ = ["BadClaims", "Claims", "NotWasm", "moment", "read", "signed"]
