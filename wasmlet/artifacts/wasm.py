"""Reads WebAssembly binaries, as far as needed to know what a file is: its kind, imports, exports and sections.

It reads core modules and components. wasmlet has its own reader because any bytes may come in, before an engine sees
them: time and memory must be bounded. It does not validate the parts of the file that it does not read.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from pathlib import Path

import attrs

from wasmlet.artifacts import wasm_types
from wasmlet.artifacts.wasm_reader import SORTS, NotWasm, Reader
from wasmlet.artifacts.wasm_types import Interface, Signature

MAGIC = b"\0asm"
_MODULE, _COMPONENT = b"\x01\0\0\0", b"\x0d\0\x01\0"
_MOST = 100_000
"""The most imports or exports of one section; a file with more is refused."""
_MOST_SECTIONS = 10_000
_MOST_OF_TYPES = 2 * 2**20
"""The most bytes of type sections that are read, in all; real programs have about a tenth of that."""
_SECTIONS = (
    "custom", "type", "import", "function", "table", "memory", "global", "export", "start", "element", "code", "data",
    "data count", "tag",
)  # fmt: skip
_COMPONENT_SECTIONS = (
    "custom", "core module", "core instance", "core type", "component", "instance", "alias", "type", "canon", "start",
    "import", "export", "value",
)  # fmt: skip
_KINDS = ("function", "table", "memory", "global", "tag")
_CORE_SORTS = {0x00: "core function", 0x01: "core table", 0x02: "core memory", 0x03: "core global", 0x10: "core type",
               0x11: "core module", 0x12: "core instance"}  # fmt: skip


@attrs.frozen
class Extern:
    """An import or an export. Two are equal if their module, name and kind are.

    Attributes:
        module: the module that is imported from; "" for exports, and for imports of components.
        signature: for a core function: its type, if this reader knows it.
        interface: for an instance that a component imports: its exports, if this reader knows its type.
    """

    module: str
    name: str
    kind: str
    signature: Signature | None = attrs.field(default=None, eq=False)
    interface: Interface | None = attrs.field(default=None, eq=False)


@attrs.frozen
class Binary:
    """What a file is.

    Attributes:
        component: True for a component, False for a core module.
        sections: name and bytes of each section, in order; custom ones as `custom NAME`.
    """

    component: bool
    size: int
    imports: tuple[Extern, ...]
    exports: tuple[Extern, ...]
    sections: tuple[tuple[str, int], ...]

    @property
    def preview(self) -> int | None:
        """The preview of WASI that the file uses: 0, 1 or 2; None if it uses none."""
        modules = {extern.module for extern in self.imports}
        if "wasi_snapshot_preview1" in modules:
            return 1
        if "wasi_unstable" in modules:
            return 0
        return 2 if any(e.name.startswith("wasi:") for e in (*self.imports, *self.exports)) and self.component else None

    @property
    def kind(self) -> str:
        """The kind of program, for people: `preview 1 command`, `preview 1 reactor`, `component`, `library`, ..."""
        names = {extern.name for extern in self.exports}
        if self.component:
            worlds = {"wasi:cli/run": "command", "wasi:http/incoming-handler": "HTTP handler"}
            for world, what in worlds.items():
                if any(name == world or name.startswith(f"{world}@") for name in names):
                    return f"component ({what})"
            return "component"
        if "__guest_call" in names and any(extern.module == "wapc" for extern in self.imports):
            return "waPC actor"
        preview = f"preview {self.preview} " if self.preview is not None else ""
        if "_start" in names:
            return f"{preview}command"
        return f"{preview}reactor" if "_initialize" in names else f"{preview}library"


def read(data: bytes | memoryview) -> Binary:
    """Read what a file is from its bytes.

    Raises:
        NotWasm: it is not WebAssembly, has an unknown version, or is damaged.
    """
    head = bytes(data[:8])
    if head[:4] != MAGIC:
        raise NotWasm("not WebAssembly: the bytes 00 61 73 6d at its beginning are missing")
    if head[4:] not in (_MODULE, _COMPONENT):
        shown = head[4:].hex(" ") or "the end"
        raise NotWasm(f"WebAssembly of a version that is not known: expected 01 00 00 00, found {shown}")
    component = head[4:] == _COMPONENT
    names = _COMPONENT_SECTIONS if component else _SECTIONS
    parts = _Component() if component else _Module()
    sections: list[tuple[str, int]] = []
    whole = Reader(data, 8, len(data))
    while whole.position < whole.end:
        number, size = whole.byte(), whole.u32()
        if size > whole.end - whole.position:
            raise whole.wrong(f"a section of {size} bytes has {whole.end - whole.position}")
        part = Reader(data, whole.position, whole.position + size)
        if number >= len(names):
            raise whole.wrong(f"a section of number {number} is not known")
        if len(sections) >= _MOST_SECTIONS or max(len(parts.imports), len(parts.exports)) > _MOST:
            raise whole.wrong(f"it has more than {_MOST_SECTIONS} sections, or {_MOST} imports or exports")
        name = names[number]
        if number == 0:
            name = f"custom {part.name()}"
        else:
            parts.section(name, part)
        sections.append((name, size))
        whole.position += size
    return Binary(component, len(data), tuple(parts.imports), tuple(parts.exports), tuple(sections))


def read_file(path: Path) -> Binary:
    """Read what a file is; blocks.

    Raises:
        NotWasm: see `read`.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        if not file.seek(0, 2):
            raise NotWasm("not WebAssembly: the file is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data, memoryview(data) as view:
            return read(view)


def _all(part: Reader, one: Callable[[Reader], Extern]) -> list[Extern]:
    count = part.count()
    if count > _MOST:
        raise part.wrong(f"a section has more than {_MOST} imports or exports")
    found = [one(part) for _ in range(count)]
    if part.position != part.end:
        raise part.wrong("a section is longer than what it holds")
    return found


@attrs.define
class _Module:
    """The imports and exports of a module, section by section.

    Attributes:
        types: the types that were read so far, by index; None for a type that is not a function's.
        functions: for each function, by index, the index of its type.
        left: how many more bytes of type sections may be read.
    """

    imports: list[Extern] = attrs.field(factory=list)
    exports: list[Extern] = attrs.field(factory=list)
    types: list[Signature | None] = attrs.field(factory=list)
    functions: list[int] = attrs.field(factory=list)
    left: int = _MOST_OF_TYPES

    def section(self, name: str, part: Reader) -> None:
        if name in ("type", "function"):
            self.left -= part.end - part.position
            if self.left >= 0 and name == "type":
                self.types = wasm_types.core_types(part)
            elif self.left >= 0:
                self.functions += wasm_types.indices(part.peek(part.end - part.position))
        elif name == "import":
            self.imports += _all(part, self._import)
        elif name == "export":
            self.exports += _all(part, self._export)

    def _import(self, part: Reader) -> Extern:
        module, name, kind = part.name(), part.name(), self._kind(part)
        if kind == "function":
            self.functions.append(part.u32())
            return Extern(module, name, kind, self._signature(len(self.functions) - 1))
        if kind == "table":
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

    def _export(self, part: Reader) -> Extern:
        name, kind, index = part.name(), self._kind(part), part.u32()
        return Extern("", name, kind, self._signature(index) if kind == "function" else None)

    def _kind(self, part: Reader) -> str:
        number = part.byte()
        if number >= len(_KINDS):
            raise part.wrong(f"kind {number} of an import or export is not known")
        return _KINDS[number]

    def _signature(self, function: int) -> Signature | None:
        kind = self.functions[function] if function < len(self.functions) else len(self.types)
        return self.types[kind] if kind < len(self.types) else None


@attrs.define
class _Component:
    """The imports and exports of a component, section by section.

    Attributes:
        known: whether all types so far could be read. After one that could not, the indices of types are not known.
    """

    imports: list[Extern] = attrs.field(factory=list)
    exports: list[Extern] = attrs.field(factory=list)
    types: list[Interface | None] = attrs.field(factory=list)
    known: bool = True
    left: int = _MOST_OF_TYPES

    def section(self, name: str, part: Reader) -> None:
        if name == "import":
            self.imports += _all(part, self._import)
        elif name == "export":
            self.exports += _all(part, self._export)
        elif name in ("type", "alias") and self.known:
            self.left -= part.end - part.position
            if self.left < 0:
                self.known = False
                return
            try:
                self.types += (wasm_types.component_types if name == "type" else wasm_types.aliases)(part)
            except (wasm_types.UnknownType, NotWasm):
                self.known = False

    def _import(self, part: Reader) -> Extern:
        name = part.extern_name()
        kind, index = part.description()
        interface = None
        if kind == "instance" and self.known and index < len(self.types):
            interface = self.types[index]
        return self._extern(name, kind, interface)

    def _export(self, part: Reader) -> Extern:
        name, sort = part.extern_name(), part.byte()
        kind = _CORE_SORTS.get(part.byte()) if sort == 0x00 else SORTS.get(sort)
        if kind is None:
            raise part.wrong(f"sort {sort} is not known")
        part.u32()
        if (described := part.byte()) == 0x01:
            part.description()
        elif described != 0x00:
            raise part.wrong("expected a description or none")
        return self._extern(name, kind, None)

    def _extern(self, name: str, kind: str, interface: Interface | None) -> Extern:
        if kind == "type":
            self.types.append(None)
        return Extern("", name, kind, interface=interface)
