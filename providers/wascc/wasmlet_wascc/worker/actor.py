"""One actor: an instance of its module, and waPC, the protocol by which host and guest call each other.

For a request, the host calls `__guest_call`. The guest then fetches the operation and the message with
`__guest_request`, and answers with `__guest_response` or `__guest_error`. Meanwhile it may call the host with
`__host_call`, and fetch the answer with `__host_response` or `__host_error`.

Source: waPC's specification. There are two forms of `__host_call`, with and without the name of a binding (which of
several stores or servers of one capability is meant).

The engine's C API is called directly, as `wasmlet_wasmtime` does it: a call of the host through the engine's Python API
takes three times as long.
"""

from __future__ import annotations

import ctypes
import math
import struct
import time
from _thread import get_ident
from collections.abc import Callable
from typing import Any, NamedTuple

import wasmtime
from wasmtime import _ffi as ffi

from .borrowed import direct, errors, instances, limits
from .failures import GuestError, HostError
from .messages import MOST_BYTES

GUEST_CALL = b"__guest_call"
_STARTS = (b"_start", b"_initialize", b"wapc_init")
"""The exports that are called once at the start, if the module has them, in this order, as other hosts of waPC do."""
_MOST_NAME = 1024
_LONGEST_LINE = 4096
_POINTER, _SIZE, _TEXT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p
_MOST_SLEEPS = 64
_SUBSCRIPTION, _EVENT = struct.Struct("<QB7xI4xQQH6x"), struct.Struct("<QHB21x")
_CLOCK, _ABSOLUTE, _REALTIME, _INVALID, _NOT_SUPPORTED = 0, 1, 0, 28, 58

_instantiate = direct.function("wasmtime_linker_instantiate", *[_POINTER] * 6)
_export = direct.function("wasmtime_instance_export_get", ctypes.c_bool, *[_POINTER] * 2, _TEXT, _SIZE, _POINTER)
_call = direct.function("wasmtime_func_call", *[_POINTER] * 4, _SIZE, _POINTER, _SIZE, _POINTER)
_memory_data = direct.function("wasmtime_memory_data", _POINTER, _POINTER, _POINTER)
_memory_size = direct.function("wasmtime_memory_data_size", _SIZE, _POINTER, _POINTER)
_store_new = direct.function("wasmtime_store_new", *[_POINTER] * 4)
_store_delete = direct.function("wasmtime_store_delete", None, _POINTER)
_context_of = direct.function("wasmtime_store_context", _POINTER, _POINTER)
_set_wasi = direct.function("wasmtime_context_set_wasi", *[_POINTER] * 3)
_set_deadline = direct.function("wasmtime_context_set_epoch_deadline", None, _POINTER, ctypes.c_uint64)
_on_deadline = direct.function("wasmtime_store_epoch_deadline_callback", None, *[_POINTER] * 4)
_limit = direct.function("wasmtime_store_limiter", None, _POINTER, *[ctypes.c_int64] * 5)

HostCall = Callable[[str, str, str, bytes], bytes]
"""Answers what an actor asks: binding, capability, operation and message. Raises `HostError` where it does not."""


class Code(NamedTuple):
    """A module that is ready to be instantiated: pointers of the engine's.

    Attributes:
        bindings: whether it names bindings when it calls the host.
    """

    engine: int
    linker: int
    module: int


