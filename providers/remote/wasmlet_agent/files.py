"""Private files, written whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from wasmlet.artifacts.files import sync_directory


def write_private(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Put a file of mode 0600 in the place of the one of that name; blocks.

    Args:
        durable: it is on the disk before it gets its name.
    """
    new = path.with_name(f".{secrets.token_hex(8)}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(descriptor)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def write_durably(path: Path, content: bytes) -> None:
    """The same, and it is on the disk, its name too, when this returns."""
    write_private(path, content, durable=True)
    sync_directory(path.parent)
