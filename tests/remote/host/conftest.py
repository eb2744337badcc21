"""A host that agents join, in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import TestServer

from tests.remote.host.far_host import FarHost


@pytest.fixture
async def far() -> AsyncIterator[FarHost]:
    host = FarHost()
    async with TestServer(host.app(), host="127.0.0.1") as server:
        host.url = str(server.make_url("/")).rstrip("/")
        yield host
