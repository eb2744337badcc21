"""`poll_oneoff` for a guest that has sockets. It waits for clocks, sockets and standard input; files are always ready.

Most guests ask for the same things again and again. So what their subscriptions mean is kept (`Plan`) for the next
call.
"""

from __future__ import annotations

import array
import fcntl
import select
import struct
import termios
import time
from typing import NamedTuple

from .functions import INVAL
from .sockets import BADF, FAULT, LOOK, MOST, SUCCESS, Network, Socket, of_host

_SUBSCRIPTION = struct.Struct("<QB7xI4xQQH6x")
"""User data, kind; clock or descriptor, and of a clock its timeout, precision and flags."""
_EVENT = struct.Struct("<QHB5xQH6x")
"""User data, error, kind, bytes, flags."""
_CLOCK, _READ, _WRITE = 0, 1, 2
_REALTIME, _MONOTONIC, _ABSOLUTE = 0, 1, 1
_MOST_SUBSCRIPTIONS = 2 * MOST + 64
_LONGEST = 1e6
"""Seconds of one sleep: a time may lie further ahead than the system can wait."""
_HANGUP = 1
_ALWAYS = select.POLLERR | select.POLLHUP | select.POLLNVAL
_MASKS = {_READ: select.POLLIN, _WRITE: select.POLLOUT}
_KIND = 8
"""Where in a subscription its kind is."""

_Clock = tuple[int, int, int, int]


class _Asked(NamedTuple):
    """A subscription to a socket.

    Attributes:
        mask: the events of `poll` that make it ready.
        event: the event to write for the guest then.
        hangup: the event to write if the other side has closed the connection.
        socket: the socket.
    """

    mask: int
    event: bytes
    hangup: bytes
    socket: Socket


class Plan:
    """What the subscriptions of a call mean, without a clock that is the first or the last of them.

    Attributes:
        text: the subscriptions, as bytes.
        changes: `Network.changes` when the plan was made.
        clocks: user data, clock, timeout and flags of each clock.
        wanted: the subscriptions to sockets, by descriptor of the host.
        masks: the events to wait for, by descriptor.
        poller: the poll object for these.
        answered: events that are there without waiting.
        files: places of subscriptions to the engine's own descriptors.
        connecting: subscriptions to sockets that the broker has still to connect.
    """

    __slots__ = ("answered", "changes", "clocks", "connecting", "files", "masks", "poller", "text", "wanted")

    def __init__(self, network: Network) -> None:
        self.text = b""
        self.changes = network.changes
        self.clocks: list[_Clock] = []
        self.wanted: dict[int, list[_Asked]] = {}
        self.masks: dict[int, int] = {}
        self.poller = network.poller()
        self.answered: list[bytes] = []
        self.files: list[int] = []
        self.connecting: list[tuple[bytes, Socket]] = []

    def lasts(self) -> bool:
        """Whether it can be used again, as long as the sockets do not change."""
        return not (self.answered or self.files or self.connecting)


def poll_oneoff(network: Network, subscriptions: int, events: int, count: int, stored: int) -> int:
    if not 0 < count <= _MOST_SUBSCRIPTIONS:
        return INVAL
    end = subscriptions + count * _SUBSCRIPTION.size
    if end > network.size or events + count * _EVENT.size > network.size or stored + 4 > network.size:
        return FAULT
    text = bytes(network.memory[subscriptions:end])
    plan: Plan | None = network.plan
    if plan is not None and plan.text == text and plan.changes == network.changes and not plan.clocks:
        found = _found(plan, network.poll(plan.poller))
    else:
        clocks, first = _ends(text)
        body = text[first * _SUBSCRIPTION.size : len(text) - (len(clocks) - first) * _SUBSCRIPTION.size]
        plan = _plan(network, body, first)
        now = time.monotonic_ns()
        due = [(_due(network, clock, now, events), clock[0]) for clock in clocks + plan.clocks]
        if due and min(due)[0] < 0:
            return INVAL
        found = plan.answered + [_file(network, subscriptions, events, stored, place) for place in plan.files]
        found += _waited(network, plan, due, now, bool(found))
        network.plan = plan if plan.lasts() else None
    found = found[:count]  # a listener that cannot listen is told of twice, as failed and as closed
    network.memory[events : events + len(found) * _EVENT.size] = b"".join(found)
    network.put(stored, len(found))
    return SUCCESS


def _ends(text: bytes) -> tuple[list[_Clock], int]:
    """The clocks at the beginning and the end, where language runtimes put the one whose timeout changes.

    Returns:
        These clocks, and how many of them are at the beginning.
    """
    clocks, first = [], 0
    if text[_KIND] == _CLOCK:
        user, _, which, timeout, _, flags = _SUBSCRIPTION.unpack_from(text)
        clocks.append((user, which, timeout, flags))
        first = 1
    last = len(text) - _SUBSCRIPTION.size
    if last and text[last + _KIND] == _CLOCK:
        user, _, which, timeout, _, flags = _SUBSCRIPTION.unpack_from(text, last)
        clocks.append((user, which, timeout, flags))
    return clocks, first


def _plan(network: Network, text: bytes, first: int) -> Plan:
    """The plan for these subscriptions: the last one if it is still valid, extended by new subscriptions at its end."""
    plan: Plan | None = network.plan
    if plan is not None and plan.changes == network.changes:
        if plan.text == text:
            return plan
        if text.startswith(plan.text):
            return _extended(network, plan, text, first)
    return _extended(network, Plan(network), text, first)


