"""What a plugin is sent: the pod with its variables resolved, and the content of its volumes, by container.

A plugin knows two sources of variables (`configMapKeyRef`, `secretKeyRef`) and none of the rules about them; so it gets
values. Likewise it gets the files of config maps and secrets by the paths that they have in their volume, without
`items`; what a projected or downwardAPI volume has goes the way that service-account tokens go
(`projectedvolumemaps`). It is never sent null: plugins refuse that.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from wasmlet import Container, Inputs, Pod, Refused, command_and_args, environment
from wasmlet.model.pod import Raw
from wasmlet.model.volumes import volume_files

_KEPT = ("configMap", "secret", "projected", "downwardAPI", "emptyDir")
"""The volumes that can be had."""
_NO_METADATA = ("managedFields", "ownerReferences")


def create_body(pod: Pod, inputs: Inputs) -> dict[str, Any]:
    """The body of `/create`.

    Raises:
        Refused: a field that a plugin cannot be told of, or an object that the pod refers to is missing.
    """
    volumes = _volumes(pod, inputs)
    spec = dict(pod.spec)
    spec["volumes"] = [volume.raw for volume in volumes.values()]
    everything = (*pod.containers, *pod.init_containers)
    spec["containers"] = [_container(pod, container, inputs) for container in pod.containers]
    if pod.init_containers:
        spec["initContainers"] = [_container(pod, container, inputs) for container in pod.init_containers]
    return {
        "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": _metadata(pod), "spec": spec},
        "container": [_content(container, volumes) for container in everything],
    }


def pod_body(pod: Pod) -> dict[str, Any]:
    """The pod as `/delete` and `/status` are told of it: who it is and what it consists of, without any value."""
    kept = ("name", "image", "command", "args")
    spec = {
        "containers": [{key: c.raw[key] for key in kept if key in c.raw} for c in pod.containers],
        "restartPolicy": pod.restart_policy,
    }
    if pod.init_containers:
        spec["initContainers"] = [{key: c.raw[key] for key in kept if key in c.raw} for c in pod.init_containers]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": _metadata(pod), "spec": spec}


def _metadata(pod: Pod) -> dict[str, Any]:
    return {key: value for key, value in pod.metadata.items() if key not in _NO_METADATA and value is not None}


def _container(pod: Pod, container: Container, inputs: Inputs) -> dict[str, Any]:
    found = environment(pod, container, inputs)
    if found.binary:
        names = ", ".join(found.binary)
        raise Refused(f"{container.field}.env", f"{names}: a plugin takes text only", container=container.name)
    command, args = command_and_args(container, found.variables)
    raw = {key: value for key, value in container.raw.items() if key != "envFrom" and value is not None}
    raw["env"] = [{"name": name, "value": value} for name, value in found.variables.items()]
    return raw | {"command": command, "args": args, "resources": _limited(container.resources)}


def _limited(resources: Raw) -> dict[str, Any]:
    """The resources with a limit for each request: some plugins look at limits only and give next to nothing."""
    limits = {**(resources.get("requests") or {}), **(resources.get("limits") or {})}
    return {**resources, **({"limits": limits} if limits else {})}


@attrs.frozen
class _Volume:
    """One volume of the pod: how the pod's spec says it, and the key and entry of it in a container's content."""

    raw: dict[str, Any]
    key: str
    entry: Any = attrs.field(repr=False)


def _volumes(pod: Pod, inputs: Inputs) -> Mapping[str, _Volume]:
    found: dict[str, _Volume] = {}
    for index, volume in enumerate(pod.spec.get("volumes") or ()):
        kind = next((key for key, value in volume.items() if key != "name" and value is not None), "emptyDir")
        if kind not in _KEPT:
            message = f"expected one of {', '.join(_KEPT)}, found {kind}, which interLink cannot be told of"
            raise Refused(f"spec.volumes[{index}].{kind}", message)
        found[volume["name"]] = _volume(pod, volume, kind, inputs)
    return found


def _volume(pod: Pod, volume: Raw, kind: str, inputs: Inputs) -> _Volume:
    name = volume["name"]
    if kind == "emptyDir":
        return _Volume({"name": name, "emptyDir": dict(volume.get(kind) or {})}, "emptyDirs", name)
    source = volume[kind]
    mode = {"defaultMode": source["defaultMode"]} if source.get("defaultMode") is not None else {}
    files = {file.path: file.data for file in volume_files(pod, volume, inputs)}
    if kind == "secret":
        called = _called(pod, volume, str(source["secretName"]), "secret")
        content = {"data": {path: base64.b64encode(data).decode() for path, data in files.items()}}
        raw, key = {"secret": {"secretName": called, **mode}}, "secrets"
    else:
        called = _called(pod, volume, str(source["name"]), kind) if kind == "configMap" else name
        content = _texts(files)
        config_map = kind == "configMap"
        raw = {"configMap": {"name": called, **mode}} if config_map else {"projected": {"sources": [], **mode}}
        key = "configMaps" if config_map else "projectedvolumemaps"
    entry = {"metadata": {"name": called, "namespace": pod.namespace}, **content}
    return _Volume({"name": name, **raw}, key, entry)


def _called(pod: Pod, volume: Raw, name: str, kind: str) -> str:
    """The object's name; with the volume's, where another volume shows files of the same object in its own way."""
    sources: Sequence[Raw] = [other.get(kind) or {} for other in pod.spec.get("volumes") or ()]
    same = [source for source in sources if name in (source.get("name"), source.get("secretName"))]
    return name if len(same) == 1 else f"{name}-{volume['name']}"


def _texts(files: Mapping[str, bytes]) -> dict[str, Any]:
    """Files as a config map has them. `data` is always there: plugins refuse one without it."""
    data, binary = {}, {}
    for path, content in files.items():
        try:
            data[path] = content.decode()
        except UnicodeDecodeError:
            binary[path] = base64.b64encode(content).decode()
    return {"data": data, **({"binaryData": binary} if binary else {})}


def _content(container: Container, volumes: Mapping[str, _Volume]) -> dict[str, Any]:
    """What the container's mounts have in them."""
    found: dict[str, Any] = {key: [] for key in ("configMaps", "secrets", "projectedvolumemaps", "emptyDirs")}
    for name in dict.fromkeys(mount["name"] for mount in container.raw.get("volumeMounts") or ()):
        if (volume := volumes.get(name)) is not None:
            found[volume.key].append(volume.entry)
    return {"name": container.name, **found}
