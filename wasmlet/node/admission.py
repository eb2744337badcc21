"""Decides which pods a node rejects, as a kubelet does at admission: such a pod gets phase Failed and a reason.

A pod may not fit its node: somebody may have bound it without the scheduler, or the node has changed since it was
bound. `Admission` checks that once, before the provider gets the pod. It also adds up the resources and the host ports
of the admitted pods. Reasons and wording are the kubelet's (`lifecycle.predicateAdmitHandler`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection

from wasmlet.errors import Rejected
from wasmlet.model.host_ports import CONFLICT, TakenPorts
from wasmlet.model.placement import ZERO, Amounts, add, amounts, demand, selects, tolerates
from wasmlet.model.pod import Pod, Raw
from wasmlet.model.quantity import Quantity


class Admission:
    """Admits or rejects the pods of one node.

    Args:
        node: the Node object as the API has it now.
        handlers: the RuntimeClass handlers that the provider offers.
        runtime_class: finds a RuntimeClass by name; None where there is none.
        leaving: says whether the node shuts down.
    """

    def __init__(
        self,
        node: Callable[[], Raw],
        handlers: Callable[[], Collection[str]],
        runtime_class: Callable[[str], Awaitable[Raw | None]],
        leaving: Callable[[], bool] = lambda: False,
    ) -> None:
        self._node = node
        self._handlers = handlers
        self._runtime_class = runtime_class
        self._leaving = leaving
        self._admitted: dict[str, Amounts] = {}
        self._used: Amounts = {}
        self._ports = TakenPorts()

    async def admit(self, pod: Pod) -> None:
        """Check that the pod may run here, and count its resources and ports.

        Raises:
            Rejected: it may not run here.
        """
        if self._leaving():
            raise Rejected("NodeShutdown", "Pod was rejected as the node is shutting down.")
        node = self._node()
        _check_place(pod, node)
        await self._check_runtime_class(pod)
        self.release(pod.uid)
        wanted = demand(pod.spec)
        room = amounts((node.get("status") or {}).get("allocatable"))
        for name, amount in sorted(wanted.items()):
            used = self._used.get(name, ZERO)
            if amount > 0 and used + amount > room.get(name, ZERO):
                texts = [str(Quantity(value)) for value in (amount, used, room.get(name, ZERO))]
                raise Rejected(
                    f"OutOf{name}",
                    f"Node didn't have enough resource: {name}, "
                    f"requested: {texts[0]}, used: {texts[1]}, capacity: {texts[2]}",
                )
        if self._ports.conflict(pod.spec):
            raise Rejected("NodePorts", f"Predicate NodePorts failed: {CONFLICT}")
        self.count(pod)

    def count(self, pod: Pod) -> None:
        """Count a pod without checking it: it runs here already, or its requests have changed."""
        self.release(pod.uid)
        wanted = demand(pod.spec)
        self._admitted[pod.uid] = wanted
        add(self._used, wanted)
        self._ports.take(pod.uid, pod.spec)

    def release(self, uid: str) -> None:
        """The pod has ended: its resources and ports are free again."""
        self._ports.free(uid)
        if (wanted := self._admitted.pop(uid, None)) is not None:
            add(self._used, {name: -amount for name, amount in wanted.items()})

    async def _check_runtime_class(self, pod: Pod) -> None:
        name = pod.spec.get("runtimeClassName")
        if not name:
            return
        found = await self._runtime_class(name)
        if found is None:
            raise Rejected("RuntimeClassNotFound", f'RuntimeClass "{name}" not found')
        handler = str(found.get("handler", ""))
        offered = self._handlers()
        if handler not in offered:
            listed = ", ".join(sorted(repr(h) for h in offered if h)) or "none but the default"
            raise Rejected(
                "RuntimeHandlerNotSupported",
                f'RuntimeClass "{name}" asks for handler {handler!r}; this node offers: {listed}',
            )


def _check_place(pod: Pod, node: Raw) -> None:
    wanted = pod.spec.get("nodeName")
    if wanted and wanted != node["metadata"]["name"]:
        raise Rejected("NodeName", "Predicate NodeName failed: node(s) didn't match the requested node name")
    system = (pod.spec.get("os") or {}).get("name")
    own = (node["metadata"].get("labels") or {}).get("kubernetes.io/os")
    if system and system != own:
        raise Rejected(
            "PodOSNotSupported",
            f"Failed to admit pod as the OS field doesn't match node OS: asked for {system}, the node is {own}",
        )
    if not selects(pod.spec, node):
        raise Rejected(
            "NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
        )
    for taint in (node.get("spec") or {}).get("taints") or ():
        if taint.get("effect") == "NoExecute" and not any(
            tolerates(toleration, taint) for toleration in pod.spec.get("tolerations") or ()
        ):
            raise Rejected(
                "TaintToleration",
                "Predicate TaintToleration failed: node(s) had untolerated taint "
                f"{{{taint.get('key')}: {taint.get('value', '')}}}",
            )
