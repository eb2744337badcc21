"""Checks which fields of a manifest this node supports. An unsupported field is refused with its name, never ignored.

Everything that Pod Security "restricted" requires, and everything that the API server fills in, is accepted. A guest
has no users, no access to the kernel, no network except what it is granted (`network.requests`), and no files except
its mounts (`files.volume_rules`). So a field that only takes away such abilities needs nothing here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from wasmlet.errors import Refused
from wasmlet.model.pod import Container, Pod, Raw
from wasmlet.runtime.network import requests
from wasmlet.runtime.network.node_network import NO_NETWORK, NodeNetwork
from wasmlet.runtime.pods import hooks, probes

Verdict = str | None
"""Why the value of a field is refused; None where it can be honoured."""

ACCEPTED_POD = frozenset((
    "activeDeadlineSeconds", "affinity", "automountServiceAccountToken", "containers", "dnsConfig", "dnsPolicy",
    "enableServiceLinks", "ephemeralContainers", "hostAliases", "hostname", "hostNetwork", "imagePullSecrets",
    "initContainers", "nodeName", "nodeSelector", "os", "overhead", "preemptionPolicy", "priority", "priorityClassName",
    "readinessGates", "restartPolicy", "runtimeClassName", "schedulerName", "schedulingGates", "securityContext",
    "serviceAccount", "serviceAccountName", "setHostnameAsFQDN", "subdomain", "terminationGracePeriodSeconds",
    "tolerations", "topologySpreadConstraints", "volumes",
))  # fmt: skip

ACCEPTED_CONTAINER = frozenset((
    "args", "command", "env", "envFrom", "image", "imagePullPolicy", "lifecycle", "livenessProbe", "name", "ports",
    "readinessProbe", "resizePolicy", "resources", "restartPolicy", "restartPolicyRules", "securityContext",
    "startupProbe", "stdin", "stdinOnce", "targetContainerName", "terminationMessagePath", "terminationMessagePolicy",
    "tty", "volumeMounts",
))  # fmt: skip

ONLY_FALSE_POD = {
    "hostPID": "a guest sees no processes",
    "hostIPC": "a guest has no interprocess communication",
    "shareProcessNamespace": "a guest sees no processes",
}


def check(pod: Pod, network: NodeNetwork = NO_NETWORK, *, sockets: bool = True) -> None:
    """Raise for the first field of the pod that cannot be honoured.

    Args:
        network: what the node's network means for pods.
        sockets: whether the engine that runs it gives its guests sockets.

    Raises:
        Refused: names the field.
    """
    for name, value in pod.spec.items():
        verdict = _pod_field(name, value)
        if verdict is not None:
            raise Refused(f"spec.{name}", verdict)
    for field, verdict in _security(pod.spec.get("securityContext") or {}, "spec.securityContext"):
        raise Refused(field, verdict)
    requests.check(pod, network, sockets=sockets)
    for container in (*pod.init_containers, *pod.containers):
        check_container(container, network=network.given(host=requests.on_host(pod)))


def check_container(container: Container, *, network: bool = False) -> None:
    """The same for one container."""
    for name, value in container.raw.items():
        verdict = _container_field(name, value, container.raw)
        if verdict is not None:
            raise Refused(f"{container.field}.{name}", verdict, container=container.name)
    for path, verdict in (
        *probes.refusals(container, network=network),
        *hooks.refusals(container, network=network),
    ):
        raise Refused(f"{container.field}.{path}", verdict, container=container.name)
    field = f"{container.field}.securityContext"
    for path, verdict in _security(container.raw.get("securityContext") or {}, field):
        raise Refused(path, verdict, container=container.name)


def _pod_field(name: str, value: Any) -> Verdict:
    if name in ACCEPTED_POD or _empty(value):
        return None
    if name in ONLY_FALSE_POD:
        return f"cannot be true: {ONLY_FALSE_POD[name]}" if value else None
    if name == "hostUsers":
        return None  # with or without a user namespace, a guest has no users
    return "is not supported by this node"


def _container_field(name: str, value: Any, raw: Raw) -> Verdict:
    if name == "restartPolicyRules" and any(rule.get("action") != "Restart" for rule in value):
        return "expected action Restart"
    if name in ACCEPTED_CONTAINER or _empty(value):
        return None
    return "is not supported by this node"


def _security(context: Mapping[str, Any], field: str) -> Iterator[tuple[str, str]]:
    """Paths and verdicts of what a security context asks and cannot have."""
    for name, value in context.items():
        verdict = _security_field(name, value)
        if verdict is not None:
            yield f"{field}.{name}", verdict


def _security_field(name: str, value: Any) -> Verdict:
    if _empty(value):
        return None
    match name:
        case "runAsNonRoot" | "readOnlyRootFilesystem" | "allowPrivilegeEscalation":
            return None
        case "runAsUser" | "runAsGroup" | "fsGroup" | "fsGroupChangePolicy" | "supplementalGroups":
            return "cannot be 0: a guest has no users and never acts as root" if value == 0 else None
        case "supplementalGroupsPolicy":
            return None
        case "seccompProfile" | "appArmorProfile":
            kind = value.get("type")
            return f"type {kind} is not supported; expected RuntimeDefault" if kind == "Localhost" else None
        case "capabilities":
            return "no capability can be added: a guest makes no system calls" if value.get("add") else None
        case "privileged":
            return "cannot be true: a guest has no privileges to give" if value else None
        case "seLinuxOptions":
            # OpenShift gives each namespace a level, to keep its pods' files from those of others; they are apart here.
            # As on a machine without SELinux, a level changes nothing.
            if any(not _empty(part) for key, part in value.items() if key != "level"):
                return "expected at most a level: there is no SELinux policy for a guest"
            return None
        case "procMount":
            return None if value == "Default" else "a guest has no /proc; expected Default"
    return "is not supported by this node"


def _empty(value: Any) -> bool:
    """Whether the field is as good as not there."""
    return value is None or value == [] or value == {} or value == ""
