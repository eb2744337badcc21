"""The files of configMap, secret, downwardAPI and projected volumes, worked out from the manifest and a pod's inputs.

What mounts a volume writes these files, and writes them again when the inputs have changed. Rules for modes, items,
optional references and paths are the kubelet's.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping

import attrs

from wasmlet.errors import Refused
from wasmlet.model.downward import Asked, field_value, resource_value
from wasmlet.model.inputs import Inputs, TokenKey
from wasmlet.model.objects import Kind, Lookup
from wasmlet.model.pod import Pod, Raw

FILE_VOLUMES = frozenset({"configMap", "secret", "downwardAPI", "projected"})
"""The volume sources whose files `volume_files` gives."""

_DEFAULT_MODE = 0o644
_LONGEST_PATH = 4096
_LONGEST_NAME = 255


@attrs.frozen
class VolumeFile:
    """One file of a volume: `path` is relative to the volume, with "/"; `mode` has the permission bits."""

    path: str
    data: bytes = attrs.field(repr=False)
    mode: int


@attrs.frozen
class _Source:
    """One source of files: where it stands in the manifest and what its files are like."""

    raw: Raw
    field: str
    mode: int


def volume_files(pod: Pod, volume: Raw, inputs: Inputs) -> tuple[VolumeFile, ...]:
    """The files of one entry of `spec.volumes`, sorted by path; of two with one path the later source's.

    Raises:
        MissingReference: an object, key or token that is not optional is missing. The reason is ContainerCreating:
            a kubelet leaves the pod so and says why in a FailedMount event, whose message this error's is.
        Refused: a path, field or source that is not allowed or not supported here.
        ValueError: the volume has none of `FILE_VOLUMES`.
    """
    kind = next((kind for kind in volume if kind in FILE_VOLUMES and volume[kind] is not None), None)
    if kind is None:
        raise ValueError(f"volume {volume.get('name')!r} is of none of the kinds {', '.join(sorted(FILE_VOLUMES))}")
    volumes = [entry.get("name") for entry in pod.spec.get("volumes") or ()]
    place = str(volumes.index(volume["name"])) if volume["name"] in volumes else repr(volume["name"])
    mode = volume[kind].get("defaultMode")
    source = _Source(volume[kind], f"spec.volumes[{place}].{kind}", _DEFAULT_MODE if mode is None else int(mode))
    prefix = f'MountVolume.SetUp failed for volume "{volume["name"]}" : '
    lookup = Lookup(inputs, reason="ContainerCreating", prefix=prefix)
    files: dict[str, VolumeFile] = {}
    for file, field in _projected(pod, source, lookup) if kind == "projected" else _of(pod, kind, source, lookup):
        path = _checked(file.path, field)
        files[path] = attrs.evolve(file, path=path)
    _check_directories(files, source.field)
    return tuple(files[path] for path in sorted(files))


def _of(pod: Pod, kind: str, source: _Source, lookup: Lookup) -> Iterator[tuple[VolumeFile, str]]:
    """The files of one source, each with the field that names its path."""
    if kind == "configMap":
        return _keys("ConfigMap", source, lookup)
    if kind == "secret":
        return _keys("Secret", source, lookup)
    return _downward(pod, source, lookup.inputs)


def _projected(pod: Pod, projected: _Source, lookup: Lookup) -> Iterator[tuple[VolumeFile, str]]:
    known = ("configMap", "secret", "downwardAPI", "serviceAccountToken")
    for index, entry in enumerate(projected.raw.get("sources") or ()):
        field = f"{projected.field}.sources[{index}]"
        kind = next((kind for kind in entry if entry[kind] is not None), None)
        if kind not in known:
            what = f"{kind} is not supported by this node" if kind else "no source is named"
            raise Refused(f"{field}.{kind}" if kind else field, f"{what}; expected one of {', '.join(known)}")
        source = _Source(entry[kind], f"{field}.{kind}", projected.mode)
        if kind == "serviceAccountToken":
            yield _token(source, lookup)
        else:
            yield from _of(pod, kind, source, lookup)


def _keys(kind: Kind, source: _Source, lookup: Lookup) -> Iterator[tuple[VolumeFile, str]]:
    data: Mapping[str, bytes] = lookup.data(kind, source.raw, source.field, binary=True) or {}
    items = source.raw.get("items")
    if not items:
        for key, value in data.items():
            yield VolumeFile(key, value, source.mode), source.field
        return
    for index, item in enumerate(items):
        field = f"{source.field}.items[{index}]"
        if item["key"] in data:
            yield VolumeFile(item["path"], data[item["key"]], _mode(item, source)), f"{field}.path"
        elif not source.raw.get("optional"):
            wording = (
                "configmap references non-existent config key"
                if kind == "ConfigMap"
                else ("references non-existent secret key")
            )
            raise lookup.missing(f"{field}.key", f"{wording}: {item['key']}")


def _downward(pod: Pod, source: _Source, inputs: Inputs) -> Iterator[tuple[VolumeFile, str]]:
    for index, item in enumerate(source.raw.get("items") or ()):
        field = f"{source.field}.items[{index}]"
        if (selector := item.get("fieldRef")) is not None:
            text = field_value(pod, selector, inputs, (), Asked("volume", f"{field}.fieldRef"))
        elif (selector := item.get("resourceFieldRef")) is not None:
            text = resource_value(pod, selector, inputs, field=f"{field}.resourceFieldRef", container=None)
        else:
            raise Refused(field, "expected fieldRef or resourceFieldRef, found neither")
        yield VolumeFile(item["path"], text.encode(), _mode(item, source)), f"{field}.path"


def _token(source: _Source, lookup: Lookup) -> tuple[VolumeFile, str]:
    key = TokenKey.of(source.raw)
    token = lookup.inputs.tokens.get(key)
    if token is None:
        wanted = f' for audience "{key.audience}"' if key.audience else ""
        raise lookup.missing(source.field, f"failed to fetch token: there is none yet{wanted}")
    return VolumeFile(source.raw["path"], token.encode(), source.mode), f"{source.field}.path"


def _mode(item: Raw, source: _Source) -> int:
    mode = item.get("mode")
    return source.mode if mode is None else int(mode)


def _checked(path: str, field: str) -> str:
    """The path in its shortest form.

    Names that begin with ".." are the kubelet's own: it changes all files of a volume at once by making the symbolic
    link `..data` lead to another directory.
    """
    parts = path.split("/")
    if not path or posixpath.normpath(path) == ".":
        wrong = "it names no file"
    elif path.startswith("/"):
        wrong = "it must be relative"
    elif ".." in parts:
        wrong = "it must not contain '..'"
    elif path.startswith(".."):
        wrong = "it must not start with '..'"
    elif len(path.encode()) > _LONGEST_PATH:
        wrong = f"it must not be longer than {_LONGEST_PATH} bytes"
    elif any(len(part.encode()) > _LONGEST_NAME for part in parts):
        wrong = f"no name in it may be longer than {_LONGEST_NAME} bytes"
    elif "\0" in path:
        wrong = "it must not contain a NUL byte"
    else:
        return posixpath.normpath(path)
    shown = path if len(path) <= 64 else f"{path[:64]}..."
    raise Refused(field, f"invalid path {shown!r}: {wrong}")


def _check_directories(files: Mapping[str, VolumeFile], field: str) -> None:
    for path in files:
        parent = posixpath.dirname(path)
        while parent:
            if parent in files:
                raise Refused(field, f"{parent!r} would be a file and, for {path!r}, a directory; name another path")
            parent = posixpath.dirname(parent)
