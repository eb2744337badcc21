"""An API server that notes who came."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kube.judge import At, Pki, Server


@pytest.fixture
def at(tmp_path: Path) -> Iterator[At]:
    with Server(Pki.made(), tmp_path).serving() as server:
        yield At(tmp_path, server, Pki.made())
