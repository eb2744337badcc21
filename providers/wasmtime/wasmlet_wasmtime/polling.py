"""`poll_oneoff` for a guest that has sockets: it waits for clocks, sockets and its standard input; files are ready.

What is worked out of a guest's subscriptions is kept, since most guests ask for the same again and again.
"""

from __future__ import annotations

import array
import fcntl
import select
import struct
import termios
import time
from typing import Any, NamedTuple

from .functions import INVAL
from .sockets import BADF, FAULT, LOOK, MOST, SUCCESS, Network, Socket, of_host

_SUBSCRIPTION = struct.Struct("<QB7xI4xQQH6x")
"""User data, kind; clock or descriptor, and of a clock its timeout, precision and flags."""
_EVENT = struct.Struct("<QHB5xQH6x")
"""User data, error, kind, bytes, flags."""
_CLOCK, _READ, _WRITE = 0, 1, 2
_REALTIME, _MONOTONIC, _ABSOLUTE = 0, 1, 1
_MOST_SUBSCRIPTIONS = 2 * MOST + 64
_HANGUP = 1
_FEW = 2
"""As many subscriptions as the C library has where it wants to know how many bytes there are."""
_ALWAYS = select.POLLERR | select.POLLHUP | select.POLLNVAL
_MASKS = {_READ: select.POLLIN, _WRITE: select.POLLOUT}


class Plan(NamedTuple):
    """What subscriptions mean.

    Attributes:
        text: the subscriptions.
        changes: of the guest's sockets, so far.
        clocks: user data, clock, timeout, flags.
        wanted: by descriptor of the host: the place, user data, kind and socket of each that asks for it.
        poller: for these.
        answered: events that are there already.
        files: places of subscriptions that are the engine's.
        connecting: user data, kind and socket of those that wait for the broker.
    """

    text: bytes
    changes: int
    clocks: list[tuple[int, int, int, int]]
    wanted: dict[int, list[tuple[int, int, int, Socket]]]
    poller: select.poll
    answered: list[tuple[int, int, int, int, int]]
    files: list[int]
    connecting: list[tuple[int, int, Socket]]


def poll_oneoff(network: Network, subscriptions: int, events: int, count: int, stored: int) -> int:
    if not 0 < count <= _MOST_SUBSCRIPTIONS:
        return INVAL
    end = subscriptions + count * _SUBSCRIPTION.size
    if end > network.size or events + count * _EVENT.size > network.size or stored + 4 > network.size:
        return FAULT
    plan = network.plan
    text = bytes(network.memory[subscriptions:end])
    if plan is None or plan.changes != network.changes or plan.text != text:
        plan = network.plan = _plan(network, text)
    now = time.monotonic_ns()
    due = [(_due(network, clock, now, events), clock[0]) for clock in plan.clocks]
    if due and min(due)[0] < 0:
        return INVAL
    found = plan.answered + [_file(network, subscriptions, events, stored, place) for place in plan.files]
    found += _waited(network, plan, due, now, count, bool(found))
    if plan.connecting or plan.files or plan.answered:
        network.plan = None
    for place, event in enumerate(found):
        _EVENT.pack_into(network.memory, events + place * _EVENT.size, *event)
    network.put(stored, len(found))
    return SUCCESS


def _plan(network: Network, text: bytes) -> Plan:
    plan = Plan(text, network.changes, [], {}, network.poller(), [], [], [])
    masks: dict[int, int] = {}
    for place, (user, kind, which, timeout, _, flags) in enumerate(_SUBSCRIPTION.iter_unpack(text)):
        if kind == _CLOCK:
            plan.clocks.append((user, which, timeout, flags))
        elif kind not in _MASKS:
            plan.answered.append((user, INVAL, kind, 0, 0))
        else:
            _subscribe(network, plan, masks, place, (user, kind, which))
    for descriptor, mask in masks.items():
        plan.poller.register(descriptor, mask)
    return plan


