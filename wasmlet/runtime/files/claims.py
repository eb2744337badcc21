"""Finds the volume of a PersistentVolumeClaim: a directory of the node.

A provider may know the directory itself. Otherwise the claim's PersistentVolume names it: types hostPath and local are
directories of the node, and type nfs is the place where somebody has mounted the export. The directory must be below
what the node's owner allows (`--allow-host-path`), unless the StorageClass of the claim is allowed by name
(`--allow-storage-class`). All other types need a storage driver, and this node has none.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path

import attrs

from wasmlet.concurrency import in_thread
from wasmlet.errors import WasmletError
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod, Raw
from wasmlet.runtime.files.hostpath import HostPaths

MOUNTS = Path("/proc/self/mountinfo")
_CLASS = "volume.beta.kubernetes.io/storage-class"
"""The old annotation for a claim's class, before `spec.storageClassName`; API servers still honour it."""

Directory = Callable[[Pod, str], Awaitable[Path]]
"""The directory of a pod's claim, by the claim's name; it is `RuntimeProvider.claim_directory`."""


@attrs.frozen
class ClaimedVolume:
    """The volume of a claim.

    Attributes:
        path: the directory on the node.
        read_only: no container may write to it, whatever its mounts say.
        gives_group: whether the files are given to the pod's fsGroup. As in a kubelet, not for type hostPath.
        allowed: the directories that it must be below, checked whenever it is opened; None if the provider named it.
        kind: the expected type, as for a hostPath.
    """

    path: Path
    read_only: bool = False
    gives_group: bool = True
    allowed: HostPaths | None = None
    kind: str = "Directory"

    def open(self) -> int:
        """A descriptor (O_PATH) of the directory, the caller's to close; blocks.

        Raises:
            WasmletError, OSError: it cannot be had.
        """
        if self.allowed is None:
            return os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return self.allowed.open(str(self.path), self.kind)


@attrs.frozen
class Claims:
    """Finds the volumes of claims.

    Attributes:
        directory: of a provider that knows where they are by itself; else the API objects say it.
        host_paths: what of the node's own files pods may have.
        classes: StorageClasses whose volumes may lie anywhere.
    """

    directory: Directory | None
    host_paths: HostPaths
    classes: Collection[str] = ()

    @property
    def any(self) -> bool:
        """Whether this node can provide any claims at all."""
        return bool(self.directory is not None or self.classes or self.host_paths.prefixes)

    async def find(self, pod: Pod, volume: Raw, inputs: Inputs) -> ClaimedVolume:
        """The volume of the claim that an entry of `spec.volumes` is of.

        Raises:
            WasmletError: not (yet); the message is for the pod's owner.
        """
        ephemeral = "persistentVolumeClaim" not in volume
        name = f"{pod.name}-{volume['name']}" if ephemeral else str(volume["persistentVolumeClaim"]["claimName"])
        if self.directory is not None:
            return ClaimedVolume(await self.directory(pod, name))
        return await in_thread(self.bound, pod, name, inputs, ephemeral=ephemeral)

    def bound(self, pod: Pod, name: str, inputs: Inputs, *, ephemeral: bool = False) -> ClaimedVolume:
        """The volume that the API has for a claim; blocks.

        Args:
            ephemeral: the claim is made for an ephemeral volume, so the pod must own it.

        Raises:
            WasmletError: as `find`.
        """
        claim, bound = inputs.claims.get(name), inputs.persistent_volumes.get(name)
        if claim is None:
            raise WasmletError(f'persistentvolumeclaim "{name}" not found')
        owners = [owner.get("uid") for owner in claim["metadata"].get("ownerReferences") or ()]
        if ephemeral and pod.uid not in owners:
            raise WasmletError(f'persistentvolumeclaim "{name}" was not made for this pod')
        if bound is None:
            raise WasmletError(f'persistentvolumeclaim "{name}" is not bound to a volume yet')
        spec, what = claim.get("spec") or {}, f'persistentvolumeclaim "{name}"'
        if spec.get("volumeMode") == "Block":
            raise WasmletError(f"{what} is of volumeMode Block, a device, which a guest cannot use")
        found = _directory(bound.get("spec") or {}, what)
        volume = bound.get("spec") or {}
        modes = (list(one.get("accessModes") or ()) for one in (spec, volume))
        read_only = found.read_only or ["ReadOnlyMany"] in modes
        # A claim's author chooses its volume and class freely; only the class of the volume is set by an administrator.
        by_class = _class(claim) in self.classes and _class(bound) == _class(claim)
        allowed = HostPaths([found.path.parent]) if by_class else self.host_paths
        found = attrs.evolve(found, allowed=allowed, read_only=read_only)
        try:
            os.close(found.open())
        except OSError as error:
            raise WasmletError(f"{what}: the directory of its volume cannot be had here: {error.strerror}") from None
        except WasmletError as error:
            raise WasmletError(f"{what}: {error}; or allow its class by --allow-storage-class") from None
        return found


_EXPECTED = "expected one of type hostPath, local or nfs"


def _directory(spec: Raw, what: str) -> ClaimedVolume:
    """The directory that a PersistentVolume of this `spec` is; blocks."""
    if (host := spec.get("hostPath")) is not None:
        found = ClaimedVolume(_path(host, what), gives_group=False, kind=str(host.get("type") or ""))
        if found.kind not in ("", "Directory", "DirectoryOrCreate"):
            raise WasmletError(f"{what}: expected a hostPath that is a directory, found type {host.get('type')}")
        return found
    if (local := spec.get("local")) is not None:
        return ClaimedVolume(_path(local, what))
    if (nfs := spec.get("nfs")) is not None:
        return ClaimedVolume(_path({"path": _mounted(nfs)}, what), read_only=bool(nfs.get("readOnly")))
    if (csi := spec.get("csi")) is not None:
        raise WasmletError(f"{what} needs the storage driver {csi.get('driver')!r}, and this node has no drivers")
    raise WasmletError(f"{what} is bound to a volume of a type that this node does not have; {_EXPECTED}")


def _path(source: Raw, what: str) -> Path:
    path = str(source.get("path") or "")
    if not path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise WasmletError(f"{what}: expected a volume with an absolute path without '..', found {path[:80]!r}")
    return Path(posixpath.normpath(path))


def _class(claim: Raw) -> str:
    annotated = (claim["metadata"].get("annotations") or {}).get(_CLASS)
    return str(annotated or (claim.get("spec") or {}).get("storageClassName") or "")


def _mounted(nfs: Raw) -> str:
    """The directory where the machine has mounted an NFS export, or a directory above it; blocks."""
    server, wanted = str(nfs.get("server")), posixpath.normpath(str(nfs.get("path")))
    for line in MOUNTS.read_text().splitlines():
        mount, _, filesystem = line.partition(" - ")
        kind, source, *_ = filesystem.split(" ")
        host, _, export = source.rpartition(":")
        if not kind.startswith("nfs") or host.strip("[]") != server.strip("[]"):
            continue
        export = posixpath.normpath(_plain(export))
        if posixpath.commonpath([export, wanted]) == export and mount.split(" ")[3] == "/":
            return posixpath.join(_plain(mount.split(" ")[4]), posixpath.relpath(wanted, export))
    raise WasmletError(f"nfs {server}:{wanted} is not mounted on this machine; its owner can mount it")


def _plain(text: str) -> str:
    """A path as mountinfo writes it, without the octal escapes."""
    for escape, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(escape, character)
    return text
