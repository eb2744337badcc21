"""The module that the tests of `wasmlet demo` run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.guests import build


@pytest.fixture
def printing(tmp_path: Path, compile_guest: Callable[..., None]) -> Path:
    """The module that prints its greeting and its arguments; one argument alone is its exit code."""
    return Path(shutil.copy(build("print", compile_guest), tmp_path))