def _subscribe(network: Network, plan: Plan, masks: dict[int, int], place: int, asked: tuple[int, int, int]) -> None:
    user, kind, number = asked
    found = network.sockets.get(number)
    if found is None:
        plan.files.append(place)
    elif found.request is not None and not _answered(network, found):
        plan.connecting.append((user, kind, found))
        masks[network.broker.fileno()] = select.POLLIN
    elif not found.fds:  # as a socket that is not connected, or has failed to: whatever it does then does not wait
        plan.answered.append((user, SUCCESS, kind, 0, _HANGUP))
    else:
        if found.port and found.kind != 0 and not found.listening:
            error = _listening(found)
            if error:
                plan.answered.append((user, error, kind, 0, 0))
                return
        for descriptor in found.fds:
            plan.wanted.setdefault(descriptor, []).append((place, user, kind, found))
            masks[descriptor] = masks.get(descriptor, 0) | _MASKS[kind]


def _listening(found: Socket) -> int:
    """Have the listener listen, now that the guest asks for connections; the error number where it cannot."""
    found.patient = False
    try:
        found.listen()
    except OSError as error:
        return of_host(error.errno)
    return SUCCESS


def _due(network: Network, clock: tuple[int, int, int, int], now: int, scratch: int) -> int:
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


def _file(network: Network, subscriptions: int, events: int, stored: int, place: int) -> tuple[Any, ...]:
    """The engine's event for a descriptor that is its own. None of these keeps a guest waiting."""
    source = subscriptions + place * _SUBSCRIPTION.size
    user, kind = _SUBSCRIPTION.unpack_from(network.memory, source)[:2]
    error = network.native_poll(source, events, 1, stored)
    if error or network.get(stored) != 1:
        return user, error or BADF, kind, 0, 0
    return _EVENT.unpack_from(network.memory, events)


def _waited(
    network: Network, plan: Plan, due: list[tuple[int, int]], now: int, count: int, ready: bool
) -> list[tuple[int, int, int, int, int]]:
    """The events of sockets and clocks, waited for unless something is ready."""
    until = min(due)[0] if due else None
    while True:
        seconds = 0.0 if ready else None if until is None else max(0, until - now) / 1e9
        if plan.connecting:
            seconds = LOOK if seconds is None else min(seconds, LOOK)
        found = []
        if not plan.wanted and not plan.connecting and network.wake < 0 and seconds is not None:
            time.sleep(seconds)  # to the microsecond
            polled: list[tuple[int, int]] = []
        else:
            polled = network.poll(plan.poller, seconds)
        told: set[int] = set()
        for descriptor, mask in polled:
            for place, user, kind, one in plan.wanted.get(descriptor, ()):
                if mask & (_MASKS[kind] | _ALWAYS) and place not in told:
                    told.add(place)  # a listener may have several descriptors
                    hangup = _HANGUP if mask & select.POLLHUP else 0
                    found.append((user, SUCCESS, kind, _bytes(descriptor, kind, one, count), hangup))
        found += [(user, SUCCESS, kind, 0, 0) for user, kind, one in plan.connecting if _answered(network, one)]
        now = time.monotonic_ns()
        found += [(user, SUCCESS, _CLOCK, 0, 0) for when, user in due if when <= now]
        if found or ready:
            return found


def _answered(network: Network, one: Socket) -> bool:
    """Whether the broker has answered a request for a connection, which is then made or has failed."""
    if one.request is not None:
        answer = network.broker.take(one.request)
        if answer is None:
            return False
        one.request, one.error = None, answer.error
        network.changes += 1
        if not answer.error:
            one.become(answer.fds)
    return True


def _bytes(descriptor: int, kind: int, one: Socket, count: int) -> int:
    """How much there is to read; 1, for "something", where nobody wants to know."""
    if count > _FEW or kind != _READ or one.port:
        return 1
    found = array.array("i", [0])
    try:
        fcntl.ioctl(descriptor, termios.FIONREAD, found)
    except OSError:
        return 1
    return found[0]
