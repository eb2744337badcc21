"""The kubelet of node n1, with what it answers under the test's control."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.controlplane.client import Api
from tests.controlplane.kubelets.stand_in import Stand, stand_in
from wasmlet.testing import ControlPlane


@pytest.fixture
async def stand(control_plane: ControlPlane, api: Api, tmp_path: Path) -> AsyncIterator[Stand]:
    async with stand_in(control_plane, api, tmp_path) as found:
        yield found
