"""What holds for the sources as a whole: imports go down, no circles, no large folders or files, and the public API."""

from __future__ import annotations

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools import house

ROOT = Path(__file__).parents[2]
PUBLIC = ("wasmlet", "wasmlet.runtime", "wasmlet.testing", "wasmlet.cli")
"""The packages whose `__all__` is the API."""
USERS = {
    "wasmlet_processes": ROOT / "examples/custom_provider",
    "wasmlet_clock": ROOT / "examples/custom_capability",
    "wasmlet_wasmtime": ROOT / "providers/wasmtime",
    "wasmlet_wasmer": ROOT / "providers/wasmer",
}
MOST_MODULES = 25
MOST_LINES = 400
"""For whoever reads a file; one that has grown beyond is split by what it is about."""


def test_a_planted_circle_is_found(tmp_path: Path) -> None:
    package = tmp_path / "planted"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "one.py").write_text("from planted import two\n")
    (package / "two.py").write_text("from .three import name\n")
    # For typing alone is an import, too: whoever reads one of the two files has to know the other.
    (package / "three.py").write_text(
        "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    import planted.one\nname = 1\n"
    )
    (package / "four.py").write_text("from planted.one import two\n")
    assert house.circles(house.modules(tmp_path, "planted")) == [["planted.one", "planted.three", "planted.two"]]


def test_no_modules_import_each_other() -> None:
    assert house.circles(house.modules(ROOT, "wasmlet")) == []


def test_a_planted_hall_is_found(tmp_path: Path) -> None:
    for folder, count in {".venv": 1, "tests": MOST_MODULES, "tests/hall": MOST_MODULES}.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "data.txt").touch()
        for number in range(count):
            (tmp_path / folder / f"module_{number}.py").touch()
    (tmp_path / "tests/hall/test_one_more.py").touch()
    assert house.modules_in_folders(tmp_path) == {"tests": MOST_MODULES, "tests/hall": MOST_MODULES + 1}
    assert halls(tmp_path) == {"tests/hall": MOST_MODULES + 1}


def halls(root: Path) -> dict[str, int]:
    return {folder: count for folder, count in house.modules_in_folders(root).items() if count > MOST_MODULES}


def test_no_folder_is_a_hall() -> None:
    assert house.modules_in_folders(ROOT).keys() >= {
        "wasmlet", "providers/wasmtime/wasmlet_wasmtime", "benchmarks", "tests", "tests/conformance/states"
    }  # fmt: skip
    assert halls(ROOT) == {}


def test_a_planted_long_file_is_found(tmp_path: Path) -> None:
    for folder in (".ci", ".venv", "build", "tests/below"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "long.py").write_text("x = 1\n" * (MOST_LINES + 1))
    (tmp_path / "tests/short.py").write_text("x = 1\n" * MOST_LINES)
    assert house.lengths(tmp_path) == {
        ".ci/long.py": MOST_LINES + 1, "tests/below/long.py": MOST_LINES + 1, "tests/short.py": MOST_LINES
    }  # fmt: skip


def test_no_file_is_long() -> None:
    found = house.lengths(ROOT)
    assert "tests/tools/test_house.py" in found
    assert {path: lines for path, lines in found.items() if lines > MOST_LINES} == {}


def test_no_descriptor_is_closed_twice() -> None:
    """uvloop closes that of a file object which it is given twice; another thread may have it by then (see `ready`)."""
    given = {
        f"{path.relative_to(ROOT)}: {node.attr}"
        for base in ("wasmlet", "providers")
        for path in (ROOT / base).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Attribute) and node.attr in ("connect_read_pipe", "connect_write_pipe")
    }
    assert given == set()


def test_the_worker_is_the_standard_library_alone() -> None:
    foreign = {
        f"{name}: {base}"
        for name, path in house.modules(ROOT, "wasmlet.worker").items()
        for base, _ in house.imports(name, path)
        if base.split(".")[0] not in sys.stdlib_module_names and not base.startswith("wasmlet.worker")
    }
    assert foreign == set()


PLANTED = {
    "wasmlet/model/pod.py": "import wasmlet.kube",
    "wasmlet/runtime/files/volumes.py": "import wasmlet.runtime.pods.pod",
    "wasmlet/controlplane/storage/store.py": "import wasmlet.controlplane.http.server",
    "wasmlet/worker/guest/zygote.py": "from wasmlet.worker.supervisor import shim",
    "wasmlet/worker/linux.py": "import attrs",
}


def test_planted_imports_break_the_contracts(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "wasmlet", tmp_path / "wasmlet", ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for file, line in PLANTED.items():
        path = tmp_path / file
        path.write_text(path.read_text() + f"\n{line}\n")
    linter = Path(sys.executable).with_name("lint-imports")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "NO_COLOR": "1"}
    done = subprocess.run([linter, "--no-cache"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert set(re.findall(r"(.+) BROKEN", done.stdout)) == {
        "The house: an import goes down, never up",
        "The rooms of the runtime",
        "The rooms of the control plane",
        "The rooms of the worker",
        "The worker is the standard library alone",
        "An agent has no Kubernetes client",  # by way of the model
    }


@pytest.mark.parametrize("package", USERS)
def test_who_builds_on_wasmlet_uses_what_it_exports(package: str) -> None:
    found = house.modules(USERS[package], package)
    assert found
    private = []
    for name, path in found.items():
        for base, taken in house.imports(name, path):
            if base.split(".")[0] != "wasmlet":
                continue
            exported = getattr(importlib.import_module(base), "__all__", ()) if base in PUBLIC else ()
            if not (base in PUBLIC and (not taken or taken in exported)):
                private.append(f"{name}: {base}.{taken}")
    assert private == []


@pytest.mark.parametrize("package", PUBLIC)
def test_what_is_exported_is_there_and_documented(package: str) -> None:
    module = importlib.import_module(package)
    for name in module.__all__:
        assert getattr(module, name, None) is not None, name
        if isinstance(getattr(module, name), type):
            assert getattr(module, name).__doc__, name


@pytest.mark.parametrize("package", PUBLIC)
def test_docstrings_say_what_is_raised(package: str) -> None:
    """Types are in the signatures, which mypy checks; errors are in docstrings alone."""
    module = importlib.import_module(package)
    exported = {name: getattr(module, name) for name in module.__all__}
    found = {
        f"{name}: {function.__qualname__}": missing
        for name, value in exported.items()
        for function in house.public_functions(value)
        if function.__module__.startswith("wasmlet") and (missing := house.lacks(function, value))
    }
    assert found == {}


def test_a_docstring_that_lacks_something_is_found() -> None:
    class Above:
        def quiet(self) -> None:
            """Do it."""

    class Planted(Above):
        def quiet(self) -> None: ...

        def bare(self) -> None: ...

        def loud(self) -> None:
            """Do it.

            Raises:
                KeyError: it is not there.
            """
            if self:
                raise KeyError("x")
            raise OSError("z")

    found = {function.__name__: house.lacks(function, Planted) for function in house.public_functions(Planted)}
    assert found == {"quiet": [], "bare": ["a docstring"], "loud": ["OSError under Raises"]}
