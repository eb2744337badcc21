"""What tests of pods' networks share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from wasmlet.runtime.files.memory import Memory


@pytest.fixture(autouse=True)
def _nothing_stays_in_memory(tmp_path: Path) -> Iterator[None]:
    """A network of a test's own, which nobody closes, has written down in memory which pod has which address."""
    yield
    for link in tmp_path.rglob("memory"):
        if left := Memory(link.parent).existing():
            shutil.rmtree(left)
