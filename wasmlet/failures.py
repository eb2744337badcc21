"""Log fields for an error: its text and, if nobody expected it, a traceback. Both have a size limit.

A traceback shows where an error was raised, and never the value of a variable: a provider's variables hold secrets,
tokens and environments of pods. Of something that is tried again, only the first failure is logged with a traceback.
"""

from __future__ import annotations

import traceback

from wasmlet.clock import Clock
from wasmlet.errors import WasmletError

SELDOM_SECONDS = 60.0
MOST_TEXT = 1000
"""Characters of an error's text."""
MOST_TRACEBACK = 6000
"""Characters of a traceback: some forty calls."""
MOST_LINE = 300
"""Characters of one of its lines: an error's text may be long."""
MOST_CALLS = 12
"""Calls of one stack; the innermost ones say where an error is from."""
MOST_GROUPED = 3
"""Errors of one `ExceptionGroup`, and how deep groups in groups are followed."""


def text_of(error: BaseException) -> str:
    """What the error says, or what it is called where it says nothing."""
    return _cut(str(error) or type(error).__name__, MOST_TEXT)


def traceback_of(error: BaseException) -> str:
    """Where the error was raised, and what it came from; without the values of variables."""
    found = traceback.TracebackException(
        type(error),
        error,
        error.__traceback__,
        limit=-MOST_CALLS,
        compact=True,
        capture_locals=False,
        max_group_width=MOST_GROUPED,
        max_group_depth=MOST_GROUPED,
    )
    lines = [line[:MOST_LINE] for part in found.format() for line in part.splitlines()]
    return _cut("\n".join(lines), MOST_TRACEBACK)


def described(error: BaseException, *, first: bool = True) -> dict[str, str]:
    """Fields of a log line about the error.

    Args:
        first: it is the first failure of those that are tried again; later ones are told without a traceback.
    """
    fields = {"error": text_of(error)}
    if first and not isinstance(error, WasmletError | OSError):  # a TimeoutError is an OSError
        fields["exception"] = traceback_of(error)  # the name under which structlog knows a traceback that is text
    return fields


def _cut(text: str, most: int) -> str:
    """The text; if it is too long, without its middle. The end is kept because a traceback ends with the error."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}\n... ({len(text) - most} characters left out) ...\n{text[-most // 2 :]}"


class Seldom:
    """Limits log lines about what strangers can cause as often as they like: one line a minute for each kind.

    Args:
        most: how many kinds are logged in a minute; any further kind is not logged.
    """

    def __init__(self, clock: Clock, most: int = 64) -> None:
        self._clock = clock
        self._most = most
        self._told: dict[str, float] = {}
        self._left_out = 0

    def fields(self, kind: str) -> dict[str, int] | None:
        """Fields of the line to log now: how many lines were left out since the last one. None: log no line."""
        now = self._clock.monotonic()
        if len(self._told) >= self._most:
            self._told = {kind: at for kind, at in self._told.items() if now - at < SELDOM_SECONDS}
        if now - self._told.get(kind, -SELDOM_SECONDS) < SELDOM_SECONDS or len(self._told) >= self._most:
            self._left_out += 1
            return None
        self._told[kind] = now
        left_out, self._left_out = self._left_out, 0
        return {"left_out": left_out} if left_out else {}
