"""What a provider is given of a pod: the calls that hand it over, and which version it was given last."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod, Raw
from wasmlet.node.services import NodeServices


async def admitted_inputs(services: NodeServices, pod: Pod, *, has_run: bool) -> Inputs:
    """What the pod refers to, as it stands now, once the pod is counted among those of this node.

    Args:
        has_run: the pod has its place on this node already, so it is counted and not admitted.

    Raises:
        Rejected: the pod cannot run on this node.
        WasmletError: something that the pod refers to is not to be had yet.
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
    """Only where the API server counts no generations."""

    @classmethod
    def of(cls, pod: Pod) -> DeliveredVersion:
        """This version of the pod."""
        return cls(pod.labels, pod.annotations, pod.generation, None if pod.generation else pod.spec)

    def differs(self, pod: Pod) -> bool:
        """Whether the provider has to be told of the pod as it is now."""
        if self.labels != pod.labels or self.annotations != pod.annotations:
            return True
        return self.generation != pod.generation if self.spec is None else self.spec != pod.spec
