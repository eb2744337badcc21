"""Fixtures for the tools that tests need from outside: kubectl and the compiler that builds guests.

With CI set in the environment a tool that is missing fails the tests that need it; elsewhere they are skipped, and the
summary says why. A test that needs root is marked so, with the reason: run as an ordinary user, pytest leaves it out
(deselects it) and says so once. Fixtures of one part only live beside its tests.
"""

from __future__ import annotations

import importlib.util
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from wasmlet_wasmer.environment import find

from tests.guests import compile_c
from wasmlet.errors import ConfigError

OLDEST_KUBECTL = (1, 30)

DESCRIPTORS = 65536
"""As many as tests may need that run many nodes in one process; the usual limit of a login is 1024."""
WITHOUT_ROOT = pytest.StashKey[list[str]]()
"""Why tests were left out that need root, one reason for each test."""
WORKERS_A_PROCESSOR = 2
TESTS_A_DOT = 50
PASSED = pytest.StashKey[int]()
"""How many tests have passed."""

CompileGuest = Callable[..., None]


def need(tool: str, why: str) -> None:
    """End the test: failed in CI, skipped elsewhere."""
    message = f"{tool} is needed: {why}"
    if os.environ.get("CI"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def as_in_a_terminal() -> None:
    """Undo what this process and those that it starts inherit from how the tests were begun.

    A shell starts a command in the background with SIGINT and SIGQUIT ignored, and nohup ignores SIGHUP. That was meant
    for the test run, not for the programs that tests send these signals to.
    """
    for number, normal in (
        (signal.SIGHUP, signal.SIG_DFL),
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGQUIT, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, normal)


def enough_descriptors() -> None:
    """Raise this process's limit of open files, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


as_in_a_terminal()
enough_descriptors()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs_root(why): left out where an ordinary user runs the tests")
    config.stash[WITHOUT_ROOT] = []
    # How long one example takes says how busy the machine is. A test that hangs is ended by pytest-timeout.
    settings.register_profile("wasmlet", deadline=None)
    settings.load_profile("wasmlet")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """How many processes `-n auto` means: most tests wait for processes and sockets, so a processor does several."""
    if os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS"):
        return None  # what pytest-xdist itself answers is that number
    return WORKERS_A_PROCESSOR * len(os.sched_getaffinity(0))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs root where there is none."""
    if os.geteuid() == 0:
        return
    left_out = [(item, marker) for item in items if (marker := item.get_closest_marker("needs_root")) is not None]
    if left_out:
        config.stash[WITHOUT_ROOT] += [str(marker.args[0]) for _, marker in left_out]
        gone = [item for item, _ in left_out]
        items[:] = [item for item in items if item not in gone]
        config.hook.pytest_deselected(items=gone)


def pytest_report_teststatus(report: pytest.TestReport, config: pytest.Config) -> tuple[str, str, str] | None:
    """In CI there is a dot for many tests that pass, so that the output of a good run fits on a page."""
    if not os.environ.get("CI") or report.when != "call" or not report.passed or hasattr(report, "wasxfail"):
        return None
    config.stash[PASSED] = passed = config.stash.get(PASSED, 0) + 1
    return "passed", "" if passed % TESTS_A_DOT else ".", "PASSED"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With pytest-xdist the reasons are known to the workers, which all have the same."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["without_root"] = session.config.stash[WITHOUT_ROOT]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    output = getattr(node, "workeroutput", {})  # a worker that crashed has none
    node.config.stash[WITHOUT_ROOT] = output.get("without_root") or node.config.stash[WITHOUT_ROOT]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out, and why."""
    reasons = Counter(terminalreporter.config.stash[WITHOUT_ROOT])
    if reasons:
        why = "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common())
        terminalreporter.write_line(f"{reasons.total()} tests need root and were left out: {why}")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("wasmlet", "a real cluster instead of the embedded control plane")
    group.addoption("--kubeconfig", metavar="FILE", help="administrator's credentials of a cluster made for tests")
    group.addoption("--node-credentials", metavar="COMMAND", help="given a node's name, prints its kubeconfig's path")
    group.addoption("--client-ca-file", metavar="FILE", help="the CA of that cluster's clients")
    group.addoption(
        "--api-server", metavar="COMMAND", help="given stop or start, does that to its API server and waits"
    )
    group = parser.getgroup("conformance", "what runs the guests of the conformance checks")
    group.addoption("--engine", choices=("wasmtime", "wasmer"), help="one engine; without it each in turn")
    group.addoption("--actors", metavar="DIRECTORY", help="waSCC actors that others have built (tests/wascc)")
    group.addoption("--handler", default="", help="the RuntimeClass handler, of those that the engine has")
    runtimes = ("local", "remote", "joined")
    group.addoption("--runtime", choices=runtimes, help="where pods run: in the node, or behind an agent")


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
