"""Which thread serves which connection of a component that serves.

One thread at a time is in front. It waits for events on all connections (epoll), and reads until it has a request. Then
it serves that request itself, still in front, and goes back to waiting. So no switch between threads is needed.

If the guest has to wait (`Turn.begin`), or runs for some milliseconds (`_watch`), another thread takes the front. There
are as many threads as there may be instances at a time. While a connection waits for a request, or for room to write,
the thread in front uses it. While its request is served, the thread that serves it does.

When all threads serve, the watching thread (`_watch`) looks who else waits, and gives up a client that is too slow
(see `turns`).

After SIGTERM it accepts no more connections, finishes the requests that it has, and ends.

asyncio is not used, because a confined process may not make what its event loop needs. epoll reports one event for a
connection, and is then armed again (EPOLLONESHOT).
"""

from __future__ import annotations

import _thread
import collections
import contextlib
import errno
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence

from .connections import Connection, Gone, Limits
from .dialing import family_of
from .exchanges import Exchange
from .requests import Refused
from .turns import Queue, Turn, client_of, give_up_slowest, to_make_way

MOST_CONNECTIONS = 2048
_BACKLOG = 1024
_LOOK_SECONDS = 1.0
"""How often to look for connections on which nothing happens for too long."""
_TURN_SECONDS = 0.005
"""After so long, a guest that runs loses the front to another thread, so that others are served, too."""
_SILENT_SECONDS = 1.0
"""Once no more connections are accepted: how long a client may take to send its first byte."""
_ONCE = select.EPOLLONESHOT
_ACCEPTED = 64
"""How many connections are accepted at once, before other events are handled."""
_MAKE_ROOM_SECONDS = 0.05
"""How often to look who waits, while all threads serve."""
_AFTER_FAULT_SECONDS = 0.1
_UNSENT = 64 * 1024
"""The most bytes of an answer that wait in the kernel and are not on their way. It limits memory for slow clients."""

Handle = Callable[[Exchange, "Turn"], "tuple[int, str] | None"]
"""Serves a request. Returns None, or the status and the text for the client if that has failed."""


