"""What the program says of itself: text on a terminal, a JSON object a line elsewhere; always on stderr."""

from __future__ import annotations

import logging
import sys

import structlog
from aiohttp.http_exceptions import HttpProcessingError


def configure(level: str) -> None:
    """Set up structlog for the process. `level` is debug, info, warning or error."""
    logging.getLogger("aiohttp.server").addFilter(_ours)
    terminal = sys.stderr.isatty()
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if terminal:
        tail: list[structlog.typing.Processor] = [structlog.dev.ConsoleRenderer()]
    else:
        tail = [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer(sort_keys=False)]
    structlog.configure(
        processors=shared + tail,
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def _ours(record: logging.LogRecord) -> bool:
    """Whether an error that a server met is ours: what strangers send or break off is not, and is answered anyway."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError | ConnectionError)
