"""The signals that ask a process to stop, turned into a call on the event loop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def on_stop_signals(stop: Callable[[], object]) -> Iterator[None]:
    """While open, SIGINT, SIGTERM and SIGHUP call `stop`.

    SIGHUP says that the terminal is gone. A process that was told to ignore it (`nohup`) goes on ignoring it.
    """
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    loop = asyncio.get_running_loop()
    for number in numbers:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
