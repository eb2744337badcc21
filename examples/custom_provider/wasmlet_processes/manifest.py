"""What a manifest may ask for; anything else is refused by name, never ignored.

A process has the rights, the files and the network of the node, so what would isolate it cannot be honoured.
"""

from __future__ import annotations

from wasmlet import Container, Pod, Refused

POD_FIELDS = frozenset((
    "affinity", "automountServiceAccountToken", "containers", "dnsPolicy", "enableServiceLinks", "hostIPC",
    "hostNetwork", "hostPID", "nodeName", "nodeSelector", "preemptionPolicy", "priority", "priorityClassName",
    "readinessGates", "restartPolicy", "schedulerName", "schedulingGates", "serviceAccount", "serviceAccountName",
    "terminationGracePeriodSeconds", "tolerations", "topologySpreadConstraints",
))  # fmt: skip
CONTAINER_FIELDS = frozenset((
    "args", "command", "env", "envFrom", "image", "imagePullPolicy", "name", "ports", "stdin", "stdinOnce",
    "terminationMessagePath", "terminationMessagePolicy", "workingDir",
))  # fmt: skip
ADVICE = {
    "initContainers": "run what they do in the container's own command",
    "volumes": "a process sees the node's files; for the service account's set automountServiceAccountToken: false",
    "volumeMounts": "a process sees the node's files",
    "securityContext": "a process has the node's own rights; run the node as another user",
    "limits": "a process is not limited; name what it needs under requests",
}


def check(pod: Pod) -> None:
    """Raise for the first field that cannot be honoured.

    Raises:
        Refused: names the field.
    """
    for name, value in pod.spec.items():
        if name not in POD_FIELDS and value:
            raise _refused(f"spec.{name}", name)
    for container in pod.containers:
        _check_container(container)


def _check_container(container: Container) -> None:
    for name, value in container.raw.items():
        if name not in CONTAINER_FIELDS and name != "resources" and value:
            raise _refused(f"{container.field}.{name}", name, container.name)
    if container.resources.get("limits"):
        raise _refused(f"{container.field}.resources.limits", "limits", container.name)
    if not container.command:
        message = "expected the program to run: there is no image to take one from"
        raise Refused(f"{container.field}.command", message, container=container.name)
    if container.raw.get("terminationMessagePolicy") == "FallbackToLogsOnError":
        field = f"{container.field}.terminationMessagePolicy"
        raise Refused(field, "FallbackToLogsOnError is not supported; expected File", container=container.name)


def _refused(field: str, name: str, container: str | None = None) -> Refused:
    advice = f"; {ADVICE[name]}" if name in ADVICE else ""
    return Refused(field, f"is not supported by the processes provider{advice}", container=container)
