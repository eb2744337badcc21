"""Applies a pod's fsGroup to a volume that already has files, as the kubelet does it (KEP-695).

Every file is given to the group, which may read and write it. Directories get the set-group-ID bit, so that new files
in them belong to the group, too. A guest of another pod may change the files at the same time, so nothing here follows
a link. All functions block.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from wasmlet.errors import WasmletError

_FILE, _DIRECTORY = 0o660, 0o2770


def apply(directory: Path, group: int, *, only_where_top_differs: bool) -> None:
    """Give a directory and everything in it to a group.

    Args:
        only_where_top_differs: for `fsGroupChangePolicy: OnRootMismatch`: do nothing if the directory itself already
            has the right group and mode.

    Raises:
        WasmletError: it is nested too deep.
        OSError: it cannot be done.
    """
    found = directory.stat()
    if only_where_top_differs and found.st_gid == group and found.st_mode & _DIRECTORY == _DIRECTORY:
        return
    try:
        for _, directories, files, descriptor in os.fwalk(directory, follow_symlinks=False):
            for name in files:
                _give(name, descriptor, group)
            # The top directory comes last: after an interruption it does not match, and the next call starts again.
            for name in directories:
                _give(name, descriptor, group)
    except RecursionError:
        raise WasmletError(f"{directory} is nested too deep for its files to be given to fsGroup {group}") from None
    _give(directory, None, group)


def _give(path: str | Path, beside: int | None, group: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=beside)
    except FileNotFoundError:  # gone meanwhile
        return
    try:
        mode = os.fstat(opened).st_mode
        if stat.S_ISLNK(mode):
            os.chown(path, -1, group, dir_fd=beside, follow_symlinks=False)
            return
        itself = f"/proc/self/fd/{opened}"
        os.chown(itself, -1, group)
        os.chmod(itself, stat.S_IMODE(mode) | (_DIRECTORY if stat.S_ISDIR(mode) else _FILE))
    finally:
        os.close(opened)
