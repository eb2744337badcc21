"""What a package index shows of each distribution has no link that leads nowhere there."""

from __future__ import annotations

import importlib.metadata
import re

import pytest

from tests.docs.console import ROOT

NAMES = ("wasmlet", *sorted(f"wasmlet-{path.parent.name}" for path in (ROOT / "providers").glob("*/pyproject.toml")))
TARGETS = re.compile(r"\]\(([^)\s]+)\)")


def description(name: str) -> str:
    """As the build has put it into the installed distribution's metadata."""
    found = importlib.metadata.metadata(name).get_payload()
    assert isinstance(found, str)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    text = description(name)
    assert name in text
    assert [target for target in TARGETS.findall(text) if not target.startswith(("https://", "#"))] == []


def test_what_stood_in_readme_is_named_by_its_path() -> None:
    text, source = description("wasmlet"), (ROOT / "README.md").read_text("utf-8")
    local = [target for target in TARGETS.findall(source) if "://" not in target and not target.endswith(".svg")]
    assert len(local) > 20
    assert [target for target in local if f"`{target}`" not in text and target not in text] == []
    assert "https://github.com/virtual-kubelet" in text
