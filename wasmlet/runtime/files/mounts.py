"""The mounts of a container: open directories, each with the path at which the guest sees it.

WASI gives a guest directories only ("preopens"). A guest finds a file in the preopen whose path is the longest prefix
of the file's path. So:

- A mounted directory, whole or with `subPath`, is one preopen. Mounts may be nested.
- A single file (a `subPath` that is a file, /etc/hosts, /etc/resolv.conf, /etc/hostname, the termination log) is put
  into a staging directory of this instance, which is mounted in place of the file's directory. If the file can change,
  it is a hard link, so the guest sees the same file. A file of a configMap (and the like) is a copy from when the
  container started, as with a kubelet.
- The files of the container's own image are one more preopen, at `/`; all other mounts hide its files (`image_files`).

A module that imports nothing with which it could find a file, in a container that mounts nothing, gets no directories.

What cannot be done in this way is refused, and the message names the field: a single file inside another mount (its
staging directory would hide the rest of that mount), files with and without readOnly in one directory, and a hard link
between two file systems. The kubelet's own files (/etc/hosts and so on) are left out where a mount of the pod covers
their directory. Paths are resolved once, here; the guest gets descriptors.
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

from wasmlet.concurrency import in_thread
from wasmlet.errors import Refused
from wasmlet.model.expansion import MOST_BYTES, TooLong, expand
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Container, Pod, Raw
from wasmlet.model.volumes import FILE_VOLUMES
from wasmlet.runtime.files import beneath
from wasmlet.runtime.files.image_files import ImageFiles
from wasmlet.runtime.files.pod_users import User
from wasmlet.runtime.files.staging import Opened, Owners, Places, Stage, cover, kubelet_files, staged_files
from wasmlet.runtime.files.volume_rules import kind_of
from wasmlet.runtime.files.volumes import PodVolumes
from wasmlet.worker import wire

TERMINATION_LOG = "/dev/termination-log"


@attrs.frozen
class Mount:
    """One directory of a guest's: `path` is the guest's, `descriptor` the host's (O_PATH).

    Attributes:
        make: where the shim makes the directory, relative to the state directory; there is no descriptor of it then.
    """

    path: str
    descriptor: int
    read_only: bool
    make: str = ""


@attrs.frozen
class Mounts:
    """All directories of a container.

    Attributes:
        message: where the container leaves its termination message, in the form of `wasmlet.worker.wire`.
        left_out: paths of the image's files that the guest cannot see, although no mount of the pod hides them.
    """

    entries: tuple[Mount, ...]
    message: Mapping[str, Any]
    left_out: tuple[str, ...] = ()

    @property
    def descriptors(self) -> tuple[int, ...]:
        return _descriptors(self.entries)

    def as_spec(self) -> list[dict[str, Any]]:
        """As the spec has them (see `wasmlet.worker.wire`)."""
        return [{"path": mount.path, "read_only": mount.read_only} for mount in self.entries]


@attrs.frozen
class MountRequest:
    """What an instance of a container mounts.

    Attributes:
        variables: the container's environment, for `subPathExpr`.
        attempt: the number of the instance; what was staged for earlier ones is removed.
        image_files: the directory with the files of its image; None where there are none.
        pod_ips: the pod's own addresses, for its hosts file.
        seen: whether the module may look for files.
    """

    pod: Pod
    container: Container
    inputs: Inputs
    variables: Mapping[str, str] = attrs.field(repr=False)
    attempt: int
    image_files: Path | None = None
    pod_ips: Sequence[str] = ()
    seen: bool = True

    @property
    def empty(self) -> bool:
        """Whether the container needs no directory at all: whatever it runs, nothing can be found there."""
        return not (self.seen or self.image_files or self.container.raw.get("volumeMounts"))


@contextlib.asynccontextmanager
async def mounted(request: MountRequest, volumes: PodVolumes, *, shim_makes: bool = False) -> AsyncIterator[Mounts]:
    """Open everything that a container mounts, for the time of the context.

    Args:
        shim_makes: the shim can make the directory of the termination message.

    Raises:
        Refused: a mount is not possible; names the field.
        OSError: the node's disk fails.
    """
    if request.empty and volumes.empty:
        yield Mounts((), _message(request.container, (), _message_path(request.container), None))
        return
    opened: list[Mounts] = []
    memory = _memory_that_will_do(request, volumes) if shim_makes else None
    volumes.staged(request.container.name)
    try:
        if memory is not None:
            with contextlib.suppress(OSError):  # there is no room in memory, or something has to be on disk
                opened.append(_open_all(request, volumes, shim_makes, memory))
        if not opened:
            await in_thread(lambda: opened.append(_open_all(request, volumes, shim_makes, None)))
        yield opened[0]
    finally:
        for mounts in opened:
            wire.close(mounts.descriptors)


def _memory_that_will_do(request: MountRequest, volumes: PodVolumes) -> Path | None:
    """The directory in memory, if all that the container needs is there or can be made there: that takes no thread.

    This takes the shim to make the directory of the termination message.
    """
    mounts = request.container.raw.get("volumeMounts") or ()
    if request.image_files is not None or volumes.was_staged(request.container.name):
        return None
    if any(m.get("subPath") or m.get("subPathExpr") or not volumes.is_at_hand(m["name"]) for m in mounts):
        return None
    return volumes.storage.memory.at_hand()


def _open_all(request: MountRequest, volumes: PodVolumes, shim_makes: bool, memory: Path | None) -> Mounts:
    """Open and make all directories; only in memory where `memory` is given, and blocking otherwise."""
    pod, container, variables = request.pod, request.container, request.variables
    opened: list[Opened] = []
    entries: list[Mount] = []
    owners = Owners(pod, container, volumes)
    image = ImageFiles.of(request.image_files)
    try:
        for index, mount in enumerate(container.raw.get("volumeMounts") or ()):
            opened.append(_open(pod, container, mount, f"{container.field}.volumeMounts[{index}]", volumes, variables))
        _check_paths(container, opened)
        for mount in opened:
            if not mount.is_file:
                given = owners.mapped(mount.descriptor) if mount.outside else None
                given = os.dup(mount.descriptor) if given is None else given
                entries.append(Mount(mount.path, given, mount.read_only))
        covered = [mount.path for mount in entries]
        message = _message_path(container)
        stages = staged_files(container, opened, covered)
        if not request.empty:
            _stage_the_pods_own(stages, covered, request, volumes)
        if image is not None:
            entries[:0] = _image_mounts(image, covered, stages)  # some programs start in their first mount
            covered = [mount.path for mount in entries]
        places = Places(volumes, container.name, request.attempt, memory)
        for path, stage in sorted(stages.items()):
            names = [posixpath.basename(name) for name in covered if posixpath.dirname(name) == path]
            if posixpath.dirname(message) == path and posixpath.basename(message) not in stage.files:
                stage.message = posixpath.basename(message)
            if shim_makes and stage.is_for_message and not names:
                entries.append(Mount(path, -1, False, places.leave_to_shim(stage)))
                continue
            directory = places.make(container, path, stage, names)
            entries.append(Mount(path, owners.staged(directory, stage), not stage.writable))
        _check_number(container, entries)
        left_out = tuple(image.left_out) if image is not None else ()
        return Mounts(tuple(entries), _message(container, entries, message, volumes.user), left_out)
    except BaseException:
        wire.close(_descriptors(entries))
        raise
    finally:
        wire.close(mount.descriptor for mount in opened)
        owners.close()
        if image is not None:
            image.close()


def _descriptors(entries: Sequence[Mount]) -> tuple[int, ...]:
    return tuple(mount.descriptor for mount in entries if not mount.make)


def _stage_the_pods_own(
    stages: dict[str, Stage], covered: Sequence[str], request: MountRequest, volumes: PodVolumes
) -> None:
    """Add staging directories for the termination message and a kubelet's files, where no mount covers their places.

    Raises:
        Refused: the termination message would be beside a file that is read-only.
    """
    container, message = request.container, _message_path(request.container)
    if not cover(covered, message):
        stage = stages.setdefault(posixpath.dirname(message), Stage(writable=True))
        if not stage.writable:
            raise Refused(
                f"{container.field}.terminationMessagePath",
                f"cannot be beside a single file that is readOnly ({posixpath.dirname(message)}): a guest is "
                "handed directories only; name a path in another directory",
                container=container.name,
            )
    if not cover(covered, "/etc/hosts"):
        stages.setdefault("/etc", Stage()).made = kubelet_files(
            request.pod, request.inputs, volumes.storage.dns, request.pod_ips
        )


def _check_number(container: Container, entries: Sequence[Mount]) -> None:
    """Raise where there are more directories than the shim takes."""
    if len(entries) > wire.MAX_MOUNTS:
        raise Refused(
            f"{container.field}.volumeMounts",
            f"expected at most {wire.MAX_MOUNTS} directories, found {len(entries)}",
            container=container.name,
        )


def _image_mounts(image: ImageFiles, covered: Sequence[str], stages: Mapping[str, Stage]) -> list[Mount]:
    """The mounts of the container's image: its root, and directories that a staging directory would cover."""
    if "/" in covered:
        return []
    mounts = [] if "/" in stages else [Mount("/", image.top(), True)]
    try:
        for path, stage in stages.items():
            if not image.has(path):
                continue
            stage.image = image
            room = wire.MAX_MOUNTS - len(covered) - len(stages) - len(mounts)
            mounts += [Mount(name, found, True) for name, found in image.directories(path, {*covered, *stages}, room)]
        return mounts
    except BaseException:
        wire.close(mount.descriptor for mount in mounts)
        raise


