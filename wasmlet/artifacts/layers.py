"""One file out of a container image's layers, which are tar archives.

Nothing is ever unpacked: the archive is read in order, in pieces, and of all its entries only the bytes of the one file
that is wanted go anywhere. An archive with names that lead out of it, or with devices, is refused whole; so is one that
grows beyond bounds. Links are not followed. A layer hides files of those below it with `.wh.` entries.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

import attrs
import zstandard

from wasmlet.artifacts.errors import BadContent

BLOCK = 512
_CHUNK = 256 * 1024
_MAX_HEADER = 1024 * 1024
_MAX_WINDOW = 128 * 1024 * 1024
MAX_ENTRIES = 200_000
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_LINKS = {tarfile.SYMTYPE: "a symbolic link", tarfile.LNKTYPE: "a hard link"}
_DEVICES = {tarfile.CHRTYPE: "a device", tarfile.BLKTYPE: "a device", tarfile.FIFOTYPE: "a named pipe"}
_HIDE, _HIDE_ALL = ".wh.", ".wh..wh..opq"


@attrs.frozen
class Entry:
    """A member of an archive: its path without `./` in front, its kind, and its bytes' number."""

    path: str
    kind: bytes
    size: int


def extract(layer: BinaryIO, compression: str, path: str, limit: int, put: Callable[[bytes], None]) -> bool:
    """Copy one file out of a layer; blocks.

    Args:
        compression: "", "gzip" or "zstd".
        path: of the file, without a slash in front.
        limit: bytes that the layer may have, uncompressed.
        put: is given the file's bytes. Where the layer has the file twice the later one counts, so `put` is preceded
            by `put(b"")`, which means to begin anew.

    Returns:
        False where the layer does not have the file, and does not hide it either.

    Raises:
        BadContent: the layer is not to be trusted, hides the file, or has something else of that name.
    """
    archive = _Archive(_unpacked(layer, compression), limit)
    found = hidden = False
    for entry in archive.entries():
        folder, _, name = entry.path.rpartition("/")
        if name == _HIDE_ALL:
            hidden = hidden or path.startswith(f"{folder}/" if folder else "")
        elif name.startswith(_HIDE):
            gone = f"{folder}/{name[len(_HIDE) :]}".lstrip("/")
            hidden = hidden or path == gone or path.startswith(f"{gone}/")
        elif entry.path == path:
            if entry.kind not in _REGULAR:
                raise BadContent(
                    f"the entry point {path!r} is {_LINKS.get(entry.kind, 'no regular file')} in its layer"
                )
            put(b"")
            for chunk in archive.content(entry):
                put(chunk)
            found = True
        elif entry.kind in _LINKS and path.startswith(f"{entry.path}/"):
            raise BadContent(f"the entry point {path!r} is reached through {_LINKS[entry.kind]}, {entry.path!r}")
    if hidden and not found:
        raise BadContent(f"the entry point {path!r} is removed by one of the image's layers")
    return found


