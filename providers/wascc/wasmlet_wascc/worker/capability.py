"""What a capability is, both for those of this package and for those of other distributions.

A capability is a class. An instance of it is made for each container that was granted the capability; its `call` is
called for each thing that the actor asks. Other distributions register theirs in the entry-point group
`wasmlet.wascc.capabilities`, under the name that actors claim (`acme:clock`). They are imported before any guest is
there. They run in the guest's own process and are confined as it is: without files and sockets, except through their
`Context`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, NamedTuple, Protocol

from .failures import HostError, Silent
from .messages import BadMessage

__all__ = ["GROUP", "BadMessage", "Capability", "Context", "HostError", "Link", "Mount", "Silent", "others"]

GROUP = "wasmlet.wascc.capabilities"


class Mount(NamedTuple):
    """A directory of the container.

    Attributes:
        directory: a path that opens it.
    """

    directory: str
    read_only: bool


class Link(Protocol):
    """A connection that the pod was granted.

    A method that waits does so at most until the present call has to be over, and at most ten seconds for the other
    side to send or take something. After that it raises `Silent`, which is a `HostError`.
    """

    def secure(self, host: str) -> None:
        """Go on by TLS, before anything else goes over it, or where a protocol says so.

        Args:
            host: whose certificate the other side has to show, by the authorities that the node's system trusts.

        Raises:
            HostError: it does not.
        """
        ...

    def send(self, data: bytes) -> None:
        """Write all of it.

        Raises:
            HostError: the connection is broken, or it takes too long.
        """
        ...

    def receive(self, *, patient: bool = False) -> bytes:
        """What comes next, at most 64 KiB; empty at the end.

        Args:
            patient: wait for two minutes, whatever the present call may take; in a thread of one's own.

        Raises:
            HostError: the connection is broken, or it takes too long.
        """
        ...

    def cut(self) -> None:
        """End the connection now, also for a thread that is waiting for it."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class Context(NamedTuple):
    """What a capability has of its container.

    Attributes:
        settings: what the pod sets for the capability, in its annotations.
        env: the container's variables, in which there may be secrets.
        mounts: by the name of a binding.
        log: takes a line of the container's log.
        dial: opens a connection to a host and a port, where the pod's egress grant lets it. Raises `HostError`.
        tell: calls the actor later, with an operation and a value for its message. Raises `HostError` if too many such
            calls wait already. With `patient=True` it waits for room instead; only threads from `begin` may do that.
        begin: runs something in a thread of its own.
        deadline: when the present call has to be over, by the monotonic clock in seconds.
    """

    settings: Mapping[str, str]
    env: Mapping[str, str]
    mounts: Mapping[str, Mount]
    log: Callable[[str], None]
    dial: Callable[[str, int], Link]
    tell: Callable[..., None]
    begin: Callable[[Callable[[], None]], None]
    deadline: Callable[[], float]


class Capability(Protocol):
    """Something that an actor may ask its host for. Made with a `Context`."""

    def call(self, binding: str, operation: str, message: Any) -> Any:
        """Do what an actor asks.

        Args:
            binding: which of several things of this kind is meant; "default" where the actor names none.
            message: what came with it, decoded; None for nothing.

        Returns:
            What is answered: maps (names in camelCase; `messages.both` adds the older spelling), lists, texts, bytes,
            numbers; None for an empty answer.

        Raises:
            ValueError: it cannot be done, or the message is not what was expected; the actor gets the words.
        """
        ...


def others() -> dict[str, Callable[[Context], Capability]]:
    """The capabilities that other distributions announce, by name. One that cannot be imported is refused when used."""
    found: dict[str, Callable[[Context], Capability]] = {}
    for point in entry_points(group=GROUP):
        try:
            found[point.name] = point.load()
        except Exception as error:
            found[point.name] = _broken(point.name, f"{type(error).__name__}: {error}")
    return found


def _broken(name: str, why: str) -> Callable[[Context], Capability]:
    def make(context: Context) -> Capability:
        raise ValueError(f"capability {name} cannot be used: {why}")

    return make
