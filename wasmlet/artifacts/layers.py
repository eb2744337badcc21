"""One file out of a container image's layers, which are tar archives.

Nothing is ever unpacked: the archive is read in order (`archives`), and of all its entries only the bytes of the one
file that is wanted go anywhere. Links are not followed. A layer hides files of those below it with `.wh.` entries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from wasmlet.artifacts.archives import LINKS, REGULAR, Archive
from wasmlet.artifacts.errors import BadContent

HIDE, HIDE_ALL = ".wh.", ".wh..wh..opq"


def extract(
    layer: BinaryIO, compression: str, path: str, limit: int, put: Callable[[bytes], None], digest: str | None = None
) -> bool:
    """Copy one file out of a layer; blocks.

    Args:
        compression: "", "gzip" or "zstd".
        path: of the file, without a slash in front.
        limit: bytes that the layer may have, uncompressed.
        put: is given the file's bytes. Where the layer has the file twice the later one counts, so `put` is preceded
            by `put(b"")`, which means to begin anew.
        digest: of the layer, uncompressed.

    Returns:
        False where the layer does not have the file, and does not hide it either.

    Raises:
        BadContent: the layer is not to be trusted, hides the file, or has something else of that name.
    """
    archive = Archive(layer, compression, limit, digest)
    found = hidden = False
    for entry in archive.entries():
        folder, _, name = entry.path.rpartition("/")
        if name == HIDE_ALL:
            hidden = hidden or path.startswith(f"{folder}/" if folder else "")
        elif name.startswith(HIDE):
            gone = f"{folder}/{name[len(HIDE) :]}".lstrip("/")
            hidden = hidden or path == gone or path.startswith(f"{gone}/")
        elif entry.path == path:
            if entry.kind not in REGULAR:
                raise BadContent(f"the entry point {path!r} is {LINKS.get(entry.kind, 'no regular file')} in its layer")
            put(b"")
            for chunk in archive.content(entry):
                put(chunk)
            found = True
        elif entry.kind in LINKS and path.startswith(f"{entry.path}/"):
            raise BadContent(f"the entry point {path!r} is reached through {LINKS[entry.kind]}, {entry.path!r}")
    if hidden and not found:
        raise BadContent(f"the entry point {path!r} is removed by one of the image's layers")
    return found
