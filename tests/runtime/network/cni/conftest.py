"""A network namespace of a test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.runtime.network.spaces import own_namespace


@pytest_asyncio.fixture
async def space() -> AsyncIterator[None]:
    with own_namespace():
        yield
