"""Decides which request a component serves next, and which slow client loses its turn.

A component that serves HTTP has few instances, each of which serves one request at a time. A client that sends its
request slowly, or reads its answer slowly, keeps an instance that does nothing but wait. While another instance is
free, that does no harm. If all are taken and a request waits for one, the requests of the slowest clients are ended
(`give_up_slowest`).

Slowness is counted as a debt in seconds (`Turn`):

- The debt grows with the time in which the guest waits for its client and for nothing else.
- `BYTES_PER_SECOND` bytes that come from the client, or that its system has confirmed, pay for a second, also during a
  wait. Bytes that this machine's kernel still keeps pay for nothing.
- A request begins with a credit (`CREDIT_SECONDS`), and bytes that are sent to the client give it more
  (`STEP_SECONDS`).
- A client that owes more than `PATIENCE_SECONDS` is too slow.

So a client that sends or takes `BYTES_PER_SECOND` is never too slow, and a pause of a second, such as for a lost
packet, does no harm.

Requests wait in two queues (`Queue`): those that have come as a whole, and others. The queues take turns, and in each
of them the clients' addresses do (`client_of`). So slow clients, however many, do not keep others waiting for long.

There are only so many connections at a time. If all are taken, one that is not in use makes way for the next client
(`to_make_way`). So a client cannot keep others out by connections with which it does nothing.
"""

from __future__ import annotations

import _thread
import collections
import ipaddress
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from .connections import Connection
from .exchanges import Exchange
from .instances import Waits

PATIENCE_SECONDS = 1.0
"""The greatest debt that is borne while others wait for an instance."""
CREDIT_SECONDS = 2.0
"""The credit with which a request begins. Bytes can win it back, and no more. If more requests wait than are served,
only a part of it counts: clients are given up sooner then."""
STEP_SECONDS = 24.0
"""The most credit on top of that, for bytes that were sent to the client. Its system may confirm nothing for many
seconds and then much at once, though its program reads steadily: 384 KiB, a 16th of the largest buffer of Linux."""
BYTES_PER_SECOND = 16 * 1024
"""Bytes that pay for a second of waiting, whether they come or go."""
STILL_SECONDS = 1.0
"""How long nothing has to happen on a connection before it can make way for another client."""
_LITTLE = BYTES_PER_SECOND
"""The most bytes of a body that have come of a request of which little has come."""
_SHORT_SECONDS, _FEW_BYTES = 0.005, BYTES_PER_SECOND // 4
"""After a shorter wait, with fewer bytes since the last account, the system is not asked what it has carried. The wait
is added to the debt, and the next account pays for it."""


