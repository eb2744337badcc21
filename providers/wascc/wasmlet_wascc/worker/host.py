"""The host of one actor: its capabilities, its one instance, and the calls that it gets beside requests.

There is one instance, which serves one call after the other, as in waSCC. So what the actor keeps in its memory stays
there. An instance that traps or takes too long is dropped, and the next call makes a new one. Capabilities belong to
the container: they, and what they keep, stay when the instance is dropped.
"""

from __future__ import annotations

import collections
import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import wasmtime

from .actor import Actor, Code, trap_words
from .borrowed import dialing, instances
from .capabilities import OWN
from .capability import Capability, Context, Mount
from .failures import GuestError, HostError
from .links import Dialler
from .messages import MOST_BYTES, decoded, encoded

START_SECONDS = 10.0
"""How long an instance may take to be ready; it has nothing to do then but to set up its memory."""
_MOST_HELD, _EACH = 2 * MOST_BYTES, 1024
"""Bytes of messages that wait for the actor, and what each of them counts beside its own."""
_MOST_COMPLAINTS = 32
"""The most lines of the log about capabilities that the actor asks for and may not use."""
_TOLD_SECONDS = 60.0
_TICK_SECONDS = 0.1
"""How often to check whether a call takes too long, while there is one."""


class Busy(Exception):
    """The actor was busy with other calls for too long."""


