"""The one host function that guests with sockets call (`call`): it finds the guest, and runs what it asks for.

The modules of `split` pass the number of an operation to it. It returns a number or a trap, and never raises: the
engine would lose an exception.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from _thread import get_ident
from collections.abc import Callable
from typing import Any

from . import addrinfo, direct, krustlet, polling, preview1, split, wasmedge
from .functions import SAME, SECOND, SPLIT, own, second
from .sockets import FAULT, IO, NOTSUP, Failed, Interrupted, Network, of_host

_POINTER, _SIZE, _TEXT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p
_trap_new = direct.function("wasmtime_trap_new", _POINTER, _TEXT, _SIZE)
_INTERRUPTED = b"interrupted"
_VALUE = 4
"""The engine passes each value in the room of so many numbers of 32 bits."""

networks: dict[int, Network] = {}
"""The networks of the guests that run, by thread."""


def _functions() -> list[tuple[Callable[..., int], slice]]:
    """By the number of an operation: the function to call, and which of the values are its arguments."""
    params = {name: kind.params for name, kind in SPLIT.items()} | own()
    found: list[tuple[Callable[..., int], int]] = [
        (preview1.which, 1),
        (preview1.close, 1),
        (preview1.renumber, 2),
        (preview1.refuse, 2),
    ]
    found += [(_named(name), len(params[name])) for name in split.OPERATIONS]
    return [(function, slice(2 * _VALUE, (2 + count) * _VALUE, _VALUE)) for function, count in found]


def _named(name: str) -> Callable[..., int]:
    if name == second("sock_accept"):
        return preview1.sock_accept_plain
    name = next((f"{one}_v2" for one in SECOND if name == second(one)), SAME.get(name, name))
    places = (preview1, polling, wasmedge, addrinfo, krustlet)
    found: Callable[..., int] = next(filter(None, (getattr(place, name, None) for place in places)))
    return found


def _complain(text: str) -> None:
    """Write a line to stderr, which is the guest's log. In a dense worker it has no effect."""
    with contextlib.suppress(OSError):
        os.write(2, text[:_LONGEST].encode(errors="replace") + b"\n")


_LONGEST = 300
_FUNCTIONS = _functions()


_CALLBACK = ctypes.CFUNCTYPE(_SIZE, _POINTER, _POINTER, ctypes.POINTER(ctypes.c_uint32), _SIZE)


@_CALLBACK  # type: ignore[untyped-decorator]
def absent(data: Any, caller: Any, values: Any, count: int) -> int:
    """Answers any function of sockets, for a guest that has no network."""
    values[0] = NOTSUP
    return 0


@_CALLBACK  # type: ignore[untyped-decorator]
def absent_req(data: Any, caller: Any, values: Any, count: int) -> int:
    """Answers `req`, for a guest that has no network."""
    values[0] = krustlet.DESTINATION_NOT_ALLOWED
    return 0


@_CALLBACK  # type: ignore[untyped-decorator]
def absent_response(data: Any, caller: Any, values: Any, count: int) -> int:
    """Answers a function on a response, for a guest without a network, which can have none."""
    values[0] = krustlet.INVALID_HANDLE
    return 0


@_CALLBACK  # type: ignore[untyped-decorator]
def call(data: Any, caller: Any, values: Any, count: int) -> int:
    """Run one operation. Puts WASI's error number into `values` and returns 0, or returns a trap."""
    try:
        network = networks[get_ident()]
        pages = values[_VALUE]
        if pages != network.pages:
            network.look(pages)
        function, arguments = _FUNCTIONS[values[0]]
        values[0] = function(network, *values[arguments])
    except OSError as error:
        values[0] = of_host(error.errno)
    except Failed as error:
        values[0] = error.number
    except (struct.error, IndexError):
        values[0] = FAULT
    except Interrupted:
        return int(_trap_new(_INTERRUPTED, len(_INTERRUPTED)))
    except Exception as error:  # nothing may be raised into the engine: the guest has EIO, and its log says why
        _complain(f"wasmlet: a function of sockets failed: {type(error).__name__}: {error}")
        values[0] = IO
    return 0
