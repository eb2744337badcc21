"""wasmer inside a worker process: the three functions that `wasmlet.worker.guest.engines` calls on an engine.

Loaded by file path, under Python 3.10, the newest that wasmer has; it uses the standard library and wasmer only,
nothing of wasmlet. A guest gets its arguments, its environment, its mounts, clocks, randomness and its three streams,
nothing else.

Why the code is as it is; each point was found by measuring wasmer 1.1:

- wasmer follows absolute paths and symbolic links out of a mounted directory. So guests have mounts only where landlock
  confines their process (`REQUIRES`).
- wasmer opens every file for writing if the rights of its directory allow it, even if the guest wants to read only; and
  it has no read-only mounts. Landlock forbids writing there, so reading would fail, too. But WASI has a call that takes
  rights away. A small module of ours (`_HELPER`) makes that call for each read-only mount, before the guest begins.
- wasmer cannot limit a guest's memory, but a guest can import a memory that was made with a limit. So `compile` turns
  the memory of a module into an import, and `run` makes the memory.
- An exit code appears only in the text of an error. Every other error of a run is a trap.
- `Module.deserialize` does not check its input. So a compiled file begins with a mark and sizes, which are checked.
- Only compiling needs the compiler; the engine of a child has none.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from typing import Any

import wasmer
from wasmer import engine, wasi

REQUIRES = ("landlock",)
TRAPPED = 134
_WASI_0 = "wasi_unstable"
_INITIALIZE, _DEFAULT, _START = "_initialize", "", "_start"
"""The exports that are called: the first one, and then the second, or else the third, as `wasmtime run` does it."""
PAGE = 65536
MOST_PAGES = 65536

_MAGIC = b"wasmlet-wasmer 1"
_ARTIFACT = struct.Struct("<16siIQ")
"""What an artifact begins with: `_MAGIC`, how many bytes further its code is than in the module, and the sizes of what
follows: the compiled `_HELPER` and the compiled module."""

_HELPER = """
(module
  (import "wasi_snapshot_preview1" "fd_fdstat_set_rights" (func $rights (param i32 i64 i64) (result i32)))
  (import "wasi_snapshot_preview1" "fd_prestat_dir_name" (func $name (param i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (export "rights" (func $rights))
  (export "name" (func $name)))
"""
_FIRST_MOUNT = 4
"""Descriptors of a guest: its streams, a root that has the mounts in it, and the mounts in their order."""
_READING = sum(1 << bit for bit in (1, 2, 3, 5, 7, 13, 14, 15, 18, 21, 27))
"""The rights that read, seek, look into directories and ask about files (`rights` of WASI preview 1)."""

_OURS, _MEMORY = "wasmlet", "memory"
"""The module and name under which a guest imports its memory."""

_CUSTOM, _IMPORTS, _MEMORIES, _CODE = 0, 2, 5, 10
_FEATURES = {"threads": "threads", "memory64": "memory64", "tail call": "tail calls", "exceptions": "exceptions",
             "module linking": "exceptions", "multiple memories": "several memories",
             "only one init_expr": "extended constant expressions",
             "element is not reference": "function references"}  # fmt: skip
"""Words of an error, and the proposal to WebAssembly that wasmer does not have."""
_CODES = {"0x1f": "exceptions", "0xa": "exceptions", "0xfb": "garbage collection", "0x14": "function references",
          "0x15": "function references", "0xd3": "function references", "0xd4": "function references",
          "0xd5": "function references", "0xd6": "function references", "0xfd": "relaxed SIMD",
          "0xfc": "wide arithmetic"}  # fmt: skip
"""The same, by the number of an instruction that wasmer does not know, or by the first byte of it."""
_BYTES = {
    "type definition": dict.fromkeys((0x4E, 0x4F, 0x50, 0x5E, 0x5F), "garbage collection") | {0x5D: "stack switching"},
    "limits flags": dict.fromkeys((4, 5, 6, 7), "memory64") | dict.fromkeys(range(8, 16), "custom page sizes"),
}
"""The same, by words of an error and the byte at the place that it names."""
_UNKNOWN = re.compile(r"Unknown (?:(0x\w+) sub)?opcode: (0x\w+)")
_OFFSET = re.compile(r"at offset (\d+)\)")
_IS_NEW = re.compile(r"(?i)unknown (opcode|0x)|invalid|not enabled|must be enabled|not supported|unsupported")
"""In errors about what wasmer does not know, which a newer engine may. In all other errors the module is wrong."""
_ELSE = "build it without, or run it with another engine"

_EXIT = re.compile(r"RuntimeError: WASI exited with code: (\d+)")
_PLACE = re.compile(r":0x([0-9a-f]+)\)$", re.MULTILINE)
_NOWHERE = 0xFFFFFFFF
_LONG = 4096


class _BadArtifact(Exception):
    """The compiled module cannot be loaded; `wasmlet.worker.guest.child` looks at the attribute."""

    bad_artifact = True


def prepare() -> wasmer.Store:
    """What every child starts from; no module and no thread."""
    return wasmer.Store(engine.Universal())


def run(prepared: wasmer.Store, spec: dict[str, Any], module: str, started: Callable[[], None]) -> tuple[int, str]:
    """Run a compiled command to its end.

    Raises:
        ValueError: it cannot start; the message says why.
    """
    code, shift, helper = _load(prepared, module)
    name, *args = spec["args"]
    state = wasi.StateBuilder(name).arguments(args)
    for key, value in spec["env"]:
        state.environment(key, value)
    mounts = spec.get("mounts") or ()
    for mount in mounts:
        state.map_directory(mount["path"], mount["directory"])
    try:
        environment = state.finalize()
        imports = environment.generate_import_object(prepared, _version(code))
    except RuntimeError as error:
        raise ValueError(f"wasmer does not take what the container is given: {error}") from error
    if any(mount["read_only"] for mount in mounts):
        _take_rights(prepared, helper, environment.generate_import_object(prepared, wasi.Version.SNAPSHOT1), mounts)
    for wanted in code.imports:
        if wanted.module == _OURS:
            imports.register(_OURS, {_MEMORY: _memory(prepared, wanted.type, spec.get("memory"))})
    begun = False
    try:
        instance = wasmer.Instance(code, imports)
        begun = True
        started()
        names = {export.name for export in code.exports if isinstance(export.type, wasmer.FunctionType)}
        for name in (_INITIALIZE, _DEFAULT if _DEFAULT in names else _START):
            if name in names:
                getattr(instance.exports, name)()
    except BaseException as error:
        text, panicked = str(error), _is_panic(error)
        if not begun:
            if not panicked and not text.startswith("RuntimeError: "):
                raise ValueError(f"the module cannot be instantiated: {text}") from error
            started()  # it was in the start function of the module itself: the guest has run
        if panicked:
            return TRAPPED, f"wasmer gave up in a call of the guest's: {text}"
        left = _EXIT.fullmatch(text)
        return (int(left[1]) & 0xFF, "") if left else (TRAPPED, _trap(text, shift))
    return 0, ""


def compile(wasm: bytes) -> bytes:  # noqa: A001 - the name that the worker asks for
    """Compile a module, whose imports and exports have been checked (`wasmlet.runtime.linking`).

    Raises:
        ValueError: it is not a valid module, or uses what does not exist here.
    """
    from wasmer_compiler_cranelift import Compiler

    if wasm[4:8] != b"\1\0\0\0":
        raise ValueError("wasmer runs core modules only: expected WebAssembly version 1, found a component")
    store = wasmer.Store(engine.Universal(Compiler))
    try:
        if not wasmer.Module.validate(store, wasm):
            wasmer.Module(store, wasm)  # says why
        ours, shift = _with_imported_memory(wasm)
        module = wasmer.Module(store, ours)
    except RuntimeError as error:
        raise ValueError(_refusal(wasm, str(error))) from error
    except BaseException as error:
        if not _is_panic(error):
            raise
        if _feature(wasm, str(error)):
            raise ValueError(_refusal(wasm, str(error))) from error
        raise ValueError(f"wasmer cannot compile this module: its compiler gave up ({error})") from error
    helper = bytes(wasmer.Module(store, _HELPER).serialize())
    compiled = bytes(module.serialize())
    return _ARTIFACT.pack(_MAGIC, shift, len(helper), len(compiled)) + helper + compiled


def _version(code: wasmer.Module) -> wasi.Version:
    """Of the WASI that a module imports."""
    return wasi.Version.SNAPSHOT0 if any(w.module == _WASI_0 for w in code.imports) else wasi.Version.SNAPSHOT1


def _load(store: wasmer.Store, path: str) -> tuple[wasmer.Module, int, bytes]:
    """The compiled module in a file.

    Returns:
        The module, by how many bytes its code was moved (see `_with_imported_memory`), and the compiled `_HELPER`.
    """
    with open(path, "rb") as file:
        head = file.read(_ARTIFACT.size)
        magic, shift, first, second = _ARTIFACT.unpack(head) if len(head) == _ARTIFACT.size else (b"", 0, 0, 0)
        helper, compiled = file.read(first), file.read()
    if magic != _MAGIC or len(compiled) != second:
        raise _BadArtifact("the compiled module cannot be loaded: it is none of ours, or damaged")
    try:
        return wasmer.Module.deserialize(store, compiled), shift, helper
    except RuntimeError as error:
        raise _BadArtifact(f"the compiled module cannot be loaded: {error}") from error


def _take_rights(store: wasmer.Store, helper: bytes, imports: wasmer.ImportObject, mounts: Sequence[Any]) -> None:
    """In read-only mounts, take all rights but `_READING` away from the guest, which uses the same imports."""
    calls = wasmer.Instance(wasmer.Module.deserialize(store, helper), imports).exports
    for number, mount in enumerate(mounts, _FIRST_MOUNT):
        path = mount["path"].lstrip("/").encode()  # as wasmer names it
        error = calls.name(number, 0, len(path) + 1)  # it ends it with a NUL
        if error or bytes(calls.memory.uint8_view()[: len(path)]) != path:
            raise ValueError(f"wasmer cannot mount {mount['path']}: its descriptor is not {number} (error {error})")
        if mount["read_only"] and (error := calls.rights(number, _READING, _READING)):
            raise ValueError(f"wasmer cannot mount {mount['path']} read-only: error {error}")


def _memory(store: wasmer.Store, wanted: wasmer.MemoryType, limit: int | None) -> wasmer.Memory:
    """The guest's memory, which cannot grow over the limit, in bytes; None for no limit."""
    most = MOST_PAGES if wanted.maximum is None else wanted.maximum
    if limit is not None:
        most = min(most, limit // PAGE)
    if wanted.minimum > most:
        raise ValueError(
            f"the module cannot be instantiated: its memory of {wanted.minimum * PAGE} bytes exceeds the limit of "
            f"{limit} bytes"
        )
    try:
        return wasmer.Memory(store, wasmer.MemoryType(wanted.minimum, most, False))
    except RuntimeError as error:
        raise ValueError(f"the module cannot be instantiated: {error}") from error


def _trap(text: str, shift: int) -> str:
    """A trap with its backtrace, whose offsets become those of the module as its owner knows it."""
    if len(text) > 2 * _LONG:  # an endless recursion's has megabytes
        text = f"{text[:_LONG]}\n...\n{text[-_LONG:]}"

    def place(found: re.Match[str]) -> str:
        offset = int(found[1], 16)
        return ")" if offset == _NOWHERE else f":{max(0, offset - shift):#x})"

    return "wasm trap: " + _PLACE.sub(place, text[len("RuntimeError: ") :].strip())


def _is_panic(error: BaseException) -> bool:
    """Whether wasmer itself failed: a panic of Rust, which is no `Exception` in Python."""
    return type(error).__name__ == "PanicException"


def _refusal(wasm: bytes, text: str) -> str:
    """Why wasmer does not take a module, by what it says of it."""
    if feature := _feature(wasm, text):
        return f"wasmer cannot run this module: it needs {feature}, which this engine does not have ({text}); {_ELSE}"
    if _IS_NEW.search(text):
        return (
            f"wasmer cannot run this module: it is damaged, or needs what is newer than this engine ({text}); "
            "another engine may run it"
        )
    return f"not a valid WebAssembly module: {text}"


def _feature(wasm: bytes, text: str) -> str:
    """The proposal to WebAssembly that the module needs; "" where that is not known."""
    for words, feature in _FEATURES.items():
        if words in text.lower():
            return feature
    if unknown := _UNKNOWN.search(text):
        return _CODES.get(unknown[1] or unknown[2], "")
    at = _OFFSET.search(text)
    byte = wasm[int(at[1])] if at and int(at[1]) < len(wasm) else -1
    return next((features.get(byte, "") for words, features in _BYTES.items() if words in text), "")


def _with_imported_memory(wasm: bytes) -> tuple[bytes, int]:
    """A valid module with its memory as an import, and without sections for debuggers.

    Returns:
        The module, and by how many bytes its code was moved.
    """
    parts = [part for part in _sections(wasm) if part[0] != _CUSTOM or part[1].startswith(_name("name"))]
    own = next((content for number, content in parts if number == _MEMORIES and content[0]), None)
    if own is not None:
        parts = [part for part in parts if part[0] != _MEMORIES]
        if not any(number == _IMPORTS for number, _ in parts):
            parts.insert(next((i for i, part in enumerate(parts) if part[0] > _IMPORTS), len(parts)), (_IMPORTS, b"\0"))
        entry = _name(_OURS) + _name(_MEMORY) + b"\2" + own[1:]
        parts = [(number, _one_more(content, entry) if number == _IMPORTS else content) for number, content in parts]
    ours = _module(parts)
    return ours, _code_offset(ours) - _code_offset(wasm)


def _one_more(items: bytes, item: bytes) -> bytes:
    """A vector of the binary format with an item more."""
    count, end = _number(items, 0)
    return _leb(count + 1) + items[end:] + item


def _code_offset(wasm: bytes) -> int:
    offset = 8
    while offset < len(wasm):
        size, start = _number(wasm, offset + 1)
        if wasm[offset] == _CODE:
            return start
        offset = start + size
    return 0


def _sections(wasm: bytes) -> list[tuple[int, bytes]]:
    """Number and content of each section of a valid module."""
    found, offset = [], 8
    while offset < len(wasm):
        size, start = _number(wasm, offset + 1)
        found.append((wasm[offset], wasm[start : start + size]))
        offset = start + size
    return found


def _module(sections: list[tuple[int, bytes]]) -> bytes:
    parts = [bytes([number]) + _leb(len(content)) + content for number, content in sections]
    return b"".join([b"\0asm\1\0\0\0", *parts])


def _name(text: str) -> bytes:
    return _leb(len(text)) + text.encode()


def _number(data: bytes, offset: int) -> tuple[int, int]:
    """A LEB128 number, and where it ends."""
    value = shift = 0
    while True:
        byte = data[offset]
        offset += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, offset


def _leb(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])
