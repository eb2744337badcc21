"""hostPath volumes: directories and files of the node, only below the prefixes that the node's owner allows.

The check is on the place where a path leads after all links are followed. The path is opened first, and then the kernel
says where the open file is, so nobody can change a link in between. All functions block.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from wasmlet.errors import WasmletError
from wasmlet.runtime.files.beneath import make_beneath, open_beneath

TYPES = ("", "DirectoryOrCreate", "Directory", "FileOrCreate", "File")
"""The types that a guest can have; not Socket, CharDevice and BlockDevice."""

_MADE = {"": 0o755, "DirectoryOrCreate": 0o755, "FileOrCreate": 0o644}
"""The types for which something is made where there is nothing, with the kubelet's modes."""


class HostPaths:
    """The files and directories of the node that pods may mount.

    Args:
        prefixes: directories; what lies below them may be mounted. None allows nothing.
    """

    def __init__(self, prefixes: Sequence[Path]) -> None:
        self.prefixes = tuple(prefixes)

    def open(self, path: str, kind: str) -> int:
        """Open a path for mounting, after making it where its type says so.

        Returns:
            A descriptor (O_PATH) of a directory or a regular file, the caller's to close.

        Raises:
            WasmletError: it is not allowed or not of that type.
            OSError: it cannot be opened or made.
        """
        try:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            if kind not in _MADE:
                raise WasmletError(_wrong(path, kind)) from None
            descriptor = self._make(path, kind)
        try:
            # The kernel knows where this is, whatever links led here and have been changed since.
            where = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            if self._prefix(where) is None:
                raise WasmletError(self._refusal(path))
            mode = os.fstat(descriptor).st_mode
            if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
                raise WasmletError(
                    f"{path} is neither a directory nor a regular file, which is all that a guest can have"
                )
            if kind.startswith("Directory") and not stat.S_ISDIR(mode):
                raise WasmletError(_wrong(path, "Directory"))
            if kind.startswith("File") and not stat.S_ISREG(mode):
                raise WasmletError(_wrong(path, "File"))
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _prefix(self, path: Path) -> Path | None:
        return next((prefix for prefix in self.prefixes if path.is_relative_to(os.path.realpath(prefix))), None)

    def _make(self, path: str, kind: str) -> int:
        """Make the missing directories and the file of a path, only below the prefix that the path begins with."""
        normal = Path(os.path.normpath(path))
        prefix = next((prefix for prefix in self.prefixes if normal.is_relative_to(prefix)), None)
        if prefix is None or ".." in path.split("/"):
            raise WasmletError(self._refusal(path))
        relative = normal.relative_to(prefix)
        root = _root(prefix, make=kind != "FileOrCreate")
        try:
            if kind != "FileOrCreate":
                return make_beneath(root, str(relative), _MADE[kind])
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            parent = open_beneath(root, str(relative.parent), os.O_PATH | os.O_DIRECTORY)
            try:
                os.close(os.open(relative.name, flags, _MADE[kind], dir_fd=parent))
                return os.open(relative.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            finally:
                os.close(parent)
        finally:
            os.close(root)

    def _refusal(self, path: str) -> str:
        allowed = ", ".join(map(str, self.prefixes)) or "none"
        return f"{path} does not lead below a path that this node allows (--allow-host-path: {allowed})"


def _root(prefix: Path, *, make: bool) -> int:
    """A descriptor of a prefix; where it is not there, it may be made, as a kubelet makes all that a path names."""
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        return os.open(prefix, flags)
    except FileNotFoundError:
        if not make:
            raise
    there = next(parent for parent in prefix.parents if parent.is_dir())
    above = os.open(there, flags)
    try:
        return make_beneath(above, str(prefix.relative_to(there)), _MADE["DirectoryOrCreate"])
    finally:
        os.close(above)


def _wrong(path: str, kind: str) -> str:
    """The kubelet's words where a path is not what its type says."""
    return f"hostPath type check failed: {path} is not a {kind.lower()}"
