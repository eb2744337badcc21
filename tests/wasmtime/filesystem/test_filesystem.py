"""wasi:filesystem of preview 2: one suite for our world and wasmtime's own, in the text files beside this one."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest

from tests.guests import components
from tests.wasmtime.filesystem.scenarios import FILES, HERE, NEEDS_ROOT, WANTED, Line, Scenario, scenarios

WORLDS = ("ours", "native")
NOT_CAUSED = {
    **dict.fromkeys(("already", "in-progress", "message-size", "pipe", "would-block"), "files have no such error"),
    **dict.fromkeys(("interrupted", "no-tty"), "no call that is made has it"),
    **dict.fromkeys(("deadlock", "no-lock", "not-recoverable"), "there are no locks"),
    **dict.fromkeys(("io", "no-device"), "takes a device that fails"),
    "quota": "takes a file system with quotas",
    "too-many-links": "takes a file system with a limit, and 65 000 links",
}
"""Error codes that no scenario shows, and why."""


def outcomes(world: str, asked: list[Scenario]) -> list[dict[str, Any]]:
    """What these scenarios come to."""
    command = [sys.executable, str(HERE / "run_world.py"), world, str(components.files())]
    text = json.dumps([scenario.asked() for scenario in asked])
    answer = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    found: list[dict[str, Any]] = json.loads(answer.stdout)
    assert len(found) == len(asked)
    return found


def check(world: str, asked: list[Scenario]) -> None:
    """Hold a world to its answers."""
    wrong = []
    for scenario, outcome in zip(asked, outcomes(world, asked), strict=True):
        assert "failed" not in outcome, (scenario.name, outcome)
        answers = iter(outcome["lines"])
        ended = "returned"
        for line in scenario.lines:
            expected = line.ours if world == "ours" else line.native
            found = next(answers, "trap").strip()
            if found == "trap":
                ended = "trapped"
            if found != expected:
                wrong.append(f"{scenario.name}: {line.does} => {found}, expected {expected}")
        assert outcome["ended"] == ended, scenario.name
        assert outcome["outside"] == ["mount", "output", "secret", "outside"], scenario.name
        if world == "ours":
            assert outcome["left"] <= 0, scenario.name
    assert wrong == []


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("file", FILES)
def test_what_files_do(file: str, world: str) -> None:
    found = [one for one in scenarios(file) if NEEDS_ROOT not in one.system]
    check(world, [one for one in found if world == "ours" or not one.only_ours])


@pytest.mark.needs_root("file systems are mounted")
@pytest.mark.parametrize("world", WORLDS)
def test_what_files_of_other_file_systems_do(world: str) -> None:
    found = [one for file in FILES for one in scenarios(file) if NEEDS_ROOT in one.system]
    assert found
    check(world, found)


@pytest.mark.parametrize("world", WORLDS)
def test_a_directory_that_becomes_a_link_while_a_path_is_walked(world: str) -> None:
    """Somebody puts a link to the directory above the mount where a directory was, and back, all the time."""
    tries = ["f open-at 0 L place/secret - r", ". read f 10 0", ". drop f", ". stat-at 0 L place/secret"]
    tries += [". create-directory-at 0 place/new", ". unlink-file-at 0 place/secret2", ". readlink-at 0 place/x"]
    asked = Scenario("", [["swapped", "place"]], [], [], False, [Line(does, "", "", "") for does in tries * 60])
    seen: set[str] = set()
    for _ in range(50):  # until the machine has let both run side by side
        (outcome,) = outcomes(world, [asked])
        assert outcome["outside"] == ["mount", "output", "secret", "outside"]
        seen |= {*outcome["lines"]}
        read = {line for line in seen if line.startswith("ok ") and "file" not in line}
        assert read <= {"ok 6 inside"}
        if {"ok 6 inside", "not-permitted"} <= seen:
            return
    raise AssertionError(f"expected the directory and the link to be met, found {seen}")


def test_every_function_and_every_error_code_is_in_the_suite() -> None:
    wit = (components.SOURCES / "files" / "files.wit").read_text()
    resource = wit[wit.index("resource descriptor {") : wit.index("resource directory-entry-stream")]
    functions = set(re.findall(r"^ +([a-z-]+): func", resource, re.MULTILINE))
    assert len(functions) == 27
    lines = [line for file in FILES for scenario in scenarios(file) for line in scenario.lines]
    assert functions - {line.does.split()[1] for line in lines} == set()
    enum = wit[wit.index("enum error-code {") :]
    codes = set(enum[enum.index("{") + 1 : enum.index("}")].replace(",", " ").split())
    assert len(codes) == 37
    seen = {line.ours.removeprefix("failed ") for line in lines}
    assert codes - seen == NOT_CAUSED.keys()
    assert {line.why for line in lines} - {""} == WANTED.keys()
