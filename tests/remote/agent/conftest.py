"""An agent with the reference provider, for all tests of a file."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.remote.agents import AgentProcess, running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def agent(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AgentProcess]:
    async with running(tmp_path_factory.mktemp("agent") / "state") as found:
        yield found