class Turn(Waits):
    """A request that is being served by a thread.

    Args:
        leave: lets another thread be in front.
        clock: tells the seconds of the monotonic clock.

    Attributes:
        until: when it has to be done, by the monotonic clock in seconds.
    """

    def __init__(
        self,
        leave: Callable[[Turn], None],
        until: float,
        connection: Connection,
        exchange: Exchange,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._leave, self._connection, self._exchange, self._clock = leave, connection, exchange, clock
        self.began = clock()
        self.until = until
        self._sent, self._carried = connection.sent, connection.carried_before
        self._owed = -CREDIT_SECONDS
        """The debt after the last wait: seconds of waiting that bytes have not paid for; below 0 for a credit."""
        self._since: float | None = None
        """Since when the guest has been waiting for its client and nothing else; None if it is not."""
        self._done = False
        self._giving_up = _thread.allocate_lock()

    def begin(self, polled: Mapping[int, int]) -> None:
        self._exchange.push(now=True)
        self._leave(self)
        if len(polled) == 1 and self._connection.descriptor in polled:
            self._since = self._clock()

    def end(self) -> None:
        since = self._since
        if since is not None:
            now = self._clock()
            with self._giving_up:
                if now - since < _SHORT_SECONDS and self._connection.moved - self._carried < _FEW_BYTES:
                    self._owed += now - since
                else:
                    self._owed, self._carried = self._account(since, now)
                self._since = None

    def _account(self, since: float, now: float) -> tuple[float, int]:
        """The debt at this time, and what the connection has carried."""
        carried = self._connection.carried()
        paid = (carried - self._carried) / BYTES_PER_SECOND
        steps = min(STEP_SECONDS, (self._connection.sent - self._sent) / BYTES_PER_SECOND)
        return max(-CREDIT_SECONDS - steps, self._owed + now - since - paid), carried

    def done(self) -> None:
        """The request is served: it is not given up any more, as its connection may have the next one already."""
        with self._giving_up:
            self._done = True

    def waited(self, now: float) -> float:
        """The debt in seconds: how long the guest has waited for its client, less what bytes have paid for.

        It is below 0 for a credit, and minus infinity if the guest does not wait for its client now.
        """
        with self._giving_up:
            since = self._since
            return float("-inf") if since is None or self._done else self._account(since, now)[0]

    def give_up(self, now: float, most: float) -> None:
        """End the request because of its client, if it still owes more than `most` seconds.

        The watching thread calls this. The thread that serves the request may have gone on since `waited` was called,
        so the debt is checked again.
        """
        with self._giving_up:
            since = self._since
            if since is not None and not self._done and self._account(since, now)[0] > most:
                self.over = "its client was too slow while others waited to be served"
                self._connection.cut(answered=self._exchange.begun)


def give_up_slowest(turns: Sequence[Turn], waiting: int, now: float) -> None:
    """Give up requests whose clients are too slow, the slowest first, but no more than requests wait."""
    most = PATIENCE_SECONDS - CREDIT_SECONDS * max(0.0, 1.0 - len(turns) / waiting)
    late = [(turn.waited(now), turn) for turn in turns if not turn.over]
    for waited, turn in sorted(late, key=lambda one: one[0], reverse=True)[:waiting]:
        if waited > most:
            turn.give_up(now, most)


def to_make_way(connections: Iterable[Connection], queue: Queue, now: float) -> Connection | None:
    """The connection to close when there are as many as there may be; None if all of them are in use.

    It is one of the client that has the most on which nothing happens: one between two requests if there is one, and
    of those the one on which nothing has happened for longest. A request that waits in the queue, and of which little
    has come, is removed from there.
    """
    since = {one: one.still_since for one in connections} | queue.partial()
    still: dict[str, list[Connection]] = {}
    for one, began in since.items():
        if now - began >= STILL_SECONDS:
            still.setdefault(one.peer, []).append(one)
    for of_client in sorted(still.values(), key=len, reverse=True):
        for one in sorted(of_client, key=lambda one: (one.serving, not one.idle, since[one])):
            if one.out or one.unread() + one.reader.body_size <= (_LITTLE if one.serving else 0):
                queue.remove(one)
                return one
    return None


def client_of(address: str) -> str:
    """The client that requests from this address count for.

    For IPv6 that is the network of 64 bits, since one client can have all addresses of it.
    """
    if ":" not in address:
        return address
    found = ipaddress.IPv6Address(address)
    return str(found.ipv4_mapped or ipaddress.IPv6Address(int(found) >> 64 << 64))


class Queue:
    """The requests that wait to be served. Only the thread in front uses it."""

    def __init__(self) -> None:
        self._kinds: tuple[_ByAddress, _ByAddress] = ({}, {})
        """Requests that have not come as a whole, and those that have, by address; the next address comes first."""
        self._whole_next = True
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, connection: Connection, exchange: Exchange) -> None:
        """Add a request, behind others of its address and kind."""
        self._kinds[exchange.whole].setdefault(connection.peer, collections.deque()).append((connection, exchange))
        self._size += 1

    def next(self) -> tuple[Connection, Exchange]:
        """Remove the next request, and return it. There has to be one."""
        whole = self._whole_next
        if all(self._kinds):
            self._whole_next = not whole
        waiting = self._kinds[whole] or self._kinds[not whole]
        peer, requests = next(iter(waiting.items()))
        found = requests.popleft()
        del waiting[peer]
        if requests:
            waiting[peer] = requests  # behind the others
        self._size -= 1
        return found

    def partial(self) -> dict[Connection, float]:
        """The connections of requests that had not come as a whole, and when each request began."""
        return {one: exchange.began for waiting in self._kinds[False].values() for one, exchange in waiting}

    def remove(self, connection: Connection) -> None:
        """Remove the request of this connection, if it is here and had not come as a whole."""
        requests = self._kinds[False].get(connection.peer, ())
        kept = collections.deque(entry for entry in requests if entry[0] is not connection)
        self._size -= len(requests) - len(kept)
        if kept:
            self._kinds[False][connection.peer] = kept
        else:
            self._kinds[False].pop(connection.peer, None)


_ByAddress = dict[str, "collections.deque[tuple[Connection, Exchange]]"]
