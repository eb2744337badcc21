"""One child of a zygote, for the shim: whom it was given to, and the messages to and from it.

A child runs one guest or none. Over its control descriptor it gets everything it needs to become the guest, and sends
its messages. The process itself is `spare`, then `child` (or `dense`).
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any, Protocol

from .. import wire
from ..loop import READ, WRITE, Loop
from .groups import Group, Groups


class Occupant(Protocol):
    """Something that runs in a child: a container, an exec or a dense worker (`processes`)."""

    messages_per_turn: int
    """How many messages of its child are read before others have their turn."""

    @property
    def waits(self) -> bool:
        """Whether it still waits for a child."""
        ...

    def run_in(self, child: Child) -> bool:
        """Send a child everything it needs to become the guest; False if the child was gone before that was done."""
        ...

    def zygote_died(self) -> None:
        """The zygote or worker that was to run it has died before it had a child."""
        ...

    def fail(self, why: str) -> None:
        """There will be no process for it; `why` goes into its record."""
        ...

    def heard(self, message: dict[str, Any]) -> None:
        """The child has sent this message."""
        ...

    def writable(self) -> None:
        """The child can take another message."""
        ...

    def hung_up(self) -> None:
        """The child has closed its side: it sends no more messages."""
        ...

    def reaped(self, status: int) -> None:
        """The process has ended with this wait status."""
        ...


class Owner(Protocol):
    """The zygote that made a child, as the child sees it (`zygotes`)."""

    @property
    def groups(self) -> Groups:
        """What made the child's control group, and removes it."""
        ...

    def child_ready(self, child: Child) -> None:
        """The child is ready."""
        ...

    def child_lost(self, child: Child, why: str = "") -> None:
        """The child is gone before it was given to anybody; `why` where it could not be made at all."""
        ...


class Child:
    """A process that a zygote has made or is about to make: given to one container or exec, or to none.

    Attributes:
        pid: 0 until it is ready.
        process: what it was given to, which hears what it says.
        group: the control group that it is born in; None where there is none.
    """

    def __init__(self, loop: Loop, owner: Owner, control: socket.socket, group: Group | None) -> None:
        self.pid = 0
        self.group = group
        self.process: Occupant | None = None
        self._loop = loop
        self._owner = owner
        self._control: socket.socket | None = control
        control.setblocking(False)
        loop.add(control, READ, self._on_control)

    def give(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send it a message. The first one says what it becomes.

        Raises:
            BlockingIOError: it cannot take a message now; see `wait_for_room`.
            OSError: it is gone (`BrokenPipeError`, `ConnectionResetError`), or cannot be given so much.
        """
        if self._control is None:
            raise BrokenPipeError
        wire.send(self._control, data, tuple(descriptors))

    def wait_for_room(self, wanted: bool) -> None:
        """Say whether its occupant wants to hear (`writable`) when there is room for another message."""
        if self._control is not None:
            self._loop.change(self._control, READ | WRITE if wanted else READ)

    def reaped(self, status: int) -> None:
        """The process has ended with this wait status."""
        if self.process is not None:
            self.process.reaped(status)
        else:
            self.close()
            self._owner.child_lost(self)
        self._owner.groups.discard(self.group)

    def close(self) -> None:
        """Read no more of its messages. A child that waits to be given to somebody ends."""
        if self._control is not None:
            self._loop.remove(self._control)
            self._control.close()
            self._control = None

    def _on_control(self, events: int) -> None:
        if events & WRITE and self.process is not None:
            self.process.writable()
        if events & READ:
            for _ in range(1 if self.process is None else self.process.messages_per_turn):
                if self._control is None or not self._hear():
                    return

    def _hear(self) -> bool:
        """Read the next message; False where there is none now, or none will come any more."""
        assert self._control is not None
        try:
            received = wire.receive(self._control)
        except BlockingIOError:
            return False
        except (wire.WireError, OSError):
            received = None  # a child that breaks the rules is treated as one that has closed its side
        if received is None:
            self.close()
            if self.process is not None:
                self.process.hung_up()
            else:
                self._owner.child_lost(self)
            return False
        message, descriptors = received
        wire.close(descriptors)
        if self.process is not None:
            self.process.heard(message)
        elif not self.pid and isinstance(message.get("pid"), int):
            self.pid = message["pid"]
            self._owner.child_ready(self)
        elif "failed" in message:
            self.close()
            self._owner.child_lost(self, str(message["failed"]))
        return True
