"""Errors that happen when the status of an answer is sent already.

It is too late then for an error status. So the connection is broken off: otherwise the caller would take what it has
got for the whole answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from aiohttp import web

from wasmlet.concurrency import cut
from wasmlet.failures import described

log = structlog.get_logger(__name__)


@contextmanager
def breaking_off(request: web.Request) -> Iterator[None]:
    """Turn any error into a connection that is broken off.

    Raises:
        ConnectionError: there was an error, and the connection is broken off.
    """
    try:
        yield
    except ConnectionError:
        raise
    except TimeoutError as error:  # what was sent is not read
        cut(request.transport)
        raise ConnectionResetError("the caller reads nothing") from error
    except Exception as error:
        log.warning("an answer is broken off", path=request.path, **described(error))
        if request.transport is not None:
            request.transport.close()
        raise ConnectionResetError("the answer is broken off") from error
