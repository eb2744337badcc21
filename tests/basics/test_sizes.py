"""Sizes have the same units wherever a user reads one: in messages and in documents."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from wasmlet.sizes import size

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "providers/*/README.md", "examples/*/README.md")
    for path in sorted(ROOT.glob(pattern))
]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1 KiB"),
        (12521, "12.23 KiB"),
        (64 * 2**20, "64 MiB"),
        (2**30 - 1, "1024 MiB"),
        (5 * 2**40, "5120 GiB"),
        (1536.0, "1.5 KiB"),
    ],
)
def test_size(count: float, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_have_these_units(document: str) -> None:
    assert re.findall(r"[0-9] ?(?:[kKMG]B|bytes?/s)\b", (ROOT / document).read_text("utf-8")) == []
