"""The converters between values of the component model and those of Python."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest
from wasmlet_wasmtime.p2 import values
from wasmtime.component import _types as types

THREADS, TIMES = 4, 5000


@pytest.fixture
def switching() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_threads_do_not_get_each_others_values(switching: None) -> None:
    """Requests are served by several threads: what one answers must not become what another one answers."""
    lower, lift = values.lower(types.String()), values.lift(types.String())
    wrong: list[str] = []

    def convert(text: str) -> None:
        for _ in range(TIMES):
            if (found := lift(None, lower(None, text), 0)) != text:
                wrong.append(f"{found} for {text}")

    threads = [threading.Thread(target=convert, args=(f"of thread {number}",)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong[:3]
