"""The main part of the broker's process: it takes messages from the shim about containers, and serves their requests.

The broker keeps no other state. If it dies, the shim starts another one and tells it the same. The shim's side is
`supervisor.brokers`.

Messages from the shim:
- `add`: the name of a container, with its `grant`, `datagrams` (see `Client`), and `again` if another broker had this
  container before. Descriptors: its control socket, and the pod's network namespace if it has one.
- `remove`: the name of a container.
- `never`: the addresses and ports of the node's own API. They replace earlier ones.

Messages to the shim: `ready`; and `refused` with a name, and in `what` the destination that was not granted.
"""

from __future__ import annotations

import errno
import gc
import os
import resource
import signal
import socket
import traceback
from collections import deque

from .. import linux, packets, wire
from ..grants import Grant, places_of
from ..log import log_problem
from ..loop import READ, WRITE, Loop
from . import confinement
from .clients import Client, Services
from .egress import NodeApi
from .places import GONE, NODE, Places

_SOCKETS_OF_REQUEST = 3
"""How many sockets one request has open at most, usually."""
_LEAST = 4
"""How many requests each container may always have under way, even if there are very many containers."""
_MAX_UNSAID = 4096
_MESSAGES_PER_TURN = 16


class Broker:
    """All containers of a node that may ask for sockets.

    Args:
        channel: the socket to the shim.
        descriptors: how many descriptors this process may have open.
    """

    def __init__(self, loop: Loop, channel: socket.socket, descriptors: int, dns_port: int = 53) -> None:
        self._loop = loop
        self._channel = channel
        self._descriptors = descriptors
        self._clients: dict[str, Client] = {}
        self._unsaid: deque[bytes] = deque()
        self._services = Services(loop, Places(), self._refused, self._most, NodeApi(), dns_port)
        channel.setblocking(False)
        loop.add(channel, READ, self._ready)

    def run(self) -> None:
        """Serve until the shim leaves."""
        self._loop.run()

    def say(self, message: wire.Message) -> None:
        """Send a message to the shim."""
        if len(self._unsaid) < _MAX_UNSAID:  # if too many wait, the shim does not hear of all refusals
            self._unsaid.append(wire.pack(message))
        self._flush()

    def _flush(self) -> None:
        while self._unsaid:
            try:
                wire.send(self._channel, self._unsaid[0])
            except BlockingIOError:
                break
            except OSError:
                self._loop.stopped = True
                return
            self._unsaid.popleft()
        self._loop.change(self._channel, READ | WRITE if self._unsaid else READ)

    def _refused(self, name: str, what: str) -> None:
        self.say({"refused": name, "what": what})

    def _most(self) -> int:
        """How many requests each container may have under way now: its share of this process's descriptors."""
        share = self._descriptors // (2 * _SOCKETS_OF_REQUEST * max(1, len(self._clients)))
        return max(_LEAST, min(packets.MAX_UNDER_WAY, share))

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        for _ in range(_MESSAGES_PER_TURN if events & READ else 0):
            try:
                received = wire.receive(self._channel)
            except BlockingIOError:
                return
            except ConnectionResetError:  # it has left without having read all
                received = None
            except (wire.WireError, OSError) as error:
                log_problem(f"the broker cannot understand the shim: {error}")
                received = None
            if received is None:  # the shim has left
                self._loop.stopped = True
                return
            self._hear(*received)

    def _hear(self, message: wire.Message, descriptors: list[int]) -> None:
        if "never" in message:
            wire.close(descriptors)
            try:
                self._services.node_api.moved_to(places_of(message["never"]))
            except (ValueError, TypeError, IndexError) as error:
                log_problem(f"the broker cannot understand where the node's API is: {error}")
            return
        if "add" not in message or not descriptors:
            wire.close(descriptors)
            known = self._clients.pop(str(message.get("remove")), None)
            if known is not None:
                known.close()
            return
        name = str(message["add"])
        before = self._clients.pop(name, None)
        if before is not None:
            before.close()
        control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, descriptors[0])
        namespace = descriptors[1] if len(descriptors) > 1 else NODE
        wire.close(descriptors[2:])
        try:
            grant = Grant.of(message.get("grant"))
            if grant.namespace and namespace == NODE:
                namespace = GONE
        except wire.WireError as error:
            log_problem(f"the broker cannot serve container {name}: {error}")
            control.close()
            wire.close(descriptors[1:])
            return
        client = Client(name, control, namespace, grant, message.get("datagrams") is True, self._services)
        self._clients[name] = client
        if message.get("again"):
            client.restarted()


def main(arguments: list[str]) -> int:
    """Serve the channel, which is descriptor 0, until the shim closes it. `arguments`: the shim's pid, the DNS port."""
    linux.die_with_parent(signal.SIGKILL)
    if os.getppid() != int(arguments[0]):  # the shim has already ended
        return 1
    dns_port = int(arguments[1]) if len(arguments) > 1 else 53
    linux.set_name("wasmlet-broker")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, os.dup(0))
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for standard in (0, 1):
        os.dup2(null, standard)
    os.close(null)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        broker = Broker(Loop(), channel, hard if hard != resource.RLIM_INFINITY else 1 << 20, dns_port)
        _rehearse()
        confinement.enter()
    except OSError as error:
        log_problem(f"the broker cannot start: {error}")
        return 1
    gc.collect()
    gc.freeze()
    broker.say({"ready": True})
    broker.run()
    return 0


def _rehearse() -> None:
    """Make Python load the modules that it loads on first use: later this process can open no file."""
    try:
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    except OSError:
        traceback.format_exc()
