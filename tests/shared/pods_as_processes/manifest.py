"""What a manifest may ask for; anything else is refused by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from tests.shared.pods_as_processes.images import Image
from wasmlet import Container, Pod, Refused

POD = frozenset((
    "affinity", "automountServiceAccountToken", "containers", "dnsPolicy", "enableServiceLinks", "hostname",
    "imagePullSecrets", "nodeName", "nodeSelector", "preemptionPolicy", "priority", "priorityClassName",
    "restartPolicy", "schedulerName", "securityContext", "serviceAccount", "serviceAccountName", "subdomain",
    "terminationGracePeriodSeconds", "tolerations", "topologySpreadConstraints", "volumes",
))  # fmt: skip
CONTAINER = frozenset((
    "args", "command", "env", "envFrom", "image", "imagePullPolicy", "livenessProbe", "name", "ports",
    "readinessProbe", "resources", "securityContext", "startupProbe", "terminationMessagePath",
    "terminationMessagePolicy", "volumeMounts", "workingDir",
))  # fmt: skip
SECURITY = frozenset((
    "allowPrivilegeEscalation", "capabilities", "fsGroup", "fsGroupChangePolicy", "readOnlyRootFilesystem",
    "runAsGroup", "runAsNonRoot", "runAsUser", "seccompProfile", "supplementalGroups",
))  # fmt: skip
VOLUME = frozenset(("configMap", "downwardAPI", "emptyDir", "name", "projected", "secret"))
MOUNT = frozenset(("mountPath", "name", "readOnly"))
PROBES = ("livenessProbe", "readinessProbe", "startupProbe")


def check(pod: Pod, images: Mapping[str, Image]) -> None:
    """Raise for the first thing that cannot be honoured.

    Raises:
        Refused: names the field.
    """
    known("spec", pod.spec, POD)
    known("spec.securityContext", pod.spec.get("securityContext") or {}, SECURITY)
    for index, volume in enumerate(pod.spec.get("volumes") or ()):
        known(f"spec.volumes[{index}]", volume, VOLUME)
    for container in pod.containers:
        check_container(container, images)
        check_user(pod, container, images[container.image])


def check_container(container: Container, images: Collection[str]) -> None:
    known(container.field, container.raw, CONTAINER, container.name)
    security = container.raw.get("securityContext") or {}
    known(f"{container.field}.securityContext", security, SECURITY, container.name)
    if (security.get("capabilities") or {}).get("add"):
        raise Refused(f"{container.field}.securityContext.capabilities.add", "is not supported")
    for index, mount in enumerate(container.raw.get("volumeMounts") or ()):
        known(f"{container.field}.volumeMounts[{index}]", mount, MOUNT, container.name)
    for probe in PROBES:
        if "exec" in (container.raw.get(probe) or {}):
            raise Refused(f"{container.field}.{probe}.exec", "is not supported", container=container.name)
    if container.image not in images:
        message = f"expected one of {', '.join(images)}, found {container.image}"
        raise Refused(f"{container.field}.image", message, container=container.name, reason="ErrImageNeverPull")


def check_user(pod: Pod, container: Container, image: Image) -> None:
    security = (pod.spec.get("securityContext") or {}) | (container.raw.get("securityContext") or {})
    if security.get("runAsNonRoot") and security.get("runAsUser", image.user) == 0:
        field = f"{container.field}.securityContext.runAsNonRoot"
        raise Refused(field, "is set, and the image would run as root", container=container.name)


def known(field: str, raw: Mapping[str, Any], names: Collection[str], container: str | None = None) -> None:
    for name, value in raw.items():
        if name not in names and value:
            raise Refused(f"{field}.{name}", "is not supported by this provider of tests", container=container)
