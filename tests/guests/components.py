"""Components for tests, of C and an interface in WIT: made once, as the modules are (`tests.guests`).

C becomes a module that follows the component model's canonical ABI, and `wasm-tools` makes a component of it.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from tests.guests import SOURCES, build, compile_c, kept

EXAMPLE = SOURCES.parents[1] / "examples" / "http"
MODULE = ("-target", "wasm32-freestanding", "-nostdlib", "-Wl,--no-entry", "-mno-bulk-memory")


def compile_component(source: Path, component: Path, *arguments: str) -> None:
    """Make a component of a C file and the world of its name in the WIT file beside it."""
    module = component.with_suffix(".module")
    compile_c(source, module, *MODULE, *arguments)
    world = source.with_suffix(".wit")
    tool("wasm-tools", "component", "embed", world, module, "--world", source.stem, "--output", module)
    tool("wasm-tools", "component", "new", module, "--output", component)
    module.unlink()


def tool(name: str, *arguments: object) -> None:
    """Run a program that is beside Python; it has to succeed."""
    command = [str(Path(sys.executable).with_name(name)), *map(str, arguments)]
    answer = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert answer.returncode == 0, f"{' '.join(command)}:\n{answer.stderr}"


def files() -> Path:
    """The command that does with files what it is told."""
    return build("files", compile_component, SOURCES / "files")


def web() -> Path:
    """The component that serves."""
    return build("web", compile_component, SOURCES / "web")


def net() -> Path:
    """The command that uses sockets and HTTP."""
    return build("net", compile_component, SOURCES / "net")


def python() -> Path:
    """The component of the example in Python."""

    def make(component: Path) -> None:
        tool(
            "componentize-py", "--quiet", "-d", EXAMPLE / "http.wit", "-w", "asking", "componentize",
            "-p", EXAMPLE / "python", "-o", component, "app",
        )  # fmt: skip

    parts = [part.read_bytes() for part in (EXAMPLE / "http.wit", EXAMPLE / "python" / "app.py")]
    return kept("app", [*parts, version("componentize-py").encode()], make)
