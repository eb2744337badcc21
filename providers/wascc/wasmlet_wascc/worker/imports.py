"""What an actor may import: the host's functions of waPC, and WASI."""

from __future__ import annotations

import ctypes
from _thread import get_ident
from collections.abc import Callable
from typing import Any

import wasmtime

from .actor import Actor
from .borrowed import direct, instances

MODULE, WASI = "wapc", "wasi_snapshot_preview1"
_POINTER, _SIZE, _TEXT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p
_VALUE = 4
"""The engine passes each value in the room of so many numbers of 32 bits."""
_CALLBACK = ctypes.CFUNCTYPE(_POINTER, _POINTER, _POINTER, ctypes.POINTER(ctypes.c_uint32), _SIZE)

_define = direct.function(
    "wasmtime_linker_define_func_unchecked", *[_POINTER] * 2, _TEXT, _SIZE, _TEXT, _SIZE, _POINTER, _POINTER,
    _POINTER, _POINTER,
)  # fmt: skip
_trap_new = direct.function("wasmtime_trap_new", _POINTER, _TEXT, _SIZE)

FUNCTIONS: dict[str, tuple[int, int, Callable[..., int | None]]] = {
    "__guest_request": (2, 0, Actor.guest_request),
    "__guest_response": (2, 0, Actor.guest_response),
    "__guest_error": (2, 0, Actor.guest_error),
    "__host_call": (8, 1, Actor.host_call),
    "__host_response_len": (0, 1, Actor.host_response_len),
    "__host_response": (1, 0, Actor.host_response),
    "__host_error_len": (0, 1, Actor.host_error_len),
    "__host_error": (1, 0, Actor.host_error),
    "__console_log": (2, 0, Actor.console_log),
}
"""What the host has for actors: how many numbers each takes and returns, and what is called."""
OLD_HOST_CALL = (6, 1, Actor.host_call_without_binding)


def linker_of(engine: wasmtime.Engine, *, bindings: bool) -> wasmtime.Linker:
    """A linker with all that an actor may import. Of WASI, output, clocks and random numbers work; there are no files.

    Args:
        bindings: whether the actor names bindings when it calls the host.
    """
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    linker.allow_shadowing = True
    functions = FUNCTIONS if bindings else FUNCTIONS | {"__host_call": OLD_HOST_CALL}
    for name, (takes, gives, function) in functions.items():
        _add(linker, MODULE, name, takes, gives, function)
    _add(linker, WASI, "poll_oneoff", 4, 1, Actor.poll_oneoff)  # the engine's own would sleep past the end of a call
    return linker


def _add(
    linker: wasmtime.Linker, module: str, name: str, takes: int, gives: int, function: Callable[..., int | None]
) -> None:
    i32 = wasmtime.ValType.i32
    kind = wasmtime.FuncType([i32() for _ in range(takes)], [i32() for _ in range(gives)])
    callback = _callback(takes, function)
    _kept.append(callback)
    direct.check(
        _define(
            direct.pointer(linker), module.encode(), len(module), name.encode(), len(name),
            direct.pointer(kind), ctypes.cast(callback, _POINTER), None, None,
        )
    )  # fmt: skip


_kept: list[Any] = []
"""Callbacks, which live as long as the process."""


def _callback(takes: int, function: Callable[..., int | None]) -> Any:
    places = slice(0, takes * _VALUE, _VALUE)

    @_CALLBACK  # type: ignore[untyped-decorator]
    def called(_environment: Any, _caller: Any, values: Any, _count: int) -> int | None:
        actor: Any = instances.running[get_ident()]
        try:
            found = function(actor, *values[places]) if takes else function(actor)
        except BaseException as error:
            if actor.cause is None:
                actor.cause = error
            text = str(error).encode(errors="replace")
            return int(_trap_new(text, len(text)))
        if found is not None:
            values[0] = found
        return None

    return called
