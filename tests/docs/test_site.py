"""The documentation is built without a warning, shows what it is made from, and fetches nothing."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.tools import draw, hooks, reference
from tests.docs.console import ROOT

SOURCES = [path for base in ("wasmlet", "providers") for path in sorted((ROOT / base).rglob("*.py"))]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; each warning of a strict build is an error."""
    target = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", target],
        cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    return target


def test_every_page_is_there_and_fetches_nothing(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 45
    outside = re.compile(r'<(?:script|img|iframe)[^>]* src="(?:https?:)?//|<link[^>]* href="(?:https?:)?//')
    for page in pages:
        assert outside.search(page.read_text("utf-8")) is None, page
    assert "retries.yaml" in (site / "examples/index.html").read_text("utf-8")
    assert (site / "examples/retries.yaml").read_bytes() == (ROOT / "examples/retries.yaml").read_bytes()


def test_the_reference_has_every_option_and_the_api_every_method(site: Path) -> None:
    settings = html.unescape((site / "reference/configuration.html").read_text("utf-8"))
    for name in ("max-pods", "allow-local-modules", "engine-python", "push-images", "wascc-issuers"):
        assert f"<code>--{name}" in settings, name
    line = (site / "reference/command-line.html").read_text("utf-8")
    for command in ("wasmlet demo", "wasmlet push", "wasmlet host token", "wasmlet wascc sign", "wasmlet-agent join"):
        assert f"<code>{command}</code>" in line, command
    provider = (site / "reference/api/provider.html").read_text("utf-8")
    assert 'id="wasmlet.Provider.create_pod"' in provider
    assert "As `" not in provider
    assert len(re.findall(r"<tr>", (site / "reference/conformance.html").read_text("utf-8"))) == 84


def test_a_link_to_nothing_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    page = "docs/how-to/limits.md"
    assert hooks.rewritten("[a](../../examples/limits.yaml) [b](files.md#volumes)", page) == (
        "[a](../examples/limits.yaml) [b](files.md#volumes)"
    )
    assert hooks.rewritten("see [the test](../../tests/tools/test_house.py)", page) == "see the test"
    assert caplog.messages == []
    hooks.rewritten("[a](../nowhere.md)", page)
    assert caplog.messages == ["docs/how-to/limits.md: a link leads to 'docs/nowhere.md', which is not there"]


def test_annotations_and_labels_are_listed() -> None:
    listed = (ROOT / "docs/reference/annotations.md").read_text("utf-8")
    used = {name for path in SOURCES for name in re.findall(r'"((?:wascc\.)?wasmlet\.dev/[a-z-]+)"', path.read_text())}
    assert len(used) > 12
    assert sorted(name for name in used if name not in listed) == []


def test_metrics_are_listed() -> None:
    listed = (ROOT / "docs/reference/metrics.md").read_text("utf-8")
    counted = (ROOT / "wasmlet/node/metrics.py", ROOT / "wasmlet/node/figures.py")
    used = {name for path in counted for name in re.findall(r'"(wasmlet_[a-z_]+)"', path.read_text())}
    assert len(used) > 7
    assert sorted(name for name in used if name not in listed) == []


@pytest.mark.parametrize("source", sorted(draw.PICTURES.glob("*.toml")), ids=lambda path: path.stem)
def test_pictures_are_drawn_from_their_texts(source: Path) -> None:
    drawn = source.with_suffix(".svg").read_text("utf-8")
    assert draw.picture(source.read_text("utf-8")) == drawn, "the text has changed: run `make pictures`"


def test_generated_pages_have_names_of_their_own() -> None:
    assert [name for name in reference.NAMES if (ROOT / "docs" / name).exists()] == []
