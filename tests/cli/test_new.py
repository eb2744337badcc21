"""`wasmlet new`: the package that it writes has types, is clean, and its tests pass at once."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent


def run(directory: Path, *command: str, code: int = 0) -> str:
    """Both streams of a program of the environment, as it is run in that directory."""
    done = subprocess.run(
        [BIN / command[0], *command[1:]],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
    )
    assert done.returncode == code, done.stdout
    assert "Traceback" not in done.stdout
    return done.stdout


@pytest.mark.parametrize("kind", ["provider", "engine"])
def test_what_is_written_passes_at_once(tmp_path: Path, kind: str) -> None:
    said = run(tmp_path, "wasmlet", "new", kind, "fast-lamps")
    assert "wrote wasmlet-fast-lamps/wasmlet_fast_lamps/__init__.py\n" in said
    package = tmp_path / "wasmlet-fast-lamps"
    written = {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()}
    assert written >= {"README.md", "pyproject.toml", "wasmlet_fast_lamps/py.typed", "tests/test_contract.py"}
    assert [name for name in written if re.search("@[A-Z]+@", (package / name).read_text())] == []
    if kind == "provider":
        assert "nodeSelector: {wasmlet.dev/provider: fast-lamps}" in (package / "pod.yaml").read_text()
    run(package, "ruff", "check")
    run(package, "ruff", "format", "--check")
    run(package, "mypy")
    # Of the engine's contract, which takes a minute, what shows each thing that an engine does.
    some = ("-k", "test_guest or exit_codes or logs_are_what or after_a_restart") if kind == "engine" else ()
    assert re.search(r"\d+ passed", run(package, "pytest", "-q", "-p", "no:cacheprovider", *some))


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (("provider", "Lamps"), 2, "expected small letters, digits and dashes"),
        (("provider", "../lamps"), 2, "expected small letters, digits and dashes"),
        (("engine", "wasmtime"), 1, "'wasmtime' is a name of wasmlet's own; choose another name"),
        (("provider", "agent"), 1, "'agent' is a name of wasmlet's own; choose another name"),
        (("provider", "interlink"), 1, "'interlink' is a name of wasmlet's own; choose another name"),
        (("engine", "dense"), 1, "'dense' is a name of wasmlet's own; choose another name"),
        (("engine", "runtime"), 1, "'runtime' is a name of wasmlet's own; choose another name"),
        (("engine", "doors", "--directory", "."), 1, "expected nothing there, found something"),
        (("provider",), 2, "Missing argument 'NAME'"),
        (("thing", "x"), 2, "No such command 'thing'"),
    ],
)
def test_what_a_user_gets_wrong(tmp_path: Path, words: tuple[str, ...], code: int, why: str) -> None:
    (tmp_path / "mine").write_text("mine")
    assert why in run(tmp_path, "wasmlet", "new", *words, code=code)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
