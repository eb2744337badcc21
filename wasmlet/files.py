"""Writes files atomically: a reader sees the whole old file or the whole new one, and never a part."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def replace(
    path: Path, data: bytes, like: os.stat_result | None = None, *, durable: bool = True, whole: bool = False
) -> None:
    """Write a file atomically, in place of the one at `path`. Blocks.

    Args:
        like: gives the file's owner, group and mode; if None, only the owner may read and write it (0600).
        durable: wait until the content and the name are on the disk.
        whole: wait until the content is, and not for the name: a loss of power leaves the old file or the new one.

    Raises:
        OSError: the file cannot be written, or cannot be given to that owner. The old file is still there.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if like is not None:
                os.fchown(descriptor, like.st_uid, like.st_gid)
                os.fchmod(descriptor, like.st_mode & 0o7777)
            file.write(data)
            if durable or whole:
                file.flush()
                os.fsync(descriptor)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if durable:
        sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Wait until the names of the files in a directory are on the disk. Blocks."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
