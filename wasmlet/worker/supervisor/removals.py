"""Removes the directories of termination messages, some time after the end of their containers was told.

Removing a file from a disk takes long, compared with all else that the shim does at the end of a container. Nobody
waits for it, so it comes later and in small portions: a node loop hears of an end first, and many ends at once are
heard of without a pause. While nothing is to be removed, nothing wakes the shim.

What is to be removed is on file (`store`), so the next shim removes what a shim that died has left.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Collection

from .. import wire

DELAY_SECONDS = 0.05
"""How long after a container's end its directory is removed."""
MOST_AT_ONCE, PAUSE_SECONDS = 8, 0.01
"""So many directories are removed in one turn of the shim's loop; where there are more, they come after a pause."""

DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Removals:
    """The directories that are still to be removed. Each has one file and nothing else.

    Args:
        later: calls a function after so many seconds.
    """

    def __init__(self, later: Callable[[float, Callable[[], None]], object]) -> None:
        self._later = later
        self._waiting: dict[str, str] = {}
        self._timer_runs = False

    @property
    def waiting(self) -> Collection[str]:
        """The files whose directories are still to be removed."""
        return self._waiting.values()

    def add(self, file: str) -> None:
        """Remove this file, its directory, and the one above that if it is empty, about `DELAY_SECONDS` from now.

        What somebody else has removed meanwhile is no error. What cannot be removed stays for the node loop, which
        removes the files of pods that are gone when it starts.

        Args:
            file: its path, relative to the current directory.
        """
        self._waiting[os.path.dirname(file)] = file
        self._wake(DELAY_SECONDS)

    def waits(self, file: str) -> bool:
        """Whether this file and its directory are still to be removed."""
        return self._waiting.get(os.path.dirname(file)) == file

    def remove_now(self, directory: str) -> None:
        """Remove this directory at once if it is still to be removed: another one of its name is wanted."""
        file = self._waiting.pop(directory, None)
        if file is not None:
            _remove(file)

    def finish(self) -> None:
        """The shim leaves: remove all that is left."""
        while self._waiting:
            self.remove_now(next(iter(self._waiting)))

    def _wake(self, seconds: float) -> None:
        if not self._timer_runs:
            self._timer_runs = True
            self._later(seconds, self._remove_some)

    def _remove_some(self) -> None:
        self._timer_runs = False
        for directory in list(itertools.islice(self._waiting, MOST_AT_ONCE)):
            self.remove_now(directory)
        if self._waiting:
            self._wake(PAUSE_SECONDS)


def _remove(file: str) -> None:
    directory, name = os.path.split(file)
    above, own_name = os.path.split(directory)
    opened: list[int] = []
    try:
        # Step by step, because no link may lead to files elsewhere: a guest that has broken out could have made one.
        opened.append(os.open(above, DIRECTORY))
        opened.append(os.open(own_name, DIRECTORY, dir_fd=opened[0]))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=opened[1])
        os.rmdir(own_name, dir_fd=opened[0])
    except OSError:
        pass
    finally:
        wire.close(opened)
    with contextlib.suppress(OSError):  # others are in it, or it is gone
        os.rmdir(above)
