"""The guest that does what its arguments say, as an image of a file."""

from __future__ import annotations

import pytest

from tests.conftest import CompileGuest
from tests.guests import build


@pytest.fixture(scope="session")
def image(compile_guest: CompileGuest) -> str:
    return f"file://{build('driver', compile_guest)}"