def _extended(network: Network, plan: Plan, text: bytes, first: int) -> Plan:
    """The plan, with what is in the text behind what it knows."""
    sockets, wanted, masks = network.sockets, plan.wanted, plan.masks
    changed: set[int] = set()
    known, plan.text = len(plan.text), text
    subscriptions = _SUBSCRIPTION.iter_unpack(text[known:])
    for place, (user, kind, which, timeout, _, flags) in enumerate(subscriptions, first + known // _SUBSCRIPTION.size):
        if kind == _CLOCK:
            plan.clocks.append((user, which, timeout, flags))
        elif kind not in _MASKS:
            plan.answered.append(_EVENT.pack(user, INVAL, kind, 0, 0))
        elif which not in sockets:
            plan.files.append(place)
        else:
            found, mask = sockets[which], _MASKS[kind]
            if found.patient or not found.fds or (found.port and not found.listening):
                _prepare(network, plan, (user, kind, found))
            asked = _Asked(
                mask | _ALWAYS, _EVENT.pack(user, 0, kind, 1, 0), _EVENT.pack(user, 0, kind, 1, _HANGUP), found
            )
            for descriptor in found.fds:
                wanted.setdefault(descriptor, []).append(asked)
                masks[descriptor] = masks.get(descriptor, 0) | mask
                changed.add(descriptor)
    for descriptor in changed:
        plan.poller.register(descriptor, masks[descriptor])
    return plan


def _prepare(network: Network, plan: Plan, asked: tuple[int, int, Socket]) -> None:
    """Prepare a socket that cannot be polled yet, or a listener that is polled for the first time."""
    user, kind, found = asked
    ready = _EVENT.pack(user, SUCCESS, kind, 0, 0)
    if found.fds:
        found.patient = False
        try:
            if not found.listening:
                found.listen()  # now that the guest asks for connections
        except OSError as error:
            plan.answered.append(_EVENT.pack(user, of_host(error.errno), kind, 0, 0))
    elif found.request is None:  # it is not connected, or has failed to be: whatever it does then does not wait
        plan.answered.append(_EVENT.pack(user, SUCCESS, kind, 0, _HANGUP))
    elif _answered(network, found):
        plan.answered.append(ready)
    else:
        plan.connecting.append((ready, found))
        plan.poller.register(network.broker.fileno(), select.POLLIN)


def _due(network: Network, clock: _Clock, now: int, scratch: int) -> int:
    """When a clock is due, on the host's monotonic clock, in nanoseconds; less than 0 for a clock that is none."""
    _, which, timeout, flags = clock
    if which not in (_REALTIME, _MONOTONIC):
        return -1
    if not flags & _ABSOLUTE:
        return now + timeout
    if which == _REALTIME:
        return max(0, now + timeout - time.time_ns())
    if network.began is None:  # only the engine knows when the guest's clock began
        if network.native_now(scratch, 0, 0, 0):
            return -1
        network.began = time.monotonic_ns() - int.from_bytes(network.read(scratch, 8), "little")
    return network.began + timeout


def _file(network: Network, subscriptions: int, events: int, stored: int, place: int) -> bytes:
    """The engine's event for a descriptor that is its own. None of these keeps a guest waiting."""
    source = subscriptions + place * _SUBSCRIPTION.size
    user, kind = _SUBSCRIPTION.unpack_from(network.memory, source)[:2]
    error = network.native_poll(source, events, 1, stored)
    if error or network.get(stored) != 1:
        return _EVENT.pack(user, error or BADF, kind, 0, 0)
    return network.read(events, _EVENT.size)


def _waited(network: Network, plan: Plan, due: list[tuple[int, int]], now: int, ready: bool) -> list[bytes]:
    """The events of sockets and clocks, waited for unless something is ready."""
    until = min(due)[0] if due else None
    look = until is not None and until <= now  # as the C library asks how much there is to read
    while True:
        seconds = 0.0 if ready else None if until is None else max(0, until - now) / 1e9
        if plan.connecting:
            seconds = LOOK if seconds is None else min(seconds, LOOK)
        if not plan.wanted and not plan.connecting and network.wake < 0 and seconds is not None:
            time.sleep(min(seconds, _LONGEST))  # to the microsecond
            found = []
        else:
            found = _found(plan, network.poll(plan.poller, seconds), look)
        found += [event for event, one in plan.connecting if _answered(network, one)]
        now = time.monotonic_ns()
        found += [_EVENT.pack(user, SUCCESS, _CLOCK, 0, 0) for when, user in due if when <= now]
        if found or ready:
            return found


def _found(plan: Plan, polled: list[tuple[int, int]], look: bool = False) -> list[bytes]:
    """The events of sockets. `look`: say how much there is to read."""
    found: list[bytes] = []
    for descriptor, mask in polled:
        for wants, event, hangup, one in plan.wanted.get(descriptor, ()):
            if not mask & wants or (len(one.fds) > 1 and any(event is other for other in found)):
                continue  # a listener may have several descriptors
            one.drained = False
            if look and not one.port:
                event = _sized(event, descriptor)
            found.append(hangup if mask & select.POLLHUP else event)
    return found


def _sized(event: bytes, descriptor: int) -> bytes:
    """The event with the number of bytes that there are to read, if it is one of reading."""
    user, error, kind, _, flags = _EVENT.unpack(event)
    if kind != _READ:
        return event
    size = array.array("i", [0])
    try:
        fcntl.ioctl(descriptor, termios.FIONREAD, size)
    except OSError:
        return event
    return _EVENT.pack(user, error, kind, size[0], flags)


def _answered(network: Network, one: Socket) -> bool:
    """Whether the broker has answered a connect. If so, the socket is connected now, or has failed."""
    if one.request is not None:
        answer = network.broker.take(one.request)
        if answer is None:
            return False
        one.request, one.error = None, answer.error
        network.changes += 1
        if not answer.error:
            one.become(answer.fds)
            network.settle(one)
    return True
