"""Reads the files that a container's environment variables come from (`fileKeyRef`).

Earlier containers of the same pod have written these files.

`wasmlet.model.env_files` describes their format.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from wasmlet.errors import Refused
from wasmlet.model.environment import Files
from wasmlet.model.pod import Container, Pod
from wasmlet.runtime.files.beneath import open_beneath

if TYPE_CHECKING:
    from wasmlet.runtime.files.volumes import PodVolumes

MAX_BYTES = 64 * 1024
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY


def asked(container: Container) -> bool:
    """Whether any variable of the container's comes from a file."""
    return any((variable.get("valueFrom") or {}).get("fileKeyRef") for variable in container.env)


def read(pod: Pod, container: Container, volumes: PodVolumes) -> Files:
    """Read every file that the container's variables refer to, as far as it is there; blocks.

    Raises:
        Refused: a file is too large, or cannot be read.
    """
    sources = {volume.get("name"): volume for volume in pod.spec.get("volumes") or ()}
    texts: dict[tuple[str, str], str] = {}
    for index, variable in enumerate(container.env):
        selector = (variable.get("valueFrom") or {}).get("fileKeyRef")
        if not selector:
            continue
        volume, path = sources.get(selector.get("volumeName")), str(selector.get("path") or "")
        if volume is None or volume.get("emptyDir") is None:
            continue
        field = f"{container.field}.env[{index}].valueFrom.fileKeyRef.path"
        try:
            texts[volume["name"], path] = _text(volumes.open(volume), path)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise Refused(field, f"{path!r} cannot be read: {why}", container=container.name) from None
    return texts


def _text(root: int, path: str) -> str:
    """The file's text; closes `root`."""
    try:
        descriptor = open_beneath(root, path, _FLAGS)
    finally:
        os.close(root)
    with open(descriptor, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("expected a regular file")
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES} bytes")
    return data.decode("utf-8", "surrogateescape")
