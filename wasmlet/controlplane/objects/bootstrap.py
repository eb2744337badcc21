"""Bootstrap tokens: the credentials with which a machine that is not a node yet requests a certificate.

A token is `id.secret`, and the API server knows it by the Secret `bootstrap-token-<id>` in kube-system, as `kubeadm
token create` makes it. A token whose Secret is deleted or has expired is not accepted.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import random
import re
import string
from datetime import datetime, timedelta

from wasmlet.controlplane.access.users import User, user
from wasmlet.controlplane.objects.registry import Call, Registry, rfc3339
from wasmlet.controlplane.storage.kinds import core
from wasmlet.controlplane.storage.status import Object

BOOTSTRAPPERS = "system:bootstrappers"
SECONDS = 24 * 3600.0
_NAMESPACE = "kube-system"
_PREFIX = "bootstrap-token-"
_TYPE = "bootstrap.kubernetes.io/token"
_TOKEN = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
_GROUP = re.compile(r"system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]")
_LETTERS = string.ascii_lowercase + string.digits


def _data(secret: Object, key: str) -> str:
    try:
        return base64.b64decode((secret.get("data") or {}).get(key, "")).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


class BootstrapTokens:
    """Makes bootstrap tokens, and finds the user of one."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._rng = random.SystemRandom()

    def _text(self, length: int) -> str:
        return "".join(self._rng.choices(_LETTERS, k=length))

    def issue(self, token_id: str = "", seconds: float = SECONDS) -> str:
        """Make a token that is valid for this many seconds; `token_id` is six of a-z and 0-9, random by default.

        Raises:
            ValueError: that is no id of a token.
            ApiError: 409, there is a token of that id.
        """
        token = f"{token_id or self._text(6)}.{self._text(16)}"
        found = _TOKEN.fullmatch(token)
        if found is None:
            raise ValueError(f"the id of a bootstrap token is six of a-z and 0-9, found {token_id!r}")
        until = self._registry.clock.now() + timedelta(seconds=seconds)
        body = {
            "metadata": {"name": _PREFIX + found[1]},
            "type": _TYPE,
            "stringData": {
                "token-id": found[1],
                "token-secret": found[2],
                "expiration": rfc3339(until),
                "usage-bootstrap-authentication": "true",
                "auth-extra-groups": f"{BOOTSTRAPPERS}:kubeadm:default-node-token",
            },
        }
        self._registry.create(Call(core("secrets"), _NAMESPACE), body)
        return token

    def user(self, token: str) -> User | None:
        """The user of a token: system:bootstrap:<id> in group system:bootstrappers; None if the token is not valid."""
        found = _TOKEN.fullmatch(token)
        if found is None:
            return None
        record = self._registry.store["secrets"].get(_NAMESPACE, _PREFIX + found[1])
        if record is None or record.raw.get("type") != _TYPE or "deletionTimestamp" in record.raw["metadata"]:
            return None
        secret = record.raw
        if not hmac.compare_digest(_data(secret, "token-secret").encode(), found[2].encode()):
            return None
        if _data(secret, "token-id") != found[1] or _data(secret, "usage-bootstrap-authentication") != "true":
            return None
        if not self._in_time(_data(secret, "expiration")):
            return None
        groups = [text for text in _data(secret, "auth-extra-groups").split(",") if text]
        if not all(_GROUP.fullmatch(group) for group in groups):
            return None
        return user(f"system:bootstrap:{found[1]}", [BOOTSTRAPPERS, *groups])

    def _in_time(self, expiration: str) -> bool:
        if not expiration:
            return True
        try:
            until = datetime.fromisoformat(expiration)
        except ValueError:
            return False
        return until.tzinfo is not None and until > self._registry.clock.now()
