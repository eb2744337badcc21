"""Defines the imports of a component, from the component's own types.

A function of an interface is a Python function that is registered with `function`. It takes the instance and then the
parameters of the type, and returns the result of the type. If that type is a `result`, it returns the value for `ok`,
and raises `Failed` with the payload for `err`. Any other exception ends the guest, as a trap does.
"""

from __future__ import annotations

import ctypes
from _thread import get_ident
from collections.abc import Callable, Iterator
from ctypes import memmove, string_at
from typing import Any

from wasmtime import component as components

from .instances import Failed, Trapped, number_of, running, trap
from .values import SIZE, Lift, Lower, check, held, lift, lower

_POINTER, _SIZE = ctypes.c_void_p, ctypes.c_size_t
_CALLBACK = ctypes.CFUNCTYPE(_POINTER, _POINTER, _POINTER, _POINTER, _POINTER, _SIZE, _POINTER, _SIZE)
_DESTRUCTOR = ctypes.CFUNCTYPE(_POINTER, _POINTER, _POINTER, ctypes.c_uint32)

_linker_new = held("wasmtime_component_linker_new", _POINTER, _POINTER)
_instantiate = held("wasmtime_component_linker_instantiate", *[_POINTER] * 5)
_linker_root = held("wasmtime_component_linker_root", _POINTER, _POINTER)
_add_instance = held(
    "wasmtime_component_linker_instance_add_instance", _POINTER, _POINTER, ctypes.c_char_p, _SIZE, _POINTER
)
_add_function = held(
    "wasmtime_component_linker_instance_add_func",
    _POINTER, _POINTER, ctypes.c_char_p, _SIZE, _CALLBACK, _POINTER, _POINTER,
)  # fmt: skip
_add_resource = held(
    "wasmtime_component_linker_instance_add_resource",
    _POINTER, _POINTER, ctypes.c_char_p, _SIZE, _POINTER, _DESTRUCTOR, _POINTER, _POINTER,
)  # fmt: skip
_instance_delete = held("wasmtime_component_linker_instance_delete", None, _POINTER)
_resource_type = held("wasmtime_component_resource_type_new_host", _POINTER, ctypes.c_uint32)
_resource_type_delete = held("wasmtime_component_resource_type_delete", None, _POINTER)

_Function = Callable[..., Any]
functions: dict[str, _Function] = {}
"""All registered functions, by interface (without its version) and name, such as `wasi:io/poll.poll`."""
_kept: list[Any] = []
"""Callbacks of the engine, kept as long as the process lives so that Python does not free them."""


def function(*names: str) -> Callable[[_Function], _Function]:
    """A decorator: registers a Python function under these names."""

    def mark(found: _Function) -> _Function:
        functions.update(dict.fromkeys(names, found))
        return found

    return mark


def interface_of(name: str) -> str:
    """The name of an interface without its version."""
    return name.partition("@")[0]


def imports_of(engine: Any, component: Any) -> Iterator[tuple[str, str, Any]]:
    """All that a component imports: the interface, the name in it, and its type."""
    for interface, found in component.type.imports(engine).items():
        if not isinstance(found.ty, components.ComponentInstanceType):
            yield interface, "", found.ty
            continue
        for name, item in found.ty.exports(engine).items():
            yield interface, name, item.ty


def missing(engine: Any, component: Any) -> list[str]:
    """What a component imports and this world does not have."""
    found = []
    for interface, name, kind in imports_of(engine, component):
        if isinstance(kind, components.FuncType):
            if f"{interface_of(interface)}.{name}" not in functions or "@0.2." not in interface:
                found.append(f"{interface}.{name}" if name else interface)
        elif not name and not isinstance(kind, components.ResourceType):
            found.append(interface)
    return found


