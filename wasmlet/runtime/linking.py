"""Says before a module is compiled whether an engine can run it, and if not, why and what to do (`unfit`).

An engine says in a `Links` what it offers: functions for modules, interfaces for components. A file says what it
imports and exports. To compare the two takes milliseconds; to compile may take minutes. Only files that certainly
cannot run are refused here; where `wasmlet.artifacts.wasm` cannot read a file or a type in it, the engine decides.

`uses_of` reads from the same imports and exports whether a file needs sockets or files, and whether it serves HTTP.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import attrs

from wasmlet.artifacts import wasm
from wasmlet.artifacts.wasm import Binary, Extern
from wasmlet.artifacts.wasm_reader import NotWasm
from wasmlet.artifacts.wasm_types import Signature
from wasmlet.runtime.wasi import PREVIEW0, PREVIEW1

RULES = 5
"""Version of the rules, part of the key of recorded refusals. Raise it when this module refuses other things."""

COMMAND = "wasi:cli/run@0.2"
"""The export of a component that is a command; stands for all versions 0.2.x."""

HANDLER = "wasi:http/incoming-handler@0.2"
"""The export of a component that serves HTTP; stands for all versions 0.2.x."""

_SOCKETS = "sock_"
"""How the names of WASI's functions for sockets begin."""
_FILES = ("path_", "fd_readdir", "fd_prestat_")
"""How the names of those functions begin without which a module cannot find or open any file."""
_FILESYSTEM = "wasi:filesystem/"
"""How the names of the interfaces begin without which a component cannot."""
_LISTED = 5
_LONGEST_NAME = 80
_NEWER = "@0.3"
_TARGET = "target wasm32-wasip1"
_BARE = Signature((), ())
_NEEDED = ("function", "resource", "core module", "component")
"""The kinds of exports of an imported instance that the engine has to provide."""

_JAVASCRIPT = f"it is built for a JavaScript host: build it for WASI preview 1 ({_TARGET})"
_ADVICE = {
    "wasi": f"a guest has one thread here: build it without threads ({_TARGET})",
    "wasix_32v1": f"it is built for WASIX: build it for WASI preview 1 ({_TARGET})",
    "gojs": "it is built for a JavaScript host: build it with GOOS=wasip1 GOARCH=wasm",
    "go": "it is built for a JavaScript host: build it with GOOS=wasip1 GOARCH=wasm",
    "wbg": _JAVASCRIPT,
    "__wbindgen_placeholder__": _JAVASCRIPT,
    "a": _JAVASCRIPT,
}
"""What to do, by a module that something is imported from."""


@attrs.frozen
class Links:
    """What an engine offers to be imported, and what else it wants of a module.

    Attributes:
        functions: for core modules: the type of each function, by the module that is imported from and its name.
        interfaces: for components: names like `wasi:io/poll@0.2`, which stand for all compatible versions.
        serves: whether the engine runs components that export `HANDLER` and are not commands.
        memory: whether a module that imports functions must export a memory named `memory`.
        others: second types that some of `functions` may be imported with.
        entry: a function that modules must export; "": modules must be WASI commands.
        explained: messages for imports (as `module.name`) with this wrong type.
    """

    functions: Mapping[str, Mapping[str, Signature]]
    interfaces: Collection[str] = ()
    serves: bool = False
    memory: bool = False
    others: Mapping[str, Mapping[str, Signature]] = {}
    entry: str = ""
    explained: Mapping[tuple[str, Signature], str] = {}


def unfit(path: Path, links: Links, engine: str) -> str:
    """Why the engine cannot run what is in the file; "" where it is not known here that it cannot. Blocks.

    Args:
        engine: its name and version.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        found = wasm.read_file(path)
    except NotWasm:
        return ""
    return unlinked(found, links, engine)


def unlinked(found: Binary, links: Links, engine: str) -> str:
    """The same of a file that was read."""
    return "; ".join(_of_component(found, links, engine) if found.component else _of_module(found, links, engine))


@attrs.frozen
class Uses:
    """What a module or component does with a network and with files.

    Attributes:
        sockets: whether it may ask for sockets; False where it is known that it cannot.
        serves: whether it is a component that serves HTTP, and no command.
        files: whether it may look for files; False where it is known that it cannot.
        plain: whether it is known to be a core module that uses no sockets, nor anything but WASI preview 1.
    """

    sockets: bool = True
    serves: bool = False
    files: bool = True
    plain: bool = False


def uses_of(path: Path) -> Uses:
    """How the module or component in a file uses network and files; if that is not known, it may use both. Blocks.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        found = wasm.read_file(path)
    except NotWasm:
        return Uses()
    if found.component:
        files = any(not w.name.startswith("wasi:") or w.name.startswith(_FILESYSTEM) for w in found.imports)
        return Uses(serves=_serves({compatible(export.name) for export in found.exports}), files=files)
    others = any(wanted.module != PREVIEW1 for wanted in found.imports)
    sockets = others or any(wanted.name.startswith(_SOCKETS) for wanted in found.imports)
    files = others or any(wanted.name.startswith(_FILES) for wanted in found.imports)
    return Uses(sockets=sockets, files=files, plain=not sockets)


def _serves(exports: Collection[str]) -> bool:
    return COMMAND not in exports and HANDLER in exports


