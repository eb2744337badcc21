"""The files that a pod's containers are given: its volumes, /etc/hosts and /etc/hostname. All of it blocks."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.shared.pods_as_processes.images import bound
from wasmlet import Container, Inputs, Pod
from wasmlet.model.hosts import Dns, hostname, hosts_file
from wasmlet.model.volumes import FILE_VOLUMES, volume_files
from wasmlet.runtime.files import atomic, fs_group

MEMORY = Path("/dev/shm")


class PodFiles:
    """Makes them below a directory, and removes them.

    Args:
        directory: of the pod alone; made here.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._memory: Path | None = None
        """Of the volumes that are in memory."""

    def write(self, pod: Pod, inputs: Inputs, ip: str, now: datetime) -> None:
        """Make what is not there yet, and write what has changed.

        Raises:
            Refused: an object is missing, or a volume is wrong.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        group = (pod.spec.get("securityContext") or {}).get("fsGroup")
        for volume in pod.spec.get("volumes") or ():
            path = self._path(volume)
            if FILE_VOLUMES & volume.keys():
                files = volume_files(pod, volume, inputs)
                path.mkdir(parents=True, exist_ok=True)
                atomic.write(path, files, now, group)
            elif not path.exists():
                path.mkdir(parents=True)
                path.chmod(0o777)
                if group is not None:
                    fs_group.apply(path, group, only_where_top_differs=False)
        (self._directory / "hosts").write_text(hosts_file(pod, inputs, Dns(), [ip]))
        (self._directory / "hostname").write_text(hostname(pod) + "\n")

    def mounts(self, pod: Pod, container: Container) -> Iterator[dict[str, Any]]:
        """What the container's root has of it, as the launcher has it."""
        for name in ("hosts", "hostname"):
            yield bound(self._directory / name, f"/etc/{name}")
        yield bound(Path("/etc/resolv.conf").resolve(), "/etc/resolv.conf")
        volumes = {volume["name"]: volume for volume in pod.spec.get("volumes") or ()}
        for mount in container.raw.get("volumeMounts") or ():
            volume = volumes[mount["name"]]
            read_only = bool(mount.get("readOnly") or FILE_VOLUMES & volume.keys())
            yield bound(self._path(volume), mount["mountPath"], read_only=read_only)

    def remove(self) -> None:
        for path in (self._directory, self._memory):
            if path is not None:
                shutil.rmtree(path, ignore_errors=True)

    def _path(self, volume: dict[str, Any]) -> Path:
        in_memory = (volume.get("emptyDir") or {}).get("medium") == "Memory" or not volume.keys() & {
            "emptyDir",
            "configMap",
        }
        if not in_memory:
            return self._directory / "volumes" / volume["name"]
        if self._memory is None:
            self._memory = Path(tempfile.mkdtemp(prefix="wasmlet-tests-", dir=MEMORY))
        return self._memory / volume["name"]