class Front:
    """Serves connections with threads; see the module. It takes over the sockets, which are bound already.

    Args:
        listeners: descriptors of sockets.
        handle: what serves a request.
        interrupt: called when a request has not been served in time, from another thread than the one that serves it.
        seconds: how long a request may be served.
        log: takes a line.

    Attributes:
        logs_access: every request is a line of the log.
        tidy: called about once a second as long as it says that there is something left to tidy.
        told: a descriptor that takes the numbers of signals, a byte each (`signal.set_wakeup_fd`).
    """

    def __init__(
        self,
        listeners: Sequence[int],
        handle: Handle,
        interrupt: Callable[[], None],
        seconds: float,
        log: Callable[[str], None],
        limits: Limits = Limits(),  # noqa: B008 - it does not change
    ) -> None:
        self._handle, self._interrupt, self._seconds, self._log, self._limits = handle, interrupt, seconds, log, limits
        self._epoll = select.epoll()
        self._listeners = {fd: socket.socket(family_of(fd), socket.SOCK_STREAM, 0, fileno=fd) for fd in listeners}
        self._connections: dict[int, Connection] = {}
        self._ready: collections.deque[Connection] = collections.deque()
        self._waiting = Queue()
        self._threads = 1
        self._looked = self._made_room = time.monotonic()
        self._front = _thread.allocate_lock()
        self._in_front: dict[Turn, None] = {}
        """The turn of the thread in front, while it serves. Only one caller can remove it: `leave` then gives the front
        to another thread, or `_work` keeps it."""
        self._turns: dict[Turn, None] = {}
        self._asleep = False
        """Whether the watching thread waits for a byte in `told`: the number of a signal, or 0 when a turn begins."""
        self._told_read, self.told = os.pipe()
        self._ending = self._refusing = False
        self._ended = _nothing
        self.tidy: Callable[[], bool] = lambda: False
        self._untidy = self.logs_access = False
        self._wake_read, self._wake_write = os.pipe()
        for end in (self._wake_read, self._wake_write, self._told_read, self.told):
            os.set_blocking(end, False)
        self._epoll.register(self._wake_read, select.EPOLLIN)
        self._accepting = True

    def listen(self) -> None:
        """From now on clients can connect.

        Raises:
            OSError: it cannot listen.
        """
        for fd, listener in self._listeners.items():
            with contextlib.suppress(OSError):  # each connection has what its listener has, where the system has it
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)
            listener.listen(_BACKLOG)
            listener.setblocking(False)
            self._epoll.register(fd, select.EPOLLIN)

    def serve(self, threads: int, ended: Callable[[], None]) -> None:
        """Serve with this number of threads. Does not return; `ended` is called after SIGTERM, when all is done."""
        self._ended, self._threads = ended, threads
        _thread.start_new_thread(self._watch, ())
        for _ in range(threads - 1):
            _thread.start_new_thread(self._work, ())
        self._work()

    def leave(self, turn: Turn) -> None:
        """Let another thread be in front, if the thread of this turn is."""
        if self._in_front.pop(turn, self) is None:
            self._front.release()

    def _work(self) -> None:
        """What each thread does: be in front, serve a request, and begin again."""
        in_front = False
        while True:
            if not in_front:
                self._front.acquire()
            try:
                connection, exchange = self._next()
            except Exception as error:  # a fault of ours: with this thread, the front would end for all
                self._log(f"wasmlet failed: {type(error).__name__}: {error}")
                time.sleep(_AFTER_FAULT_SECONDS)
                in_front = True
                continue
            turn = Turn(self.leave, time.monotonic() + self._seconds, connection, exchange)
            self._turns[turn] = None
            self._in_front[turn] = None
            if self._asleep:
                self._asleep = False
                with contextlib.suppress(BlockingIOError):
                    os.write(self.told, b"\0")
            try:
                failure = self._handle(exchange, turn)
            except Exception as error:  # a fault of ours, with which the thread would end, and maybe the front
                failure = 500, "the handler failed"
                self._log(f"{exchange.title}: wasmlet failed: {type(error).__name__}: {error}")
            finally:
                turn.done()
                del self._turns[turn]
                in_front = self._in_front.pop(turn, self) is None
            try:
                self._answered(connection, exchange, failure, in_front=in_front)
            except Exception as error:
                self._log(f"{exchange.title}: wasmlet failed: {type(error).__name__}: {error}")
                self._close(connection)

    def _answered(
        self, connection: Connection, exchange: Exchange, failure: tuple[int, str] | None, *, in_front: bool
    ) -> None:
        """Finish a request after the guest has ended, and let the connection wait for its next one."""
        connection.until = time.monotonic() + self._limits.write_seconds  # what was before has passed by now
        self._untidy = True
        said = exchange.finish(failure)
        if said:
            self._log(f"{exchange.title}: the handler failed: {said}")
        if self.logs_access:
            self._log(f"{exchange.title} {exchange.status} {time.monotonic() - exchange.began:.3f} s")
        try:
            goes_on = exchange.settle() and not connection.last and not self._ending
            connection.write()
            if not goes_on and not connection.out:
                connection.shut()
        except Gone:
            self._close(connection)
            return
        connection.ending = not goes_on
        connection.serving = False
        if goes_on and not connection.out and not connection.idle:
            self._ready.append(connection)
            if not in_front:
                self._wake()
            return
        self._arm(connection)

    def _next(self) -> tuple[Connection, Exchange]:
        """Wait for the next request to serve."""
        while True:
            if self._ending:
                self._refuse_others()
            while self._ready and not self._waiting:
                self._hear(self._ready.popleft())
            if self._waiting:
                return self._waiting.next()
            self._look(_LOOK_SECONDS if self._connections or self._untidy or not self._accepting else -1)

    def _look(self, seconds: float) -> None:
        """Handle events of connections. Waits at most so many seconds for the first one; -1 for ever."""
        for descriptor, event in self._epoll.poll(seconds):
            self._happened(descriptor, event)
        now = time.monotonic()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            self._close_late(now)
            self._untidy = self._untidy and self.tidy()

    def _happened(self, descriptor: int, event: int) -> None:
        if descriptor in self._listeners:
            self._accept(self._listeners[descriptor])
            return
        if descriptor == self._wake_read:
            with contextlib.suppress(BlockingIOError):
                os.read(descriptor, 4096)
            return
        connection = self._connections.get(descriptor)
        if connection is None:
            return
        try:
            if connection.out:
                connection.write()
                if not connection.out and connection.ending:
                    connection.shut()
            elif connection.closing:
                connection.fill()
            else:
                self._ready.append(connection)
                return
        except Gone:
            self._close(connection)
            return
        if connection.out or connection.closing or connection.idle:
            self._arm(connection)
        else:
            self._ready.append(connection)

    def _hear(self, connection: Connection) -> None:
        """Queue the request of a connection, if all of its head has come."""
        if self._connections.get(connection.descriptor) is not connection:
            return  # it was closed while it waited to be heard, and its descriptor may be somebody else's
        request = None
        try:
            request = connection.request()
            if request is not None:
                self._waiting.add(connection, Exchange(connection, request))
                connection.serving = True
                return
        except Gone:
            self._close(connection)
            return
        except Refused as error:
            self._refuse(connection, error, bodiless=request is not None and request.method == "HEAD")
            return
        self._arm(connection)

    def _refuse(self, connection: Connection, error: Refused, *, bodiless: bool) -> None:
        try:
            connection.answer(error.status, str(error), bodiless=bodiless)
            connection.ending = True
            connection.write()
            if not connection.out:
                connection.shut()
        except Gone:
            self._close(connection)
            return
        self._arm(connection)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTED):
            if len(self._connections) >= MOST_CONNECTIONS:
                still = to_make_way(list(self._connections.values()), self._waiting, time.monotonic())
                if still is None:
                    self._listen(accepting=False)
                    return
                self._close(still)
            try:
                descriptor, address = listener._accept()  # type: ignore[attr-defined]
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._listen(accepting=False)
                    return
                continue
            # The system gives a connection what its listener has (TCP_NODELAY).
            sock = socket.socket(listener.family, socket.SOCK_STREAM, 0, fileno=descriptor)
            sock.setblocking(False)
            connection = Connection(sock, self._limits, client_of(str(address[0])))
            self._connections[descriptor] = connection
            self._epoll.register(descriptor, select.EPOLLIN | _ONCE)

    def _listen(self, *, accepting: bool) -> None:
        """Accept new connections, or leave them to the kernel until others are closed."""
        if self._accepting != accepting:
            self._accepting = accepting
            for descriptor in self._listeners:
                self._epoll.modify(descriptor, select.EPOLLIN if accepting else 0)

    def _arm(self, connection: Connection) -> None:
        """Have epoll report the next event of this connection."""
        events = select.EPOLLOUT if connection.out else select.EPOLLIN
        self._epoll.modify(connection.descriptor, events | _ONCE)

    def _refuse_others(self) -> None:
        """Accept no more connections, and close idle ones. Only the thread in front may call it."""
        if not self._refusing:
            self._refusing = True
            for descriptor, listener in self._listeners.items():
                for _ in range(_BACKLOG // _ACCEPTED):  # the system has told these clients that they are connected
                    self._accept(listener)
                self._epoll.unregister(descriptor)
                listener.close()
            self._listeners.clear()
            late = time.monotonic() + _SILENT_SECONDS
            for connection in list(self._connections.values()):
                connection.last = True
                if connection.is_quiet():
                    connection.until = min(connection.until, 0.0 if connection.idle else late)
            self._close_late(late - _SILENT_SECONDS)
        if not self._connections:
            self._ended()

    def _close(self, connection: Connection) -> None:
        if self._connections.get(connection.descriptor) is connection:  # it may be closed, and its number another's
            del self._connections[connection.descriptor]
        connection.close()
        if self._ending:
            self._wake()
        if not self._accepting:
            self._listen(accepting=True)

    def _close_late(self, now: float) -> None:
        """Close connections on which nothing has happened for too long."""
        for connection in list(self._connections.values()):
            if connection.until < now and not connection.serving:
                self._close(connection)
        if not self._accepting:  # the system may have room again, or a connection may make way
            self._listen(accepting=True)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"\0")

    def _watch(self) -> None:
        """The watching thread: gives the front to another thread when a guest takes its time, and ends late guests.

        It also takes SIGTERM, and has slow clients given up when all threads serve.
        """
        told = select.poll()
        told.register(self._told_read, select.POLLIN)
        while True:
            self._asleep = True
            if self._turns:
                self._asleep = False
            if told.poll(None if self._asleep else _TURN_SECONDS * 1000):
                self._asleep = False
                if signal.SIGTERM in os.read(self._told_read, 4096):
                    self._ending = True
                    self._wake()
            now = time.monotonic()
            for turn in list(self._turns):
                if now - turn.began >= _TURN_SECONDS:
                    self.leave(turn)
                if now >= turn.until and turn in self._turns:
                    self._interrupt()
            if len(self._turns) >= self._threads and now - self._made_room >= _MAKE_ROOM_SECONDS:
                self._made_room = now
                self._make_room(now)
            if self._ending and not self._refusing and self._front.acquire(blocking=False):
                self._refuse_others()  # all threads serve
                self._front.release()

    def _make_room(self, now: float) -> None:
        """All threads serve: if requests wait, give up clients that are too slow."""
        if self._front.acquire(blocking=False):
            try:
                self._look(0)
                while self._ready:
                    self._hear(self._ready.popleft())
            finally:
                self._front.release()
        if waiting := len(self._waiting):  # a thread in front may take the last one at any time
            give_up_slowest(list(self._turns), waiting, now)


def _nothing() -> None:
    pass
