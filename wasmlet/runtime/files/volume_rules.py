"""Checks `volumes` and `volumeMounts` of a manifest. What is not supported is refused with its field name, not ignored.

`KNOWN` has the supported types of volumes; the message about another type says why it is not supported.
"""

from __future__ import annotations

import re
from typing import Any

from wasmlet.errors import Refused
from wasmlet.model.pod import Container, Pod, Raw
from wasmlet.model.quantity import Quantity
from wasmlet.model.volumes import FILE_VOLUMES
from wasmlet.runtime.files import hostpath

CLAIMS = frozenset({"persistentVolumeClaim", "ephemeral"})
KNOWN = FILE_VOLUMES | CLAIMS | {"emptyDir", "hostPath", "image"}

POLICIES = ("Always", "IfNotPresent", "Never")
NO_DRIVER = "there are no storage drivers on this node"

_MOUNT_FIELDS = frozenset(
    ("name", "mountPath", "readOnly", "recursiveReadOnly", "subPath", "subPathExpr", "mountPropagation")
)
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def kind_of(volume: Raw) -> str:
    """The source of an entry of `spec.volumes`: its one field that is not `name`; "" where there is none."""
    return next((kind for kind, value in volume.items() if kind != "name" and value is not None), "")


def check(pod: Pod, *, host_paths: bool, claims: bool) -> None:
    """Raise for the first volume or mount of the pod that cannot be had.

    Args:
        host_paths: whether the node allows any.
        claims: whether there can be any.

    Raises:
        Refused: names the field.
    """
    names = set()
    for index, volume in enumerate(pod.spec.get("volumes") or ()):
        field = f"spec.volumes[{index}]"
        if not _NAME.fullmatch(str(volume.get("name", ""))):
            raise Refused(f"{field}.name", f"expected a DNS label, found {str(volume.get('name'))[:80]!r}")
        names.add(volume["name"])
        kind = kind_of(volume)
        if kind not in KNOWN:
            raise Refused(f"{field}.{kind}" if kind else field, _no(kind, volume.get(kind)))
        _check_source(kind, volume[kind], f"{field}.{kind}", host_paths, claims)
    for container in (*pod.init_containers, *pod.containers, *pod.ephemeral_containers):
        check_mounts(container, names)


def check_mounts(container: Container, volumes: set[str]) -> None:
    """Raise for the first mount of this container that cannot be had; `volumes` are the names in `spec.volumes`."""
    for index, mount in enumerate(container.raw.get("volumeMounts") or ()):
        field = f"{container.field}.volumeMounts[{index}]"

        def refuse(name: str, why: str, field: str = field) -> None:
            raise Refused(f"{field}.{name}", why, container=container.name)

        for name, value in mount.items():
            if name not in _MOUNT_FIELDS and value is not None:
                refuse(name, "is not supported by this node")
        if mount.get("name") not in volumes:
            refuse("name", f"there is no volume {mount.get('name')!r} in spec.volumes")
        path = mount.get("mountPath") or ""
        if not path or "\0" in path:
            refuse("mountPath", f"expected a path, found {path!r}")
        if mount.get("mountPropagation") not in (None, "", "None"):
            refuse("mountPropagation", "what is mounted later on either side is not seen on the other; expected None")
        if mount.get("recursiveReadOnly") == "Enabled" and not mount.get("readOnly"):
            refuse("recursiveReadOnly", "Enabled needs readOnly: true")
        if mount.get("subPath") and mount.get("subPathExpr"):
            refuse("subPathExpr", "cannot be set beside subPath")


def _check_source(kind: str, source: Raw, field: str, host_paths: bool, claims: bool) -> None:
    if kind == "emptyDir":
        medium = source.get("medium") or ""
        if medium not in ("", "Memory"):
            raise Refused(f"{field}.medium", f"expected Memory or nothing, found {medium!r}")
        if source.get("sizeLimit") is not None:
            _quantity(source["sizeLimit"], f"{field}.sizeLimit")
    elif kind == "hostPath":
        if not host_paths:
            raise Refused(
                field, "this node gives pods none of its own files; its owner can: --allow-host-path DIRECTORY"
            )
        wanted = source.get("type") or ""
        if wanted not in hostpath.TYPES:
            raise Refused(f"{field}.type", f"a guest cannot use a {wanted}; expected a directory or a file")
        path = str(source.get("path") or "")
        if not path.startswith("/") or ".." in path.split("/") or "\0" in path:
            raise Refused(f"{field}.path", f"expected an absolute path without '..', found {path[:80]!r}")
    elif kind == "image":
        if not source.get("reference"):
            raise Refused(f"{field}.reference", "expected an image, REGISTRY/REPOSITORY:TAG")
        if source.get("pullPolicy") not in (None, "", *POLICIES):
            raise Refused(f"{field}.pullPolicy", f"expected one of {', '.join(POLICIES)}")
    elif kind in CLAIMS and not claims:
        allow = "--allow-storage-class NAME or --allow-host-path DIRECTORY"
        raise Refused(field, f"this node gives pods no volumes of claims; its owner can: {allow}")


def _no(kind: str, source: Any) -> str:
    """Why there are no volumes of this kind."""
    if not kind:
        return "has no source"
    named = source.get("driver") if isinstance(source, dict) else None
    if not named:
        return NO_DRIVER
    return (
        f"it needs the storage driver {str(named)[:80]!r}, and this node has no drivers; use a persistentVolumeClaim "
        "of a class that the node allows"
    )


def _quantity(value: Any, field: str) -> None:
    try:
        Quantity.parse(value)
    except ValueError as error:
        raise Refused(field, str(error)) from None
