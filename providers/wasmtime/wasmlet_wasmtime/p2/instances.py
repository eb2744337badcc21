"""One instance of a component: its store, its resources, and how it waits.

A resource is an object of the host of which the guest has a handle: a stream, a request and the like.
"""

from __future__ import annotations

import ctypes
import select
import time
from _thread import get_ident
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import wasmtime

from .. import direct, limits
from .values import SIZE, check, held, lower_resource

_POINTER = ctypes.c_void_p
_store_new = held("wasmtime_store_new", _POINTER, _POINTER, _POINTER, _POINTER)
_store_delete = direct.function("wasmtime_store_delete", None, _POINTER)
_context_of = held("wasmtime_store_context", _POINTER, _POINTER)
_limit = held("wasmtime_store_limiter", None, _POINTER, *[ctypes.c_int64] * 5)
_set_deadline = held("wasmtime_context_set_epoch_deadline", None, _POINTER, ctypes.c_uint64)
_on_deadline = held("wasmtime_store_epoch_deadline_callback", None, _POINTER, _POINTER, _POINTER, _POINTER)
_error_new = held("wasmtime_error_new", _POINTER, ctypes.c_char_p)
_instantiate = direct.function("wasmtime_component_linker_instantiate", *[_POINTER] * 5)
_export_index = held("wasmtime_component_instance_get_export_index", *[_POINTER] * 4, ctypes.c_char_p, ctypes.c_size_t)
_get_function = held("wasmtime_component_instance_get_func", ctypes.c_bool, *[_POINTER] * 4)
_call = direct.function(
    "wasmtime_component_func_call", *[_POINTER] * 3, ctypes.c_char_p, ctypes.c_size_t, _POINTER, ctypes.c_size_t
)

MOST_RESOURCES = 16384
"""The most handles of one instance. Each of them takes memory of the host."""
MOST_POLLABLES = 4096
_LONGEST = 3_600_000.0
"""The longest single wait, in milliseconds. A longer one is made of several."""
_HANDLE = ctypes.c_uint8 * 64
"""Room for an instance and for a function, which the engine describes in fewer bytes."""


class Failed(Exception):
    """A function of the host fails: it answers the guest with `err` and this payload."""

    def __init__(self, payload: Any = None) -> None:
        super().__init__(payload)
        self.payload = payload


class Trapped(Exception):
    """The guest has done what the interface forbids, and is ended. The text says what it was."""


class TimedOut(Trapped):
    """The guest has taken longer than it may."""


class GivenUp(Trapped):
    """The client of this request is too slow, and other requests wait. See `turns`."""


class Exited(Trapped):
    """The guest has asked to end, with this code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the guest has exited with code {code}")
        self.code = code


class Resource:
    """The base of what a guest may have a handle of. `number` is the number of its type, see `resource`."""

    number = 0

    def close(self) -> None:
        """Called when the guest no longer has a handle of it."""


def once(found: Any, flag: str) -> None:
    """Set a flag of a resource, for something that may be done with it only once.

    Raises:
        Failed: the flag is set already.
    """
    if getattr(found, flag):
        raise Failed
    setattr(found, flag, True)


class Source(Protocol):
    """Something that an instance can wait for."""

    @property
    def until(self) -> float | None:
        """When it is ready even if nothing happens, by the monotonic clock in seconds; None for never."""
        ...

    def polls(self) -> Sequence[tuple[int, int]]:
        """Descriptors to be polled, and for what."""
        ...

    def ready(self) -> bool:
        """Whether it is ready. Does whatever can be done for it without waiting."""
        ...


class Waits:
    """Is told when an instance waits. This one does nothing; `turns.Turn` does.

    Attributes:
        over: why the instance has to end; "" while it may go on.
    """

    over = ""

    def begin(self, polled: Mapping[int, int]) -> None:
        """The instance begins to wait for these descriptors and events; if there are none, for a time."""

    def end(self) -> None:
        """The wait is over."""


NOBODY = Waits()

numbers: dict[str, int] = {}
"""The number of each type of resources, by its name. No two interfaces of WASI have types of the same name."""
_ALIASES = {"headers": "fields", "trailers": "fields", "io-error": "error"}


def number_of(name: str) -> int:
    """The number of a type of resources."""
    name = _ALIASES.get(name, name)
    return numbers.setdefault(name, len(numbers) + 1)


def resource(name: str) -> Callable[[Any], Any]:
    """A class decorator: the class is the one for resources of this type."""

    def mark(cls: Any) -> Any:
        cls.number = number_of(name)
        return cls

    return mark


class Code(NamedTuple):
    """A component that is ready to be instantiated: pointers of the engine's."""

    engine: int
    linker: int
    component: int


