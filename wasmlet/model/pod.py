"""A pod as the API server sent it, with names for the parts that are used often.

`Pod` and `Container` wrap the raw object and never change it: what the API has and wasmlet does not know survives,
and a provider that wants a field nobody named here reads `pod.raw`. A changed pod is another `Pod`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import attrs

Raw = Mapping[str, Any]
"""A Kubernetes object or a part of one, as JSON has it. Never change one that you were handed."""

RestartPolicy = Literal["Always", "OnFailure", "Never"]

MOST_GRACE_SECONDS = 10 * 365 * 24 * 3600
"""The longest grace period: the API takes any, and a time beyond the year 9999 cannot be computed with."""


@attrs.frozen(order=True)
class PodKey:
    """Which pod. The UID alone identifies it; namespace and name are for people and for paths of the API.

    A pod that is made again under the same name has another UID, and is another pod.
    """

    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    def reference(self, field: str = "") -> dict[str, str]:
        """The pod as an Event's `involvedObject`; `field` is the part that it is about: `spec.containers{name}`."""
        found = {"apiVersion": "v1", "kind": "Pod", "namespace": self.namespace, "name": self.name, "uid": self.uid}
        return found | ({"fieldPath": field} if field else {})


@attrs.frozen(eq=False, slots=False)
class Container:
    """One entry of `spec.containers`, `spec.initContainers` or `spec.ephemeralContainers`.

    Attributes:
        raw: the entry, as the API has it. Do not change it.
        field: its path in the manifest (`spec.containers[0]`), for messages.
    """

    raw: Raw
    field: str

    @functools.cached_property
    def name(self) -> str:
        """Its name."""
        return str(self.raw["name"])

    @property
    def image(self) -> str:
        """Its image, as the manifest names it."""
        return str(self.raw.get("image", ""))

    @property
    def command(self) -> Sequence[str]:
        """`command` of the manifest, without references replaced; see `wasmlet.command_and_args`."""
        return list(self.raw.get("command") or ())

    @property
    def args(self) -> Sequence[str]:
        """`args` of the manifest, likewise."""
        return list(self.raw.get("args") or ())

    @property
    def env(self) -> Sequence[Raw]:
        """The entries of `env`; see `wasmlet.environment` for what becomes of them."""
        return list(self.raw.get("env") or ())

    @property
    def resources(self) -> Raw:
        """Requests and limits, as the manifest has them."""
        return self.raw.get("resources") or {}

    def __repr__(self) -> str:
        return f"Container({self.name!r}, image={self.image!r})"


@attrs.frozen(eq=False, slots=False)
class Pod:
    """A pod, around its raw API object.

    It is cheap to make: parts are read when they are asked for. Compare `pod.key` to know whether two are one pod, and
    `pod.generation` to know whether the spec has changed.

    Attributes:
        raw: the pod, as the API has it. Do not change it. What has no property here is read from `raw`.
    """

    raw: Raw

    @functools.cached_property
    def key(self) -> PodKey:
        """Which pod it is."""
        metadata = self.raw["metadata"]
        return PodKey(metadata["namespace"], metadata["name"], metadata["uid"])

    @property
    def metadata(self) -> Raw:
        """The pod's `metadata`."""
        return self.raw["metadata"]  # type: ignore[no-any-return]

    @property
    def spec(self) -> Raw:
        """The pod's `spec`; empty if there is none."""
        return self.raw.get("spec") or {}

    @property
    def status(self) -> Raw:
        """The pod's `status`, as the API has it; empty if there is none."""
        return self.raw.get("status") or {}

    @property
    def namespace(self) -> str:
        """Its namespace."""
        return self.raw["metadata"]["namespace"]  # type: ignore[no-any-return]

    @property
    def name(self) -> str:
        """Its name."""
        return self.raw["metadata"]["name"]  # type: ignore[no-any-return]

    @property
    def uid(self) -> str:
        """Its UID."""
        return self.raw["metadata"]["uid"]  # type: ignore[no-any-return]

    @property
    def labels(self) -> Mapping[str, str]:
        """Its labels."""
        return self.metadata.get("labels") or {}

    @property
    def annotations(self) -> Mapping[str, str]:
        """Its annotations."""
        return self.metadata.get("annotations") or {}

    @property
    def generation(self) -> int:
        """A number that grows with each change of the spec; 0 if the API server does not set it."""
        return int(self.raw["metadata"].get("generation") or 0)

    @property
    def resource_version(self) -> str:
        """The version of the object."""
        return str(self.raw["metadata"].get("resourceVersion", ""))

    @property
    def phase(self) -> str:
        """The phase that the API has: Pending, Running, Succeeded, Failed or Unknown."""
        return str(self.status.get("phase") or "Pending")

    @property
    def finished(self) -> bool:
        """Whether the phase is Succeeded or Failed, which a pod never leaves."""
        return self.phase in ("Succeeded", "Failed")

    @property
    def deleting(self) -> bool:
        """Whether it is being deleted."""
        return bool(self.raw["metadata"].get("deletionTimestamp"))

    @property
    def deletion_grace_seconds(self) -> int:
        """Seconds that the containers have to end, once the pod is being deleted; at most `MOST_GRACE_SECONDS`."""
        grace = self.metadata.get("deletionGracePeriodSeconds")
        return self.termination_grace_seconds if grace is None else min(int(grace), MOST_GRACE_SECONDS)

    @property
    def termination_grace_seconds(self) -> int:
        """Seconds that its containers have to end, as the manifest says; 30 without it.

        At most `MOST_GRACE_SECONDS`.
        """
        grace = self.spec.get("terminationGracePeriodSeconds")
        return 30 if grace is None else min(int(grace), MOST_GRACE_SECONDS)

    @property
    def restart_policy(self) -> RestartPolicy:
        """Always, OnFailure or Never."""
        return self.spec.get("restartPolicy") or "Always"

    @functools.cached_property
    def containers(self) -> Sequence[Container]:
        """Its containers."""
        return _containers(self.spec, "containers")

    @functools.cached_property
    def init_containers(self) -> Sequence[Container]:
        """Its init containers, sidecars among them."""
        return _containers(self.spec, "initContainers")

    @functools.cached_property
    def ephemeral_containers(self) -> Sequence[Container]:
        """The containers that `kubectl debug` has added."""
        return _containers(self.spec, "ephemeralContainers")

    def container(self, name: str) -> Container | None:
        """The container, init container or ephemeral container of that name, or None."""
        for group in (self.containers, self.init_containers, self.ephemeral_containers):
            for container in group:
                if container.name == name:
                    return container
        return None

    def __repr__(self) -> str:
        return f"Pod({self.key}, uid={self.uid})"


def _containers(spec: Raw, key: str) -> Sequence[Container]:
    return tuple(Container(raw, f"spec.{key}[{i}]") for i, raw in enumerate(spec.get(key) or ()))