def linker_of(engine: Any, component: Any, *, checked: bool = True) -> int:
    """A linker with all that a component imports.

    Args:
        checked: whether all imports, and their types, were checked before. If not, they are checked now.

    Raises:
        ValueError: something is missing.
        wasmtime.WasmtimeError: the engine refuses.
    """
    if not checked and (absent := missing(engine, component)):
        raise ValueError(f"the component imports what does not exist here: {', '.join(absent[:5])}")
    linker = _linker_new(ctypes.cast(engine.ptr(), _POINTER))
    root = _linker_root(linker)
    made = _POINTER()
    for interface, found in component.type.imports(engine).items():
        name = interface.encode()
        check(_add_instance(root, name, len(name), ctypes.byref(made)))
        for item, kind in found.ty.exports(engine).items():
            _define(made, interface, item, kind.ty)
            if not checked and isinstance(kind.ty, components.FuncType):
                _converters(kind.ty)
        _instance_delete(made)
    _instance_delete(root)
    return int(linker)


def instantiate(linker: int, store: Any, component: Any) -> None:
    """Make an instance only to see whether that works.

    Raises:
        wasmtime.WasmtimeError: it does not.
    """
    found = (ctypes.c_uint8 * 64)()
    context = ctypes.cast(store._context(), _POINTER)
    check(_instantiate(linker, context, ctypes.cast(component.ptr(), _POINTER), ctypes.addressof(found)))


def _define(instance: Any, interface: str, name: str, kind: Any) -> None:
    encoded = name.encode()
    if isinstance(kind, components.ResourceType):
        made = _resource_type(number_of(name))
        check(_add_resource(instance, encoded, len(encoded), made, _drop, None, None))
        _resource_type_delete(made)
    elif isinstance(kind, components.FuncType):
        found = functions[f"{interface_of(interface)}.{name}"]
        callback = _CALLBACK(_called(found, kind))
        _kept.append(callback)
        check(_add_function(instance, encoded, len(encoded), callback, None, None))


@_DESTRUCTOR  # type: ignore[untyped-decorator]
def _drop(data: Any, context: Any, number: int) -> int:
    instance = running.get(get_ident())
    if instance is not None:
        try:
            instance.drop(number)
        except BaseException as error:
            return trap(instance, error)
    return 0


def _converters(kind: Any) -> tuple[list[tuple[Lift, int]], Lower]:
    """Those for the parameters of a function, each with its place, and for the result.

    Raises:
        TypeError: a type is not of WASI 0.2.
    """
    lifts = [(lift(param), index * SIZE) for index, (_, param) in enumerate(kind.params)]
    return lifts, lower(kind.result) if kind.result is not None else _nothing


def _nothing(instance: Any, value: Any) -> bytes:
    return b""


def _called(found: _Function, kind: Any) -> Callable[..., int]:
    """The callback for the engine: it lifts the parameters, calls the function, and lowers the result.

    The converters are made at the first call, as most imports are never called.
    """
    lifts: list[tuple[Lift, int]] | None = None
    lowers: Lower = _nothing
    size, result = len(kind.params) * SIZE, SIZE if kind.result is not None else 0

    def prepare() -> list[tuple[Lift, int]]:
        nonlocal lifts, lowers
        made, lowers = _converters(kind)
        lifts = made
        return made

    def plain(data: Any, context: Any, type_: Any, arguments: int, count: int, results: int, wanted: int) -> int:
        instance = running[get_ident()]
        try:
            raw = string_at(arguments, size) if size else b""
            answer = found(instance, *[one(instance, raw, at) for one, at in (prepare() if lifts is None else lifts)])
            if result:
                memmove(results, lowers(instance, answer), SIZE)
        except BaseException as error:
            return trap(instance, _told(error))
        return 0

    def failing(data: Any, context: Any, type_: Any, arguments: int, count: int, results: int, wanted: int) -> int:
        instance = running[get_ident()]
        try:
            raw = string_at(arguments, size) if size else b""
            try:
                answer = (
                    True,
                    found(instance, *[one(instance, raw, at) for one, at in (prepare() if lifts is None else lifts)]),
                )
            except Failed as failed:
                answer = (False, failed.payload)
            memmove(results, lowers(instance, answer), SIZE)
        except BaseException as error:
            return trap(instance, _told(error))
        return 0

    return failing if isinstance(kind.result, components.ResultType) else plain


def _told(error: BaseException) -> BaseException:
    """The error that ends the guest. Anything but a trap is a fault of ours, or something that the system refuses."""
    return error if isinstance(error, Trapped) else Trapped(f"{type(error).__name__}: {error}")
