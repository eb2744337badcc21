"""Fixtures for the tools that tests need from outside: kubectl and the compiler that builds guests.

With CI set in the environment a tool that is missing fails the tests that need it; elsewhere they are skipped, and the
summary says why. Fixtures of one part only live beside its tests.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from wasmlet_wasmer.environment import find

from tests.guests import compile_c
from wasmlet.errors import ConfigError

OLDEST_KUBECTL = (1, 30)

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever began the tests with it ignored (nohup) means the tests alone

CompileGuest = Callable[..., None]


def need(tool: str, why: str) -> None:
    """End the test: failed in CI, skipped elsewhere."""
    message = f"{tool} is needed: {why}"
    if os.environ.get("CI"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("wasmlet", "a real cluster instead of the embedded control plane")
    group.addoption("--kubeconfig", metavar="FILE", help="administrator's credentials of a cluster made for tests")
    group.addoption("--node-credentials", metavar="COMMAND", help="given a node's name, prints its kubeconfig's path")
    group.addoption("--client-ca-file", metavar="FILE", help="the CA of that cluster's clients")
    group = parser.getgroup("conformance", "what runs the guests of the conformance checks")
    group.addoption("--engine", choices=("wasmtime", "wasmer"), help="one engine; without it each in turn")
    group.addoption("--handler", default="", help="the RuntimeClass handler, of those that the engine has")


@pytest.fixture(scope="session")
def kubectl() -> Path:
    """A kubectl that is new enough: the one `make kubectl` fetched, or the one on PATH."""
    seen = []
    for found in (shutil.which("kubectl", path=str(Path(sys.executable).parent)), shutil.which("kubectl")):
        if found is None:
            continue
        answer = subprocess.run([found, "version", "--client"], capture_output=True, text=True, timeout=60)
        version = re.search(r"Client Version: .*?v(\d+)\.(\d+)", answer.stdout)
        if version and (int(version[1]), int(version[2])) >= OLDEST_KUBECTL:
            return Path(found)
        seen.append(f"{found} ({answer.stdout.strip() or answer.stderr.strip()})")
    need("kubectl 1.30 or newer", f"found {', '.join(seen) or 'none'}; run `make kubectl`")
    raise AssertionError("unreachable: need() does not return")


async def wasmer_is_here() -> Path:
    """The interpreter that has wasmer."""
    try:
        return await find(None, os.environ)
    except ConfigError as error:
        need("wasmer", f"{error}; in a checkout: make wasmer")
        raise


@pytest.fixture(scope="session")
def compile_guest() -> CompileGuest:
    """Compile C for WASI: `compile_guest(source, module, "-Os")`; see `tests.guests.compile_c`."""
    if importlib.util.find_spec("ziglang") is None:
        need("ziglang", "it builds the guests; run `make setup`")
    return compile_c
