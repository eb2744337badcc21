"""Components and modules of JavaScript, Go and Rust, made by the tools that `make languages` fetches."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.guests import BUILD, SOURCES, kept
from tests.guests.components import EXAMPLE, tool

LANGUAGES = Path(sys.executable).parents[1] / "languages"
MODULES = LANGUAGES / "javascript" / "node_modules"
GO = LANGUAGES / "go" / "go" / "bin" / "go"
RUST = LANGUAGES / "rust" / "usr"
RUST_OF_WASI = RUST / "lib" / "rustlib" / "wasm32-wasi"
LISTENER = SOURCES / "listener"
ADAPTER = MODULES / "@bytecodealliance" / "jco" / "lib" / "wasi_snapshot_preview1.reactor.wasm"


def built(language: str) -> Path:
    """The component of this language; skips the test where its tools are not here."""
    make, sources, needed = {
        "javascript": (_javascript, ("app.js", "app.wit", "build.mjs"), [MODULES]),
        "go": (_go, ("main.go", "go.mod", "../http.wit"), [GO, ADAPTER]),
        "rust": (_rust, ("main.rs", "../http.wit"), [RUST]),
    }[language]
    if not all(place.exists() for place in needed) or (language == "javascript" and shutil.which("node") is None):
        pytest.skip(f"the tools of {language} are not here: make languages")
    return kept(language, [(EXAMPLE / language / name).read_bytes() for name in sources], make)


def listener(language: str) -> Path:
    """A module of preview 1 that serves HTTP at descriptor 3, in this language; skips the test as `built` does."""
    make, needed = {"go": (_go_listener, GO), "rust": (_rust_listener, RUST_OF_WASI)}[language]
    if not needed.exists():
        pytest.skip(f"the tools of {language} are not here: make languages")
    return kept(f"listener-{language}", [source.read_bytes() for source in sorted(LISTENER.iterdir())], make)


def adapted(module: Path) -> Path:
    """A module of preview 1, a command, as the component that the public adapter makes of it; skips as `built` does."""
    adapter = ADAPTER.with_name("wasi_snapshot_preview1.command.wasm")
    if not adapter.exists():
        pytest.skip("the public adapter is not here: make languages")

    def make(component: Path) -> None:
        tool(
            "wasm-tools", "component", "new", module, "--adapt", f"wasi_snapshot_preview1={adapter}",
            "--output", component,
        )  # fmt: skip

    return kept(f"{module.stem}-adapted", [module.read_bytes(), adapter.read_bytes()], make)


def _javascript(component: Path) -> None:
    _run("node", EXAMPLE / "javascript" / "build.mjs", MODULES, component)


def _go(component: Path) -> None:
    module = component.with_suffix(".module")
    _go_module(EXAMPLE / "go", module, "-buildmode=c-shared")
    tool("wasm-tools", "component", "embed", EXAMPLE / "http.wit", module, "--world", "http", "--output", module)
    adapter = f"wasi_snapshot_preview1={ADAPTER}"
    tool("wasm-tools", "component", "new", module, "--adapt", adapter, "--output", component)
    module.unlink()


def _go_listener(module: Path) -> None:
    _go_module(LISTENER, module)


def _go_module(source: Path, module: Path, *arguments: str) -> None:
    _run(
        GO, "build", "-C", source, *arguments, "-ldflags=-s -w", "-trimpath", "-o", module, ".",
        GOOS="wasip1", GOARCH="wasm", GOTOOLCHAIN="local", GOFLAGS="-mod=mod", GOPROXY="off", GOWORK="off",
        GOCACHE=str(BUILD / "go"), GOPATH=str(BUILD / "go"),
    )  # fmt: skip


def _rust(component: Path) -> None:
    module = component.with_suffix(".module")
    _rust_module("wasm32-unknown-unknown", EXAMPLE / "rust" / "main.rs", module)
    tool("wasm-tools", "component", "embed", EXAMPLE / "http.wit", module, "--world", "http", "--output", module)
    tool("wasm-tools", "component", "new", module, "--output", component)
    module.unlink()


def _rust_listener(module: Path) -> None:
    _rust_module("wasm32-wasi", LISTENER / "main.rs", module)


def _rust_module(target: str, source: Path, module: Path) -> None:
    libraries = [*RUST.glob("lib/*-linux-gnu"), *RUST.glob("lib/llvm-*/lib")]
    (linker,) = RUST.glob("lib/llvm-*/bin/wasm-ld")
    _run(
        RUST / "bin" / "rustc", "--sysroot", RUST, "--target", target, "-C", "opt-level=s", "-C", "panic=abort",
        "-C", "strip=symbols", "-C", f"linker={linker}", source, "-o", module,
        LD_LIBRARY_PATH=":".join(map(str, libraries)),
    )  # fmt: skip


def _run(*command: object, **variables: str) -> None:
    words = list(map(str, command))
    answer = subprocess.run(
        words, env={**os.environ, **variables}, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert answer.returncode == 0, f"{' '.join(words)}:\n{answer.stdout}{answer.stderr}"
