"""Notices when the event loop is held up, and where."""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from types import FrameType, TracebackType
from typing import Self

__tracebackhide__ = True  # pytest hides this module's calls in tracebacks, so that those of the provider are seen

TICK = 0.02


class Heartbeat:
    """Watches the running event loop from a thread of its own.

    Time is counted in the thread's own ticks, so that a machine which is too busy to run this process at all is not
    taken for a loop that is held up.

    Attributes:
        longest: seconds that the loop was held up for at most.
        where: the innermost lines of Python that it was held up in.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        self.where = ""
        self._beats = 0
        self._over = threading.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._thread = threading.Thread(target=self._watch, args=(threading.get_ident(),), daemon=True)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._beat()
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._timer is not None:
            self._timer.cancel()
        self._thread.join()

    def _beat(self) -> None:
        self._beats += 1
        self._timer = self._loop.call_later(TICK / 2, self._beat)

    def _watch(self, loop_thread: int) -> None:
        seen, held = -1, 0.0
        while not self._over.wait(TICK):
            held = held + TICK if self._beats == seen else 0.0
            seen = self._beats
            if held > self.longest:
                self.longest = held
                self.where = _lines(sys._current_frames().get(loop_thread))


def _lines(frame: FrameType | None) -> str:
    """The last few calls, innermost last."""
    return "".join(traceback.format_list(traceback.extract_stack(frame)[-4:])) if frame is not None else ""
