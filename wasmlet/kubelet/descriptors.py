"""File descriptors: a process that serves may have as many as are allowed, and says once where there is none left.

asyncio tries again each second to accept, and reports each failed try with a traceback: as many as the backlog is long
(`BaseSelectorEventLoop._accept_connection`). With uvloop, libuv closes such connections and reports nothing.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import attrs

QUIET_SECONDS = 60.0
"""After this time without a failure, the next failure is reported again."""
_SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""What asyncio takes for a shortage that may pass."""
_LOG = logging.getLogger(__name__)


def raise_descriptor_limit() -> None:
    """Raise the limit of open files to what is allowed: each module in use needs one, and each connection."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # where there is no limit, some systems want a number
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def report_shortage_once(loop: asyncio.AbstractEventLoop) -> None:
    """Have this event loop report that connections cannot be accepted in one line, for all of its servers.

    Can be called again for the same loop. Every other report of the loop goes where it went before.
    """
    before = loop.get_exception_handler()
    if not isinstance(before, _Reporter):
        loop.set_exception_handler(_Reporter(before))


@attrs.define(eq=False)
class _Reporter:
    """An event loop's exception handler."""

    _before: Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object] | None
    _last: float | None = None
    """When accepting failed last, by the loop's clock."""

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if "socket.accept()" in context.get("message", "") and isinstance(error, OSError) and error.errno in _SHORT:
            self._report(loop.time(), error)
        elif self._before is None:
            loop.default_exception_handler(context)
        else:
            self._before(loop, context)

    def _report(self, now: float, error: OSError) -> None:
        last, self._last = self._last, now
        if last is not None and now - last < QUIET_SECONDS:
            return
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        _LOG.error(
            "cannot accept connections for now: %s. Accepting is tried again each second. This process may have %d "
            "file descriptors; raise the limit (ulimit -n; at most %d without root)",
            error.strerror,
            soft,
            hard,
        )
