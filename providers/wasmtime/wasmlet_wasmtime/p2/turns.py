"""Requests that wait to be served, one that is being served, and how long its client keeps the guest waiting.

There are few instances, and a client that sends or reads slowly keeps one for as long as a request may take. That is
its right while there are others; where all are taken and somebody waits for one, the slowest client is given up.

What counts is what really comes and goes, also in the middle of one wait: bytes that this system still keeps for a
client do not (`Connection.carried`). So whoever sends or takes `BYTES_PER_SECOND` is never too slow, and a pause of
`PATIENCE_SECONDS`, which may be a round trip or a lost packet, harms nobody. The system of a client that reads steadily
says for many seconds that its buffer is full, and then takes much at once: `STEP_SECONDS` bridge that.

Of those that wait, requests that have come as a whole and others are served by turns, and of each kind the addresses
that they come from (`client_of`): slow clients, however many, keep nobody else waiting for long.
"""

from __future__ import annotations

import collections
import ipaddress
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from .connections import Connection
from .exchanges import Exchange
from .instances import Waits

PATIENCE_SECONDS = 1.0
"""How long a guest may have waited for its client, while others wait for an instance."""
CREDIT_SECONDS = 2.0
"""So much longer at most, at the begin and for bytes ahead of their time: less where more wait than are served."""
STEP_SECONDS = 24.0
"""So much longer at most, for bytes that a client's system has got: 384 KiB, a 16th of a buffer of Linux."""
BYTES_PER_SECOND = 16 * 1024
"""So many that come or go make up for a second of waiting."""


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
        self._carried, self._sent = connection.carried(), connection.sent
        self._owed = -CREDIT_SECONDS
        """Seconds for which the guest has waited for its client, and for which no bytes had made up by then."""
        self._since: float | None = None
        """Since when the guest has been waiting for its client, and for nobody else."""
        self._done = False
        self._giving_up = threading.Lock()

    def begin(self, polled: Mapping[int, int]) -> None:
        self._exchange.push(now=True)
        self._leave(self)
        if polled.keys() == {self._connection.descriptor}:
            self._since = self._clock()

    def end(self) -> None:
        since = self._since
        if since is not None:
            with self._giving_up:
                self._owed, self._carried = self._account(since, self._clock())
                self._since = None

    def _account(self, since: float, now: float) -> tuple[float, int]:
        """What is owed by now, and what the connection has carried."""
        carried = self._connection.carried()
        paid = (carried - self._carried) / BYTES_PER_SECOND
        steps = min(STEP_SECONDS, (self._connection.sent - self._sent) / BYTES_PER_SECOND)
        return max(-CREDIT_SECONDS - steps, self._owed + now - since - paid), carried

    def done(self) -> None:
        """It is served: from now on nobody gives it up, since its connection may have the next request."""
        with self._giving_up:
            self._done = True

    def waited(self, now: float) -> float:
        """For how many seconds the guest has waited for its client, beyond what bytes have made up for.

        It is below 0 for a client that is ahead, and minus infinity where nobody waits for it now.
        """
        with self._giving_up:
            since = self._since
            return float("-inf") if since is None or self._done else self._account(since, now)[0]

    def give_up(self, now: float, most: float) -> None:
        """End it, because of its client, where `waited` is still more than so many seconds.

        Another thread than the one that serves it does so, and that one has gone on since `waited` was asked.
        """
        with self._giving_up:
            since = self._since
            if since is not None and not self._done and self._account(since, now)[0] > most:
                self.over = "its client was too slow while others waited to be served"
                self._connection.cut(answered=self._exchange.begun)


def give_up_slowest(turns: Sequence[Turn], waiting: int, now: float) -> None:
    """Give up requests whose clients are too slow, the slowest first, but no more than there are who wait."""
    most = PATIENCE_SECONDS - CREDIT_SECONDS * max(0.0, 1.0 - len(turns) / waiting)
    late = [(turn.waited(now), turn) for turn in turns if not turn.over]
    for waited, turn in sorted(late, key=lambda one: one[0], reverse=True)[:waiting]:
        if waited > most:
            turn.give_up(now, most)


def client_of(address: str) -> str:
    """Whose turn requests from this address are: of IPv6, a network of 64 bits is one client's, which has all of it."""
    if ":" not in address:
        return address
    found = ipaddress.IPv6Address(address)
    return str(found.ipv4_mapped or ipaddress.IPv6Address(int(found) >> 64 << 64))


class Queue:
    """Requests that nobody serves yet. Whoever is in front uses it."""

    def __init__(self) -> None:
        self._kinds: tuple[_ByAddress, _ByAddress] = ({}, {})
        """Those that have not come as a whole, and those that have; whose turn it is comes first."""
        self._whole_next = True
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, connection: Connection, exchange: Exchange) -> None:
        """It is the last one of its address and kind."""
        self._kinds[exchange.whole].setdefault(connection.peer, collections.deque()).append((connection, exchange))
        self._size += 1

    def next(self) -> tuple[Connection, Exchange]:
        """One of them, of which there is one at least; it does not wait any more."""
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


_ByAddress = dict[str, "collections.deque[tuple[Connection, Exchange]]"]
