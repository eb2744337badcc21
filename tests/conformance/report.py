"""A pytest plugin for `make conformance`: number, check, result of each check, and a total.

    python -m pytest -p tests.conformance.report tests/conformance

A result is what a check's tests show: pass, refused (by name), real cluster only, or embedded only: nobody breaks a
real cluster on request. Anything else fails, and so does a number without a file.
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

NUMBERS = range(1, 84)
KINDS = {"refused": "refused"}
HERE = Path(__file__).parent


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
    """Print the table."""
    files = {int(path.name.split("_")[1]): path for path in HERE.rglob("test_[0-9][0-9]_*.py")}
    real = bool(terminalreporter.config.getoption("--kubeconfig"))
    results: dict[int, set[str]] = {number: set() for number in files}
    for outcome, reports in terminalreporter.stats.items():
        for report in reports:
            if isinstance(report, pytest.TestReport) and (number := _number(report.nodeid)) in results:
                results[number].add(_result(outcome, report, real))
    write, totals = terminalreporter.write_line, Counter[str]()
    terminalreporter.section("conformance")
    for number in NUMBERS:
        path = files.get(number)
        said = results.get(number, set()) - {""}
        if path is None:
            check, result = "", "no file"
        else:
            text = path.read_text("utf-8")
            check = (ast.get_docstring(ast.parse(text)) or "").split("\n")[0]
            left_out = not said and "pytest.mark.real_cluster" in text
            result = "real cluster only" if left_out else ", ".join(sorted(said, key=ORDER.index)) or "not run"
        totals[result.split(",")[0]] += 1
        write(f"{number:2}  {result:18}  {check}")
    write(", ".join(f"{count} {result}" for result, count in totals.most_common()))


ORDER = ["failed", "pass", "refused", "embedded only"]


def _number(nodeid: str) -> int:
    """The check that a test belongs to; 0 for none."""
    name = nodeid.split("::")[0].rpartition("/")[2]
    digits = name.removeprefix("test_")[:2]
    return int(digits) if name.startswith("test_") and digits.isdigit() else 0


def _result(outcome: str, report: pytest.TestReport, real: bool) -> str:
    """What a test shows, on a real cluster or not; "" for nothing yet."""
    if outcome == "skipped" and real:
        return "embedded only"
    if outcome == "passed":
        return next((result for mark, result in KINDS.items() if mark in report.keywords), "pass")
    return "" if outcome == "" else "failed"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A number without a file is no success."""
    found = {int(path.name.split("_")[1]) for path in HERE.rglob("test_[0-9][0-9]_*.py")}
    if found != set(NUMBERS) and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
