"""Tar archives as registries have them: read in order, a piece at a time, and refused whole where not to be trusted.

Names that lead out of the archive, devices, pipes and sparse files are refused, and so is what grows beyond bounds.
Nothing is unpacked here; `layers` takes one file out of a layer, `trees` all of them.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import attrs
import zstandard

from wasmlet.artifacts.descriptors import hasher
from wasmlet.artifacts.errors import BadContent

BLOCK = 512
_CHUNK = 256 * 1024
_MAX_HEADER = 1024 * 1024
_MAX_WINDOW = 128 * 1024 * 1024
_MAX_PATH = 4096
MAX_ENTRIES = 200_000
REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
LINKS = {tarfile.SYMTYPE: "a symbolic link", tarfile.LNKTYPE: "a hard link"}
_DEVICES = {tarfile.CHRTYPE: "a device", tarfile.BLKTYPE: "a device", tarfile.FIFOTYPE: "a named pipe"}


@attrs.frozen
class Entry:
    """A member of an archive: its path without `./` in front, its kind, and its bytes' number.

    Attributes:
        target: what a link refers to, as it is written there.
        mode: its permissions.
    """

    path: str
    kind: bytes
    size: int
    target: str = ""
    mode: int = 0o644


class Archive:
    """Reads a tar archive in order (ustar, GNU and pax names), never more than a piece of it at a time.

    Args:
        file: the archive.
        compression: "", "gzip" or "zstd".
        limit: bytes that it may have, uncompressed.
        digest: what they have to have; None where that is not known.
    """

    def __init__(self, file: BinaryIO, compression: str, limit: int, digest: str | None = None) -> None:
        self._chunks = _unpacked(file, compression)
        self._limit = limit
        self._digest = digest
        self._hash = hasher(digest or "sha256:")
        self._waiting = b""
        self._position = 0
        self._taken = 0
        self._left = 0

    @property
    def taken(self) -> int:
        """Bytes so far, uncompressed."""
        return self._taken

    def entries(self) -> Iterator[Entry]:
        """Each member; what was not read of it by then is skipped when the next is asked for.

        Raises:
            BadContent: see above; at the end, the digest is another one.
        """
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
            elif header.type == tarfile.GNUTYPE_LONGLINK:
                names["linkpath"] = self._read_header(header.size).rstrip(b"\0").decode("utf-8", "surrogateescape")
            elif header.type != tarfile.XGLTYPE:
                size = int(names["size"]) if names.get("size", "").isdecimal() else header.size
                self._left = size + -size % BLOCK if header.type in REGULAR else self._left
                if any(name.startswith("GNU.sparse") for name in names) or header.type == tarfile.GNUTYPE_SPARSE:
                    raise BadContent("a layer has a sparse file, which is not supported")
                if header.type in _DEVICES:
                    raise BadContent(f"a layer has {_DEVICES[header.type]}, {header.name[:200]!r}")
                target = names.get("linkpath", header.linkname)
                yield Entry(safe_path(names.get("path", header.name)), header.type, size, target, header.mode & 0o777)
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
        if header.type not in (*REGULAR, tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE) and (
            header.type in (*LINKS, *_DEVICES, tarfile.DIRTYPE)
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
        """Read what follows the end, within bounds, so that checksums at the end are checked."""
        while self._more():
            self._position = len(self._waiting)
        if self._digest is not None and self._hash.hexdigest() != self._digest.partition(":")[2]:
            raise BadContent(
                f"a layer has another content than the image's configuration says: expected {self._digest}, found "
                f"{self._hash.name}:{self._hash.hexdigest()}"
            )

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
        self._hash.update(chunk)
        self._taken += len(chunk)
        if self._taken > self._limit:
            raise BadContent(f"a layer has more than the {self._limit} bytes allowed, uncompressed")
        self._waiting, self._position = self._waiting[self._position :] + chunk, 0
        return bool(chunk)


def safe_path(name: str) -> str:
    """A path that stays below where it is used, without `.` and empty parts; "" for the top itself.

    Raises:
        BadContent: it does not stay there, or cannot be a path.
    """
    parts = name.split("/")
    if name.startswith("/"):
        raise BadContent(f"a layer has an absolute name, {name[:200]!r}")
    if ".." in parts or "\0" in name:
        raise BadContent(f"a layer has a name that leads out of it, {name[:200]!r}")
    if len(name) > _MAX_PATH:
        raise BadContent(f"a layer has a name of {len(name)} characters, more than the {_MAX_PATH} allowed")
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
