"""wasmtime in a dense worker: one process that runs many guests, each on a thread with a store of its own.

Loaded as `guest` is, and has the same three functions. It has two more things, for `wasmlet.worker.guest.dense`: `load`
and `Guest`. Its `run` is for an exec, which gets a process of its own here, too.

A guest has to be ended without ending the process. So its code is compiled with checks of the epoch, a counter of the
engine: when it goes up, running guests call `_on_epoch`. And `poll_oneoff`, in which guests sleep, is ours: it waits
for a lock that `Guest.interrupt` releases.

wasmtime's Python API keeps the last exception of a host function in a global variable. Threads would mix these up, so
host functions are made and called by the low-level bindings. What else shapes the code, found by measuring wasmtime 50:

- Output goes to pipes through `stdout_file`: the guest's own thread writes it, without Python and its lock.
- Recursion of a guest must trap before the stack of its thread is full, together with host functions. So wasm gets half
  of that stack.
"""

from __future__ import annotations

import _thread
import contextlib
import ctypes
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import wasmtime
from wasmtime import _bindings as bindings

from . import calls, direct, guest, hostcalls, socketed, split, stores
from .errors import TRAPPED, causes, trap_text
from .p2 import wire
from .seam import Broker
from .sockets import Interrupted, Network

STACK = 1024 * 1024
"""Bytes of a thread's stack; they take memory only when they are used."""
_WASM_STACK = STACK // 2

_SUBSCRIPTION, _EVENT = 48, 32
"""Bytes of WASI's structures."""
_MOST_SUBSCRIPTIONS = 4096
_SUCCESS, _FAULT = 0, 21
_CLOCK, _REALTIME, _MONOTONIC, _ABSOLUTE = 0, 0, 1, 1

_POLL, _NOW = ctypes.create_string_buffer(b"poll"), ctypes.create_string_buffer(b"now")


class Prepared(NamedTuple):
    """What every worker of this class starts from."""

    engine: wasmtime.Engine
    process: guest.Prepared
    dense: wasmtime.Linker
    sockets: socketed.Links
    stores: stores.Stores


class Code(NamedTuple):
    """A compiled module for any number of guests.

    Attributes:
        resolved: the module with its imports resolved; `instances` points to it.
        wants: what it wants of sockets.
    """

    module: wasmtime.Module
    resolved: wasmtime.InstancePre
    instances: int
    wants: socketed.Wanted


class Ended(NamedTuple):
    """How a guest ended; `interrupted`: because it was asked to."""

    code: int
    message: str
    interrupted: bool


def _engine(parallel: bool = False) -> wasmtime.Engine:
    config = guest.configuration(parallel)
    config.epoch_interruption = True
    config.max_wasm_stack = _WASM_STACK
    return wasmtime.Engine(config)


def prepare() -> Prepared:
    """As `guest.prepare`."""
    wire.prepare()
    engine = _engine()
    dense = guest.linked(engine)
    i32 = wasmtime.ValType.i32
    calls.define(dense, "proc_exit", wasmtime.FuncType([i32()], []), _proc_exit)
    calls.define(dense, "poll_oneoff", wasmtime.FuncType([i32()] * 4, [i32()]), _poll_oneoff)
    process = guest.linked(engine)
    between = guest.compiled_apart(engine, (split.shim(), split.fixup()))
    links = guest.links_between(engine, dense, between)
    socketed.define(direct.pointer(process))
    of_process = guest.Prepared(engine, process, links._replace(linker=direct.pointer(process)), None)
    return Prepared(engine, of_process, dense, links, stores.Stores(direct.pointer(engine), _on_epoch))


def compile(wasm: bytes) -> bytes:  # noqa: A001 - the name that the worker asks for
    """As `guest.compile`."""
    return guest.compiled(_engine(parallel=True), wasm)


def run(prepared: Prepared, spec: dict[str, Any], module: str, started: Callable[[], None]) -> tuple[int, str]:
    """As `guest.run`."""
    return guest.run(prepared.process, spec, module, started)


def load(prepared: Prepared, module: str) -> Code:
    """The compiled module in the file of this path.

    Raises:
        BadArtifact: it is none, or of another engine.
    """
    loaded = guest.load(prepared.engine, module)
    wants = socketed.wanted(direct.pointer(loaded))
    linker = calls.clone(prepared.dense) if wants.seconds else prepared.dense
    socketed.define_seconds(direct.pointer(linker), wants.seconds)
    resolved = linker.instantiate_pre(loaded)
    return Code(loaded, resolved, direct.pointer(resolved), wants)


def stock(prepared: Prepared) -> None:
    """Do what the next guests need and what needs no guest."""
    prepared.stores.stock()


