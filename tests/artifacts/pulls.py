"""A registry that has a module, and how tests pull it."""

from __future__ import annotations

import asyncio

from tests.artifacts.modules import module, sha
from wasmlet.artifacts.credentials import Keyring
from wasmlet.artifacts.hosts import RegistryConfig
from wasmlet.artifacts.pull import Puller, PullLimits
from wasmlet.artifacts.references import parse
from wasmlet.artifacts.store import Store
from wasmlet.testing import FakeClock

WASM = module(3000)
BLOB = f"/v2/app/blobs/{sha(WASM)}"
MANIFEST = "/v2/app/manifests/v1"


async def pull(
    store: Store,
    image: str,
    keychain: Keyring | None = None,
    clock: FakeClock | None = None,
    pauses: list[float] | None = None,
    **config: tuple[str, ...],
) -> bytes:
    """Pull, with a clock on which pauses take no time."""
    clock = clock or FakeClock()

    async def hurry() -> None:
        while True:
            pause = await clock.next_sleep()
            if pauses is not None:
                pauses.append(pause)
            clock.advance(pause)

    hurrying = asyncio.create_task(hurry())
    try:
        async with Puller(store, RegistryConfig(**config), clock, PullLimits(seconds=60)) as puller:  # type: ignore[arg-type]
            with (await puller.pull(parse(image), keychain or Keyring())).lease as lease:
                return lease.path.read_bytes()
    finally:
        hurrying.cancel()
        await asyncio.wait([hurrying])
