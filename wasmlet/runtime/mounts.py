"""What a container sees of files: its mounts as directories that are open already, each with the path a guest knows.

A guest is handed directories only (WASI calls them preopens), and finds a file by the longest path that its own path
begins with. So:

- a mount of a directory, whole or by `subPath`, is that directory; mounts may lie in each other;
- a single file (a `subPath` that is one, /etc/hosts, /etc/resolv.conf, /etc/hostname, the termination log) is in a
  staging directory of this instance of the container, which is mounted where the file's directory would be. A file
  that may be written, and one that may not but whose volume can change, is there by a hard link, so it is the same
  file; a file of a configMap and the like is a copy of what it was when the container started, as with a kubelet.

What such a directory cannot give is refused by name: a file within another mount (it would hide the rest of it), files
with and without readOnly side by side, and a hard link from one file system to another. The kubelet's own files are
left out where a mount of the pod's covers their place. Nothing here is resolved again later: a guest gets descriptors.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import stat
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from wasmlet.artifacts.threads import in_thread
from wasmlet.errors import Refused
from wasmlet.model.expansion import MOST_BYTES, TooLong, expand
from wasmlet.model.hosts import hostname, hosts_file, resolv_conf
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Container, Pod, Raw
from wasmlet.runtime import beneath
from wasmlet.runtime.volumes import PodVolumes, private, read_only
from wasmlet.worker import wire

TERMINATION_LOG = "/dev/termination-log"
MAX_COPY = 16 * 1024 * 1024
"""Bytes of a single file that is copied because it cannot be linked."""


@attrs.frozen
class Mount:
    """One directory of a guest's: `path` is the guest's, `descriptor` the host's (O_PATH)."""

    path: str
    descriptor: int
    read_only: bool


@attrs.frozen
class Mounts:
    """All directories of a container.

    Attributes:
        message: where it leaves its termination message, as `wasmlet.worker.wire` has it.
    """

    entries: tuple[Mount, ...]
    message: Mapping[str, Any]

    @property
    def descriptors(self) -> tuple[int, ...]:
        return tuple(mount.descriptor for mount in self.entries)

    def as_spec(self) -> list[dict[str, Any]]:
        """As the spec has them (see `wasmlet.worker.wire`)."""
        return [{"path": mount.path, "read_only": mount.read_only} for mount in self.entries]


@attrs.frozen
class _Opened:
    """A mount of the manifest: a directory, or a file that has to be staged. `field` is its path there."""

    path: str
    descriptor: int
    read_only: bool
    field: str
    copied: bool

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(os.fstat(self.descriptor).st_mode)


@contextlib.asynccontextmanager
async def mounted(
    pod: Pod,
    container: Container,
    inputs: Inputs,
    volumes: PodVolumes,
    variables: Mapping[str, str],
    attempt: int,
) -> AsyncIterator[Mounts]:
    """Everything that a container mounts, open meanwhile.

    Args:
        variables: the container's environment, for `subPathExpr`.
        attempt: the number of the instance; the staged files of earlier ones are removed.

    Raises:
        Refused: a mount that cannot be had; names the field.
        OSError: the node's files are in trouble.
    """
    staging = volumes.directory / "containers" / beneath.file_name(container.name) / str(attempt)
    opened: list[Mounts] = []

    def open_them() -> None:
        opened.append(_open_all(pod, container, inputs, volumes, variables, staging))

    try:
        await in_thread(open_them)
        yield opened[0]
    finally:
        for mounts in opened:
            wire.close(mounts.descriptors)


