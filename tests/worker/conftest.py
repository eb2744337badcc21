"""The interpreters that the worker has to run under."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

OLDEST = "3.10"


def interpreter(version: str) -> str | None:
    """A Python of this version ("3.10") on this machine: on PATH, or among those of pyenv."""
    candidates = [shutil.which(f"python{version}")]
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates += sorted(map(str, root.glob(f"versions/{version}.*/bin/python{version}")))
    for candidate in filter(None, candidates):
        answer = subprocess.run(
            [candidate, "-c", "import sys; print(sys.executable)"], capture_output=True, text=True, timeout=60
        )
        if answer.returncode == 0:
            return answer.stdout.strip()
    return None


def printed(python: str, program: str) -> Any:
    """What a program prints as JSON under that interpreter, whatever is set for it in the environment."""
    done = subprocess.run([python, "-I", "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


@pytest.fixture(params=[OLDEST, "3.11", "3.12", "3.13", "3.14"])
def each_python(request: pytest.FixtureRequest) -> str:
    """Every interpreter that a worker may run under, of those that are here."""
    found = interpreter(request.param)
    if found is None:
        pytest.skip(f"there is no python{request.param}")
    return found


@pytest.fixture(params=["own", OLDEST])
def python(request: pytest.FixtureRequest) -> str:
    """The interpreter of a worker process: this one, and the oldest that an engine may need."""
    if request.param == "own":
        return sys.executable
    found = interpreter(OLDEST)
    if found is None:
        message = f"python{OLDEST} is needed: the worker must run under it"
        if os.environ.get("CI"):
            pytest.fail(message, pytrace=False)
        pytest.skip(message)
    return found
