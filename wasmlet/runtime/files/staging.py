"""Staging directories: each belongs to one instance of a container, and holds single files that the guest sees.

`mounts` says when they are needed. The files in them are hard links or copies. If a pod has a user of its own, it owns
what is made here, and files from outside the pod go through `idmapped`. A directory that guests cannot write to is in
memory, where making it takes a twentieth of the time. One that has nothing but the termination message is made by the
shim: its single thread does in a few microseconds what takes a thread of the node loop many turns. All functions block,
but those that are told to use nothing but memory.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import structlog

from wasmlet.errors import Refused
from wasmlet.model.hosts import Dns, hosts_file, resolv_conf, set_hostname
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Container, Pod
from wasmlet.runtime.files import atomic, beneath, idmapped
from wasmlet.runtime.files.image_files import ImageFiles
from wasmlet.runtime.files.storage import PODS, instance_name, pod_in, private
from wasmlet.runtime.files.volumes import PodVolumes

log = structlog.get_logger(__name__)

MAX_COPY = 16 * 1024 * 1024
"""Bytes of a single file that is copied because it cannot be linked."""


@attrs.frozen
class Opened:
    """An opened mount of the manifest: a directory, or a file that has to be staged.

    Attributes:
        field: the path of the mount in the manifest, for messages.
        copied: whether a file is copied, and not linked.
        outside: its volume has files that do not belong to the pod (hostPath, claim).
    """

    path: str
    descriptor: int
    read_only: bool
    field: str
    copied: bool
    outside: bool

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(os.fstat(self.descriptor).st_mode)


@attrs.define
class Stage:
    """A staging directory: files of the manifest by name, and what is written for the pod."""

    files: dict[str, Opened] = attrs.field(factory=dict)
    made: Mapping[str, str] = attrs.field(factory=dict)
    writable: bool = False
    message: str = ""
    """Name of the file in it for a termination message, where it is to have one."""
    linked: set[str] = attrs.field(factory=set)
    """Names that are other files' names too."""
    image: ImageFiles | None = None
    """The container's image, if it has this directory, too; its files are added."""

    @property
    def is_for_message(self) -> bool:
        """Whether there is nothing in it but the termination message."""
        return bool(self.message) and not (self.files or self.made or self.image)

    @property
    def may_be_in_memory(self) -> bool:
        """Whether it may lie in memory: no guest can fill it, and nothing is linked into it."""
        return not self.writable and self.image is None and all(mount.copied for mount in self.files.values())

    @property
    def is_for_all(self) -> bool:
        """Whether everybody may read all that is in it, and nobody may write."""
        return not (self.writable or self.files or self.image or self.message)


class Places:
    """Where the staging directories of one instance of a container are; those of earlier instances are removed.

    Args:
        memory: the directory of all pods in memory, if nothing else may be used; `make` raises OSError if that will not
            do.
    """

    def __init__(self, volumes: PodVolumes, container: str, attempt: int, memory: Path | None) -> None:
        self._count = 0
        self._name = instance_name(container, attempt)
        self._disk = volumes.directory
        self._memory = pod_in(memory or volumes.storage.memory.find(), self._disk.name)
        self._only_memory = memory is not None
        self._traces = volumes.traces
        if self._memory == self._disk:  # this machine has no directory in memory
            self._traces.known = False
        for base in () if self._only_memory else {self._disk, self._memory}:
            for earlier in staged_for(base, container):
                beneath.remove(earlier)

    def make(self, container: Container, path: str, stage: Stage, names: Sequence[str]) -> str:
        """Make and fill a staging directory for this path of the guest; see `fill`. Where it is."""
        name = self._next()
        if stage.may_be_in_memory:
            try:
                return _make(f"{self._memory}/{name}", container, path, stage, names)
            except OSError as error:
                if self._only_memory or error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                beneath.remove(self._memory / name)
        if self._only_memory:
            raise BlockingIOError(errno.EWOULDBLOCK, "what guests can write to has to be on disk")
        self._traces.known = False
        return _make(f"{self._disk}/{name}", container, path, stage, names)

    def leave_to_shim(self, stage: Stage) -> str:
        """Where the shim is to make a directory for the termination message alone, relative to the state directory."""
        # No directory that this process makes has such a name: the shim removes its own a moment after the container's
        # end, and a pod of a manifest file that was changed may come again, with the same UID, before that.
        name = f"{self._next()}.shim"
        self._traces.staged[self._name] = (f"{name}/", f"{name}/{stage.message}")
        return f"{PODS}/{self._disk.name}/{name}"

    def _next(self) -> str:
        self._count += 1
        return f"{self._name}-{self._count}"


def _make(directory: str, container: Container, path: str, stage: Stage, names: Sequence[str]) -> str:
    private(os.path.dirname(directory))
    try:
        _make_directory(directory)
    except FileNotFoundError:  # the shim has removed the pod's directory meanwhile, which was empty
        private(os.path.dirname(directory))
        _make_directory(directory)
    fill(container, directory, stage, names)
    if stage.image is not None:
        stage.linked |= stage.image.add_to(directory, path, link=not stage.writable)
    return directory