def _open_all(
    pod: Pod,
    container: Container,
    inputs: Inputs,
    volumes: PodVolumes,
    variables: Mapping[str, str],
    staging: Path,
) -> Mounts:
    opened: list[_Opened] = []
    entries: list[Mount] = []
    try:
        for index, mount in enumerate(container.raw.get("volumeMounts") or ()):
            opened.append(_open(pod, container, mount, f"{container.field}.volumeMounts[{index}]", volumes, variables))
        _check_paths(container, opened)
        entries += [Mount(m.path, os.dup(m.descriptor), m.read_only) for m in opened if not m.is_file]
        covered = [mount.path for mount in entries]
        message = _message_path(container)
        stages = _stages(container, opened, covered)
        if not _cover(covered, message):
            stage = stages.setdefault(posixpath.dirname(message), _Stage(writable=True))
            if not stage.writable:
                raise Refused(
                    f"{container.field}.terminationMessagePath",
                    f"cannot be beside a single file that is readOnly ({posixpath.dirname(message)}): a guest is "
                    "handed directories only; name a path in another directory",
                    container=container.name,
                )
        if not _cover(covered, "/etc/hosts"):
            stages.setdefault("/etc", _Stage()).made = _etc(pod, inputs, volumes)
        beneath.remove(staging.parent)
        private(staging.parent)
        staging.mkdir(mode=0o755)
        for number, (path, stage) in enumerate(sorted(stages.items())):
            directory = staging / str(number)
            directory.mkdir(mode=0o755)
            _fill(container, directory, stage, [name for name in covered if posixpath.dirname(name) == path])
            if posixpath.dirname(message) == path and posixpath.basename(message) not in stage.files:
                _create(directory / posixpath.basename(message), b"", 0o666)
            descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            entries.append(Mount(path, descriptor, not stage.writable))
        if len(entries) > wire.MAX_MOUNTS:
            raise Refused(
                f"{container.field}.volumeMounts",
                f"expected at most {wire.MAX_MOUNTS} directories, found {len(entries)}",
                container=container.name,
            )
        return Mounts(tuple(entries), _message(container, entries, message))
    except BaseException:
        wire.close(entry.descriptor for entry in entries)
        raise
    finally:
        wire.close(mount.descriptor for mount in opened)


@attrs.define
class _Stage:
    """A staging directory: files of the manifest by name, and what is written for the pod."""

    files: dict[str, _Opened] = attrs.field(factory=dict)
    made: Mapping[str, str] = attrs.field(factory=dict)
    writable: bool = False


def _open(
    pod: Pod, container: Container, mount: Raw, field: str, volumes: PodVolumes, variables: Mapping[str, str]
) -> _Opened:
    volume = next(volume for volume in pod.spec.get("volumes") or () if volume["name"] == mount["name"])
    fixed = read_only(volume)
    path = posixpath.normpath("/" + mount["mountPath"].lstrip("/"))
    sub = _sub_path(container, mount, field, variables)
    descriptor = volumes.open(volume)
    try:
        if sub:
            try:
                below = _below(descriptor, sub, fixed)
            except OSError as error:
                why = "it leads out of the volume" if error.errno == errno.EXDEV else str(error.strerror)
                raise Refused(
                    f"{field}.subPath",
                    f'failed to prepare subPath for volumeMount "{mount["name"]}" of container "{container.name}": '
                    f"{sub}: {why}",
                    container=container.name,
                ) from error
            os.close(descriptor)
            descriptor = below
        opened = _Opened(path, descriptor, fixed or bool(mount.get("readOnly")), field, fixed)
        if not opened.is_file and not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise Refused(field, f"{sub} is neither a directory nor a regular file", container=container.name)
        return opened
    except BaseException:
        os.close(descriptor)
        raise


def _sub_path(container: Container, mount: Raw, field: str, variables: Mapping[str, str]) -> str:
    """The path in the volume that is mounted, "" for all of it; the messages are the kubelet's."""

    def refuse(name: str, why: str) -> Refused:
        return Refused(f"{field}.{name}", why, container=container.name)

    name, text = "subPath", str(mount.get("subPath") or "")
    if expression := mount.get("subPathExpr"):
        missing: list[str] = []
        try:
            name, text = "subPathExpr", expand(str(expression), _Asked(variables, missing))
        except TooLong:
            raise refuse("subPathExpr", f"expected at most {MOST_BYTES} bytes once it is expanded") from None
        if missing:
            raise refuse(name, f"missing value for {missing[0]!r}")
        if not text:
            raise refuse(name, f"{expression} comes to nothing")
    if text.startswith("/"):
        raise refuse(name, f"error SubPath `{text}` must not be an absolute path")
    if ".." in text.split("/"):
        raise refuse(name, f"unable to provision SubPath `{text}`: must not contain '..'")
    if "\0" in text:
        raise refuse(name, "has a NUL byte")
    return "" if posixpath.normpath(text) == "." else posixpath.normpath(text)


class _Asked(dict[str, str]):
    """Variables that remember which of them was asked for and is not there."""

    def __init__(self, variables: Mapping[str, str], missing: list[str]) -> None:
        super().__init__(variables)
        self._missing = missing

    def __contains__(self, name: object) -> bool:
        found = super().__contains__(name)
        if not found:
            self._missing.append(str(name))
        return found


def _below(volume: int, sub: str, fixed: bool) -> int:
    """Open a path in a volume, making directories for what is not there where a guest could."""
    try:
        return beneath.open_beneath(volume, sub)
    except FileNotFoundError:
        if fixed:
            raise
    return beneath.make_beneath(volume, sub, stat.S_IMODE(os.fstat(volume).st_mode))


