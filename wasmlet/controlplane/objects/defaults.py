"""The defaults of each kind, which the API server fills into a new object before it is validated.

The values are those of `pkg/apis/core/v1/defaults.go` and similar files. Each function changes the copy that it is
given. `admission` comes next, then `validation`.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from wasmlet.controlplane.extensions import definition_rules
from wasmlet.controlplane.storage.status import Object

TOLERATION_SECONDS = 300


def _pull_policy(image: str) -> str:
    name = image.rpartition("/")[2]
    if "@" in name:
        return "IfNotPresent"
    tag = name.rpartition(":")[2] if ":" in name else "latest"
    return "Always" if tag == "latest" else "IfNotPresent"


def _probe(probe: Object) -> None:
    for key, value in (("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)):
        probe.setdefault(key, value)
    if isinstance(get := probe.get("httpGet"), dict):
        get.setdefault("scheme", "HTTP")
        get.setdefault("path", "/")
    if isinstance(grpc := probe.get("grpc"), dict):
        grpc.setdefault("service", "")


def _field_ref(source: object) -> None:
    if isinstance(source, dict) and isinstance(ref := source.get("fieldRef"), dict):
        ref.setdefault("apiVersion", "v1")


def _dicts(value: object) -> list[Object]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def container(spec: Object) -> None:
    """Defaults of one container."""
    spec.setdefault("resources", {})
    spec.setdefault("terminationMessagePath", "/dev/termination-log")
    spec.setdefault("terminationMessagePolicy", "File")
    if "imagePullPolicy" not in spec:
        spec["imagePullPolicy"] = _pull_policy(str(spec.get("image", "")))
    for port in _dicts(spec.get("ports")):
        port.setdefault("protocol", "TCP")
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if isinstance(probe := spec.get(name), dict):
            _probe(probe)
    lifecycle = spec.get("lifecycle")
    for hook in lifecycle.values() if isinstance(lifecycle, dict) else ():
        if isinstance(hook, dict) and isinstance(get := hook.get("httpGet"), dict):
            get.setdefault("scheme", "HTTP")
            get.setdefault("path", "/")
    for env in _dicts(spec.get("env")):
        _field_ref(env.get("valueFrom"))
        if isinstance(source := env.get("valueFrom"), dict) and isinstance(ref := source.get("resourceFieldRef"), dict):
            ref.setdefault("divisor", "0")


def _requests(container: Object) -> None:
    """Set a container's missing requests to its limits; only for pods, not for templates."""
    resources = container["resources"]
    if isinstance(resources, dict) and isinstance(limits := resources.get("limits"), dict):
        requests = resources.setdefault("requests", {})
        if isinstance(requests, dict):
            for name, amount in limits.items():
                requests.setdefault(name, amount)


def _volume(volume: Object) -> None:
    if not volume.keys() - {"name"}:
        volume["emptyDir"] = {}
    for source in ("configMap", "secret", "downwardAPI", "projected"):
        if isinstance(found := volume.get(source), dict):
            found.setdefault("defaultMode", 0o644)
    if isinstance(path := volume.get("hostPath"), dict):
        path.setdefault("type", "")
    if isinstance(image := volume.get("image"), dict) and "reference" in image:
        image.setdefault("pullPolicy", _pull_policy(str(image["reference"])))
    down = volume.get("downwardAPI")
    for item in _dicts(down.get("items")) if isinstance(down, dict) else ():
        _field_ref(item)
    projected = volume.get("projected")
    for part in _dicts(projected.get("sources")) if isinstance(projected, dict) else ():
        if isinstance(token := part.get("serviceAccountToken"), dict):
            token.setdefault("expirationSeconds", 3600)
        if isinstance(down := part.get("downwardAPI"), dict):
            for item in _dicts(down.get("items")):
                _field_ref(item)


def containers(spec: Object) -> list[Object]:
    """All containers of a pod spec, init and ephemeral ones included."""
    return [
        item for which in ("initContainers", "containers", "ephemeralContainers") for item in _dicts(spec.get(which))
    ]


