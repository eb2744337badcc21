"""Reads the keys that are typed while `wasmlet top` runs on a terminal."""

from __future__ import annotations

import asyncio
import os
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_NAMED = {
    b"\x1b[A": "up",
    b"\x1b[B": "down",
    b"\x1bOA": "up",
    b"\x1bOB": "down",
    b"\x1b[5~": "page up",
    b"\x1b[6~": "page down",
    b"\x1b[H": "home",
    b"\x1b[F": "end",
    b"\x1bOH": "home",
    b"\x1bOF": "end",
    b"\x1b[1~": "home",
    b"\x1b[4~": "end",
    b" ": "page down",
    b"k": "up",
    b"j": "down",
    b"g": "home",
    b"G": "end",
}


def parsed(data: bytes) -> Iterator[str]:
    """The keys that were typed: a character, or the name of what has none; what is not known is passed over."""
    while data:
        escape = next((code for code in _NAMED if data.startswith(code)), None)
        if escape is not None:
            yield _NAMED[escape]
            data = data[len(escape) :]
        elif data.startswith(b"\x1b"):
            return  # the rest is a sequence that means nothing here
        else:
            yield chr(data[0])
            data = data[1:]


@contextmanager
def typed(tell: Callable[[str], None]) -> Iterator[None]:
    """While open, keys are told one by one and not shown; nothing happens where standard input is no terminal.

    Ctrl-Z does nothing: the screen would stay as it is.
    """
    descriptor = sys.__stdin__.fileno() if sys.__stdin__ is not None and not sys.__stdin__.closed else -1
    if descriptor < 0 or not os.isatty(descriptor):
        yield
        return
    loop = asyncio.get_running_loop()

    def read() -> None:
        try:
            data = os.read(descriptor, 1024)
        except OSError:  # the terminal is gone; SIGHUP says so, too
            data = b""
        if not data:
            loop.remove_reader(descriptor)
        for key in parsed(data):
            tell(key)

    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    without = termios.tcgetattr(descriptor)
    without[6][termios.VSUSP] = b"\x00"
    termios.tcsetattr(descriptor, termios.TCSANOW, without)
    loop.add_reader(descriptor, read)
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
