"""The columns that `kubectl get` shows: one entry per kind, a line of cells per object.

Columns with priority 1 are those of `-o wide`. A kind without an entry shows its name and age.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from wasmlet.controlplane.http import access_cells, volume_cells, workload_cells
from wasmlet.controlplane.http.cells import NONE, UNKNOWN, UNSET, Cells, age, aged, duration
from wasmlet.controlplane.storage.status import Object


def _initial(pod: Object, spec: Object, status: Object) -> tuple[str | None, int, int]:
    """The status column by the init containers, or None; the restarts; and how many sidecars are ready."""
    declared = {item["name"]: item for item in spec.get("initContainers") or ()}
    sidecars = {name for name, item in declared.items() if item.get("restartPolicy") == "Always"}
    found = status.get("initContainerStatuses") or []
    restarts = sum(item.get("restartCount", 0) for item in found if item.get("name") in sidecars)
    ready = sum(bool(item.get("ready")) for item in found if item.get("name") in sidecars)
    for at, item in enumerate(found):
        state = item.get("state") or {}
        ended, waiting = state.get("terminated"), state.get("waiting")
        if ended is not None and ended.get("exitCode", 0) == 0:
            continue
        if item.get("name") in sidecars and item.get("started"):
            continue
        restarts += 0 if item.get("name") in sidecars else item.get("restartCount", 0)
        if ended is not None:
            return f"Init:{_ended(ended)}", restarts, ready
        if waiting is not None and waiting.get("reason") not in (None, "", "PodInitializing"):
            return f"Init:{waiting['reason']}", restarts, ready
        return f"Init:{at}/{len(declared)}", restarts, ready
    return None, restarts, ready


def _ended(state: Object) -> str:
    if state.get("reason"):
        return str(state["reason"])
    return f"Signal:{state['signal']}" if state.get("signal") else f"ExitCode:{state.get('exitCode', 0)}"


def _condition(conditions: object, kind: str) -> Object:
    for item in conditions if isinstance(conditions, list) else ():
        if item.get("type") == kind:
            return dict(item)
    return {}


def _pod(pod: Object, now: datetime) -> Cells:
    spec, status, meta = pod.get("spec") or {}, pod.get("status") or {}, pod["metadata"]
    reason = status.get("reason") or status.get("phase") or UNKNOWN
    scheduled = _condition(status.get("conditions"), "PodScheduled")
    if scheduled.get("reason") == "SchedulingGated":
        reason = "SchedulingGated"
    initial, restarts, ready = _initial(pod, spec, status)
    total = len(spec.get("containers") or ()) + sum(
        item.get("restartPolicy") == "Always" for item in spec.get("initContainers") or ()
    )
    last = None
    if initial is not None:
        reason = initial
    if initial is None or _condition(status.get("conditions"), "Initialized").get("status") == "True":
        running = False
        for item in reversed(status.get("containerStatuses") or []):
            restarts += item.get("restartCount", 0)
            finished = ((item.get("lastState") or {}).get("terminated") or {}).get("finishedAt")
            last = max(filter(None, (last, finished)), default=None)
            state = item.get("state") or {}
            if (state.get("waiting") or {}).get("reason"):
                reason = state["waiting"]["reason"]
            elif "terminated" in state:
                reason = _ended(state["terminated"])
            elif item.get("ready") and "running" in state:
                running = True
                ready += 1
        if reason == "Completed" and running:
            is_ready = _condition(status.get("conditions"), "Ready").get("status") == "True"
            reason = "Running" if is_ready else "NotReady"
    if "deletionTimestamp" in meta:
        if status.get("reason") == "NodeLost":
            reason = "Unknown"
        elif status.get("phase") not in ("Succeeded", "Failed"):
            reason = "Terminating"
    restarted = f"{restarts} ({age(last, now)} ago)" if restarts and last else str(restarts)
    gates = spec.get("readinessGates") or []
    met = sum(_condition(status.get("conditions"), gate.get("conditionType")).get("status") == "True" for gate in gates)
    return [
        meta["name"],
        f"{ready}/{total}",
        reason,
        restarted,
        age(meta.get("creationTimestamp"), now),
        status.get("podIP") or NONE,
        spec.get("nodeName") or NONE,
        status.get("nominatedNodeName") or NONE,
        f"{met}/{len(gates)}" if gates else NONE,
    ]


def _node(node: Object, now: datetime) -> Cells:
    spec, status, meta = node.get("spec") or {}, node.get("status") or {}, node["metadata"]
    ready = _condition(status.get("conditions"), "Ready").get("status")
    state = {"True": "Ready", None: "Unknown"}.get(ready, "NotReady")
    if spec.get("unschedulable"):
        state += ",SchedulingDisabled"
    labels = meta.get("labels") or {}
    prefix = "node-role.kubernetes.io/"
    roles = sorted(key[len(prefix) :] for key in labels if key.startswith(prefix) and key != prefix)
    addresses = {item.get("type"): item.get("address") for item in reversed(status.get("addresses") or [])}
    info = status.get("nodeInfo") or {}
    return [
        meta["name"],
        state,
        ",".join(roles) or NONE,
        age(meta.get("creationTimestamp"), now),
        info.get("kubeletVersion", ""),
        addresses.get("InternalIP") or NONE,
        addresses.get("ExternalIP") or NONE,
        info.get("osImage") or UNKNOWN,
        info.get("kernelVersion") or UNKNOWN,
        info.get("containerRuntimeVersion") or UNKNOWN,
    ]


def _event(event: Object, now: datetime) -> Cells:
    involved = event.get("involvedObject") or {}
    first = event.get("firstTimestamp") or event.get("eventTime")
    series = event.get("series") or {}
    last = series.get("lastObservedTime") or event.get("lastTimestamp") or first
    count = series.get("count") or event.get("count") or 1
    source = event.get("source") or {}
    names = [source.get("component") or event.get("reportingComponent") or "", source.get("host") or ""]
    return [
        age(last, now),
        event.get("type", ""),
        event.get("reason", ""),
        f"{str(involved.get('kind', '')).lower()}/{involved.get('name', '')}",
        involved.get("fieldPath", ""),
        ", ".join(filter(None, names)),
        str(event.get("message", "")).strip(),
        age(first, now),
        count,
        event["metadata"]["name"],
    ]


def _service_port(port: Object) -> str:
    on_nodes = f":{port['nodePort']}" if port.get("nodePort") else ""
    return f"{port.get('port')}{on_nodes}/{port.get('protocol', 'TCP')}"


def _service(service: Object, now: datetime) -> Cells:
    spec, meta = service.get("spec") or {}, service["metadata"]
    ports = ",".join(_service_port(port) for port in spec.get("ports") or ())
    chosen = ",".join(f"{key}={value}" for key, value in (spec.get("selector") or {}).items())
    return [
        meta["name"],
        spec.get("type", ""),
        spec.get("clusterIP") or NONE,
        ",".join(spec.get("externalIPs") or ()) or NONE,
        ports or NONE,
        age(meta.get("creationTimestamp"), now),
        chosen or NONE,
    ]


_SHOWN = 3
"""How many ports and addresses of a slice are shown."""


def _some(texts: list[str]) -> str:
    more = f" + {len(texts) - _SHOWN} more..." if len(texts) > _SHOWN else ""
    return ",".join(texts[:_SHOWN]) + more if texts else UNSET


def _slice(slice_: Object, now: datetime) -> Cells:
    addresses = [text for item in slice_.get("endpoints") or () for text in item.get("addresses") or ()]
    return [
        slice_["metadata"]["name"],
        slice_.get("addressType", ""),
        _some([str(port.get("port", "*")) for port in slice_.get("ports") or ()]),
        _some(addresses),
        age(slice_["metadata"].get("creationTimestamp"), now),
    ]


def _request(request: Object, now: datetime) -> Cells:
    spec, meta = request.get("spec") or {}, request["metadata"]
    status = request.get("status") or {}
    found = {item.get("type") for item in status.get("conditions") or ()}
    words = [word for word in ("Approved", "Denied", "Failed") if word in found] or ["Pending"]
    if status.get("certificate"):
        words.append("Issued")
    seconds = spec.get("expirationSeconds")
    return [
        meta["name"],
        age(meta.get("creationTimestamp"), now),
        spec.get("signerName") or NONE,
        spec.get("username", ""),
        duration(seconds) if seconds else NONE,
        ",".join(words),
    ]


def _count(*keys: str) -> Callable[[Object], int]:
    return lambda obj: sum(len(obj.get(key) or ()) for key in keys)


def _namespace_state(obj: Object) -> str:
    return str((obj.get("status") or {}).get("phase", ""))


def _holder(obj: Object) -> str:
    return str((obj.get("spec") or {}).get("holderIdentity") or "")


_BOUND = "Age Users* Groups* ServiceAccounts*"
_TABLES: dict[str, tuple[str, Callable[[Object, datetime], Cells]]] = {
    "pods": ("Name Ready Status Restarts Age IP* Node* Nominated_Node* Readiness_Gates*", _pod),
    "nodes": (
        "Name Status Roles Age Version Internal-IP* External-IP* OS-Image* Kernel-Version* Container-Runtime*",
        _node,
    ),
    "events": ("Last_Seen Type Reason Object Subobject* Source* Message First_Seen* Count* Name*", _event),
    "namespaces": ("Name Status Age", aged(_namespace_state)),
    "configmaps": ("Name Data Age", aged(_count("data", "binaryData"))),
    "secrets": ("Name Type Data Age", aged(lambda obj: obj.get("type", ""), _count("data"))),
    "serviceaccounts": ("Name Secrets Age", aged(_count("secrets"))),
    "leases": ("Name Holder Age", aged(_holder)),
    "runtimeclasses": ("Name Handler Age", aged(lambda obj: obj.get("handler", ""))),
    "customresourcedefinitions": (
        "Name Created_At",
        lambda obj, now: [obj["metadata"]["name"], obj["metadata"].get("creationTimestamp", "")],
    ),
    "services": ("Name Type Cluster-IP External-IP Port(s) Age Selector*", _service),
    "deployments": ("Name Ready Up-to-date Available Age Containers* Images* Selector*", workload_cells.deployment),
    "replicasets": ("Name Desired Current Ready Age Containers* Images* Selector*", workload_cells.replica_set),
    "statefulsets": ("Name Ready Age Containers* Images*", workload_cells.stateful_set),
    "jobs": ("Name Status Completions Duration Age Containers* Images* Selector*", workload_cells.job),
    "controllerrevisions": ("Name Controller Revision Age", workload_cells.controller_revision),
    "poddisruptionbudgets": ("Name Min_Available Max_Unavailable Allowed_Disruptions Age", workload_cells.budget),
    "roles": ("Name Created_At", access_cells.role),
    "clusterroles": ("Name Created_At", access_cells.role),
    "rolebindings": (f"Name Role {_BOUND}", access_cells.binding),
    "clusterrolebindings": (f"Name Role {_BOUND}", access_cells.binding),
    "endpointslices": ("Name AddressType Ports Endpoints Age", _slice),
    "persistentvolumeclaims": (
        "Name Status Volume Capacity Access_Modes StorageClass VolumeAttributesClass Age VolumeMode*",
        volume_cells.claim,
    ),
    "persistentvolumes": (
        "Name Capacity Access_Modes Reclaim_Policy Status Claim StorageClass VolumeAttributesClass Reason Age "
        "VolumeMode*",
        volume_cells.volume,
    ),
    "storageclasses": (
        "Name Provisioner ReclaimPolicy VolumeBindingMode AllowVolumeExpansion Age",
        volume_cells.storage_class,
    ),
    "certificatesigningrequests": ("Name Age SignerName Requestor RequestedDuration Condition", _request),
    "priorityclasses": (
        "Name Value Global-Default Age PreemptionPolicy",
        lambda obj, now: [
            obj["metadata"]["name"],
            obj.get("value", 0),
            bool(obj.get("globalDefault")),
            age(obj["metadata"].get("creationTimestamp"), now),
            obj.get("preemptionPolicy", ""),
        ],
    ),
}
_PLAIN = ("Name Age", aged())
_INTEGERS = {"Data", "Secrets", "Value", "Count", "Allowed Disruptions"}
_COUNTS = {"deployments": {"Up-to-date", "Available"}, "replicasets": {"Desired", "Current", "Ready"}}
"""Columns that are numbers in the tables of some kinds alone."""


def _type(plural: str, column: str) -> str:
    if column == "Created At":
        return "date"
    return "integer" if column in _INTEGERS | _COUNTS.get(plural, set()) else "string"


def columns(plural: str) -> list[Object]:
    """The column definitions of a kind's table."""
    out = []
    for word in _TABLES.get(plural, _PLAIN)[0].split():
        name = word.rstrip("*").replace("_", " ")
        out.append(
            {
                "name": name,
                "type": _type(plural, name),
                "format": "name" if name == "Name" else "",
                "description": "",
                "priority": int(word.endswith("*")),
            }
        )
    return out


def cells(plural: str, obj: Object, now: datetime) -> Cells:
    """The cells of one object."""
    return _TABLES.get(plural, _PLAIN)[1](obj, now)