def qos_class(spec: Object) -> str:
    """The QoS class, from the requests and limits of cpu and memory of all containers."""
    some, guaranteed = False, True
    for item in [*_dicts(spec.get("initContainers")), *_dicts(spec.get("containers"))]:
        resources = item.get("resources")
        resources = resources if isinstance(resources, dict) else {}
        requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
        for name in ("cpu", "memory"):
            some = some or name in requests or name in limits
            guaranteed = guaranteed and name in limits and requests.get(name, limits[name]) == limits[name]
    if not some:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def _host_network_ports(spec: Object) -> None:
    """Copy container ports to host ports, for a pod on the host network."""
    for item in [*_dicts(spec.get("initContainers")), *_dicts(spec.get("containers"))]:
        for port in _dicts(item.get("ports")):
            if not port.get("hostPort") and "containerPort" in port:
                port["hostPort"] = port["containerPort"]


def pod(obj: Object) -> None:
    """Defaults of a pod, and the status that every new pod has."""
    spec = obj.setdefault("spec", {})
    if not isinstance(spec, dict):
        return
    _pod_spec(spec)
    spec.setdefault("enableServiceLinks", True)
    for item in containers(spec):
        _requests(item)
    obj["status"] = {"phase": "Pending", "qosClass": qos_class(spec)}


def _pod_spec(spec: Object) -> None:
    """Defaults of the spec of a pod or of a template of pods (`SetDefaults_PodSpec`)."""
    for key, value in (
        ("restartPolicy", "Always"),
        ("terminationGracePeriodSeconds", 30),
        ("dnsPolicy", "ClusterFirst"),
        ("schedulerName", "default-scheduler"),
    ):
        spec.setdefault(key, value)
    if not isinstance(spec.get("securityContext"), dict):
        spec["securityContext"] = {}
    if "serviceAccountName" in spec:
        spec["serviceAccount"] = spec["serviceAccountName"]
    elif "serviceAccount" in spec:
        spec["serviceAccountName"] = spec["serviceAccount"]
    for item in containers(spec):
        container(item)
    if spec.get("hostNetwork") is True:
        _host_network_ports(spec)
    for volume in _dicts(spec.get("volumes")):
        _volume(volume)
    for constraint in _dicts(spec.get("topologySpreadConstraints")):
        constraint.setdefault("whenUnsatisfiable", "DoNotSchedule")


def _node(obj: Object) -> None:
    obj.setdefault("spec", {})
    obj.setdefault("status", {})
    status = obj["status"]
    if isinstance(status, dict) and "capacity" in status:
        status.setdefault("allocatable", status["capacity"])
    for taint in _dicts(obj["spec"].get("taints")) if isinstance(obj["spec"], dict) else ():
        taint.setdefault("value", "")
        if taint["value"] == "":
            del taint["value"]


def _namespace(obj: Object) -> None:
    obj["spec"] = {"finalizers": ["kubernetes"]}
    obj["status"] = {"phase": "Active"}
    labels = obj["metadata"].setdefault("labels", {}) or {}
    obj["metadata"]["labels"] = {**labels, "kubernetes.io/metadata.name": obj["metadata"].get("name", "")}


def _secret(obj: Object) -> None:
    obj.setdefault("type", "Opaque")


def _service(obj: Object) -> None:
    spec: Any = obj.setdefault("spec", {})
    obj.setdefault("status", {"loadBalancer": {}})
    if not isinstance(spec, dict):
        return
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    spec.setdefault("internalTrafficPolicy", "Cluster")
    for port in _dicts(spec.get("ports")):
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port.get("port"))


def _replica_set(obj: Object) -> None:
    spec: Any = obj.setdefault("spec", {})
    if not isinstance(spec, dict):
        return
    if spec.get("replicas") is None:
        spec["replicas"] = 1
    template = spec.get("template")
    if isinstance(template, dict) and isinstance(pods := template.get("spec"), dict):
        _pod_spec(pods)


def _deployment(obj: Object) -> None:
    _replica_set(obj)
    spec = obj["spec"]
    if not isinstance(spec, dict):
        return
    for key, value in (("revisionHistoryLimit", 10), ("progressDeadlineSeconds", 600)):
        if spec.get(key) is None:
            spec[key] = value
    strategy = spec.setdefault("strategy", {})
    if isinstance(strategy, dict) and strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        if isinstance(rolling, dict):
            rolling.setdefault("maxUnavailable", "25%")
            rolling.setdefault("maxSurge", "25%")


