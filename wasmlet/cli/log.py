"""Sets up the log: text on a terminal, one JSON object per line elsewhere; always on standard error.

Tracebacks, also those that a provider logs itself, are of a bounded size and show no variables (`wasmlet.failures`).
"""

from __future__ import annotations

import logging
import os
import sys

import structlog
from aiohttp.http_exceptions import HttpProcessingError

from wasmlet.failures import traceback_of


def configure(level: str) -> None:
    """Set up structlog for the process. `level` is debug, info, warning or error."""
    logging.getLogger("aiohttp.server").addFilter(_ours)
    stream = sys.stderr or open(os.devnull, "w")  # noqa: SIM115 - a program's may be closed; it lasts as long as that
    terminal = stream.isatty()
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.ExceptionRenderer(_formatted),
    ]
    if terminal:
        renderer: structlog.typing.Processor = structlog.dev.ConsoleRenderer(
            colors=not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb",
            exception_formatter=structlog.dev.plain_traceback,
        )
    else:
        renderer = structlog.processors.JSONRenderer(sort_keys=False)
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )


def _formatted(exc_info: structlog.typing.ExcInfo) -> str:
    """What is logged of an error that comes with `exc_info`."""
    return traceback_of(exc_info[1])


def _ours(record: logging.LogRecord) -> bool:
    """Whether an error that a server met is ours: what strangers send or break off is not, and is answered anyway."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError | ConnectionError)
