"""The second chance of tests that failed beside others: real runs of pytest, on tests that are made for this."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / ".ci/second_chance.py"
PYTEST = (sys.executable, "-m", "pytest", "-p", "xdist")
ALONE = "'PYTEST_XDIST_WORKER' not in os.environ"
AGAIN = "once more and alone"
HEADING = "These tests passed only when they ran alone:"
FAULT = "That is a fault of the test or of the product: mend it."


def environment() -> dict[str, str]:
    """Without what the pytest that runs this test says to its own processes; no plugins, which would take long."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return kept | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


@attrs.frozen
class Project:
    """A directory with tests of its own."""

    directory: Path

    def write(self, **bodies: str) -> None:
        """Write a file of tests, each with this body."""
        tests = (f"def test_{name}():\n    {body}\n" for name, body in bodies.items())
        self.file("test_it.py", "import os\n\n" + "\n".join(tests))

    def file(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)

    def command(self, *arguments: str) -> list[str | Path]:
        return [sys.executable, SCRIPT, *PYTEST, "-n", "2", "--dist", "worksteal", *arguments]

    def run(self, *arguments: str) -> tuple[int, list[str]]:
        """Run the tests: the exit status, and the lines that are printed."""
        done = subprocess.run(
            self.command(*arguments), cwd=self.directory, env=environment(), capture_output=True, text=True, timeout=240
        )
        return done.returncode, done.stdout.splitlines()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return Project(tmp_path)


def closing(lines: list[str]) -> list[str]:
    """The lines with which pytest closes a run, one for each."""
    return [line for line in lines if line.startswith("=") and " in " in line]


def test_where_all_is_well_there_is_one_run(project: Project) -> None:
    project.write(one="pass", two="pass")
    status, lines = project.run()
    assert status == 0
    assert [" 2 passed " in line for line in closing(lines)] == [True]
    assert HEADING not in lines


def test_what_passes_alone_passes_and_is_named(project: Project) -> None:
    project.write(sound="pass", flaky=f"assert {ALONE}", also=f"assert {ALONE}")
    status, lines = project.run()
    assert status == 0
    first, last = closing(lines)
    assert " 2 failed, 1 passed " in first
    assert " 2 passed in " in last
    at = lines.index(HEADING)
    assert set(lines[at + 1 : at + 3]) == {"  test_it.py::test_flaky", "  test_it.py::test_also"}
    assert lines[at + 3 :] == [FAULT]


def test_what_fails_twice_fails_the_run(project: Project) -> None:
    project.write(sound="pass", flaky=f"assert {ALONE}", broken="assert False")
    status, lines = project.run()
    assert status == 1
    assert " 1 failed, 1 passed in " in closing(lines)[-1]
    at = lines.index(HEADING)
    assert lines[at + 1 :] == ["  test_it.py::test_flaky", FAULT]


def test_a_test_whose_process_dies_is_one_that_failed(project: Project) -> None:
    project.write(dies=f"{ALONE} or os._exit(7)", broken="assert False")
    status, lines = project.run()
    assert status == 1
    at = lines.index(HEADING)
    assert lines[at + 1 :] == ["  test_it.py::test_dies", FAULT]


def test_a_test_that_is_not_there_the_second_time_has_not_passed(project: Project) -> None:
    project.file(
        "test_it.py",
        f"import os, pytest\n\n@pytest.mark.parametrize('at', ['alone' if {ALONE} else 'beside'])\n"
        "def test_it(at): assert at == 'alone'\n",
    )
    status, lines = project.run()
    assert status == 1
    assert HEADING not in lines


@pytest.mark.parametrize(
    ("files", "status"),
    [
        ({"test_it.py": "import pytest, os\n@pytest.mark.parametrize('n', range(11))\n"
          f"def test_it(n): assert {ALONE}"}, 1),
        ({"test_it.py": f"import os\ndef test_it(): assert {ALONE}", "test_other.py": f"import os\nassert {ALONE}"}, 1),
        ({"test_it.py": f"import os\ndef test_it(): assert {ALONE}",
          "conftest.py": f"import os\ndef pytest_runtest_logfinish(): assert {ALONE}"}, 1),
        ({"test_it.py": "def test_it(): pass", "conftest.py": "def pytest_collection_finish(): assert False"}, 3),
        ({"test_it.py": ""}, 5),
    ],
    ids=["too many", "a file that cannot be imported", "an error of pytest's own", "one before the tests", "no tests"],
)  # fmt: skip
def test_there_is_no_second_run(project: Project, files: Mapping[str, str], status: int) -> None:
    for name, text in files.items():
        project.file(name, text)
    found, lines = project.run()
    assert found == status
    assert not [line for line in lines if AGAIN in line]


def test_what_failed_in_earlier_runs_is_forgotten(project: Project) -> None:
    project.write(old="assert False", sound="pass")
    subprocess.run([*PYTEST, "-n", "0"], cwd=project.directory, env=environment(), capture_output=True, timeout=240)
    remembered = project.directory / ".pytest_cache/v/cache/lastfailed"
    before = remembered.read_text()
    assert "test_old" in before
    project.write(old="pass", flaky=f"assert {ALONE}")
    status, lines = project.run()
    assert status == 0
    assert " 1 passed in " in closing(lines)[-1]
    assert remembered.read_text() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_tests_and_nothing_follows(project: Project, number: signal.Signals) -> None:
    """SIGINT comes to the whole group, from a terminal; SIGTERM to the process that `make` has started."""
    project.write(long="import time; open('begun', 'w').close(); time.sleep(600)")
    process = subprocess.Popen(
        project.command(), cwd=project.directory, env=environment(), stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        while not (project.directory / "begun").exists():
            assert process.poll() is None
            time.sleep(0.05)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.terminate()
        out, _ = process.communicate(timeout=120)  # to the end of what all its processes write
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode != 0
    assert AGAIN not in out


@pytest.mark.parametrize("ci", [True, False])
def test_it_is_for_ci_alone(ci: bool) -> None:
    """A developer sees failures at once."""
    command = ["make", "--dry-run", "--no-print-directory", "tests", "VENV=none", f"CI={'true' if ci else ''}"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60)
    tests = done.stdout.splitlines()[-1]
    assert tests.split() == [
        *(["none/bin/python", ".ci/second_chance.py"] if ci else []),
        *("none/bin/pytest", "-n", "auto", "--dist", "worksteal"),
    ]
