"""The wheels of all distributions, and of what `wasmlet new` writes: built, looked at, and installed apart."""

from __future__ import annotations

import email
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from wasmlet.cli.demo.hints import TRY
from wasmlet.cli.new.writing import Names, write

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
UV = (sys.executable, str(ROOT / ".ci/uv.py"), str(BIN / "uv"))
LOCK = str(ROOT / "requirements.lock")
WRITTEN = {"provider": "lamps", "engine": "doors"}
"""What `wasmlet new` writes here."""


def run(*command: str | Path, **variables: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, cwd=ROOT, env=os.environ | variables)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    directory = tmp_path_factory.mktemp("wheels")
    build = (*UV, "build", "--quiet", "--wheel", "--build-constraints", LOCK, "--out-dir", str(directory))
    run(*build, "--all-packages")
    for kind, name in WRITTEN.items():
        list(write(kind, Names(name), package := directory / name))
        run(*build, package)
    return sorted(directory.glob("*.whl"))


def test_what_is_in_a_wheel(wheels: list[Path]) -> None:
    own = {path.parent.name for path in ROOT.glob("providers/*/pyproject.toml")}
    assert {f"wasmlet_{name}" for name in own} < {wheel.name.partition("-")[0] for wheel in wheels}
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as opened:
            names = set(opened.namelist())
            (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
            said = email.message_from_bytes(opened.read(metadata))
            packages = {
                name.partition("/")[0] for name in names if name.endswith("/__init__.py") and name.count("/") == 1
            }
            assert packages, wheel.name
            assert {f"{package}/py.typed" for package in packages} <= names, wheel.name
            if wheel.name.partition("-")[0].removeprefix("wasmlet_") in WRITTEN.values():
                continue  # whose license is its author's to choose
            license_ = metadata.replace("METADATA", "licenses/LICENSE")
            assert license_ in names, wheel.name
            assert opened.read(license_) == (ROOT / "LICENSE").read_bytes()
            classifiers = said.get_all("Classifier") or []
            assert {f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13, 14)} <= set(classifiers)
            assert "Operating System :: POSIX :: Linux" in classifiers
            assert said["License-Expression"] == "Apache-2.0"


def test_installed_apart_they_are_found(wheels: list[Path], tmp_path: Path) -> None:
    """Not from the checkout: what is left out of a wheel is missed here."""
    target = tmp_path / "site"
    run(*UV, "pip", "install", "--quiet", "--no-deps", "--target", target, *wheels)
    start = f"import sys; sys.path.insert(0, {str(target)!r}); from wasmlet.cli import main; main(sys.argv[1:])"
    listed = json.loads(run(sys.executable, "-c", start, "providers", "-o", "json"))
    ready = {one["name"]: one["ready"] for one in listed}
    assert (ready["lamps"], ready["doors"], ready["wasmtime"]) == (True, True, True)
    made = tmp_path / "made"
    run(sys.executable, "-c", start, "new", "engine", "windows", "--directory", str(made))
    assert (made / "wasmlet_windows" / "guest.py").is_file()
    # What the demo names to try is there, too.
    assert set(TRY) <= {file.name for file in (target / "wasmlet" / "_examples").iterdir()}
    shown = run(sys.executable, "-c", start, "demo", "--port", "0")
    assert "pod/hello      Succeeded" in shown