def _of_module(module: Binary, links: Links, engine: str) -> list[str]:
    missing, other, reasons = [], [], []
    for wanted in module.imports:
        there = links.functions.get(wanted.module, {}).get(wanted.name) if wanted.kind == "function" else None
        if there is None:
            missing.append(wanted)
        elif wanted.signature in (None, there, links.others.get(wanted.module, {}).get(wanted.name)):
            continue
        elif words := links.explained.get((_name(wanted), wanted.signature)):
            reasons.append(words)
        else:
            other.append(f"{_name(wanted)} is {wanted.signature}, expected {there}")
    if missing:
        reasons.append(f"the module imports what does not exist here: {_list(map(_name, missing))}")
        reasons.append(_advice(missing, links, engine))
    if other:
        reasons.append(f"the module's imports do not fit: incompatible import type: {_list(other)}")
    if reason := _lacks(module, links.entry) if links.entry else _no_entry(module):
        reasons.append(reason)
    memory = any(export.name == "memory" and export.kind == "memory" for export in module.exports)
    if links.memory and not memory and any(wanted.kind == "function" for wanted in module.imports):
        reasons.append("the module exports no memory; expected one of the name memory, which WASI works on")
    return reasons


def _no_entry(module: Binary) -> str:
    """Why there is nothing in a module to begin with; "" where there is something.

    Source: `wasmtime run`, which calls `_initialize` where there is one, and then the function "" or else `_start`.
    """
    functions = {export.name: export.signature for export in module.exports if export.kind == "function"}
    entries = [name for name in ("_start", "", "_initialize") if name in functions]
    if not entries and not any(name == "start" for name, _ in module.sections):
        return (
            "the module has no _start function without parameters and results: expected a WASI command, "
            "found a library (build it with a main function)"
        )
    for name in entries:
        if functions[name] not in (None, _BARE):
            return (
                f"the module has no {name or 'default'} function without parameters and results: "
                f"found one that is {_list([str(functions[name])])}"
            )
    return ""


def _lacks(module: Binary, entry: str) -> str:
    if any(export.name == entry and export.kind == "function" for export in module.exports):
        return ""
    return f"the module does not export the function {entry}: this engine runs no other modules"


def _advice(missing: Iterable[Extern], links: Links, engine: str) -> str:
    modules = [wanted.module for wanted in missing]
    if advice := next((_ADVICE[name] for name in modules if name in _ADVICE), ""):
        return advice
    if PREVIEW0 in modules and PREVIEW0 not in links.functions:
        return (
            f"{engine} does not have WASI preview 0: build it with newer tools for preview 1 ({_TARGET}), or run it "
            "with another engine"
        )
    if modules == [PREVIEW1] * len(modules) and all(wanted.name.startswith(_SOCKETS) for wanted in missing):
        return f"{engine} gives its guests no sockets: run it in a pod of handler wasmlet or wasmlet-dense (wasmtime)"
    if all(name in links.functions for name in modules):
        return f"{engine} does not have {'them' if len(modules) > 1 else 'it'}: build it without, or use another engine"
    return f"expected imports of {PREVIEW1} only: build it for WASI preview 1 ({_TARGET})"


def _of_component(component: Binary, links: Links, engine: str) -> list[str]:
    reasons = []
    exports = {compatible(export.name) for export in component.exports}
    serves = _serves(exports) and links.serves
    missing = [wanted.name for wanted in component.imports if _is_missing(wanted, links.interfaces)]
    if missing:
        reasons.append(f"the component imports what does not exist here: {_list(missing)}")
        reasons.append(_component_advice(missing, links, engine))
    if not serves and COMMAND not in exports:
        newer = [
            export.name for export in component.exports if export.name.startswith("wasi:") and _NEWER in export.name
        ]
        if newer:
            reasons.append(
                f"the component is built for WASI 0.3, which {engine} does not have: it exports {_list(newer)}"
            )
        found = _list(sorted(export.name for export in component.exports)) or "nothing"
        reasons.append(
            f"the component does not export {COMMAND}.0 with a function run: expected a WASI command, "
            f"{'or one that exports ' + HANDLER + '.0, ' if links.serves else ''}found a library that exports {found} "
            "(build it with a main function)"
        )
    return reasons


def _component_advice(missing: Iterable[str], links: Links, engine: str) -> str:
    if any(_NEWER in name for name in missing):
        return f"{engine} has WASI 0.2 here, and no newer one: build it for WASI 0.2 (target wasm32-wasip2)"
    return "expected imports of WASI preview 2 only" + (
        "" if links.serves else f", of which {engine} has no wasi:http here"
    )


def _is_missing(wanted: Extern, there: Collection[str]) -> bool:
    if wanted.kind != "instance":
        return wanted.kind in _NEEDED
    needs = any(kind in _NEEDED for kind in (wanted.interface or {}).values())
    return needs and compatible(wanted.name) not in there


def compatible(name: str) -> str:
    """An interface with that part of its version which all compatible ones have (semver): `wasi:io/poll@0.2`."""
    interface, at, version = name.partition("@")
    major, _, rest = version.partition(".")
    minor = rest.partition(".")[0]
    if not at or "-" in version or not major.isdigit():
        return name
    return f"{interface}@{major}" if major != "0" else f"{interface}@0.{minor}"


def _name(wanted: Extern) -> str:
    return f"{wanted.module}.{wanted.name}"


def _list(names: Iterable[str]) -> str:
    """Some of them, none of any length or with anything in it that is not to be shown."""
    found = ["".join(c if c.isprintable() else "?" for c in name) for name in names]
    shown = [name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..." for name in found[:_LISTED]]
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return ", ".join(shown) + more