def _stateful_set(obj: Object) -> None:
    _replica_set(obj)
    obj.setdefault("status", {"replicas": 0, "availableReplicas": 0})
    spec = obj["spec"]
    if not isinstance(spec, dict):
        return
    spec.setdefault("podManagementPolicy", "OrderedReady")
    if spec.get("revisionHistoryLimit") is None:
        spec["revisionHistoryLimit"] = 10
    strategy = spec.setdefault("updateStrategy", {})
    if isinstance(strategy, dict):
        if not strategy.get("type"):
            strategy["type"] = "RollingUpdate"
            strategy.setdefault("rollingUpdate", {})
        rolling = strategy.get("rollingUpdate")
        if strategy["type"] == "RollingUpdate" and isinstance(rolling, dict):
            rolling.setdefault("partition", 0)
            rolling.pop("maxUnavailable", None)  # its feature gate is off by default
    kept = spec.setdefault("persistentVolumeClaimRetentionPolicy", {})
    if isinstance(kept, dict):
        for when in ("whenDeleted", "whenScaled"):
            kept.setdefault(when, "Retain")
    for claim in _dicts(spec.get("volumeClaimTemplates")):
        claim |= {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
        _claim(claim)


def _job(obj: Object) -> None:
    spec: Any = obj.setdefault("spec", {})
    if not isinstance(spec, dict):
        return
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = 1
    for key, value in (
        ("parallelism", 1),
        ("backoffLimit", 6),
        ("completionMode", "NonIndexed"),
        ("suspend", False),
        ("manualSelector", False),
        ("podReplacementPolicy", "TerminatingOrFailed"),
    ):
        if spec.get(key) is None:
            spec[key] = value
    obj.setdefault("status", {})
    template = spec.get("template")
    if isinstance(template, dict) and isinstance(pods := template.get("spec"), dict):
        _pod_spec(pods)


def _claim(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    if isinstance(spec, dict):
        spec.setdefault("volumeMode", "Filesystem")
    obj["status"] = {"phase": "Pending"}


def _persistent_volume(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    if isinstance(spec, dict):
        spec.setdefault("persistentVolumeReclaimPolicy", "Retain")
        spec.setdefault("volumeMode", "Filesystem")
    obj.setdefault("status", {"phase": "Pending"})


def _storage_class(obj: Object) -> None:
    obj.setdefault("reclaimPolicy", "Delete")
    obj.setdefault("volumeBindingMode", "Immediate")


def _budget(obj: Object) -> None:
    counts = ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods")
    obj.setdefault("status", dict.fromkeys(counts, 0))


def _binding(obj: Object) -> None:
    group = "rbac.authorization.k8s.io"
    if isinstance(reference := obj.get("roleRef"), dict) and not reference.get("apiGroup"):
        reference["apiGroup"] = group
    for subject in _dicts(obj.get("subjects")):
        if subject.get("kind") in ("User", "Group") and not subject.get("apiGroup"):
            subject["apiGroup"] = group


def _priority_class(obj: Object) -> None:
    obj.setdefault("preemptionPolicy", "PreemptLowerPriority")


def _slice(obj: Object) -> None:
    for port in _dicts(obj.get("ports")):
        port.setdefault("name", "")
        port.setdefault("protocol", "TCP")


def encode_string_data(obj: Object) -> None:
    """Move the texts in a Secret's `stringData` to its `data`, in base64."""
    given = obj.pop("stringData", None)
    if isinstance(given, dict):
        encoded = {key: base64.b64encode(str(value).encode()).decode() for key, value in given.items()}
        obj["data"] = {**(obj.get("data") or {}), **encoded}


_DEFAULTS: dict[str, Callable[[Object], None]] = {
    "pods": pod,
    "nodes": _node,
    "namespaces": _namespace,
    "secrets": _secret,
    "services": _service,
    "persistentvolumeclaims": _claim,
    "persistentvolumes": _persistent_volume,
    "storageclasses": _storage_class,
    "priorityclasses": _priority_class,
    "endpointslices": _slice,
    "deployments": _deployment,
    definition_rules.PLURAL: definition_rules.fill,
    "replicasets": _replica_set,
    "statefulsets": _stateful_set,
    "jobs": _job,
    "poddisruptionbudgets": _budget,
    "rolebindings": _binding,
    "clusterrolebindings": _binding,
}


ON_UPDATE = _DEFAULTS.keys() - {"pods", "namespaces", "secrets", "persistentvolumeclaims", "endpointslices"}
"""The kinds whose defaults are filled in on updates, too. The defaults of the others also set the status of a new
object, or these kinds have their own rules for updates."""


def fill(plural: str, obj: Object) -> None:
    """Fill in the defaults of a kind."""
    if plural in _DEFAULTS:
        _DEFAULTS[plural](obj)
