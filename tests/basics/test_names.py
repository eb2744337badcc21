"""Advice to somebody who mistyped a name says what exists, and never what was typed."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

import wasmlet
from wasmlet.cli import providers
from wasmlet.cli.commands import cli
from wasmlet.errors import ConfigError
from wasmlet.names import not_installed


@pytest.mark.parametrize(
    ("word", "installed", "advice"),
    [
        ("wastime", ["other", "wasmtime"], "(installed: other, wasmtime); did you mean 'wasmtime'?"),
        ("WasmTime", ["wasmtime"], "(installed: wasmtime); did you mean 'wasmtime'?"),
        ("procesess", ["processes"], "(installed: processes); did you mean 'processes'?"),
        (
            "wasmr",
            ["wasmtime"],
            "(installed: wasmtime); did you mean 'wasmer'? It is not installed; try: pip install wasmlet-wasmer",
        ),
        ("wasmedge", ["wasmtime"], "(installed: wasmtime)"),
        (
            "wasmtim",
            [],
            "(installed: none); did you mean 'wasmtime'? It is not installed; try: pip install wasmlet-wasmtime",
        ),
        ("zzz", [], "(installed: none); try: pip install wasmlet-wasmtime"),
        ("", ["wasmtime"], "(installed: wasmtime)"),
    ],
)
def test_advice_names_what_exists(word: str, installed: list[str], advice: str) -> None:
    assert not_installed("provider", word, installed) == f"there is no provider {word!r} {advice}"


def test_one_that_is_not_installed_is_not_mistyped() -> None:
    assert (
        not_installed("provider", "wasmtime", [])
        == "provider 'wasmtime' is not installed (installed: none); try: pip install wasmlet-wasmtime"
    )


@pytest.mark.parametrize("word", ["wasmtme", "wasmtime ", "nothing", "wasmlet-wasmtime", "x; curl evil"])
def test_a_mistyped_provider_is_not_to_be_installed(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError) as found:
        providers.load(word)
    assert f"wasmlet-{word}" not in str(found.value)
    monkeypatch.setenv("WASMLET_PROVIDER", word)
    result = CliRunner().invoke(cli, ["run"])
    assert str(result.exception) == str(found.value)


def test_a_name_that_the_package_does_not_have() -> None:
    """The type checker says so, too: if it did not, it would take the comment for one that nothing needs."""
    with pytest.raises(ImportError, match="cannot import name 'Providr'"):
        from wasmlet import Providr  # type: ignore[attr-defined] # noqa: F401


def test_the_package_lists_what_it_exports() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import wasmlet; print(*dir(wasmlet))"], capture_output=True, text=True
    )
    assert set(wasmlet.__all__) <= set(done.stdout.split())
