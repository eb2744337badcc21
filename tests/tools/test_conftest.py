"""What the tests do about the shell that they were begun in."""

from __future__ import annotations

import subprocess
import sys

from tests.shared.machine import ROOT

BEGUN = """
import resource, signal, subprocess
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
import tests.conftest
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    child = subprocess.Popen(["sleep", "1000"])
    child.send_signal(number)
    try:
        print(child.wait(10) == -number)
    finally:
        child.kill()
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
print(soft == (65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)))
"""


def test_a_run_in_the_background_with_few_descriptors() -> None:
    done = subprocess.run([sys.executable, "-c", BEGUN], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["True"] * 4, done.stderr
