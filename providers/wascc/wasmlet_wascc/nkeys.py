"""nkeys: ed25519 keys written as text. The text itself says what kind of key it is.

The text of a public key is the base32, without padding, of a prefix byte, the 32 bytes of the key, and their
CRC-16/XMODEM in little endian. The text of a seed has two prefix bytes; the second one says what it is the seed of.

Source: the nkeys of NATS, as waSCC's signing tool uses them.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from typing import Literal

import attrs
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

Kind = Literal["account", "module", "operator"]
"""Whose key it is: an account signs modules; a module's names one; an operator's signs accounts."""

_PREFIXES: dict[Kind, int] = {"account": 0, "module": 12 << 3, "operator": 14 << 3}
_SEED = 18 << 3
_KEY_BYTES, _CHECK_BYTES = 32, 2
_LONGEST = 80
"""Characters; a seed has 58."""


class BadKey(ValueError):
    """The text is no key of the kind that was asked for. The message does not show it: it may be a seed."""


@attrs.frozen
class PublicKey:
    """A public key.

    Attributes:
        raw: its 32 bytes.
    """

    kind: Kind
    raw: bytes

    @classmethod
    def of(cls, text: str, kind: Kind) -> PublicKey:
        """The key that this text is.

        Raises:
            BadKey: it is none of that kind.
        """
        body = _decoded(text)
        if len(body) != 1 + _KEY_BYTES or body[0] != _PREFIXES[kind]:
            raise BadKey(f"expected the public key of an {kind}, which begins with {_letter(kind)}, found another one")
        return cls(kind, body[1:])

    @property
    def text(self) -> str:
        return _encoded(bytes([_PREFIXES[self.kind]]) + self.raw)

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether the signature of that message was made with this key's seed."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


@attrs.frozen
class Seed:
    """A secret key. Its text appears in no message, and not in its `repr`."""

    kind: Kind
    raw: bytes = attrs.field(repr=False)

    @classmethod
    def new(cls, kind: Kind) -> Seed:
        return cls(kind, secrets.token_bytes(_KEY_BYTES))

    @classmethod
    def of(cls, text: str, kind: Kind) -> Seed:
        """The seed that this text is.

        Raises:
            BadKey: it is none of that kind.
        """
        body = _decoded(text)
        if len(body) != 2 + _KEY_BYTES or body[:2] != _seed_prefix(kind):
            raise BadKey(f"expected the seed of an {kind}, which begins with S{_letter(kind)}, found something else")
        return cls(kind, body[2:])

    @property
    def text(self) -> str:
        return _encoded(_seed_prefix(self.kind) + self.raw)

    @property
    def public(self) -> PublicKey:
        key = Ed25519PrivateKey.from_private_bytes(self.raw).public_key()
        return PublicKey(self.kind, key.public_bytes(Encoding.Raw, PublicFormat.Raw))

    def sign(self, message: bytes) -> bytes:
        return Ed25519PrivateKey.from_private_bytes(self.raw).sign(message)


def _letter(kind: Kind) -> str:
    return kind[0].upper()


def _seed_prefix(kind: Kind) -> bytes:
    prefix = _PREFIXES[kind]
    return bytes([_SEED | prefix >> 5, (prefix & 31) << 3])


def _encoded(body: bytes) -> str:
    check = binascii.crc_hqx(body, 0).to_bytes(_CHECK_BYTES, "little")
    return base64.b32encode(body + check).decode("ascii").rstrip("=")


def _decoded(text: str) -> bytes:
    """The bytes of a key without their checksum.

    Raises:
        BadKey: they are damaged.
    """
    if len(text) > _LONGEST or not text.isascii():
        raise BadKey("this is no nkey: expected 56 or 58 letters and digits")
    try:
        raw = base64.b32decode(text + "=" * (-len(text) % 8))
    except binascii.Error:
        raise BadKey("this is no nkey: expected base32, in capital letters") from None
    body, check = raw[:-_CHECK_BYTES], raw[-_CHECK_BYTES:]
    if not body or binascii.crc_hqx(body, 0) != int.from_bytes(check, "little"):
        raise BadKey("this is no nkey, or it has been mistyped: its checksum does not fit")
    return body
