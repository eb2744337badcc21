"""The locks cover what the projects ask for, by hash, and say nothing of where it came from.

requirements.lock is for the Pythons that wasmlet runs under; an engine that needs another one has a lock of its own.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = [ROOT / "requirements.lock", *sorted((ROOT / "providers").glob("*/*/environment.lock"))]
LOCK = "\n".join(path.read_text() for path in LOCKS)
JAVASCRIPT = ROOT / ".ci" / "javascript"
NPM = json.loads((JAVASCRIPT / "package-lock.json").read_text())
PROJECTS = [ROOT / "pyproject.toml", *sorted((ROOT / "providers").glob("*/pyproject.toml"))]


def asked_for() -> Iterator[Requirement]:
    """Every requirement of every project, those of its groups and extras too."""
    for path in PROJECTS:
        manifest = tomllib.loads(path.read_text())
        for requirements in (
            manifest["build-system"]["requires"],
            manifest["project"].get("dependencies", []),
            *manifest["project"].get("optional-dependencies", {}).values(),
            *manifest.get("dependency-groups", {}).values(),
        ):
            yield from map(Requirement, requirements)


def test_every_requirement_is_pinned_to_a_version_that_it_allows() -> None:
    own = {canonicalize_name(tomllib.loads(path.read_text())["project"]["name"]) for path in PROJECTS}
    pins: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", LOCK, re.MULTILINE):
        pins.setdefault(canonicalize_name(name), []).append(version)
    wrong = [
        str(requirement)
        for requirement in asked_for()
        if (name := canonicalize_name(requirement.name)) not in own
        and not any(requirement.specifier.contains(version) for version in pins.get(name, ()))
    ]
    assert wrong == [], f"not in requirements.lock; run `make lock`: {wrong}"


def test_every_pin_has_hashes() -> None:
    entries = re.split(r"\n(?=[A-Za-z0-9])", LOCK)
    without = [entry.splitlines()[0] for entry in entries if "==" in entry and "--hash=sha256:" not in entry]
    assert without == []


def test_every_package_of_npm_has_a_hash() -> None:
    (_, _), *packages = NPM["packages"].items()
    assert len(packages) > 100
    assert [name for name, package in packages if not package["integrity"].startswith("sha512-")] == []
    assert NPM["packages"][""]["dependencies"] == json.loads((JAVASCRIPT / "package.json").read_text())["dependencies"]


def test_no_address() -> None:
    assert re.findall(r"(?:https?|file|git\+\w+):\S*|--(?:extra-)?index-url\S*|--find-links\S*", LOCK) == []
    assert not re.search(r"https?:|git\+|file:|resolved", json.dumps(NPM))
