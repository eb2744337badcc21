"""Finds the Python interpreter that has wasmer.

wasmer's last release is for Python 3.7 to 3.10, and wasmlet's workers need 3.10. These places are tried, in this order:

- the interpreter that the configuration names; if it names one, no other is tried;
- an environment that `wasmlet-wasmer setup` has made (`setup`);
- a python3.10 on PATH, or of uv or pyenv, if it has wasmer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs

from wasmlet import ConfigError

WASMER = "1.1.0"
"""The release of wasmer and of its compiler; there will be no other."""

PYTHON = "3.10"
SECONDS = 30.0
"""How long an interpreter may take to say what it has."""

_QUESTION = """
import json, sys
found = {"python": "%d.%d" % sys.version_info[:2]}
try:
    import wasmer, wasmer_compiler_cranelift
    from importlib.metadata import version
    found["wasmer"], found["compiler"] = version("wasmer"), version("wasmer-compiler-cranelift")
except Exception as error:
    found["error"] = "%s" % error
print(json.dumps(found))
"""


@attrs.frozen
class Interpreter:
    """What an interpreter says it is.

    Attributes:
        lacks: what it does not have for wasmer to run in it; "" for nothing.
    """

    path: Path
    python: str
    lacks: str


async def find(configured: Path | None, environ: Mapping[str, str]) -> Path:
    """The interpreter that wasmer runs in.

    Args:
        configured: the one that the configuration names.
        environ: has PATH, HOME and the like, as `os.environ`.

    Raises:
        ConfigError: there is none; says where it was looked for, and what to do.
    """
    if configured is not None:
        found = await asyncio.to_thread(ask, configured)
        if found.lacks:
            raise ConfigError(
                f"--engine-python {configured}: expected a Python {PYTHON} with wasmer {WASMER}, found that "
                f"{found.lacks}; `wasmlet-wasmer setup` makes one"
            )
        return configured
    asked = []
    for path in [*(directory / "bin" / "python" for directory in environments(environ)), *interpreters(environ)]:
        found = await asyncio.to_thread(ask, path)
        if not found.lacks:
            return path
        asked.append(found)
    seen = ", ".join(f"{one.path} ({one.lacks})" for one in asked)
    some = any(one.python == PYTHON for one in asked)
    first = "" if some else f"install Python {PYTHON} (uv python install {PYTHON}, or pyenv install {PYTHON}), then "
    raise ConfigError(
        f"wasmer needs a Python {PYTHON} of its own with wasmer {WASMER}, and none was found. Looked at "
        f"{seen}, and for python{PYTHON} on PATH and under uv and pyenv. To make one: {first}run "
        "`wasmlet-wasmer setup`; to use another: --engine-python"
    )


def environments(environ: Mapping[str, str]) -> list[Path]:
    """Where environments for wasmer are looked for: in the virtual environment of this process, and of the user."""
    found = [data_directory(environ)]
    return [Path(sys.prefix) / "wasmer", *found] if sys.prefix != sys.base_prefix else found


def data_directory(environ: Mapping[str, str]) -> Path:
    """The user's own environment for wasmer (XDG base directory specification)."""
    return _data_home(environ) / "wasmlet" / "wasmer"


def interpreters(environ: Mapping[str, str]) -> Iterator[Path]:
    """The Pythons of the right version that are installed here, whatever they have: on PATH, of uv, of pyenv."""
    seen = set()
    uv = Path(environ.get("UV_PYTHON_INSTALL_DIR") or _data_home(environ) / "uv" / "python")
    pyenv = Path(environ.get("PYENV_ROOT") or _home(environ) / ".pyenv") / "versions"
    on_path = shutil.which(f"python{PYTHON}", path=environ.get("PATH", ""))
    found = [Path(on_path)] if on_path else []
    for prefixes in (uv.glob(f"cpython-{PYTHON}*"), pyenv.glob(f"{PYTHON}*")):
        found += (prefix / "bin" / f"python{PYTHON}" for prefix in sorted(prefixes, reverse=True))
    for path in found:
        real = path.resolve()
        if real not in seen and os.access(path, os.X_OK):
            seen.add(real)
            yield path


def ask(path: Path) -> Interpreter:
    """Have an interpreter say what it is; blocks."""
    if not path.exists():
        return Interpreter(path, "", "it is not there")
    try:
        answer = subprocess.run(
            [path, "-I", "-c", _QUESTION],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            env={name: os.environ[name] for name in ("LD_LIBRARY_PATH", "PATH", "HOME") if name in os.environ},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Interpreter(path, "", f"it does not run: {error}")
    found = {}
    with contextlib.suppress(ValueError):
        found = json.loads(answer.stdout)
    if not isinstance(found, dict) or not found:
        said = (answer.stderr or answer.stdout).decode("utf-8", "replace").strip().splitlines()
        return Interpreter(path, "", f"it is no Python: {said[0][:200] if said else 'it says nothing'}")
    python = str(found.get("python"))
    versions = {str(found.get("wasmer")), str(found.get("compiler"))}
    if python != PYTHON:
        lacks = f"it is Python {python}"
    elif found.get("error"):
        lacks = f"it has no wasmer: {found['error']}"
    elif versions != {WASMER}:
        lacks = f"it has wasmer {' and '.join(sorted(versions))}"
    else:
        lacks = ""
    return Interpreter(path, python, lacks)


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("HOME") or Path.home())


def _data_home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("XDG_DATA_HOME") or _home(environ) / ".local" / "share")
