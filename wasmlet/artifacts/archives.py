"""Reads the tar archives of images in order, a piece at a time, with limits on their size.

File names are normalized as containerd does it, so that none leads out of the archive's root. The compression is
detected from the first bytes, because the media types that registries state are often wrong. An archive that is larger
than its limit is refused; the holes of sparse files (`sparse`) count as well. This module only reads; `trees` unpacks.
"""

from __future__ import annotations

import posixpath
import sys
import tarfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import attrs

from wasmlet.artifacts import sparse
from wasmlet.artifacts.descriptors import hasher
from wasmlet.artifacts.errors import BadContent
from wasmlet.artifacts.sparse import BLOCK, Sparse

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_CHUNK = 256 * 1024
_MAX_HEADER = 1024 * 1024
_MAX_WINDOW = 128 * 1024 * 1024
_MAX_PATH = 4096
MAX_ENTRIES = 200_000
REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
DEVICES = (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
"""Devices and named pipes."""

_WITHOUT_CONTENT = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, *DEVICES)
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


@attrs.frozen
class Entry:
    """A member of an archive: its path below the root ("" for the root itself), its kind, and its size in bytes.

    Attributes:
        target: the target of a link, as the archive has it.
        mode: the permission bits.
    """

    path: str
    kind: bytes
    size: int
    target: str = ""
    mode: int = 0o644


