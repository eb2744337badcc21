"""What holds for the sources as a whole: examples use the public API only."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from tests import house

ROOT = Path(__file__).parent.parent
PUBLIC = ("wasmlet", "wasmlet.runtime", "wasmlet.testing", "wasmlet.cli")
"""The packages whose `__all__` is the API."""
USERS = {
    "wasmlet_processes": ROOT / "examples/custom_provider",
    "wasmlet_wasmtime": ROOT / "providers/wasmtime",
    "wasmlet_wasmer": ROOT / "providers/wasmer",
}


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
