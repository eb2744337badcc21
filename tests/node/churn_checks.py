"""What must be true of every pod at every moment of a churn, and of everything at its end.

`Witness` sees each change of a pod in the API server's store, none left out, whatever becomes of watches; `Worker` is
the provider, which knows what ran; `disagreements` compares API and provider once all faults have stopped.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import attrs

import wasmlet
from tests.node.trouble import Troubled
from wasmlet.controlplane.storage.kinds import Kind
from wasmlet.controlplane.storage.store import Event
from wasmlet.model.status import Running
from wasmlet.model.times import parse

REMEMBERED = 5000
"""How many ended pods are remembered, to notice one that runs again."""
FINISHED = ("Succeeded", "Failed")


@attrs.define
class Witness:
    """Listens to the store and notes what must not be.

    Attributes:
        revived: UIDs that an older state of the API server has brought back: they may run again, also where the node
            hears a moment later that they have been deleted since.
    """

    wrong: list[str] = attrs.field(factory=list)
    changes: int = 0
    revived: set[str] = attrs.field(factory=set)
    _known: dict[str, dict[str, Any]] = attrs.field(factory=dict)

    def rewound(self, pods: list[dict[str, Any]]) -> None:
        """The API server has gone back to a state with these pods."""
        self._known = {pod["metadata"]["uid"]: pod for pod in pods}
        self.revived |= set(self._known)

    def listen(self, kind: Kind, event: Event) -> None:
        if kind.plural != "pods":
            return
        self.changes += 1
        new = event.record.raw
        uid = new["metadata"]["uid"]
        old = self._known.pop(uid, None)
        if event.change == "DELETED":
            return
        self._known[uid] = new
        if old is None:
            return
        name = f"{new['metadata']['name']} ({uid})"
        if int(new["metadata"]["resourceVersion"]) <= int(old["metadata"]["resourceVersion"]):
            self.wrong.append(f"{name}: its version went back")
        self.wrong += [f"{name}: {what}" for what in _backwards(old, new, uid in self.revived)]


def _backwards(old: dict[str, Any], new: dict[str, Any], revived: bool) -> Iterator[str]:
    """What of a status change goes the wrong way."""
    before, after = old.get("status") or {}, new.get("status") or {}
    # A status that is written while the API is restored from a backup may come to a pod that lacks what it builds on.
    lasting = [name for name in _LASTING if name in before or not revived]
    if before.get("phase") in FINISHED and any(before.get(name) != after.get(name) for name in lasting):
        yield f"it had finished and changed: {before} -> {after}"
    if before.get("phase") == "Running" and after.get("phase") == "Pending" and not revived:
        yield "from Running to Pending"
    if before.get("startTime") and before["startTime"] != after.get("startTime"):
        yield f"its start moved from {before['startTime']} to {after.get('startTime')}"
    if before.get("containerStatuses") and not after.get("containerStatuses"):
        yield "its containers are no longer shown"
    # Every pod of a churn has one container.
    for was, now in zip(before.get("containerStatuses") or (), after.get("containerStatuses") or (), strict=False):
        (had, then), (has, state) = *was["state"].items(), *now["state"].items()
        if now["restartCount"] < was["restartCount"]:
            yield "its restart count went down"
        if revived:
            continue
        if _ORDER[has] < _ORDER[had]:
            yield f"its container went from {had} to {has}"
        if had == has == "running" and state != then:
            yield f"its container started again: {then} -> {state}"
        if now["restartCount"]:
            yield "its container was restarted"


_LASTING = ("phase", "reason", "message", "containerStatuses", "startTime")
_ORDER = {"waiting": 0, "running": 1, "terminated": 2}


class Worker(Troubled):
    """The provider of a churn: notes each pod that runs twice, and forgets the rest."""

    def __init__(self, witness: Witness) -> None:
        super().__init__()
        self._witness = witness
        self._ended: OrderedDict[str, None] = OrderedDict()
        self.started = 0

    async def create_pod(self, pod: wasmlet.Pod, inputs: wasmlet.Inputs) -> None:
        if pod.uid not in self.pods and pod.uid in self._ended and pod.uid not in self._witness.revived:
            self._witness.wrong.append(f"{pod.name} ({pod.uid}): runs again after its end")
        await super().create_pod(pod, inputs)

    async def delete_pod(self, key: wasmlet.PodKey, grace_seconds: float) -> wasmlet.PodStatus | None:
        try:
            return await super().delete_pod(key, grace_seconds)
        finally:
            if key.uid not in self.pods:
                self.inputs.pop(key.uid, None)
                self._ended[key.uid] = None
                if len(self._ended) > REMEMBERED:
                    self._ended.popitem(last=False)

    def _note(self, call: str) -> None:
        super()._note(call)
        self.started += len(self.created)
        for log in (self.calls, self.created, self.updated):
            log.clear()


def disagreements(
    pods: list[dict[str, Any]], provider: Worker, maps: dict[str, dict[str, Any]], *, ended: bool = False
) -> list[str]:
    """In what API and provider differ.

    Args:
        maps: the config maps of the API by name.
        ended: there should be no pods at all.
    """
    wrong = [f"the provider holds {uid} still" for uid in provider.pods.keys() - {p["metadata"]["uid"] for p in pods}]
    if ended:
        wrong += [f"the API has {pod['metadata']['name']} still" for pod in pods]
    for raw in pods:
        pod = wasmlet.Pod(raw)
        if pod.finished:
            continue
        who = f"{pod.name} ({pod.uid})"
        held = provider.pods.get(pod.uid)
        if pod.deleting:
            wrong.append(f"{who} is being deleted still")
        elif held is None:
            wrong.append(f"{who} does not run")
        else:
            wrong += [f"{who} {what}" for what in _differences(pod, held, provider, maps)]
    return wrong


def _differences(pod: wasmlet.Pod, held: Any, provider: Worker, maps: dict[str, dict[str, Any]]) -> Iterator[str]:
    statuses = pod.status.get("containerStatuses") or [{}]
    state = held.status.containers[0].state
    if not isinstance(state, Running):
        # One that may be restarted waits for its provider to do so, which this one never does.
        if pod.restart_policy == "Never" or "terminated" not in (statuses[0].get("state") or {}):
            yield f"has ended as {state} and is shown as {pod.phase} with {statuses[0]}"
        return
    shown = (statuses[0].get("state") or {}).get("running") or {}
    if pod.phase != "Running" or not shown or not statuses[0]["ready"]:
        yield f"runs and is shown as {pod.phase} with {statuses[0]}"
    elif abs(parse(shown["startedAt"]) - state.started_at) > timedelta(seconds=1):
        yield f"has run since {state.started_at} and is shown as started at {shown['startedAt']}"
    if (held.pod.labels, held.pod.annotations) != (pod.labels, pod.annotations):
        yield f"has {pod.labels}, {pod.annotations} and the provider knows {held.pod.labels}, {held.pod.annotations}"
    for entry in pod.containers[0].raw.get("envFrom") or ():
        name = entry["configMapRef"]["name"]
        known = (provider.inputs[pod.uid].config_maps.get(name) or {}).get("data")
        if known != (maps.get(name) or {}).get("data"):
            yield f"was given {known} from {name}, which is {maps.get(name)}"


def maps_of(pods: list[dict[str, Any]]) -> list[str]:
    """The config maps that these pods refer to."""
    containers = [container for pod in pods for container in pod["spec"]["containers"]]
    return [entry["configMapRef"]["name"] for c in containers for entry in c.get("envFrom") or ()]
