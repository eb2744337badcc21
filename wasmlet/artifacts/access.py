"""Whose image: a pod without the credential does not run what another's credential has pulled.

The kubelet's rule (KEP-2535, `KubeletEnsureSecretPulledImages`) and its policies. With each image it is kept who pulled
it: anybody on the node, where the registry wanted nothing or the node's own credentials served, or the pull secrets
that did. A pod that is not among these has to pull it itself, which downloads nothing again but asks the registry.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Literal, get_args

import attrs
import orjson

from wasmlet.artifacts.credentials import Credential, Secret
from wasmlet.artifacts.files import write_whole
from wasmlet.artifacts.store import Store, read_object
from wasmlet.concurrency import in_thread
from wasmlet.errors import ConfigError

Policy = Literal["NeverVerify", "NeverVerifyPreloadedImages", "NeverVerifyAllowlistedImages", "AlwaysVerify"]
_MAX_SECRETS = 100
"""Of one image; the kubelet keeps no more either."""


@attrs.frozen
class Rule:
    """Which images are verified.

    Attributes:
        policy: the kubelet's `imagePullCredentialsVerificationPolicy`. Every image of a store was pulled, so none is
            preloaded, and that policy verifies all.
        allowlist: names without tag and digest, or beginnings that end in `/*`.
    """

    policy: str = "NeverVerifyPreloadedImages"
    allowlist: tuple[str, ...] = ()

    def __attrs_post_init__(self) -> None:
        if self.policy not in get_args(Policy):
            raise ConfigError(
                f"image pull credentials verification policy: expected one of {', '.join(get_args(Policy))}, "
                f"found {self.policy!r}"
            )
        for pattern in self.allowlist:
            plain = pattern.removesuffix("/*")
            if not plain or "*" in plain or plain != plain.strip():
                raise ConfigError(f"images allowlist: expected REGISTRY/REPOSITORY or REGISTRY/*, found {pattern!r}")

    def verifies(self, name: str) -> bool:
        """Whether a pod has to show that it may have the image; `name` is its registry and repository."""
        if self.policy == "NeverVerify":
            return False
        return self.policy != "NeverVerifyAllowlistedImages" or not any(
            name.startswith(pattern[:-1]) if pattern.endswith("/*") else name == pattern for pattern in self.allowlist
        )


class Access:
    """Who pulled the images of a store."""

    def __init__(self, store: Store, rule: Rule) -> None:
        self._store = store
        self._rule = rule

    def allowed(self, name: str, digest: str, secrets: Collection[Secret]) -> bool:
        """Whether a pod with these secrets may run the image without asking the registry.

        Args:
            name: of the image, registry and repository.
            digest: of its manifest.
            secrets: those of the pod's that are for that name.
        """
        if not self._rule.verifies(name):
            return True
        known = (read_object(self._store.access_path(digest)) or {}).get(name)
        if not isinstance(known, dict):
            return False
        return bool(known.get("everybody")) or any(
            _same(one, secret) for one in known.get("secrets") or () for secret in secrets
        )

    async def pulled(self, name: str, digest: str, credential: Credential | None) -> None:
        """Record that the image was pulled with that credential."""
        path = self._store.access_path(digest)
        async with self._store.locked(f"access-{path.name}"):
            everything = read_object(path) or {}
            known = everything.get(name)
            before: dict[str, Any] = known if isinstance(known, dict) else {}
            after = _with(before, credential.secret if credential is not None else None)
            if after != before:
                content = orjson.dumps(everything | {name: after})
                await in_thread(write_whole, self._store.ingest, path, content)


def _with(known: dict[str, Any], secret: Secret | None) -> dict[str, Any]:
    if secret is None:
        return {"everybody": True}
    if known.get("everybody"):
        return known
    one = attrs.asdict(secret)
    others: Iterable[Any] = (other for other in known.get("secrets") or () if other != one)
    return {"secrets": [one, *others][:_MAX_SECRETS]}


def _same(known: Any, secret: Secret) -> bool:
    """Whether both are the same credential, wherever it is kept, or the same object, whose content may have changed."""
    if not isinstance(known, dict):
        return False
    there = (known.get("namespace"), known.get("name"), known.get("uid"))
    return known.get("credential") == secret.credential or there == (secret.namespace, secret.name, secret.uid)
