"""Access to pulled images: which pods may run an image that is already on the node without asking the registry.

Without this rule, a pod could run a private image that another pod's credentials had pulled. The rule and its policies
are the kubelet's (KEP-2535, `KubeletEnsureSecretPulledImages`). For each image the node records who pulled it:
- everybody, where the registry asked for no credentials or the node's own credentials were enough;
- otherwise the pull secrets that were used.
A pod that is not recorded must pull the image itself. That asks the registry, but downloads nothing a second time.
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
"""The most pull secrets that are recorded for one image; the kubelet has the same limit."""


@attrs.frozen
class Rule:
    """Which images are verified. For these a pod must show that it may have the image (see the module).

    Attributes:
        policy: the kubelet's `imagePullCredentialsVerificationPolicy`. Every image in a store was pulled, so none is
            preloaded: `NeverVerifyPreloadedImages` verifies all images here.
        allowlist: image names without tag and digest, or prefixes that end in `/*`. `NeverVerifyAllowlistedImages`
            does not verify these.
    """

    policy: str = "NeverVerifyPreloadedImages"
    allowlist: tuple[str, ...] = ()

    def __attrs_post_init__(self) -> None:
        if self.policy not in get_args(Policy):
            raise ConfigError(
                f"image pull credentials verification policy: expected one of {', '.join(get_args(Policy))}, "
                f"found {self.policy!r}; set it with --image-pull-credentials-verification-policy"
            )
        for pattern in self.allowlist:
            plain = pattern.removesuffix("/*")
            if not plain or "*" in plain or plain != plain.strip():
                raise ConfigError(
                    f"images allowlist: expected REGISTRY/REPOSITORY or REGISTRY/*, found {pattern!r}; set it with "
                    "--preloaded-images-verification-allowlist"
                )

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
            name: registry and repository of the image.
            digest: digest of the image's manifest.
            secrets: the pod's pull secrets that match this name.
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
        """Record that the image was pulled with that credential; None: the registry asked for none."""
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
    """Whether a recorded secret counts as the same as this one.

    It does if the credential is the same, even in another Secret object, or if the Secret object is the same, even
    with another credential in it by now.
    """
    if not isinstance(known, dict):
        return False
    there = (known.get("namespace"), known.get("name"), known.get("uid"))
    return known.get("credential") == secret.credential or there == (secret.namespace, secret.name, secret.uid)