class Host:
    """The host of one actor; the module's description says how it works.

    Args:
        spec: of the container; in its `engine` is what the node has decided (`granted`, `refused`, `settings`).
        others: capabilities of other distributions, by name.
        interrupt: makes a running actor check whether its time is over.
        log: takes a line of the container's log.

    Raises:
        ValueError: a capability that is granted is not there.
    """

    def __init__(
        self,
        code: Code,
        spec: dict[str, Any],
        others: Mapping[str, Callable[[Context], Capability]],
        interrupt: Callable[[], None],
        log: Callable[[str], None],
    ) -> None:
        told = spec["engine"]
        self._code, self._memory, self._log = code, spec.get("memory"), log
        self._refused: Mapping[str, str] = told["refused"]
        self._lock = threading.Lock()
        self._actor: Actor | None = None
        self._until = 0.0
        self._owner = 0
        self._held = 0
        self._waiting: collections.deque[tuple[str, bytes]] = collections.deque()
        self._more = threading.Condition()
        self._threads: list[Callable[[], None]] | None = []
        """What is to run once there may be threads; None from then on."""
        self._interrupt, self._late, self._busy = interrupt, math.inf, threading.Event()
        self._complained: set[str] = set()
        self._broker = dialing.Broker(spec.get("sockets"))
        dialler = Dialler(self._broker, self._deadline)
        mounts = {mount["path"]: Mount(mount["directory"], mount["read_only"]) for mount in spec.get("mounts") or ()}
        bindings = {name: mounts[path] for name, path in told["bindings"].items() if path in mounts}
        self._capabilities: dict[str, Capability] = {}
        for name in told["granted"]:
            make = OWN.get(name) or others.get(name)
            if make is None:
                raise ValueError(f"capability {name} is not installed on this node")
            settings = told["settings"].get(name) or {}
            env = dict(map(tuple, spec["env"]))
            context = Context(settings, env, bindings, log, dialler.dial, self.tell, self._begin, self._deadline)
            try:
                self._capabilities[name] = make(context)
            except Exception as error:  # which may be anybody's code
                raise ValueError(f"capability {name} cannot be made: {error}") from error

    def start(self) -> None:
        """Make the first instance, to see whether that works.

        Raises:
            ValueError: it does not; the message says why.
        """
        threading.Thread(target=self._keep_time, daemon=True).start()
        try:
            self._actor = self._instance(time.monotonic() + START_SECONDS)
        except instances.TimedOut:
            raise ValueError(f"the actor cannot be started: it is not ready after {START_SECONDS:g} s") from None
        except (wasmtime.WasmtimeError, wasmtime.Trap, instances.Trapped) as error:
            raise ValueError(f"the actor cannot be started: {trap_words(error)}") from error

    def begin(self) -> None:
        """Start the threads: those of capabilities, and the one for calls that wait for the actor."""
        waiting, self._threads = self._threads or [], None
        for work in (*waiting, self._tell_all):
            self._begin(work)

    def _begin(self, work: Callable[[], None]) -> None:
        """Run something in a thread of its own, as soon as there may be threads."""
        if self._threads is not None:
            self._threads.append(work)
        else:
            threading.Thread(target=work, daemon=True).start()

    def _keep_time(self) -> None:
        """End calls that take too long; in a thread of its own, which sleeps while there are none."""
        while True:
            self._busy.wait()
            time.sleep(_TICK_SECONDS)
            if self._late == math.inf:
                self._busy.clear()
                if self._late != math.inf:  # by now
                    self._busy.set()
            elif time.monotonic() >= self._late:
                self._interrupt()

    def _hurry(self, until: float) -> None:
        """Set the time at which the present call has to be done; `math.inf` if there is no call."""
        self._late = until
        if until != math.inf and not self._busy.is_set():
            self._busy.set()

    def call(self, operation: str, message: bytes, until: float) -> bytes:
        """Have the actor do something.

        Args:
            until: when it has to be done, by the monotonic clock in seconds.

        Raises:
            Busy: it is at something else for too long.
            GuestError: it answers that it cannot.
            instances.Trapped, wasmtime.Trap, wasmtime.WasmtimeError: it has failed, and a new instance comes next.
        """
        if not self._lock.acquire(timeout=max(0.0, until - time.monotonic())):
            raise Busy
        try:
            self._until, self._owner = until, threading.get_ident()
            actor = self._actor or self._instance(min(until, time.monotonic() + START_SECONDS))
            self._hurry(until)
            self._actor = None  # unless it comes to a good end
            try:
                found = actor.call(operation, message, until)
            except GuestError:
                self._actor = actor
                raise
            except BaseException:
                actor.close()
                raise
            self._actor = actor
            return found
        finally:
            self._hurry(math.inf)
            self._owner = 0
            self._lock.release()

    def tell(self, operation: str, value: Any, *, patient: bool = False) -> None:
        """Have the actor do something, later.

        Args:
            patient: wait until there is room for it, in a thread of one's own.

        Raises:
            HostError: too much waits for it.
        """
        message = encoded(value)
        with self._more:
            while self._held + len(message) + _EACH > _MOST_HELD:
                if not patient:
                    raise HostError("too much waits for the actor already")
                self._more.wait()
            self._held += len(message) + _EACH
            self._waiting.append((operation, message))
            self._more.notify_all()

    def _instance(self, until: float) -> Actor:
        before = self._until, self._owner
        self._until, self._owner = until, threading.get_ident()  # also for what it asks of its host meanwhile
        self._hurry(until)
        try:
            return Actor(self._code, self._memory, self._ask, self._log, until)
        finally:
            self._hurry(math.inf)
            self._until, self._owner = before

    def _deadline(self) -> float:
        """When the call that this thread serves has to be over. A thread that serves none has `_TOLD_SECONDS`."""
        return self._until if self._owner == threading.get_ident() else time.monotonic() + _TOLD_SECONDS

    def _ask(self, binding: str, capability: str, operation: str, message: bytes) -> bytes:
        """See `actor.HostCall`."""
        found = self._capabilities.get(capability)
        if found is None:
            why = self._refused.get(capability, "the actor's signature does not claim it")
            name = "".join(letter if letter.isprintable() else "?" for letter in capability[:80]) or "(no name)"
            if name not in self._complained and len(self._complained) < _MOST_COMPLAINTS:
                self._complained.add(name)
                self._log(f"the actor may not use {name}: {why}")
                dialing.Asked(self._broker, "use", name=name).drop()
            raise HostError(f"the actor may not use {name}: {why}")
        try:
            answer = found.call(binding or "default", operation, decoded(message))
            return answer if isinstance(answer, bytes) else b"" if answer is None else encoded(answer)
        except HostError:
            raise
        except ValueError as error:
            raise HostError(f"{capability}: {error}") from None
        except Exception as error:  # a fault of the capability's, which may be anybody's code
            self._log(f"{capability} {operation[:80]!r}: failed: {type(error).__name__}: {error}")
            raise HostError(f"{capability} has failed") from None

    def _tell_all(self) -> None:
        """Hand over what waits for the actor, one thing after the other; in a thread of its own."""
        while True:
            with self._more:
                self._more.wait_for(lambda: self._waiting)
                operation, message = self._waiting.popleft()
                self._held -= len(message) + _EACH
                self._more.notify_all()
            try:
                self.call(operation, message, time.monotonic() + _TOLD_SECONDS)
            except Busy:
                self._log(f"{operation}: the actor is busy for too long; the message is lost")
            except (GuestError, wasmtime.WasmtimeError, wasmtime.Trap, instances.Trapped) as error:
                self._log(f"{operation}: the actor has failed: {trap_words(error)}")
