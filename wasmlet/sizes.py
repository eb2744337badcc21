"""Writes sizes for people: in bytes, KiB, MiB and GiB, as everything that wasmlet prints does.

Each unit is 1024 times the one before it; 1 MiB is the `1Mi` of a manifest.
"""

from __future__ import annotations


def size(count: float) -> str:
    """A size for people, with up to four digits: `512 bytes`, `12.23 KiB`, `64 MiB`.

    Args:
        count: bytes.
    """
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} GiB"