class Archive:
    """Reads a tar archive in order (ustar, GNU and pax names), never more than a piece of it at a time.

    Args:
        file: the archive, compressed with gzip or zstd, or not at all; reading begins at its current position.
        limit: the most bytes that the archive may have, uncompressed.
        digest: the digest that the uncompressed bytes must have; None if it is not known.
    """

    def __init__(self, file: BinaryIO, limit: int, digest: str | None = None) -> None:
        self._chunks = _unpacked(file)
        self._limit = limit
        self._digest = digest
        self._hash = hasher(digest or "sha256:")
        self._waiting = b""
        self._position = 0
        self._taken = 0
        self._left = 0
        """Bytes until the next header."""
        self._unread = 0
        """Bytes of the current member's content that were not read yet, without the padding."""
        self._sparse: Sparse | None = None
        """The parts of the current member (the last one from `entries`) if it is sparse."""

    @property
    def taken(self) -> int:
        """How many bytes were read so far: uncompressed, and including the holes of sparse files."""
        return self._taken

    def entries(self) -> Iterator[Entry]:
        """Each member. Content that was not read is skipped when the next member is asked for.

        Raises:
            BadContent: the archive is damaged or breaks a limit; or, at its end, its digest is not the expected one.
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
                yield self._entry(header, block, names)
                names = {}
            if count == MAX_ENTRIES:
                raise BadContent(f"a layer has more than {MAX_ENTRIES} entries")

    def _entry(self, header: tarfile.TarInfo, block: bytes, names: dict[str, str]) -> Entry:
        """Make the entry of a header. Pax records or GNU headers that came before it override its fields (`names`)."""
        kind, size = header.type, _size(names["size"]) if "size" in names else header.size
        self._sparse, self._unread = None, size
        if kind in REGULAR:
            self._left = size + -size % BLOCK
            self._sparse = sparse.of_pax(names, self._read_content)
        elif kind == tarfile.GNUTYPE_SPARSE:
            kind, self._sparse = tarfile.REGTYPE, sparse.of_gnu(block, self._read)
        if self._sparse is not None:
            size = self._sparse.size
            self._take(size - sum(length for _, length in self._sparse.parts))
        path = names.get("GNU.sparse.name") or names.get("path", header.name)
        return Entry(cleaned(path), kind, size, names.get("linkpath", header.linkname), header.mode & 0o777)

    def content(self, entry: Entry) -> Iterator[bytes]:
        """The content of the current member, which is the last one from `entries`; holes are zeros."""
        if self._sparse is None:
            yield from self._contents(entry.size)
            return
        position = 0
        for offset, length in (*self._sparse.parts, (entry.size, 0)):
            for start in range(position, offset, _CHUNK):
                yield bytes(min(_CHUNK, offset - start))
            yield from self._contents(length)
            position = offset + length

    def _contents(self, left: int) -> Iterator[bytes]:
        """This many bytes of the current member, as they are in the archive (without holes)."""
        while left:
            chunk = self._read_content(min(left, _CHUNK))
            left -= len(chunk)
            yield chunk

    def _read_content(self, size: int) -> bytes:
        if size > self._unread:
            raise BadContent("a layer has a sparse file whose content is shorter than its parts")
        self._unread -= size
        self._left -= size
        return self._read(size)

    def _header(self, block: bytes) -> tarfile.TarInfo:
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise BadContent(f"a layer is no tar archive: {error}") from None
        if header.size < 0 or header.size > self._limit:
            raise BadContent(f"a layer has an entry of {header.size} bytes; allowed are {self._limit} in all")
        if header.type in _WITHOUT_CONTENT:
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
        """Read what follows the end of the archive, within the limit, so that the checksums at the end are checked."""
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
                if end and self._position == len(self._waiting):  # an empty archive is valid, too: some tools push one
                    return b""
                raise BadContent("a layer ends in the middle of its archive")
        self._position += size
        return self._waiting[self._position - size : self._position]

    def _more(self) -> bool:
        chunk = next(self._chunks, b"")
        self._hash.update(chunk)
        self._take(len(chunk))
        self._waiting, self._position = self._waiting[self._position :] + chunk, 0
        return bool(chunk)

    def _take(self, size: int) -> None:
        self._taken += size
        if self._taken > self._limit:
            raise BadContent(f"a layer has more than the {self._limit} bytes allowed, uncompressed")


def cleaned(name: str) -> str:
    """Normalize a name to a path below the root: no `.`, no `..`, no empty parts, no leading slash; "" for the root.

    A `..` that would lead above the root is dropped, as in containerd.

    Raises:
        BadContent: it cannot be a path.
    """
    if "\0" in name:
        raise BadContent(f"a layer has a name with a NUL character, {name[:200]!r}")
    if len(name) > _MAX_PATH:
        raise BadContent(f"a layer has a name of {len(name)} characters, more than the {_MAX_PATH} allowed")
    return posixpath.normpath(f"/{name}").lstrip("/")


def _size(text: str) -> int:
    """The size in a pax header: 64 bits at most, as Go has it."""
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise BadContent(f"a layer has an entry whose size cannot be read, {text[:40]!r}")
    return int(text)


def _pax(data: bytes) -> dict[str, str]:
    """Parse the records `LENGTH name=value` of a pax header. Repeated records of a sparse file are joined into one."""
    found: dict[str, str] = {}
    parts: list[str] = []
    position = 0
    while position < len(data):
        length, space, _ = data[position : position + 20].partition(b" ")
        end = position + int(length) if length.isdigit() else 0
        record = data[position + len(length) + 1 : end - 1]
        name, equals, value = record.partition(b"=")
        if not (space and equals and position < end <= len(data)):
            raise BadContent("a layer has a pax header that cannot be read")
        key, text = name.decode("utf-8", "replace"), value.decode("utf-8", "surrogateescape")
        if key in (sparse.OFFSET, sparse.BYTES):
            if key != (sparse.OFFSET, sparse.BYTES)[len(parts) % 2]:
                raise BadContent("a layer has a sparse file whose offsets and lengths do not alternate")
            parts.append(text)
        found[key] = text
        position = end
    return found | ({sparse.MAP: ",".join(parts)} if parts else {})


def _unpacked(layer: BinaryIO) -> Iterator[bytes]:
    """The layer's bytes, uncompressed."""
    start = layer.tell()
    head = layer.read(len(_ZSTD))
    layer.seek(start)
    if head.startswith(_GZIP):
        return _gunzipped(layer)
    if head == _ZSTD or _is_skippable(head):
        return _unzstd(layer)
    return iter(lambda: layer.read(_CHUNK), b"")


def _is_skippable(head: bytes) -> bool:
    """Whether zstd begins with a frame that decoders skip (RFC 8878, 3.1.2)."""
    return head[1:] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50


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
                raise BadContent(f"a layer begins as gzip does and is damaged: {error}") from None
            waiting = member.unconsumed_tail
            if chunk:
                yield chunk
            elif not more:
                raise BadContent("a layer ends in the middle of its compression")
        waiting = (member.unused_data or layer.read(_CHUNK)).lstrip(b"\0")


def _unzstd(layer: BinaryIO) -> Iterator[bytes]:
    frame, waiting = _frame(), b""
    try:
        while more := waiting or layer.read(_CHUNK):
            if frame.eof:
                frame = _frame()
            if chunk := frame.decompress(more, _CHUNK):
                yield chunk
            while not (frame.eof or frame.needs_input):
                if chunk := frame.decompress(b"", _CHUNK):
                    yield chunk
            waiting = frame.unused_data if frame.eof else b""
    except zstd.ZstdError as error:
        raise BadContent(f"a layer begins as zstd does and is damaged: {error}") from None
    if not frame.eof:
        raise BadContent("a layer begins as zstd does and ends in the middle of its compression")


def _frame() -> zstd.ZstdDecompressor:
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _MAX_WINDOW.bit_length() - 1})
