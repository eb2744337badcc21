"""Hands a pod over to the provider, and keeps which version of it the provider was given last."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod, Raw
from wasmlet.node.services import NodeServices


async def admitted_inputs(services: NodeServices, pod: Pod, *, has_run: bool) -> Inputs:
    """Admit the pod to this node, then return the objects that it refers to, as they are now.

    Args:
        has_run: the pod has run on this node before, so it is counted and not checked.

    Raises:
        Rejected: the pod cannot run on this node.
        WasmletError: something that the pod refers to could not be read from the API yet.
    """
    if has_run:
        services.admission.count(pod)
    else:
        await services.admission.admit(pod)
    return await services.inputs.inputs(pod)


async def create(services: NodeServices, pod: Pod, inputs: Inputs) -> None:
    """Have the provider create the pod; raises what `Provider.create_pod` does."""
    with services.metrics.provider_call("create_pod"):
        await services.provider.create_pod(pod, inputs)


async def update(services: NodeServices, pod: Pod, inputs: Inputs) -> None:
    """Tell the provider of a pod that it holds; raises what `Provider.update_pod` does."""
    with services.metrics.provider_call("update_pod"):
        await services.provider.update_pod(pod, inputs)


@attrs.frozen
class DeliveredVersion:
    """The version of a pod that its provider was given last.

    It keeps only what a provider is told the changes of, and not the whole pod, because a node holds many.
    """

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    generation: int
    spec: Raw | None
    """None if the API server sets `generation`, which is compared instead."""

    @classmethod
    def of(cls, pod: Pod) -> DeliveredVersion:
        """This version of the pod."""
        return cls(pod.labels, pod.annotations, pod.generation, None if pod.generation else pod.spec)

    def differs(self, pod: Pod) -> bool:
        """Whether the provider has to be told of the pod as it is now."""
        if self.labels != pod.labels or self.annotations != pod.annotations:
            return True
        return self.generation != pod.generation if self.spec is None else self.spec != pod.spec


class Delivery:
    """What one pod's provider has been told of it, and whether there is more to tell.

    - `_version` is the version that the provider was given last, whatever it answered; None if and only if the
      provider has to be given the pod because it never was, or has lost it.
    - `_stale` is true if and only if something that the pod refers to has changed since the provider was told.
    """

    __slots__ = ("_stale", "_version")

    def __init__(self) -> None:
        self._version: DeliveredVersion | None = None
        self._stale = False

    def due(self, pod: Pod) -> bool:
        """Whether the provider has to be told of this version of the pod, or of changed inputs."""
        return self._version is None or self._stale or self._version.differs(pod)

    def inputs_changed(self) -> None:
        """Something that the pod refers to is different now."""
        self._stale = True

    def begin(self) -> bool:
        """The provider is being told now.

        Returns:
            Whether inputs of the pod had changed. Pass it to `failed` if the call fails.
        """
        stale, self._stale = self._stale, False
        return stale

    def failed(self, stale: bool) -> None:
        """The provider could not be told, and has to be told again."""
        self._stale = self._stale or stale

    def told(self, pod: Pod) -> None:
        """The provider was given this version, whatever it answered."""
        self._version = DeliveredVersion.of(pod)

    def lost(self) -> None:
        """The provider has the pod no more, and has to be given it again."""
        self._version = None