class Guest:
    """One guest, which is run once, by the thread that calls `run`. Paths in its spec are opened when it is made."""

    __slots__ = (
        "_bell", "_broker", "_code", "_config", "_ending", "_exit", "_lock", "_memory", "_own", "_prepared", "_wake",
    )  # fmt: skip

    def __init__(self, prepared: Prepared, code: Code, spec: dict[str, Any], stdout: str, stderr: str) -> None:
        self._prepared = prepared
        self._code = code
        broker: Any = spec.get("sockets")
        self._broker = broker if code.wants.any(broker) else None
        self._config = stores.wasi_config(spec, len(code.wants.listeners(broker)), (stdout, stderr))
        self._memory = spec.get("memory")
        self._ending = False
        self._exit: int | None = None
        self._own: calls.Delegate | None = None
        self._wake = _thread.allocate_lock()
        self._wake.acquire()
        self._lock = _thread.allocate_lock()
        self._bell = -1
        """A descriptor that becomes readable when the guest is to end, for one that waits for sockets; -1 for none."""

    def interrupt(self) -> None:
        """Have it end, whatever it does. May be called by any thread, and more than once."""
        if not self._ending:
            self._ending = True
            self._wake.release()
            self._prepared.engine.increment_epoch()
            with self._lock:
                if self._bell >= 0:
                    os.eventfd_write(self._bell, 1)

    def run(self, started: Callable[[int], None]) -> Ended:
        """Run it to its end.

        Args:
            started: called when it begins, with the address of its memory, 0 if it has none that is known.

        Raises:
            ValueError: it cannot start; the message says why.
        """
        thread = _thread.get_ident()
        _guests[thread] = self
        try:
            broker, tables = self._broker, 0 if self._broker is None else socketed.TABLES
            store, context = self._prepared.stores.take(self._config, self._memory, tables)
            try:
                return self._run(context, started, None) if broker is None else self._serve(context, started, broker)
            finally:
                stores.delete(store)  # and with it all that it has open
        finally:
            del _guests[thread]

    def _serve(self, context: int, started: Callable[[int], None], broker: Broker) -> Ended:
        """Run one that has sockets."""
        with contextlib.ExitStack() as ending:
            try:
                return self._run(context, started, self._network(broker, ending))
            except Interrupted:  # while it asked for its listeners
                return self._ended(None)

    def _network(self, broker: Broker, ending: contextlib.ExitStack) -> Network:
        """The guest's sockets, open until `ending`. While it waits for one, `_bell` tells it that it is to end."""
        self._bell = os.eventfd(0, os.EFD_CLOEXEC)
        ending.callback(self._take_bell)
        if self.ending():  # before there was something to wake it by
            raise Interrupted
        network = socketed.network(broker, self._code.wants, self._bell)
        ending.callback(network.close)
        hostcalls.networks[_thread.get_ident()] = network
        ending.callback(hostcalls.networks.pop, _thread.get_ident())
        return network

    def _take_bell(self) -> None:
        with self._lock:
            bell, self._bell = self._bell, -1
        os.close(bell)

    def _run(self, context: int, started: Callable[[int], None], network: Network | None) -> Ended:
        stores.set_deadline(context)
        if self.ending():  # before there was a deadline for the epoch to come to
            return self._ended(None)
        place = bindings.wasmtime_instance_t()
        instance = ctypes.addressof(place)
        try:
            self._instantiate(context, instance, network)
        except wasmtime.Trap as failure:  # in the start function of the module itself: the guest has run
            started(0)
            return self._ended(failure)
        except wasmtime.WasmtimeError as failure:
            if self.ending():
                return self._ended(failure)
            raise ValueError(f"the module cannot be instantiated: {causes(failure)}") from failure
        initialize, default, start = direct.ENTRIES
        first = stores.function(context, instance, initialize)
        second = stores.function(context, instance, default) or stores.function(context, instance, start)
        started(stores.address(context, instance))
        try:
            for function in filter(None, (first, second)):
                stores.call(context, function)
        except (wasmtime.Trap, wasmtime.WasmtimeError) as failure:
            return self._ended(failure)
        return self._ended(None, returned=True)

    def _instantiate(self, context: int, instance: int, network: Network | None) -> None:
        """Make its instance; a start function runs."""
        if network is None:
            stores.instantiate(self._code.instances, context, instance)
            return
        code, links = self._code, self._prepared.sockets
        socketed.instantiate(links, context, direct.pointer(code.module), code.wants, network, instance)

    def _ended(self, error: Exception | None, returned: bool = False) -> Ended:
        if self._exit is not None:
            return Ended(self._exit, "", False)
        if returned:
            return Ended(0, "", False)
        if self._ending:
            return Ended(TRAPPED, "", True)
        return Ended(TRAPPED, trap_text(error) if error is not None else "", False)

    def exits(self, code: int) -> None:
        """It has called `proc_exit`."""
        self._exit = code & 0xFF

    def ending(self) -> bool:
        """Whether it has been asked to end."""
        return self._ending

    def delegate(self, memory: calls.Memory) -> calls.Delegate | None:
        """The engine's own functions for this guest; None if they cannot use its kind of memory."""
        if self._own is None:
            try:
                self._own = calls.Delegate(self._prepared.engine, self._prepared.process.linker, memory)
            except wasmtime.WasmtimeError:
                return None
        return self._own

    def sleep(self, seconds: float) -> bool:
        """Wait that long; False where it is to end instead."""
        while seconds > 0 and not self._ending:
            part = min(seconds, _LONGEST_WAIT)
            if self._wake.acquire(timeout=part):
                return False
            seconds -= part
        return not self._ending


