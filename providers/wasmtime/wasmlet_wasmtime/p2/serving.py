"""A component that exports wasi:http/incoming-handler, served until its process ends."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import wasmtime
from wasmtime import component as components

from .. import direct
from ..errors import causes, trap_text
from . import interfaces, system, world
from .exchanges import Exchange
from .front import Front
from .http import ResponseOutparam
from .instances import NOBODY, Code, Exited, GivenUp, Instance, TimedOut, Trapped, Waits
from .turns import Turn

HANDLER = "wasi:http/incoming-handler@0.2."
"""The beginning of the interface that a component for HTTP exports; any version of 0.2 follows."""
_LINES = 40
_START_SECONDS = 60.0
"""How long the first instance may take to be ready."""
_MMAP_THRESHOLD, _ARENA_MAX = -3, -8
"""Settings of mallopt(3)."""
_LARGE = 512 * 1024


class Settings(NamedTuple):
    """How it is served, from `spec["network"]["http"]`.

    Attributes:
        reuse: an instance serves many requests, one after the other; if false, each request has a new instance.
        concurrency: the most instances at a time.
        seconds: how long a request may be served.
        log: each request is a line of the container's log.
    """

    reuse: bool = False
    concurrency: int = 8
    seconds: float = 60.0
    log: bool = False

    @classmethod
    def of(cls, spec: dict[str, Any]) -> Settings:
        found = (spec.get("network") or {}).get("http") or {}
        reuse = bool(found.get("reuse", False))
        concurrency = found.get("concurrency") or (1 if reuse else 8)
        return cls(reuse, concurrency, float(found.get("seconds") or 60), bool(found.get("log")))


def check(engine: wasmtime.Engine, component: Any) -> None:
    """Find out whether a component can be served.

    Raises:
        ValueError: it cannot; the message says why.
    """
    exports = component.type.exports(engine)
    handler = next((item.ty for name, item in exports.items() if name.startswith(HANDLER)), None)
    handle = None
    if isinstance(handler, components.ComponentInstanceType):
        item = handler.exports(engine).get("handle")
        handle = item and item.ty
    if not isinstance(handle, components.FuncType) or len(handle.params) != 2 or handle.result is not None:
        raise ValueError(f"the component does not export {HANDLER}0 with a function handle of two parameters")
    interfaces.check_imports(engine, component)


class Server:
    """A component that serves, and what its instances share.

    Raises:
        ValueError: it cannot be served.
    """

    def __init__(self, engine: wasmtime.Engine, component: Any, spec: dict[str, Any]) -> None:
        self._engine = engine
        self.settings = Settings.of(spec)
        self._host = system.Process(spec)
        self._memory = spec.get("memory")
        self._component = component
        self._name = str(interfaces.exported(engine, component, HANDLER))
        try:
            linker = world.linker_of(engine, component)
        except wasmtime.WasmtimeError as error:
            raise ValueError(f"the component cannot be linked: {causes(error)}") from error
        self._code = Code(direct.pointer(engine), linker, direct.pointer(component))
        self._waiting: list[tuple[Instance, Any]] = []
        """Instances that serve nothing at this moment, and their handlers."""

    def _instance(self, until: float, waits: Waits = NOBODY) -> tuple[Instance, Any]:
        try:
            instance, handler = self._waiting.pop()
        except IndexError:  # not looked at before: another thread may take the last one
            return self._new_instance(until, waits)
        instance.until, instance.waits = until, waits
        return instance, handler

    def _new_instance(self, until: float, waits: Waits) -> tuple[Instance, Any]:
        instance = Instance(self._host, self._code, self._memory, until, waits)
        try:
            return instance, instance.function(self._name, "handle")
        except BaseException:
            instance.close()
            raise

    def start(self) -> None:
        """Make a first instance, to see whether that works.

        Raises:
            ValueError: it does not; the message says why.
        """
        try:
            self._waiting.append(self._instance(time.monotonic() + _START_SECONDS))
        except (wasmtime.WasmtimeError, wasmtime.Trap, Trapped) as error:
            raise ValueError(f"the component cannot be instantiated: {causes(error)}") from error

    def handle(self, exchange: Exchange, turn: Turn) -> tuple[int, str] | None:
        """Serve a request. Returns None, or the status and the text for the client if it has failed."""
        instance, good = None, False
        try:
            instance, handler = self._instance(turn.until, turn)
            instance.call(handler, exchange.incoming, ResponseOutparam(exchange))
            good = True
        except GivenUp as error:
            _say(exchange, str(error))
            return 408, "too slow, while others wait"
        except TimedOut:
            _say(exchange, f"the handler has taken longer than {self.settings.seconds:g} s")
            return 504, "the handler has taken too long"
        except Exited as error:
            _say(exchange, str(error))
            return 500, "the handler failed"
        except (wasmtime.WasmtimeError, wasmtime.Trap, Trapped) as error:
            _say(exchange, f"the handler failed: {_words(error)}")
            return 500, "the handler failed"
        finally:
            if instance is not None:
                if good and self.settings.reuse:
                    self._waiting.append((instance, handler))
                else:
                    instance.close()
        return None

    def tidy(self) -> bool:
        """Close old connections of the pool; see `Front`."""
        return self._host.pool.tidy()

    def interrupt(self) -> None:
        """Make all running guests check whether their time is over."""
        self._engine.increment_epoch()


def serve(
    engine: wasmtime.Engine, component: Any, spec: dict[str, Any], started: Callable[[], None]
) -> tuple[int, str]:
    """Serve. Does not return but by an error.

    Args:
        component: of `wasmtime.component`.

    Raises:
        ValueError: it cannot start; the message says why.
    """
    broker = spec.get("sockets")
    if broker is None:
        raise ValueError(
            "the component is a server (it exports wasi:http/incoming-handler), and its pod has no network; expected a "
            "node with a network (--network)"
        )
    _give_memory_back()
    server = Server(engine, component, spec)
    server.start()
    listeners = listeners_of(broker)
    front = Front(listeners, server.handle, server.interrupt, server.settings.seconds, log)
    front.tidy, front.logs_access = server.tidy, server.settings.log
    # Requests leave cycles of references. The collector is off in a zygote's children; the zygote's objects are frozen.
    gc.enable()
    try:
        front.listen()
    except OSError as error:
        raise ValueError(f"the component cannot be served: {error.strerror}") from error
    signal.set_wakeup_fd(front.told, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    started()
    front.serve(server.settings.concurrency, _leave)
    return 0, ""


def _give_memory_back() -> None:
    """Have the allocator keep little of what is freed.

    What goes between a guest and the host takes megabytes for a moment (`values`). The allocator would keep as much for
    each thread, so that eight requests with large heads took 50 MiB, and not 20.
    """
    with contextlib.suppress(AttributeError):  # of glibc alone
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_ARENA_MAX, 1)
        mallopt(_MMAP_THRESHOLD, _LARGE)


def _leave() -> None:
    """End the process, with the exit code of a guest that was interrupted."""
    os._exit(128 + signal.SIGTERM)


def listeners_of(broker: Any) -> tuple[int, ...]:
    """The sockets for the first port of the container. Those of other ports are closed.

    Raises:
        ValueError: there are none.
    """
    opened = broker.open_listeners()
    if not opened:  # nobody knew, before it was compiled, that it serves
        raise ValueError(
            "the component serves HTTP, and its container has no port of TCP for that; declare one, such as ports: "
            "[{containerPort: 8080}]"
        )
    first, *others = opened
    for descriptors in others:
        for descriptor in descriptors:
            os.close(descriptor)
    return tuple(first)


def log(text: str) -> None:
    """A line to the container's log."""
    line = f"wasmlet: {text}\n".encode(errors="replace")
    while line:
        line = line[os.write(2, line) :]


def _say(exchange: Exchange, text: str) -> None:
    log(f"{exchange.title}: {text}")


def _words(error: Exception) -> str:
    lines = trap_text(error).splitlines()
    return "\n".join([*lines[:_LINES], *(["..."] if len(lines) > _LINES else [])])
