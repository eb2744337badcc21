"""Reads lines, and pieces of known length, from a connection: the form of many text protocols. Sizes are limited."""

from __future__ import annotations

import math
import time

from .capability import HostError, Link, Silent
from .failures import Ended

MOST_LINE = 64 * 1024
"""Bytes of a line."""
_END = b"\r\n"


class Reader:
    """What comes over a connection.

    Args:
        name: what the other side is called in errors.
        patient: wait without an end (`Link.receive`).

    Attributes:
        patient: the same; may be changed.
    """

    def __init__(self, link: Link, name: str, *, patient: bool = False) -> None:
        self._link, self._name, self.patient = link, name, patient
        self._have = bytearray()
        self._at = 0
        """Where the bytes begin that nobody has taken yet."""

    @property
    def empty(self) -> bool:
        """Whether all that has come was taken."""
        return self._at == len(self._have)

    def line(self, until: float = math.inf) -> bytes:
        """The next line, without its end.

        Args:
            until: when it has to be there, by the monotonic clock in seconds.

        Raises:
            HostError: there is none, or it is too long, or too late.
        """
        looked = self._at
        while (end := self._have.find(_END, looked)) < 0:
            looked = max(self._at, len(self._have) - 1)
            if looked - self._at > MOST_LINE:
                raise HostError(f"{self._name} sends a line that is too long")
            if time.monotonic() > until:
                raise Silent(f"{self._name} does not come to an end")
            moved = self._at
            self._fill()
            looked -= moved - self._at
        found = bytes(self._have[self._at : end])
        self._at = end + len(_END)
        return found

    def take(self, size: int) -> bytes:
        """So many bytes, and the end of a line behind them, which is passed over.

        Raises:
            HostError: they do not come.
        """
        while len(self._have) - self._at < size + len(_END):
            self._fill()
        found = bytes(self._have[self._at : self._at + size])
        self._at += size + len(_END)
        if self._have[self._at - len(_END) : self._at] != _END:
            raise HostError(f"{self._name} sends more than it says")
        return found

    def skip(self, size: int) -> None:
        """Pass over so many bytes, and the end of a line behind them; they are never all in memory.

        Raises:
            HostError: they do not come.
        """
        left = size + len(_END)
        while (have := len(self._have) - self._at) < left:
            left -= have
            self._at += have
            self._fill()
        self._at += left

    def _fill(self) -> None:
        del self._have[: self._at]
        self._at = 0
        data = self._link.receive(patient=self.patient)
        if not data:
            raise Ended(f"{self._name} has closed the connection")
        self._have += data
