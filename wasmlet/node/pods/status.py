"""Makes a pod's `status` in the API from what the provider reports.

Pure functions. `api_status` gives the part of `pod.status` that a node owns. `patch_of` gives the strategic-merge patch
that changes the API's status to that, or None if nothing has to change. Conditions follow the kubelet: Initialized,
PodReadyToStartContainers (KEP-3085), ContainersReady, Ready with the readiness gates (KEP-580), each with a transition
time that moves only when its status does; conditions that somebody else set are not touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from wasmlet.model.pod import Container, Pod, Raw
from wasmlet.model.restart import is_init, is_sidecar
from wasmlet.model.status import (
    ENDED,
    Condition,
    ContainerState,
    ContainerStatus,
    Phase,
    PodStatus,
    Running,
    Terminated,
    Waiting,
    lost,
    phase_of,
    restartable_init,
)
from wasmlet.model.times import rfc3339
from wasmlet.node.pods import losses

_OWNED_TEXTS = ("reason", "message")
_MERGED_LISTS = ("hostIPs", "podIPs")
"""The API merges these lists by address, so an old address would stay, and the API refuses two of one IP family."""
MOST_MESSAGES = 12 * 1024
"""Bytes that the messages of a pod's containers may have together, and that any other text of a status may have.

Each container has the same part of it. A status with a longer text might be one that no API server takes."""
_PASSING_CONDITIONS = frozenset(("PodResizePending", "PodResizeInProgress"))
"""Conditions that are there only while they hold (KEP-1287); the rest go from True to False and back."""


def api_status(
    pod: Pod, current: Raw, status: PodStatus, *, node_ips: Sequence[str], now: datetime, final: bool = False
) -> dict[str, Any]:
    """The fields of `pod.status` that the node owns, as the API should have them.

    Args:
        current: the API's status of the pod now, for the times that stay and the conditions of others.
        status: what the provider reported.
        node_ips: addresses of the node, for `hostIP` and `hostIPs`.
        now: the transition time of what has changed.
        final: nothing will be started again, so the phase has to be a terminal one.
    """
    phase, generation = phase_of(pod, status, final=final), pod.generation
    incomplete = _uninitialized(pod, status, phase)
    initialized = not incomplete
    most = MOST_MESSAGES // max(1, len((*pod.init_containers, *pod.containers, *pod.ephemeral_containers)))
    result: dict[str, Any] = {
        "phase": phase,
        "conditions": _conditions(pod, current, status, phase, incomplete, rfc3339(now)),
        "startTime": current.get("startTime") or rfc3339(status.start_time or now),
    }
    if _rejected(status, current):
        # With container statuses kubectl would show what a container waits for, not why the pod was rejected.
        result |= dict.fromkeys(("containerStatuses", "initContainerStatuses"))
    else:
        mains = _container_statuses(pod.containers, status.containers, initialized, most)
        inits = _container_statuses(pod.init_containers, status.init_containers, True, most)
        if phase in ENDED:
            _end_waiting(pod, mains if initialized else (), most)
            _end_waiting(pod, inits[: _attempted(inits)], most)
        result["containerStatuses"] = mains
        if pod.init_containers:
            result["initContainerStatuses"] = inits
    if pod.ephemeral_containers:
        result["ephemeralContainerStatuses"] = _container_statuses(
            pod.ephemeral_containers, status.ephemeral_containers, initialized, most
        )
    if node_ips:
        result["hostIP"] = node_ips[0]
        result["hostIPs"] = [{"ip": ip} for ip in node_ips]
    if status.pod_ips:
        result["podIP"] = status.pod_ips[0]
        result["podIPs"] = [{"ip": ip} for ip in status.pod_ips]
    if generation:
        result["observedGeneration"] = generation
    return result | _texts(reason=status.reason, message=_shortened(status.message, MOST_MESSAGES))


def patch_of(pod: Pod, current: Raw, wanted: Raw) -> dict[str, Any] | None:
    """The strategic-merge patch from `current` (the API's `status`) to `wanted`, or None where nothing differs.

    The UID in it makes the API server refuse it (409) for a successor of the same name; there is no resourceVersion,
    so that others' writes do not get in the way.
    """
    changed = {key: value for key, value in wanted.items() if not _same(key, current.get(key), value)}
    for key in _MERGED_LISTS:
        if key in changed and current.get(key):
            changed[key] = [*changed[key], {"$patch": "replace"}]
    kept = {c["type"] for c in wanted.get("conditions") or ()}
    passed = [c["type"] for c in current.get("conditions") or () if c.get("type") in _PASSING_CONDITIONS - kept]
    if passed:
        deletions = [{"type": name, "$patch": "delete"} for name in passed]
        changed["conditions"] = [*wanted.get("conditions", ()), *deletions]
    for key in _OWNED_TEXTS:
        if key not in wanted and current.get(key):
            changed[key] = None
    if not changed:
        return None
    return {"metadata": {"uid": pod.uid}, "status": changed}


def refused(pod: Pod, reason: str, message: str, container: str | None = None) -> PodStatus:
    """A pod that cannot be started as its manifest stands: waiting, with the reason where kubectl shows it."""

    def waiting(containers: Sequence[Container]) -> tuple[ContainerStatus, ...]:
        return tuple(
            ContainerStatus(c.name, Waiting(reason, message), image=c.image)
            for c in containers
            if container is None or c.name == container
        )

    return PodStatus(containers=waiting(pod.containers), phase="Pending")


def _uninitialized(pod: Pod, status: PodStatus, phase: Phase) -> list[str]:
    """Init containers that have still to succeed or, sidecars, to start; none once a main container has begun."""
    if phase == "Succeeded" or any(map(_has_begun, status.containers)):
        return []
    sidecars = restartable_init(pod)
    known = {s.name: s for s in status.init_containers}
    return [c.name for c in pod.init_containers if not _is_initialized(known.get(c.name), c.name in sidecars)]


def _is_initialized(status: ContainerStatus | None, sidecar: bool) -> bool:
    if status is None:
        return False
    if sidecar:
        return status.is_started
    return isinstance(status.state, Terminated) and status.state.exit_code == 0


def _conditions(
    pod: Pod, current: Raw, status: PodStatus, phase: Phase, incomplete: Sequence[str], now: str
) -> list[dict[str, Any]]:
    known = {s.name: s for s in (*status.init_containers, *status.containers)}
    lasting = [c for c in (*pod.init_containers, *pod.containers) if not is_init(c) or is_sidecar(c)]
    unready = [c.name for c in lasting if not (c.name in known and known[c.name].is_ready)]
    done = "PodCompleted" if phase == "Succeeded" else "PodFailed" if phase == "Failed" else ""
    found = {c.get("type"): c for c in current.get("conditions") or ()}
    wanted: list[Condition] = []

    # Nothing of a pod's sandbox is left once it has ended.
    sandbox = phase == "Running" or (phase == "Pending" and _begun(status))
    wanted.append(Condition("PodReadyToStartContainers", "True" if sandbox else "False"))
    if "PodScheduled" not in found:
        wanted.append(Condition("PodScheduled", "True"))  # somebody put it here without the scheduler
    if not incomplete:
        wanted.append(Condition("Initialized", "True", done if phase == "Succeeded" else ""))
    else:
        message = f"containers with incomplete status: [{' '.join(incomplete)}]"
        wanted.append(Condition("Initialized", "False", "ContainersNotInitialized", message))

    if done:
        ready = Condition("ContainersReady", "False", done)
    elif unready:
        message = f"containers with unready status: [{' '.join(unready)}]"
        ready = Condition("ContainersReady", "False", "ContainersNotReady", message)
    else:
        ready = Condition("ContainersReady", "True")
    wanted.append(ready)
    wanted.append(_ready(pod, found, status, ready))
    wanted += status.conditions
    generation = pod.generation
    return [_condition(generation, condition, found.get(condition.type), now) for condition in wanted]


def _ready(pod: Pod, current: Mapping[str, Raw], status: PodStatus, containers_ready: Condition) -> Condition:
    if containers_ready.status != "True":
        return Condition("Ready", "False", containers_ready.reason, containers_ready.message)
    found = {name: c.get("status") for name, c in current.items()} | {c.type: c.status for c in status.conditions}
    for gate in pod.spec.get("readinessGates") or ():
        name = gate.get("conditionType")
        if found.get(name) != "True":
            if name in found:
                message = f'readiness gate "{name}": the condition is {found[name]}, not True'
            else:
                message = f'readiness gate "{name}": nobody has set the condition yet'
            return Condition("Ready", "False", "ReadinessGatesNotReady", message)
    return Condition("Ready", "True")


def _condition(generation: int, condition: Condition, current: Raw | None, now: str) -> dict[str, Any]:
    result: dict[str, Any] = {"type": condition.type, "status": condition.status}
    if current is not None and current.get("status") == condition.status and current.get("lastTransitionTime"):
        result["lastTransitionTime"] = current["lastTransitionTime"]
    else:
        result["lastTransitionTime"] = now
    for key, value in (("reason", condition.reason), ("message", _shortened(condition.message, MOST_MESSAGES))):
        if value:
            result[key] = value
        elif current is not None and current.get(key):
            result[key] = None  # conditions merge by type: what is not sent would stay
    if generation:
        result["observedGeneration"] = generation
    return result


def _rejected(status: PodStatus, current: Raw) -> bool:
    """Whether the pod was turned away before anything of it was begun (kubelet's `rejectPod`)."""
    containers = (*status.containers, *status.init_containers, *status.ephemeral_containers)
    return status.phase == "Failed" and not containers and not losses.has_run(current)


def _attempted(inits: Sequence[Raw]) -> int:
    """How many init containers there are up to the last that was begun, and at least one (`initializedContainers`)."""
    begun = (at for at, entry in enumerate(inits, 1) if "waiting" not in entry["state"] or entry.get("lastState"))
    return max(begun, default=1)


def _end_waiting(pod: Pod, entries: Sequence[dict[str, Any]], most: int) -> None:
    """Let no container wait in a pod that has ended: nobody knows how it ended (kubelet's `TerminatePod`)."""
    for entry in entries:
        if "waiting" in entry["state"]:
            (ended,) = lost(pod, None, [entry["name"]])
            entry["state"] = _state(ended.state, most)


def _begun(status: PodStatus) -> bool:
    return any(map(_has_begun, (*status.containers, *status.init_containers)))


def _has_begun(status: ContainerStatus) -> bool:
    return not isinstance(status.state, Waiting) or status.last_state is not None


def _container_statuses(
    containers: Sequence[Container], statuses: Iterable[ContainerStatus], initialized: bool, most: int
) -> list[dict[str, Any]]:
    known = {s.name: s for s in statuses}
    pending = Waiting("ContainerCreating" if initialized else "PodInitializing")
    return [
        _container_status(container, known.get(container.name) or ContainerStatus(container.name, pending), most)
        for container in containers
    ]


def _container_status(container: Container, status: ContainerStatus, most: int) -> dict[str, Any]:
    result: dict[str, Any] = {
        "name": status.name,
        "state": _state(status.state, most),
        "ready": status.is_ready,
        "started": status.is_started,
        "restartCount": status.restart_count,
        "image": status.image or container.image,
        "imageID": status.image_id,
    }
    if status.last_state is not None:
        result["lastState"] = _state(status.last_state, most)
    if status.container_id:
        result["containerID"] = status.container_id
    if mounts := container.raw.get("volumeMounts"):
        result["volumeMounts"] = [_mount(mount, status) for mount in mounts]
    if _has_begun(status):
        resources = container.resources if status.resources is None else status.resources
        allocated = container.resources.get("requests") if status.allocated is None else status.allocated
        result |= {"resources": dict(resources)} if resources else {}
        result |= {"allocatedResources": dict(allocated)} if allocated else {}
    return result


def _mount(mount: Raw, status: ContainerStatus) -> dict[str, Any]:
    """What has become of a mount (KEP-3857)."""
    result = {"name": mount["name"], "mountPath": mount["mountPath"]}
    if mount.get("readOnly"):
        asked = mount.get("recursiveReadOnly")
        whole = asked == "Enabled" or (asked == "IfPossible" and status.recursive_read_only)
        result |= {"readOnly": True, "recursiveReadOnly": "Enabled" if whole else "Disabled"}
    return result


def _state(state: ContainerState, most: int) -> dict[str, Any]:
    """The state as the API has it; of a message at most so many bytes."""
    match state:
        case Waiting():
            return {"waiting": _texts(reason=state.reason, message=_shortened(state.message, most))}
        case Running():
            return {"running": {"startedAt": rfc3339(state.started_at)}}
        case Terminated():
            ended: dict[str, Any] = {"exitCode": state.exit_code, "reason": state.cause}
            ended |= _texts(message=_shortened(state.message, most), containerID=state.container_id)
            if state.signal:
                ended["signal"] = state.signal
            for key, moment in (("startedAt", state.started_at), ("finishedAt", state.finished_at)):
                ended[key] = rfc3339(moment) if moment else None
            return {"terminated": ended}


def _shortened(text: str, most: int) -> str:
    """The first so many bytes of a text, in UTF-8."""
    if len(text) <= most and text.isascii():
        return text
    return text.encode(errors="replace")[:most].decode(errors="ignore")


def _texts(**values: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value}


def _same(key: str, current: Any, wanted: Any) -> bool:
    if key == "conditions":
        have = {c.get("type"): c for c in current or ()}
        return all(_covers(have.get(c["type"]), c) for c in wanted)
    if key.endswith("Statuses"):
        current, wanted = current or (), wanted or ()
        return len(current) == len(wanted) and all(map(_covers, current, wanted))
    return bool(current == wanted)


def _covers(current: Any, wanted: Any) -> bool:
    """Whether `current` equals `wanted`, apart from empty values, which the API server leaves out."""
    if current == wanted:  # mostly so, and then one call says it
        return True
    if isinstance(wanted, dict) and isinstance(current, dict):
        for key, value in wanted.items():
            have = current.get(key)
            if have != value and not _covers(have, value):
                return False
        return not any(value for key, value in current.items() if key not in wanted)
    return not (current or wanted)


def only_starting(status: PodStatus) -> bool:
    """Whether there is nothing to say of the pod yet but that it is being started."""
    everything = (*status.containers, *status.init_containers)
    return status.phase is None and all(
        isinstance(c.state, Waiting) and c.state.reason in ("ContainerCreating", "PodInitializing") for c in everything
    )