class Instance:
    """An instance of a component, in a store of its own.

    Args:
        host: what the instances of this process share (`system.Process`).
        code: what it is an instance of.
        memory: the most that it may have, in bytes; None for no limit.
        until: when it has to be done, by the monotonic clock in seconds.
        waits: is told when it waits, and for what.

    Attributes:
        resources: what it has handles of.
        cause: the host's error that has ended the instance; None if there was none.

    Raises:
        wasmtime.WasmtimeError: it cannot be instantiated.
        Trapped: what runs at its start goes wrong.
    """

    def __init__(
        self,
        host: Any,
        code: Code,
        memory: int | None,
        until: float | None = None,
        waits: Waits | None = None,
    ) -> None:
        self.host = host
        self.resources: dict[int, Any] = {}
        self.cause: BaseException | None = None
        self.until = until
        self.waits = waits or NOBODY
        self._next = 0
        self._store = _store_new(code.engine, None, None)
        self.context = _context_of(self._store)
        if memory:
            _limit(self._store, *limits.of_component(memory))
        _on_deadline(self._store, ctypes.cast(_on_epoch, _POINTER), None, None)
        self._handle = _HANDLE()
        try:
            self._enter(_instantiate, code.linker, self.context, code.component, ctypes.addressof(self._handle))
        except BaseException:
            self.close()
            raise

    def _enter(self, call: Callable[..., Any], *arguments: Any) -> None:
        """Run the guest: call a function of the engine, and raise what goes wrong."""
        me = get_ident()
        before, running[me] = running.get(me), self
        _set_deadline(self.context, 1)
        try:
            error = call(*arguments)
        finally:
            if before is None:
                del running[me]
            else:
                running[me] = before
        if error:
            cause = self.cause
            try:
                check(error)
            except (wasmtime.WasmtimeError, wasmtime.Trap) as found:
                if cause is not None:
                    raise cause from found
                raise

    def function(self, *path: str) -> Any:
        """The function at the end of this path of exports.

        Raises:
            ValueError: there is none.
        """
        index = None
        for part in path:
            name = part.encode()
            index = _export_index(ctypes.addressof(self._handle), self.context, index, name, len(name))
        found = _HANDLE()
        if not index or not _get_function(ctypes.addressof(self._handle), self.context, index, ctypes.addressof(found)):
            raise ValueError(f"the component has no function {path[-1]}")
        return found

    def call(self, function: Any, *resources: Any, results: int = 0) -> bytes:
        """Call a function of the guest whose parameters are resources. The guest owns these from then on.

        Returns:
            The results, in the engine's form (32 bytes each, see `values`).
        """
        arguments = b"".join([lower_resource(self, one) for one in resources])
        room = ctypes.create_string_buffer(SIZE * results) if results else None
        self._enter(
            _call, ctypes.addressof(function), self.context, arguments, len(resources),
            ctypes.addressof(room) if room is not None else None, results,
        )  # fmt: skip
        return room.raw if room is not None else b""

    def add(self, value: Any) -> int:
        """Add a resource, and return its number in this instance."""
        if len(self.resources) >= MOST_RESOURCES:
            raise Trapped(f"the guest has {MOST_RESOURCES} resources open, which is the most; it has to drop them")
        self._next += 1
        while self._next in self.resources or self._next >= 2**32:
            self._next = self._next + 1 if self._next < 2**32 - 1 else 1
        self.resources[self._next] = value
        return self._next

    def take(self, number: int) -> Any:
        """Remove a resource that the guest passes on for good, and return it."""
        return self.resources.pop(number)

    def drop(self, number: int) -> None:
        """The guest has dropped a handle."""
        found = self.resources.pop(number, None)
        if found is not None:
            found.close()

    def wait(self, sources: Sequence[Source]) -> list[int]:
        """Wait until at least one source is ready. Returns the places of those that are.

        Raises:
            TimedOut: the guest's time is over before that.
            GivenUp: see `Waits`.
        """
        while not (found := [place for place, source in enumerate(sources) if source.ready()]):
            polled = _merged(sources)
            self.waits.begin(polled)
            poll = select.poll()
            until = [source.until for source in sources if source.until is not None]
            if self.until is not None:
                until.append(self.until)
            for descriptor, events in polled.items():
                poll.register(descriptor, events)
            poll.poll(min(max(0.0, min(until) - time.monotonic()) * 1000 + 0.5, _LONGEST) if until else None)
            self.waits.end()
            self.check_time()
        return found

    def check_time(self) -> None:
        """Raise `TimedOut` if its time is over, `GivenUp` if its wait is over."""
        if self.waits.over:
            raise GivenUp(self.waits.over)
        if self.until is not None and time.monotonic() >= self.until:
            raise TimedOut("the guest has taken longer than it may")

    def release(self) -> None:
        """Close all resources that the guest has left."""
        while self.resources:
            _, found = self.resources.popitem()
            found.close()

    def close(self) -> None:
        """Close all resources, and free the instance."""
        self.release()
        if self._store:
            store, self._store = self._store, None
            _store_delete(store)


running: dict[int, Instance] = {}
"""The instances that run, by their thread."""


def _merged(sources: Iterable[Source]) -> dict[int, int]:
    found: dict[int, int] = {}
    for source in sources:
        for descriptor, events in source.polls():
            found[descriptor] = found.get(descriptor, 0) | events
    return found


def trap(instance: Instance, error: BaseException) -> int:
    """An error of the engine that ends the guest, because of this error of the host."""
    if instance.cause is None:
        instance.cause = error
    return int(_error_new(str(error).encode(errors="replace").replace(b"\0", b"?")))


@ctypes.CFUNCTYPE(  # type: ignore[untyped-decorator]
    ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint64), ctypes.POINTER(ctypes.c_uint8)
)
def _on_epoch(context: Any, data: Any, ticks: Any, kind: Any) -> int:
    """The engine calls this when some guest's time is over. End the guest of this thread if it is that one."""
    instance = running[get_ident()]
    try:
        instance.check_time()
    except Trapped as error:
        return trap(instance, error)
    ticks[0], kind[0] = 1, 0
    return 0