_LONGEST_WAIT = 1e6

_guests: dict[int, Guest] = {}
"""Those that run, by their thread."""


@ctypes.CFUNCTYPE(  # type: ignore[untyped-decorator]
    ctypes.c_size_t,
    ctypes.POINTER(bindings.wasmtime_context_t),
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_uint64),
    ctypes.POINTER(bindings.wasmtime_update_deadline_kind_t),
)
def _on_epoch(context: Any, data: Any, ticks: Any, kind: Any) -> int:
    """Some guest of this process is to end. End the one of this thread if it is that one; else let it go on."""
    if _guests[_thread.get_ident()].ending():
        return calls.pointer(bindings.wasmtime_error_new(b"interrupted"))
    ticks[0], kind[0] = 1, 0
    return 0


@bindings.wasmtime_func_unchecked_callback_t  # type: ignore[untyped-decorator]
def _proc_exit(data: Any, caller: Any, values: Any, count: int) -> int:
    """wasmtime's own takes 0 to 125 only; this takes all, as processes do."""
    _guests[_thread.get_ident()].exits(values[0].i32)
    return calls.trap(b"exit")


@bindings.wasmtime_func_unchecked_callback_t  # type: ignore[untyped-decorator]
def _poll_oneoff(data: Any, caller: Any, values: Any, count: int) -> int:
    """Sleep; the answer is a trap, or 0 with WASI's error number in `values`."""
    running = _guests[_thread.get_ident()]
    subscriptions, events, number, stored = (values[index].i32 & 0xFFFFFFFF for index in range(4))
    values[0].i32 = calls.INVALID
    if not 0 < number <= _MOST_SUBSCRIPTIONS:
        return 0
    memory = calls.Memory(caller)
    if not memory.has(subscriptions, number * _SUBSCRIPTION) or not memory.has(events, number * _EVENT):
        values[0].i32 = _FAULT
        return 0
    if not memory.has(stored, 4):
        values[0].i32 = _FAULT
        return 0
    wanted = memory.read(subscriptions, number * _SUBSCRIPTION)
    if any(wanted[8::_SUBSCRIPTION]):
        # Descriptors are asked about too. None ever keeps a guest of this class waiting (files, pipes, a stdin that is
        # at its end), so that the engine's own function answers at once.
        engines = running.delegate(memory)
        if engines is not None:
            values[0].i32 = engines.call(_POLL, subscriptions, events, number, stored)
        return calls.trap(b"interrupted") if running.ending() else 0
    clocks = [wanted[begin : begin + _SUBSCRIPTION] for begin in range(0, len(wanted), _SUBSCRIPTION)]
    now = 0
    if any(clock[16] == _MONOTONIC and clock[40] & _ABSOLUTE for clock in clocks):
        engines = running.delegate(memory)  # only the engine knows when a guest's monotonic clock began
        if engines is None or engines.call(_NOW, events, 0, 0, 0):
            return 0
        now = int.from_bytes(memory.read(events, 8), "little")
    waits = [_nanoseconds(clock, now) for clock in clocks]
    if min(waits) < 0:
        return 0
    if not running.sleep(min(waits) / 1e9):
        return calls.trap(b"interrupted")
    due = [clock[:8] + bytes(_EVENT - 8) for clock, wait in zip(clocks, waits) if wait == min(waits)]  # noqa: B905
    memory.write(events, b"".join(due))
    memory.write(stored, len(due).to_bytes(4, "little"))
    values[0].i32 = _SUCCESS
    return 0


def _nanoseconds(clock: bytes, now: int) -> int:
    """How long until a clock's subscription is due; less than 0 for a clock that does not exist. `now`: monotonic."""
    which, timeout = int.from_bytes(clock[16:20], "little"), int.from_bytes(clock[24:32], "little")
    if which not in (_REALTIME, _MONOTONIC):
        return -1
    if clock[40] & _ABSOLUTE:
        timeout -= time.time_ns() if which == _REALTIME else now
    return max(0, timeout)