def _open(
    pod: Pod, container: Container, mount: Raw, field: str, volumes: PodVolumes, variables: Mapping[str, str]
) -> Opened:
    volume = next(volume for volume in pod.spec.get("volumes") or () if volume["name"] == mount["name"])
    fixed = volumes.read_only(volume)
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
        kind = kind_of(volume)
        outside, copied = kind not in FILE_VOLUMES | {"emptyDir", "image"}, kind in FILE_VOLUMES
        opened = Opened(path, descriptor, fixed or bool(mount.get("readOnly")), field, copied, outside)
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


def _check_paths(container: Container, opened: Sequence[Opened]) -> None:
    seen: dict[str, str] = {}
    for mount in opened:
        if mount.path in seen:
            raise Refused(
                f"{mount.field}.mountPath", f"{mount.path} is mounted by {seen[mount.path]}", container=container.name
            )
        seen[mount.path] = mount.field


def _message_path(container: Container) -> str:
    path = str(container.raw.get("terminationMessagePath") or TERMINATION_LOG)
    normal = posixpath.normpath("/" + path.lstrip("/"))
    if normal == "/" or "\0" in path:
        raise Refused(
            f"{container.field}.terminationMessagePath", f"expected a file, found {path!r}", container=container.name
        )
    return normal


def _message(container: Container, entries: Sequence[Mount], path: str, user: User | None) -> dict[str, Any]:
    """Which mount the termination message is in, and where."""
    logs = container.raw.get("terminationMessagePolicy") == "FallbackToLogsOnError"
    top = cover([mount.path for mount in entries], path)
    number = next((number for number, mount in enumerate(entries) if mount.path == top and top != path), None)
    message = {"mount": number, "path": path[len(top) :].lstrip("/") or ".", "logs": logs}
    if number is not None and (directory := entries[number].make):
        message |= {"make": directory, "user": None if user is None else user.id}
    return message
