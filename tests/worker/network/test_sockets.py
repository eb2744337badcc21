"""How a guest's process asks for sockets, with this process as the broker."""

from __future__ import annotations

import os
import socket

import pytest

from tests.shared.descriptors import open_descriptors
from wasmlet.worker import wire
from wasmlet.worker.guest.sockets import Sockets
from wasmlet.worker.packets import MAX_PACKET


class Ends(Exception):
    """The guest is to end."""


def test_a_guest_that_ends_while_it_asks_for_listeners_keeps_none() -> None:
    """Other guests of its process live on, and have to do without what it keeps."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    waits = 0

    def wait(descriptor: int) -> bool:
        nonlocal waits
        waits += 1
        if waits > 1:
            raise Ends
        number = wire.unpack(theirs.recv(MAX_PACKET))["n"]
        wire.send(theirs, wire.pack({"re": number}), (0, 0))
        return True

    with theirs:
        listeners = [{"number": 8080}, {"number": 8081}]
        sockets = Sockets(os.dup(ours.fileno()), {"listeners": listeners}, wait)
        ours.close()
        before = open_descriptors()
        with pytest.raises(Ends):
            sockets.open_listeners()
        sockets.close()
        assert open_descriptors() < before
