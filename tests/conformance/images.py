"""An image in a registry of its own for a check, and the credentials that it asks for."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest_asyncio

from tests.artifacts import registries
from tests.artifacts.conftest import docker_registry
from tests.conformance.machine import Machine
from wasmlet.artifacts import push
from wasmlet.artifacts.credentials import auths_of
from wasmlet.artifacts.hosts import RegistryConfig
from wasmlet.artifacts.references import parse
from wasmlet.clock import SystemClock

__all__ = ["docker_registry", "login", "private"]


def login(address: str, password: str = registries.PASSWORD) -> dict[str, Any]:
    """What `kubectl create secret docker-registry` keeps."""
    auth = base64.b64encode(f"{registries.USER}:{password}".encode()).decode()
    return {"auths": {address: {"auth": auth}}}


@pytest_asyncio.fixture(loop_scope="session")
async def private(machine: Machine, docker_registry: Path, tmp_path: Path) -> AsyncGenerator[str, None]:
    """An image in a registry that wants a password."""
    directory = tmp_path / "private"
    async with registries.registry(docker_registry, directory, **registries.basic(directory)) as address:
        module = await asyncio.to_thread(push.load, machine.driver)
        reference, config = parse(f"{address}/team/driver:v1"), RegistryConfig(insecure_registries=(address,))
        keyring = auths_of(login(address)["auths"])
        artifact = push.artifact(module, {}, "v0")
        pusher = push.Pusher(keychain=keyring, config=config, clock=SystemClock())
        await pusher.push(module, artifact, reference)
        yield str(reference)
