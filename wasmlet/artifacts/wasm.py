"""The WebAssembly binary format, as far as one wants to know what a file is: kind, imports, exports, sections.

Core modules and components are read. It is an own reader because it must take any bytes, in bounded time and memory,
before an engine is let near them; it checks what it reads and nothing else.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from pathlib import Path

import attrs

from wasmlet.artifacts.errors import BadContent

MAGIC = b"\0asm"
_MODULE, _COMPONENT = b"\x01\0\0\0", b"\x0d\0\x01\0"
_MAX_NAME = 100_000
_SECTIONS = (
    "custom", "type", "import", "function", "table", "memory", "global", "export", "start", "element", "code", "data",
    "data count", "tag",
)  # fmt: skip
_COMPONENT_SECTIONS = (
    "custom", "core module", "core instance", "core type", "component", "instance", "alias", "type", "canon", "start",
    "import", "export", "value",
)  # fmt: skip
_KINDS = ("function", "table", "memory", "global", "tag")
_SORTS = {0x00: "core", 0x01: "function", 0x02: "value", 0x03: "type", 0x04: "component", 0x05: "instance"}
_CORE_SORTS = {0x00: "core function", 0x01: "core table", 0x02: "core memory", 0x03: "core global", 0x10: "core type",
               0x11: "core module", 0x12: "core instance"}  # fmt: skip


class NotWasm(BadContent):
    """The bytes are no WebAssembly, or are damaged; the message says where."""


@attrs.frozen
class Extern:
    """An import or an export. `module` is "" for exports, and for imports of components."""

    module: str
    name: str
    kind: str


@attrs.frozen
class Binary:
    """What a file is.

    Attributes:
        component: or else a core module.
        sections: name and bytes of each section, in order; custom ones as `custom NAME`.
    """

    component: bool
    size: int
    imports: tuple[Extern, ...]
    exports: tuple[Extern, ...]
    sections: tuple[tuple[str, int], ...]

    @property
    def preview(self) -> int | None:
        """Which preview of WASI it is for: 0, 1 or 2; None where it imports nothing of any."""
        modules = {extern.module for extern in self.imports}
        if "wasi_snapshot_preview1" in modules:
            return 1
        if "wasi_unstable" in modules:
            return 0
        return 2 if any(e.name.startswith("wasi:") for e in (*self.imports, *self.exports)) and self.component else None

    @property
    def kind(self) -> str:
        """As `preview 1 command`, `preview 1 reactor`, `component` or `library`."""
        names = {extern.name for extern in self.exports}
        if self.component:
            worlds = {"wasi:cli/run": "command", "wasi:http/incoming-handler": "HTTP handler"}
            for world, what in worlds.items():
                if any(name == world or name.startswith(f"{world}@") for name in names):
                    return f"component ({what})"
            return "component"
        preview = f"preview {self.preview} " if self.preview is not None else ""
        if "_start" in names:
            return f"{preview}command"
        return f"{preview}reactor" if "_initialize" in names else f"{preview}library"


class _Reader:
    """Bytes from `position` up to `end`."""

    def __init__(self, data: bytes | memoryview, position: int, end: int) -> None:
        self._data = data
        self.position = position
        self.end = end

    def wrong(self, what: str) -> NotWasm:
        return NotWasm(f"damaged at byte {self.position}: {what}")

    def take(self, count: int) -> bytes:
        if count > self.end - self.position:
            raise self.wrong(f"expected {count} bytes, found {self.end - self.position}")
        self.position += count
        return bytes(self._data[self.position - count : self.position])

    def byte(self) -> int:
        return self.take(1)[0]

    def u32(self) -> int:
        value = 0
        for shift in range(0, 35, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value > 0xFFFFFFFF:
                    break
                return value
        raise self.wrong("a number is too large")

    def s33(self) -> None:
        for _ in range(5):
            if self.byte() < 0x80:
                return
        raise self.wrong("a number is too large")

    def u64(self) -> None:
        for _ in range(10):
            if self.byte() < 0x80:
                return
        raise self.wrong("a number is too large")

    def count(self) -> int:
        """How many of something follow; each takes a byte at least."""
        value = self.u32()
        if value > self.end - self.position:
            raise self.wrong(f"{value} items cannot fit")
        return value

    def name(self) -> str:
        length = self.u32()
        if length > _MAX_NAME:
            raise self.wrong("a name is too long")
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError:
            raise self.wrong("a name is not UTF-8") from None

    def limits(self) -> None:
        flags = self.byte()
        self.u64()
        if flags & 1:
            self.u64()
        if flags & 8:
            self.u32()

    def reference(self) -> None:
        if self.byte() in (0x63, 0x64):
            self.s33()


def read(data: bytes | memoryview) -> Binary:
    """See what it is.

    Raises:
        NotWasm: it is no WebAssembly, of a version that is not known, or damaged.
    """
    head = bytes(data[:8])
    if head[:4] != MAGIC:
        raise NotWasm("not WebAssembly: the bytes 00 61 73 6d at its beginning are missing")
    if head[4:] not in (_MODULE, _COMPONENT):
        shown = head[4:].hex(" ") or "the end"
        raise NotWasm(f"WebAssembly of a version that is not known: expected 01 00 00 00, found {shown}")
    component = head[4:] == _COMPONENT
    names = _COMPONENT_SECTIONS if component else _SECTIONS
    imports: list[Extern] = []
    exports: list[Extern] = []
    sections = []
    whole = _Reader(data, 8, len(data))
    while whole.position < whole.end:
        number, size = whole.byte(), whole.u32()
        if size > whole.end - whole.position:
            raise whole.wrong(f"a section of {size} bytes has {whole.end - whole.position}")
        part = _Reader(data, whole.position, whole.position + size)
        if number >= len(names):
            raise whole.wrong(f"a section of number {number} is not known")
        name = names[number]
        if number == 0:
            name = f"custom {part.name()}"
        elif name == "import":
            imports += _all(part, _component_import if component else _import)
        elif name == "export":
            exports += _all(part, _component_export if component else _export)
        sections.append((name, size))
        whole.position += size
    return Binary(component, len(data), tuple(imports), tuple(exports), tuple(sections))


def read_file(path: Path) -> Binary:
    """See what a file is; blocks.

    Raises:
        NotWasm: see `read`.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        if not file.seek(0, 2):
            raise NotWasm("not WebAssembly: the file is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data, memoryview(data) as view:
            return read(view)


def _all(part: _Reader, one: Callable[[_Reader], Extern]) -> list[Extern]:
    found = [one(part) for _ in range(part.count())]
    if part.position != part.end:
        raise part.wrong("a section is longer than what it holds")
    return found


def _kind(part: _Reader) -> str:
    number = part.byte()
    if number >= len(_KINDS):
        raise part.wrong(f"kind {number} of an import or export is not known")
    return _KINDS[number]


def _import(part: _Reader) -> Extern:
    module, name, kind = part.name(), part.name(), _kind(part)
    if kind == "function":
        part.u32()
    elif kind == "table":
        part.reference()
        part.limits()
    elif kind == "memory":
        part.limits()
    elif kind == "global":
        part.reference()
        part.byte()
    else:
        part.byte()
        part.u32()
    return Extern(module, name, kind)


def _export(part: _Reader) -> Extern:
    name, kind = part.name(), _kind(part)
    part.u32()
    return Extern("", name, kind)


def _extern_name(part: _Reader) -> str:
    form = part.byte()
    if form > 2:
        raise part.wrong(f"form {form} of a component's name is not known")
    name = part.name()
    if form == 2:
        for _ in range(part.count()):
            if part.byte() == 1:
                part.name()
    return name


def _description(part: _Reader) -> str:
    sort = part.byte()
    if sort == 0x00:
        if part.byte() != 0x11:
            raise part.wrong("expected a core module")
        part.u32()
        return "core module"
    if sort in (0x02, 0x03):
        bound = part.byte()
        if bound == 0x00 or (bound == 0x01 and sort == 0x02):
            part.s33()
        elif bound != 0x01:
            raise part.wrong(f"bound {bound} is not known")
        return _SORTS[sort]
    if sort not in _SORTS:
        raise part.wrong(f"sort {sort} is not known")
    part.u32()
    return _SORTS[sort]


def _component_import(part: _Reader) -> Extern:
    name = _extern_name(part)
    return Extern("", name, _description(part))


def _component_export(part: _Reader) -> Extern:
    name, sort = _extern_name(part), part.byte()
    kind = _CORE_SORTS.get(part.byte()) if sort == 0x00 else _SORTS.get(sort)
    if kind is None:
        raise part.wrong(f"sort {sort} is not known")
    part.u32()
    if (described := part.byte()) == 0x01:
        _description(part)
    elif described != 0x00:
        raise part.wrong("expected a description or none")
    return Extern("", name, kind)
