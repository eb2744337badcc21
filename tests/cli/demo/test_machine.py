"""The machine of `wasmlet demo --pool`, where something is in the way of a node."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from wasmlet.cli.demo.machine import Machine, Settings
from wasmlet.errors import NotYet
from wasmlet.kube.config import SERVICE_ACCOUNT
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod
from wasmlet.model.status import Running, Waiting
from wasmlet.operator.pool import LABEL
from wasmlet.provider import NodeContext, StatusChanged
from wasmlet.runtime.files import atomic
from wasmlet.testing import FakeClock

NODE = Pod(
    {
        "metadata": {"name": "edge-0", "namespace": "wasmlet", "uid": "0123456789", "labels": {LABEL: "edge"}},
        "spec": {
            "volumes": [{"name": "token", "configMap": {"name": "token"}}],
            "containers": [
                {
                    "name": "node",
                    "image": "wasmlet",
                    "args": ["--nonsense"],
                    "ports": [{"containerPort": 10250}],
                    "volumeMounts": [{"name": "token", "mountPath": str(SERVICE_ACCOUNT)}],
                }
            ],
        },
    }
)
INPUTS = Inputs(config_maps={"token": {"metadata": {"name": "token"}, "data": {"token": "t"}}})


@asynccontextmanager
async def started(directory: Path, clock: FakeClock) -> AsyncIterator[Machine]:
    machine = Machine(Settings("https://127.0.0.1:1", (), {}), clock=clock)
    await machine.start(NodeContext("machine", "127.0.0.1", 110, directory))
    try:
        yield machine
    finally:
        await machine.stop()


async def state(machine: Machine) -> object:
    """The state of the node's container, once it has one."""
    async for change in machine.changes():
        if isinstance(change, StatusChanged):
            return change.status.containers[0].state
    raise AssertionError


async def test_a_node_that_cannot_be_started_is_tried_again(tmp_path: Path) -> None:
    clock, blocked = FakeClock(), tmp_path / NODE.uid[:8]
    blocked.write_text("not a directory")
    async with asyncio.timeout(60), started(tmp_path, clock) as machine:
        await machine.create_pod(NODE, INPUTS)
        for _ in range(2):
            found = await state(machine)
            assert isinstance(found, Waiting)
            assert found.reason == "CreateContainerError"
            assert str(blocked) in found.message
            await clock.next_sleep()
            clock.advance(31)
        with pytest.raises(OSError, match=NODE.uid[:8]):
            await machine.update_pod(NODE, INPUTS)
        blocked.unlink()
        while not isinstance(found, Running):
            await clock.next_sleep()
            clock.advance(31)
            found = await state(machine)


async def test_a_token_is_not_written_by_two_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writers, most = 0, 0
    write = atomic.write

    def counted(*arguments: Any) -> None:
        nonlocal writers, most
        writers += 1
        most = max(most, writers)
        time.sleep(0.05)
        write(*arguments)
        writers -= 1

    monkeypatch.setattr(atomic, "write", counted)
    async with asyncio.timeout(60), started(tmp_path, FakeClock()) as machine:
        await machine.create_pod(NODE, INPUTS)
        await asyncio.gather(*(machine.update_pod(NODE, INPUTS) for _ in range(5)))
    assert most == 1


async def test_where_no_address_is_free_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(address: tuple[str, int]) -> socket.socket:
        raise OSError(errno.EADDRINUSE, "Address already in use")

    monkeypatch.setattr(socket, "create_server", taken)
    async with started(tmp_path, FakeClock()) as machine:
        with pytest.raises(NotYet, match="no address of loopback can be had for port 10250: Address already in use"):
            await machine.create_pod(NODE, INPUTS)
        assert await machine.list_pods() == []
