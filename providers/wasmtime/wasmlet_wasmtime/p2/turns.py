"""A request that is being served, and how long its client keeps the guest waiting.

There are few instances, and a client that sends or reads slowly keeps one for as long as a request may take. That is
its right while there are others; where all are taken and somebody waits for one, the slowest client is given up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from .connections import Connection
from .exchanges import Exchange
from .instances import Waits

PATIENCE_SECONDS, LEAST_PATIENCE_SECONDS = 1.0, 0.25
"""How long a guest may have waited for its client, while others wait for an instance: less where they are many."""
BYTES_PER_SECOND = 16 * 1024
"""So many that come or go make up for a second of waiting."""


class Turn(Waits):
    """A request that is being served by a thread.

    Args:
        leave: lets another thread be in front.

    Attributes:
        until: when it has to be done, by the monotonic clock in seconds.
    """

    def __init__(self, leave: Callable[[Turn], None], until: float, connection: Connection, exchange: Exchange) -> None:
        self._leave, self._connection, self._exchange = leave, connection, exchange
        self.began = time.monotonic()
        self.until = until
        self._moved = connection.moved
        self._waited = 0.0
        """Seconds for which the guest has waited for its client, and for which no bytes have made up."""
        self._since: float | None = None
        """Since when the guest has been waiting for its client, and for nobody else."""

    def begin(self, polled: Mapping[int, int]) -> None:
        self._exchange.push(now=True)
        self._leave(self)
        moved = self._connection.moved
        self._waited = max(0.0, self._waited - (moved - self._moved) / BYTES_PER_SECOND)
        self._moved = moved
        if polled.keys() == {self._connection.descriptor}:
            self._since = time.monotonic()

    def end(self) -> None:
        since, self._since = self._since, None
        if since is not None:
            self._waited += time.monotonic() - since

    def waited(self, now: float) -> float:
        """For how many seconds the guest has waited for its client; 0 where it does not wait for it now."""
        since = self._since
        return 0.0 if since is None else self._waited + now - since

    def give_up(self) -> None:
        """End it, because of its client; another thread than the one that serves it does so."""
        self.over = "its client was too slow while others waited to be served"
        self._connection.cut(answered=self._exchange.begun)


def give_up_slowest(turns: Sequence[Turn], waiting: int, now: float) -> None:
    """Give up requests whose clients are too slow, the slowest first, but no more than there are who wait."""
    patience = max(LEAST_PATIENCE_SECONDS, min(PATIENCE_SECONDS, len(turns) / waiting))
    for turn in sorted(turns, key=lambda turn: turn.waited(now), reverse=True)[:waiting]:
        if turn.waited(now) > patience and not turn.over:
            turn.give_up()