class _Archive:
    """Reads a tar archive in order (ustar, GNU and pax names), never more than a piece of it at a time."""

    def __init__(self, chunks: Iterator[bytes], limit: int) -> None:
        self._chunks = chunks
        self._limit = limit
        self._waiting = b""
        self._position = 0
        self._taken = 0
        self._left = 0

    def entries(self) -> Iterator[Entry]:
        """Each member; what was not read of it by then is skipped when the next is asked for."""
        names: dict[str, str] = {}
        for count in range(MAX_ENTRIES + 1):
            self._skip(self._left)
            block = self._read(BLOCK, end=not names)
            if not block.strip(b"\0"):
                self._drain()
                return
            header = self._header(block)
            self._left = header.size + -header.size % BLOCK
            if header.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
                names |= _pax(self._read_header(header.size))
            elif header.type == tarfile.GNUTYPE_LONGNAME:
                names["path"] = self._read_header(header.size).rstrip(b"\0").decode("utf-8", "surrogateescape")
            elif header.type not in (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK):
                size = int(names["size"]) if names.get("size", "").isdecimal() else header.size
                self._left = size + -size % BLOCK if header.type in _REGULAR else self._left
                if any(name.startswith("GNU.sparse") for name in names) or header.type == tarfile.GNUTYPE_SPARSE:
                    raise BadContent("a layer has a sparse file, which is not supported")
                if header.type in _DEVICES:
                    raise BadContent(f"a layer has {_DEVICES[header.type]}, {header.name[:200]!r}")
                yield Entry(_safe(names.get("path", header.name)), header.type, size)
                names = {}
            if count == MAX_ENTRIES:
                raise BadContent(f"a layer has more than {MAX_ENTRIES} entries")

    def content(self, entry: Entry) -> Iterator[bytes]:
        """The bytes of the member that `entries` gave last."""
        left = entry.size
        while left:
            chunk = self._read(min(left, _CHUNK))
            self._left -= len(chunk)
            left -= len(chunk)
            yield chunk

    def _header(self, block: bytes) -> tarfile.TarInfo:
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise BadContent(f"a layer is no tar archive: {error}") from None
        if header.size < 0 or header.size > self._limit:
            raise BadContent(f"a layer has an entry of {header.size} bytes; allowed are {self._limit} in all")
        if header.type not in (*_REGULAR, tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE) and (
            header.type in (*_LINKS, *_DEVICES, tarfile.DIRTYPE)
        ):
            header.size = 0
        return header

    def _read_header(self, size: int) -> bytes:
        if size > _MAX_HEADER:
            raise BadContent(f"a layer has a header of {size} bytes, more than the {_MAX_HEADER} allowed")
        data = self._read(size)
        self._left -= size
        return data

    def _skip(self, size: int) -> None:
        while size > 0:
            size -= len(self._read(min(size, _CHUNK)))

    def _drain(self) -> None:
        """Read what follows the end, within bounds, so that a checksum at the end is checked."""
        while self._more():
            self._position = len(self._waiting)

    def _read(self, size: int, *, end: bool = False) -> bytes:
        while len(self._waiting) - self._position < size:
            if not self._more():
                if end and self._taken and self._position == len(self._waiting):
                    return b""
                raise BadContent("a layer ends in the middle of its archive")
        self._position += size
        return self._waiting[self._position - size : self._position]

    def _more(self) -> bool:
        chunk = next(self._chunks, b"")
        self._taken += len(chunk)
        if self._taken > self._limit:
            raise BadContent(f"a layer has more than the {self._limit} bytes allowed, uncompressed")
        self._waiting, self._position = self._waiting[self._position :] + chunk, 0
        return bool(chunk)


def _safe(name: str) -> str:
    parts = name.split("/")
    if name.startswith("/"):
        raise BadContent(f"a layer has an absolute name, {name[:200]!r}")
    if ".." in parts or "\0" in name:
        raise BadContent(f"a layer has a name that leads out of it, {name[:200]!r}")
    return "/".join(part for part in parts if part not in ("", "."))


def _pax(data: bytes) -> dict[str, str]:
    """The records `LENGTH name=value` of a pax header."""
    found, position = {}, 0
    while position < len(data):
        length, space, _ = data[position : position + 20].partition(b" ")
        end = position + int(length) if length.isdigit() else 0
        record = data[position + len(length) + 1 : end - 1]
        name, equals, value = record.partition(b"=")
        if not (space and equals and position < end <= len(data)):
            raise BadContent("a layer has a pax header that cannot be read")
        found[name.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        position = end
    return found


def _unpacked(layer: BinaryIO, compression: str) -> Iterator[bytes]:
    if compression == "gzip":
        return _gunzipped(layer)
    if compression == "zstd":
        return _unzstd(layer)
    return iter(lambda: layer.read(_CHUNK), b"")


def _gunzipped(layer: BinaryIO) -> Iterator[bytes]:
    """Members of a gzip file, one after the other."""
    waiting = layer.read(_CHUNK)
    while waiting:
        member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        while not member.eof:
            more = waiting or layer.read(_CHUNK)
            try:
                chunk = member.decompress(more, _CHUNK)
            except zlib.error as error:
                raise BadContent(f"a layer is not gzip as it should be: {error}") from None
            waiting = member.unconsumed_tail
            if chunk:
                yield chunk
            elif not more:
                raise BadContent("a layer ends in the middle of its compression")
        waiting = (member.unused_data or layer.read(_CHUNK)).lstrip(b"\0")


def _unzstd(layer: BinaryIO) -> Iterator[bytes]:
    reader = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).stream_reader(layer, read_across_frames=True)
    try:
        while chunk := reader.read(_CHUNK):
            yield chunk
    except zstandard.ZstdError as error:
        raise BadContent(f"a layer is not zstd as it should be: {error}") from None