def _check_paths(container: Container, opened: Sequence[_Opened]) -> None:
    seen: dict[str, str] = {}
    for mount in opened:
        if mount.path in seen:
            raise Refused(
                f"{mount.field}.mountPath", f"{mount.path} is mounted by {seen[mount.path]}", container=container.name
            )
        seen[mount.path] = mount.field


def _stages(container: Container, opened: Sequence[_Opened], covered: Sequence[str]) -> dict[str, _Stage]:
    """The files to stage, by the directory that they are to be seen in."""
    stages: dict[str, _Stage] = {}
    for mount in opened:
        if not mount.is_file:
            continue
        directory, name = posixpath.split(mount.path)
        if mount.path == "/":
            raise Refused(f"{mount.field}.mountPath", "a file cannot be mounted at /", container=container.name)
        if cover := _cover(covered, mount.path):
            raise Refused(
                f"{mount.field}.mountPath",
                f"a single file cannot be mounted within the mount at {cover}: a guest is handed directories only; "
                "mount it elsewhere, or the whole of its directory",
                container=container.name,
            )
        stage = stages.setdefault(directory, _Stage())
        if stage.files and stage.writable == mount.read_only:
            raise Refused(
                f"{mount.field}.readOnly",
                f"single files in one directory ({directory}) must all be readOnly or none: a guest is handed "
                "directories only",
                container=container.name,
            )
        stage.files[name] = mount
        stage.writable = not mount.read_only
    return stages


def _cover(covered: Sequence[str], path: str) -> str:
    """The mount that this path lies in, the deepest one; "" for none."""
    return max(
        (name for name in covered if path == name or path.startswith(name.rstrip("/") + "/")), key=len, default=""
    )


def _message_path(container: Container) -> str:
    path = str(container.raw.get("terminationMessagePath") or TERMINATION_LOG)
    normal = posixpath.normpath("/" + path.lstrip("/"))
    if normal == "/" or "\0" in path:
        raise Refused(
            f"{container.field}.terminationMessagePath", f"expected a file, found {path!r}", container=container.name
        )
    return normal


def _message(container: Container, entries: Sequence[Mount], path: str) -> dict[str, Any]:
    """Which mount the termination message is in, and where."""
    logs = container.raw.get("terminationMessagePolicy") == "FallbackToLogsOnError"
    cover = _cover([mount.path for mount in entries], path)
    number = next((number for number, mount in enumerate(entries) if mount.path == cover and cover != path), None)
    return {"mount": number, "path": posixpath.relpath(path, cover or "/"), "logs": logs}


def _etc(pod: Pod, inputs: Inputs, volumes: PodVolumes) -> dict[str, str]:
    dns = volumes.storage.dns
    return {
        "hosts": hosts_file(pod, inputs, dns),
        "hostname": f"{hostname(pod)}\n",
        "resolv.conf": resolv_conf(pod, dns),
    }


def _fill(container: Container, directory: Path, stage: _Stage, covered: Sequence[str]) -> None:
    """Put the files into a staging directory, and names for the mounts that begin there, so that they are listed."""
    for name in covered:
        if posixpath.basename(name):
            (directory / posixpath.basename(name)).mkdir(exist_ok=True)
    for name, mount in stage.files.items():
        _put(container, mount, directory / name)
    for name, text in stage.made.items():
        if name not in stage.files:
            _create(directory / name, text.encode(), 0o644)


def _put(container: Container, mount: _Opened, path: Path) -> None:
    """A single file of a volume: the same file, or a copy where it cannot change or cannot be linked."""
    if not mount.copied:
        try:
            # With a descriptor, even an unused one, Python makes the call that follows the link in /proc.
            os.link(f"/proc/self/fd/{mount.descriptor}", path, src_dir_fd=mount.descriptor, follow_symlinks=True)
            return
        except OSError as error:
            if not mount.read_only:
                raise Refused(
                    mount.field,
                    f"a single file that may be written must be on the file system of the node's state directory "
                    f"({error.strerror}); mount its directory, or set readOnly: true",
                    container=container.name,
                ) from error
    found = os.fstat(mount.descriptor)
    if found.st_size > MAX_COPY:
        raise Refused(
            mount.field,
            f"a single file of another file system is copied, and may have {MAX_COPY} bytes; this one has "
            f"{found.st_size}; mount its directory",
            container=container.name,
        )
    with open(f"/proc/self/fd/{mount.descriptor}", "rb") as source:
        _create(path, source.read(MAX_COPY), stat.S_IMODE(found.st_mode))


def _create(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        os.fchmod(descriptor, mode)