def staged_for(base: Path, container: str) -> list[Path]:
    """The staging directories of a container in that directory of its pod."""
    try:
        names = os.listdir(base)
    except FileNotFoundError:
        return []
    # No name of a container has a dot, and no other directory of a pod has one.
    start = instance_name(container, "")
    return [base / name for name in names if name.startswith(start)]


class Owners:
    """Gives the files of a container to the pod's user, if the pod has one; see `pod_users` and `idmapped`."""

    def __init__(self, pod: Pod, container: Container, volumes: PodVolumes) -> None:
        self._user = volumes.user
        self._disk = idmapped.owners(pod, container)
        self._namespace: int | None = None

    def mapped(self, directory: int) -> int | None:
        """Make an idmapped mount of a directory from outside, for the pod's user; None: use the directory as it is."""
        if self._user is None:
            return None
        try:
            if self._namespace is None:
                self._namespace = idmapped.namespace(self._disk, self._user)
            return idmapped.mapped(directory, self._namespace)
        except OSError as error:
            where = os.readlink(f"/proc/self/fd/{directory}")
            log.warning("owners of files cannot be mapped: a pod sees them as another user", path=where, why=str(error))
            return None

    def staged(self, directory: str, stage: Stage) -> int:
        """Open a staging directory; what was made in it is the user's, and so are linked files from outside."""
        descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        if self._user is None or stage.is_for_all:
            return descriptor
        linked = [mount for name, mount in stage.files.items() if name in stage.linked]
        through = self.mapped(descriptor) if linked and all(mount.outside for mount in linked) else None
        if through is None:
            owner = group = self._user.id
        else:
            os.close(descriptor)
            descriptor = through
            owner, group = self._disk
        names = [name for name in os.listdir(directory) if name not in stage.linked]
        for path in (directory, *(f"{directory}/{name}" for name in names)):
            os.chown(path, owner, group, follow_symlinks=False)
        return descriptor

    def close(self) -> None:
        if self._namespace is not None:
            os.close(self._namespace)


def staged_files(container: Container, opened: Sequence[Opened], covered: Sequence[str]) -> dict[str, Stage]:
    """The files to stage, by the directory that they are to be seen in."""
    stages: dict[str, Stage] = {}
    for mount in opened:
        if not mount.is_file:
            continue
        directory, name = posixpath.split(mount.path)
        if mount.path == "/":
            raise Refused(f"{mount.field}.mountPath", "a file cannot be mounted at /", container=container.name)
        if hidden := cover(covered, mount.path):
            raise Refused(
                f"{mount.field}.mountPath",
                f"a single file cannot be mounted within the mount at {hidden}: a guest is handed directories only; "
                "mount it elsewhere, or the whole of its directory",
                container=container.name,
            )
        stage = stages.setdefault(directory, Stage())
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


def cover(covered: Sequence[str], path: str) -> str:
    """The mount that this path lies in, the deepest one; "" for none."""
    return max(
        (name for name in covered if path == name or path.startswith(name.rstrip("/") + "/")), key=len, default=""
    )


def kubelet_files(pod: Pod, inputs: Inputs, dns: Dns, pod_ips: Sequence[str]) -> dict[str, str]:
    """What a kubelet puts into a container's /etc."""
    return {
        "hosts": hosts_file(pod, inputs, dns, pod_ips),
        "hostname": f"{set_hostname(pod, dns.domain, inputs.node_name)}\n",
        "resolv.conf": resolv_conf(pod, dns),
    }


def fill(container: Container, directory: str, stage: Stage, names: Sequence[str]) -> None:
    """Put the files into a staging directory, and names of the mounts that begin there, so that they are listed."""
    for name in filter(None, names):
        with contextlib.suppress(FileExistsError):
            _make_directory(f"{directory}/{name}")
    for name, mount in stage.files.items():
        if _put(container, mount, f"{directory}/{name}"):
            stage.linked.add(name)
    for name, text in stage.made.items():
        if name not in stage.files:
            create(f"{directory}/{name}", text.encode(), 0o644)
    if stage.message:
        create(f"{directory}/{stage.message}", b"", 0o666)


def _put(container: Container, mount: Opened, path: str) -> bool:
    """A single file of a volume: the same file (True), or a copy where it cannot change or cannot be linked."""
    if not mount.copied:
        try:
            # With a descriptor, even an unused one, Python makes the call that follows the link in /proc.
            os.link(f"/proc/self/fd/{mount.descriptor}", path, src_dir_fd=mount.descriptor, follow_symlinks=True)
            return True
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
        create(path, source.read(MAX_COPY), stat.S_IMODE(found.st_mode))
    return False


def _make_directory(path: str) -> None:
    """Make a directory that everybody may read, whatever the umask is."""
    os.mkdir(path)
    os.chmod(path, 0o755)


def create(path: str, data: bytes, mode: int) -> None:
    """Make a file, with this mode whatever the umask is. By plain calls: each start of a container makes some."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        atomic.write_all(descriptor, data)
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)