class Actor:
    """An instance of an actor. For one thread at a time.

    Args:
        memory: the most that it may have, in bytes; None for no limit.
        ask: answers its calls.
        say: takes a line that it writes to the console.
        until: when its start has to be over, by the monotonic clock in seconds.

    Attributes:
        until: when what it does has to be over.
        cause: the host's error that has ended the instance; None if there was none (`instances`).

    Raises:
        wasmtime.WasmtimeError, wasmtime.Trap: it cannot be instantiated.
    """

    def __init__(self, code: Code, memory: int | None, ask: HostCall, say: Callable[[str], None], until: float) -> None:
        self._ask, self._say, self.until = ask, say, until
        self.cause: BaseException | None = None
        self._operation = self._message = b""
        self._response: bytes | None = None
        self._error = b""
        self._host_response = self._host_error = b""
        self._store = _store_new(code.engine, None, None)
        self._context = _context_of(self._store)
        self._instance, self._memory = ffi.wasmtime_instance_t(), ffi.wasmtime_extern_t()
        self._entry = ffi.wasmtime_extern_t()
        self._arguments, self._result = (ffi.wasmtime_val_t * 2)(), ffi.wasmtime_val_t()
        for one in self._arguments:
            one.kind = ffi.WASMTIME_I32.value
        self._memory_at = ctypes.addressof(self._memory.of.memory)
        self._trap, self._has_memory = _POINTER(), False
        try:
            wasi = wasmtime.WasiConfig()
            wasi.inherit_stdout()
            wasi.inherit_stderr()
            direct.check(_set_wasi(self._context, _released(wasi)))
            if memory:
                _limit(self._store, *limits.of_module(memory))
            _on_deadline(self._store, ctypes.cast(instances._on_epoch, _POINTER), None, None)
            self._enter(  # a start function of the module itself has no memory to hand anything over in
                _instantiate, code.linker, self._context, code.module, ctypes.addressof(self._instance),
                ctypes.addressof(self._trap),
            )  # fmt: skip
            self._find(b"memory", self._memory, ffi.WASMTIME_EXTERN_MEMORY.value)
            self._has_memory = True
            for name in _STARTS:
                start = ffi.wasmtime_extern_t()
                if self._get(name, start) and start.kind == ffi.WASMTIME_EXTERN_FUNC.value:
                    self._enter(
                        _call, self._context, ctypes.addressof(start.of.func), None, 0, None, 0,
                        ctypes.addressof(self._trap),
                    )  # fmt: skip
            self._find(GUEST_CALL, self._entry, ffi.WASMTIME_EXTERN_FUNC.value)
        except BaseException:
            self.close()
            raise

    def call(self, operation: str, message: bytes, until: float) -> bytes:
        """Call the actor, and return what it answers.

        Args:
            until: when it has to be done, by the monotonic clock in seconds.

        Raises:
            GuestError: the actor answers with an error; it may be called again.
            wasmtime.Trap, wasmtime.WasmtimeError, instances.Trapped: this instance has failed; do not call it again.
        """
        self.until = until
        self._operation, self._message = operation.encode(), message
        self._response, self._error = None, b""
        first, second = self._arguments
        first.of.i32, second.of.i32 = len(self._operation), len(message)
        self._enter(
            _call, self._context, ctypes.addressof(self._entry.of.func), ctypes.addressof(self._arguments), 2,
            ctypes.addressof(self._result), 1, ctypes.addressof(self._trap),
        )  # fmt: skip
        response, self._response, self._message = self._response, None, b""
        if not self._result.of.i32:
            raise GuestError(self._error.decode(errors="replace") or "it says nothing")
        return response or b""

    def close(self) -> None:
        """Free the instance."""
        if self._store:
            store, self._store = self._store, None
            _store_delete(store)

    def check_time(self) -> None:
        """See `instances`."""
        if time.monotonic() >= self.until:
            raise instances.TimedOut("the actor has taken longer than it may")

    def _enter(self, call: Any, *arguments: Any) -> None:
        """Run the guest: call a function of the engine, and raise what goes wrong."""
        me = get_ident()
        before, instances.running[me] = instances.running.get(me), self  # type: ignore[assignment]
        self.cause, self._trap.value = None, None
        _set_deadline(self._context, 1)
        try:
            error = call(*arguments)
        finally:
            if before is None:
                del instances.running[me]
            else:
                instances.running[me] = before
        try:
            direct.check(error)
            direct.check_trap(self._trap)
        except (wasmtime.WasmtimeError, wasmtime.Trap) as found:
            cause, self.cause = self.cause, None
            if cause is not None:
                raise cause from found
            raise

    def _get(self, name: bytes, found: Any) -> bool:
        return bool(_export(self._context, ctypes.addressof(self._instance), name, len(name), ctypes.addressof(found)))

    def _find(self, name: bytes, found: Any, kind: int) -> None:
        if not self._get(name, found) or found.kind != kind:
            raise wasmtime.WasmtimeError(f"the actor does not export {name.decode()}")

    # What the guest calls.

    def read(self, address: int, length: int, most: int) -> bytes:
        """Bytes of its memory.

        Raises:
            instances.Trapped: it does not have these, or they are too many.
        """
        if length > most:
            raise instances.Trapped(f"the actor hands over {length} bytes, which is more than {most}")
        if not length:
            return b""
        return self._part(*self._whole(), address, length)

    def write(self, address: int, data: bytes) -> None:
        """Put bytes into its memory.

        Raises:
            instances.Trapped: they are not all within it.
        """
        if not data:
            return
        start, size = self._whole()
        if address + len(data) > size:
            raise _outside()
        ctypes.memmove(start + address, data, len(data))

    def _whole(self) -> tuple[int, int]:
        """The address and the size of its memory. Ask each time: the memory may have moved when the guest has run."""
        if not self._has_memory:
            raise _outside()
        memory = self._memory_at
        return int(_memory_data(self._context, memory)), _memory_size(self._context, memory)

    @staticmethod
    def _part(start: int, size: int, address: int, length: int) -> bytes:
        if not length:  # wherever it begins
            return b""
        if address + length > size:
            raise _outside()
        return ctypes.string_at(start + address, length)

    def guest_request(self, operation: int, message: int) -> None:
        """The guest takes what it was called with."""
        self.write(operation, self._operation)
        self.write(message, self._message)

    def guest_response(self, address: int, length: int) -> None:
        """The guest answers."""
        self._response = self.read(address, length, MOST_BYTES)

    def guest_error(self, address: int, length: int) -> None:
        """The guest says why it does not answer."""
        self._error = self.read(address, min(length, _LONGEST_LINE), _LONGEST_LINE)

    def host_call(self, *where: int) -> int:
        """The guest asks the host for something. Returns 1 if it gets an answer, 0 if it gets an error.

        Args:
            where: four addresses and lengths: of the binding, the capability, the operation and the message.
        """
        start, size = self._whole()
        texts = []
        for place in (0, 2, 4):
            if where[place + 1] > _MOST_NAME:
                raise instances.Trapped(f"the actor names something by {where[place + 1]} bytes, expected {_MOST_NAME}")
            texts.append(self._part(start, size, where[place], where[place + 1]).decode(errors="replace"))
        message = self.read(where[6], where[7], MOST_BYTES)
        binding, capability, operation = texts
        self._host_response = self._host_error = b""
        try:
            self.check_time()
            self._host_response = self._ask(binding, capability, operation, message)
        except HostError as error:
            self._host_error = str(error).encode()
            return 0
        return 1

    def host_call_without_binding(self, *where: int) -> int:
        """The `__host_call` of older actors, which name no binding."""
        return self.host_call(0, 0, *where)

    def host_response_len(self) -> int:
        """How long the host's answer is."""
        return len(self._host_response)

    def host_response(self, address: int) -> None:
        """The guest takes the host's answer."""
        self.write(address, self._host_response)

    def host_error_len(self) -> int:
        """How long the words are that the host answers instead."""
        return len(self._host_error)

    def host_error(self, address: int) -> None:
        """The guest takes these."""
        self.write(address, self._host_error)

    def poll_oneoff(self, subscriptions: int, events: int, count: int, done: int) -> int:
        """WASI's `poll_oneoff`, for sleeping only: an actor has nothing else to wait for.

        It sleeps no longer than the present call may take.
        """
        if not 0 < count <= _MOST_SLEEPS:
            return _INVALID
        shortest, sleeper = math.inf, 0
        whole = self.read(subscriptions, count * _SUBSCRIPTION.size, count * _SUBSCRIPTION.size)
        for user, kind, clock, timeout, _, flags in _SUBSCRIPTION.iter_unpack(whole):
            seconds = timeout / 1e9
            if kind != _CLOCK or (flags & _ABSOLUTE and clock != _REALTIME):
                return _NOT_SUPPORTED
            if flags & _ABSOLUTE:
                seconds -= time.time()
            if seconds < shortest:
                shortest, sleeper = seconds, user
        time.sleep(max(0.0, min(shortest, self.until - time.monotonic())))
        self.check_time()
        self.write(events, _EVENT.pack(sleeper, 0, _CLOCK))
        self.write(done, (1).to_bytes(4, "little"))
        return 0

    def console_log(self, address: int, length: int) -> None:
        """The guest writes a line."""
        self._say(self.read(address, min(length, _LONGEST_LINE), _LONGEST_LINE).decode(errors="replace"))


def _outside() -> instances.Trapped:
    return instances.Trapped("the actor names memory that it does not have")


def _released(config: wasmtime.WasiConfig) -> int:
    """A pointer to the configuration. The engine owns, and frees, what it points to."""
    return ctypes.cast(config._consume(), _POINTER).value or 0


def trap_words(error: BaseException) -> str:
    """The text about an actor that has failed."""
    return errors.trap_text(error) if isinstance(error, Exception) else str(error)
