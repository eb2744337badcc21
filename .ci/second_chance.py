"""Runs pytest, and once more the few tests that failed, alone: a busy machine is not to fail a gate.

    python .ci/second_chance.py pytest -n auto tests

The second run is in one process. A test that fails there, too, fails the run; one that passes is named at the end,
because it has a fault nevertheless. There is no second run where more than `MOST` tests failed, or where pytest did not
come so far as to run them all: a file that cannot be imported, an error of pytest's own, an interrupt.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

MOST = 10
"""More failures than these are no accident, and would take long one by one."""
TESTS_FAILED = 1
"""pytest's exit status where it ran everything, and some tests failed."""
ALONE = ("-n", "0", "--last-failed", "--last-failed-no-failures", "none")


def main(command: Sequence[str]) -> int:
    """Run the tests. Returns the exit status: that of the second run where there is one.

    Args:
        command: pytest and its arguments.
    """
    with tempfile.TemporaryDirectory(prefix="wasmlet-tests-") as cache:
        cached = (*command, "-o", f"cache_dir={cache}")  # of these runs alone
        status, broken = run(cached)
        failed = failures(Path(cache))
        if status != TESTS_FAILED or broken or not 0 < len(failed) <= MOST or not all(map(is_test, failed)):
            return status
        print(f"\n==> the {len(failed)} that failed, once more and alone", flush=True)
        status, _ = run((*cached, *ALONE))
        left = failures(Path(cache))
    if passed := [test for test in failed if test not in left]:
        print("\nThese tests passed only when they ran alone:")
        print(*(f"  {test}" for test in passed), sep="\n")
        print("That is a fault of the test or of the product: mend it.", flush=True)
    return status or (TESTS_FAILED if left else 0)


def run(command: Sequence[str]) -> tuple[int, bool]:
    """Run a command to its end, and pass on what it prints.

    Returns:
        Its exit status, below 0 where a signal ended it; and whether pytest had an error of its own. pytest-xdist may
        say of one in its workers no more than that tests failed.
    """
    broken, line = False, b""
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        output = process.stdout
        assert output is not None
        while True:
            try:
                if not (data := output.read1()):
                    return process.wait(), broken
            except KeyboardInterrupt:
                continue  # the command was interrupted, too, and says what it has to say
            sys.stdout.buffer.write(data)
            sys.stdout.flush()
            *whole, line = (line + data).split(b"\n")
            broken = broken or any(one.startswith(b"INTERNALERROR> ") for one in whole)


def failures(cache: Path) -> list[str]:
    """The ids of what failed, as pytest remembers it: of tests, and of files that it could not collect."""
    try:
        return list(json.loads((cache / "v/cache/lastfailed").read_bytes()))
    except FileNotFoundError:
        return []


def is_test(name: str) -> bool:
    """Whether the id is of a test, and not of a file."""
    return "::" in name


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
