"""What README says at its top and in its tables is so."""

from __future__ import annotations

import re
import tomllib

from tests.docs.console import ROOT

README = (ROOT / "README.md").read_text("utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def section(title: str) -> str:
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(title: str) -> list[list[str]]:
    """The cells of a section's table, without its head."""
    found = [line.strip("| ").split(" | ") for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in found[2:]]


def test_its_top_says_for_whom_where_and_how_far() -> None:
    top = README.partition("\n## ")[0]
    for part in ("**For whom.**", "**Not for you**", "**Status.**", "**Runs on.**", "docs/pictures/node.svg"):
        assert part in top, part
    oldest = PROJECT["requires-python"].removeprefix(">=")
    assert f"Python {oldest} to " in top
    assert "Linux on x86_64 or aarch64" in top
    assert f"Version {PROJECT['version'].rpartition('.')[0]}, alpha" in top
    assert "Development Status :: 3 - Alpha" in PROJECT["classifiers"]
    checks = len(list((ROOT / "tests/conformance").rglob("test_[0-9][0-9]_*.py")))
    assert f"[{checks} behaviours of a kubelet](tests/conformance)" in top


def test_what_a_guest_can_and_cannot_do() -> None:
    table = {name: (can, cannot) for name, can, cannot in rows("What a guest can and cannot do")}
    assert set(table) == {"code", "network", "files", "kubectl"}
    assert "threads" in table["code"][1]
    assert "components with WASI 0.2" in table["code"][0]


def test_what_it_claims_beside_others_is_linked_to_what_shows_it() -> None:
    """To a test or a page of ours; what another project has or lacks, to where that is said."""
    table = rows("Beside others")
    assert len(table) > 8
    for name, ours, *theirs in table:
        if ours.startswith(("yes,", "no")) or name in ("is", "runs"):
            continue
        links = re.findall(r"\]\(([^)]+)\)", ours)
        assert links, name
        assert all((ROOT / link).exists() for link in links)
        assert all("](https://" in cell for cell in theirs if cell.startswith("["))
