"""Where the files of pods are, on disk and in memory, and how all files of one pod are removed.

`volumes` makes and opens the volumes of one pod, and `staging` what else its containers see.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import attrs

from wasmlet.concurrency import in_thread
from wasmlet.model.hosts import Dns
from wasmlet.runtime.files import beneath, memory
from wasmlet.runtime.files.claims import Claims
from wasmlet.runtime.files.hostpath import HostPaths

PLUGINS = {
    "configMap": "kubernetes.io~configmap",
    "downwardAPI": "kubernetes.io~downward-api",
    "emptyDir": "kubernetes.io~empty-dir",
    "image": "kubernetes.io~image",
    "projected": "kubernetes.io~projected",
    "secret": "kubernetes.io~secret",
}
PODS = "pods"
"""Where in the state directory, and in the one in memory, the files of pods are."""
IN_MEMORY = frozenset({"secret", "projected", "downwardAPI"})
"""The volumes that a kubelet always has in memory."""


_TRIES = 3


@attrs.define
class Traces:
    """What there is of a pod, as far as one process has made it, so that its removal need not look for it.

    Attributes:
        known: nothing was made on disk but `directories` and `staged`; guests may have put more there.
        light: in memory there is little in all its volumes together, and nothing that guests can write to.
        directories: the volumes on disk with the directories above them, which come first.
        staged: by instance of a container, the directory for its termination message, and the file in it; the shim
            makes and removes them.
        leaving: there may be directories that the shim is about to remove, the pod's own with the last of them.
    """

    known: bool = True
    light: bool = True
    directories: dict[str, None] = attrs.field(factory=dict)
    staged: dict[str, tuple[str, str]] = attrs.field(factory=dict)
    leaving: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """What is on disk, below the pod's own directory and in the order in which it was made."""
        return (*self.directories, *(name for names in self.staged.values() for name in names))


@attrs.frozen
class Storage:
    """What the volumes of all pods of a node have in common.

    Attributes:
        state_dir: of the provider; volumes lie below its `pods`.
        host_paths: what of the node's own files pods may have.
        claims: where the volumes of claims are.
        dns: what goes into pods' hosts and resolv.conf files.
    """

    state_dir: Path
    memory: memory.Memory
    host_paths: HostPaths
    claims: Claims
    dns: Dns

    def directory(self, uid: str) -> Path:
        """Everything on disk of one pod."""
        return pod_in(self.state_dir, uid)

    def in_memory(self, uid: str) -> Path | None:
        """Everything in memory of one pod, where there is a directory for that."""
        base = self.memory.existing()
        return pod_in(base, uid) if base else None

    def images(self) -> set[str]:
        """Digests of the images that pods mount; blocks."""
        found = self.state_dir.glob(f"pods/*/volumes/{PLUGINS['image']}/*/*")
        return {path.name.replace("-", ":", 1) for path in found}

    async def remove_pod(self, uid: str, traces: Traces) -> None:
        """Remove all files of a pod. Those in memory go first, and at once where that takes no time.

        What is on disk may be gone a moment after this returns: about 50 ms after the end of its container the shim
        removes what it has made itself.

        Raises:
            OSError: some are left.
        """
        base = self.memory.at_hand() if traces.light else None
        if base is not None:
            beneath.remove(pod_in(base, uid))
        names = traces.names if traces.known else None
        if base is None or names != ():
            await in_thread(self.remove, uid, names, in_memory=base is None, leaving=traces.leaving)

    def remove(
        self, uid: str, names: Sequence[str] | None = None, *, in_memory: bool = True, leaving: bool = False
    ) -> None:
        """Remove all files of a pod; blocks.

        Args:
            names: all on disk but what guests have made, as in `Traces.names`; None where that is not known.
            in_memory: whether there may be files in memory.
            leaving: as in `Traces`; what the shim is about to remove may be left to it.

        Raises:
            OSError: some are left.
        """
        if in_memory and (kept := self.in_memory(uid)):
            beneath.remove(kept)
        directory = self.directory(uid)
        if names is None or not beneath.remove_known(directory, names, more_leaves=leaving):
            volumes = f"{directory}/volumes/{PLUGINS['emptyDir']}"
            for volume in _names(volumes):
                memory.unmount(Path(volumes, volume))
            beneath.remove(directory)

    def close(self, running: bool) -> None:
        """The node loop ends; blocks. Where nothing runs, secrets are removed; a pod's next start writes them again."""
        base = self.memory.existing()
        if base is None:
            return
        for name in () if running else _names(base / PODS):
            volumes = base / PODS / name / "volumes"
            for staged in _names(volumes.parent):
                if staged != volumes.name:
                    beneath.remove(volumes.parent / staged)
            for kind in IN_MEMORY:
                beneath.remove(volumes / PLUGINS[kind])
            for directory in (volumes, volumes.parent):
                with contextlib.suppress(OSError):  # an emptyDir is there
                    directory.rmdir()
        self.memory.close()

    def remove_orphans(self, uids: set[str]) -> None:
        """Remove the files of every pod but these: whose end was cut short, or that never ran; blocks."""
        names = {beneath.file_name(uid) for uid in uids}
        bases = [self.state_dir, *filter(None, [self.memory.existing()])]
        found = {name for base in bases for name in _names(base / PODS)}
        for name in found - names:
            self.remove(name)


def instance_name(container: str, attempt: int | str) -> str:
    """What the names of an instance's own directories begin with, in the directory of its pod."""
    return f"{beneath.file_name(container)}.{attempt}"


def pod_in(base: Path, uid: str) -> Path:
    """Everything of one pod below a directory of all pods' files, on disk or in memory."""
    return Path(f"{base}/{PODS}/{beneath.file_name(uid)}")  # each pod asks for it a few times


def _names(directory: Path | str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def private(directory: Path | str) -> None:
    """Make a directory and those above it, for this user alone: a volume itself may be open to all."""
    for left in reversed(range(_TRIES)):
        try:
            os.mkdir(directory, 0o700)
        except FileExistsError:
            return
        except FileNotFoundError:  # the shim may remove a pod's directory that is empty
            if not left:
                raise
            private(os.path.dirname(directory))
        else:
            return
