"""Getting out of a container from inside: what a guest finds that has taken over its process.

Everything is tried as root, as root with a user for each pod, and as a user without any rights, as far as whoever runs
the tests can become these. What has to come of each deed follows from what this kernel has, which is found out here in
ways of its own: a part of the hardening that is off where the machine could have it makes these tests fail.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.worker.harness import WORKER

NOBODY = 65534
POD = 71000
HERE = Path(__file__).parent
ROOT = HERE.parent.parent

AS_ROOT = [pytest.param((0, None), id="root"), pytest.param((0, POD), id="root-with-pod-users")]
OTHERS = [pytest.param((NOBODY, None), id="unprivileged")]
OURSELVES = [pytest.param((os.getuid(), None), id="unprivileged")]

SIGSYS = "signal 31"

BY_SECCOMP = dict.fromkeys(
    [
        "execve", "execveat", "ptrace the shim", "ptrace a sibling", "read the shim's memory",
        "read a sibling's memory", "unshare", "setns", "mount", "chroot", "pivot_root", "bpf", "io_uring", "perf",
        "userfaultfd", "keyring", "open by handle", "kernel module", "x32", "32 bit",
    ],
    SIGSYS,
) | dict.fromkeys(
    [
        "fork", "kill the shim", "kill a sibling", "kill everybody", "kill the group",
        "signal a sibling by its thread", "take a sibling's descriptor", "have a sibling signalled", "socket",
        "unix socket", "netlink", "socketpair", "connect what is bound", "bind what is bound", "connect again",
        "sendto", "sendmsg to another address", "sendmmsg to another address", "MSG_FASTOPEN",
        "MSG_FASTOPEN by sendto", "MSG_FASTOPEN by sendmmsg", "setsockopt", "getsockopt", "mark packets",
        "take an interface", "filter a socket", "steer the routing", "pass the control socket on",
        "setuid", "setgid", "setgroups", "capset", "raise limits", "outlive the shim",
        "be traceable", "personality", "type at the terminal", "a device", "mode of a file", "owner of a file",
        "truncate by path in a read-only mount",
    ],
    "EPERM",
) | {"clone3": "ENOSYS"}  # fmt: skip

BY_LANDLOCK = dict.fromkeys(
    [
        "read /etc/passwd", "list /", "list /proc", "write /tmp", "mkdir in /tmp", "own memory by path",
        "own descriptors by path", "list the state directory", "read a sibling's mount", "write a sibling's mount",
        "change the compiled module", "a device that is there", "write a read-only mount",
        "truncate in a read-only mount", "create in a read-only mount", "unlink in a read-only mount",
        "mkdir in a read-only mount", "symlink in a read-only mount", "reopen a read-only mount",
        "rename out of a read-only mount", "climb out of a mount", "rename out of a mount",
    ],
    "EACCES",
) | {"link out of a read-only mount": "EXDEV"}  # fmt: skip

BY_BROKER = dict.fromkeys(
    [
        "listen at another port", "listen for datagrams", "send from a bound socket", "dial another port",
        "dial another address", "dial the node", "dial a link-local address", "look up another name",
    ],
    "EACCES",
) | {"do what the broker does not": "EPROTO"}  # fmt: skip

BROKERED = {
    "listen at a granted port": {"done": None},
    "dial what was granted": {"done": 1},
    "rubbish to the broker": {"done": "served"},
}

WITHOUT_ANY = (
    "others' memory by path", "others' variables", "others' descriptors", "others' directories", "read a record",
    "write a record", "write the log", "outside by link",
)  # fmt: skip
"""Deeds that try many files, of which landlock leaves none."""

ALLOWED = {
    "read a mount": {"done": "given"},
    "write a mount": {"done": None},
    "rename in a mount": {"done": None},
    "talk to the shim": {"done": "said"},
    "a thread": {"done": True},
    "time and randomness": {"done": True},
    "descriptors": {"done": [0, 1, 2, 3, 6, 7, 8, 12]},  # streams, control, module, mounts, sockets; the spec is closed
}


OF_DENSE = [
    *BY_SECCOMP,
    *(set(BY_LANDLOCK) - {deed for deed in BY_LANDLOCK if "read-only" in deed}),
    *WITHOUT_ANY,
    *BY_BROKER,
    *BROKERED,
]
"""What is tried in a dense worker: all but to write what is read-only, which its engine alone keeps it from."""


def has_seccomp() -> bool:
    """Whether the kernel has filters, and there is a list for this machine."""
    known = os.uname().machine in ("x86_64", "aarch64")
    return known and "\nSeccomp_filters:" in Path("/proc/self/status").read_text("ascii")


def has_landlock(version: int = 1) -> bool:
    """Whether the kernel says that it has landlock (landlock_create_ruleset has this number everywhere)."""
    syscall = ctypes.CDLL(None).syscall
    return int(syscall(ctypes.c_long(444), None, ctypes.c_size_t(0), ctypes.c_uint32(1))) >= version


def interpreter(uid: int) -> str:
    """A Python that this user can run."""
    for python in (sys.executable, "/usr/bin/python3", shutil.which("python3", path=os.defpath)):
        if python is None:
            continue
        question = [python, "-I", "-S", "-c", "import sys; sys.exit(sys.version_info < (3, 10))"]
        try:
            if subprocess.run(question, user=None if uid == os.getuid() else uid, check=False).returncode == 0:
                return python
        except OSError:
            continue
    pytest.fail(f"found no Python from 3.10 on that user {uid} can run; expected one on PATH", pytrace=False)


@pytest.fixture(scope="module", params=[*AS_ROOT, *OTHERS] if os.getuid() == 0 else OURSELVES)
def found(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What came of each deed."""
    return came_of_deeds(*request.param)


@pytest.fixture(scope="module", params=[AS_ROOT[0], *OTHERS] if os.getuid() == 0 else OURSELVES)
def shared(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What came of the deeds that are tried in a dense worker, where no pod has a user of its own."""
    return came_of_deeds(request.param[0], None, dense=OF_DENSE)


def came_of_deeds(uid: int, user: int | None, dense: list[str] | None = None) -> dict[str, Any]:
    # Not below pytest's own directories, which nobody else can enter.
    directory = Path(tempfile.mkdtemp(prefix="wasmlet-escapes-"))
    try:
        shutil.copytree(WORKER, directory / "worker", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(HERE / "escape_engine.py", directory)
        for path in (directory, *directory.rglob("*")):
            path.chmod(0o755)
        os.chown(directory, uid, uid if uid != os.getuid() else -1)
        asked = {"directory": str(directory), "python": interpreter(uid), "uid": uid, "user": user, "dense": dense}
        command = [sys.executable, "-m", "tests.worker.escapes", json.dumps(asked)]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=300, check=True)
        said: dict[str, Any] = json.loads(done.stdout)
        return said
    finally:
        shutil.rmtree(directory)


def test_what_seccomp_forbids(found: dict[str, Any]) -> None:
    check_calls(found)


def check_calls(found: dict[str, Any]) -> None:
    expected = dict(BY_SECCOMP)
    if os.uname().machine != "x86_64":
        for only_there in ("x32", "32 bit"):
            del expected[only_there]
    if has_seccomp():
        assert {deed: found[deed] for deed in expected} == expected
        assert found["status"]["Seccomp"] == "2"
    else:
        assert found["status"].get("Seccomp", "0") == "0"


def test_what_a_broker_gives(found: dict[str, Any]) -> None:
    check_sockets(found)


def check_sockets(found: dict[str, Any]) -> None:
    expected = BY_BROKER | BROKERED
    assert {deed: found[deed] for deed in expected} == expected
    assert "somebody was dialled" not in found
    broker = found["broker"]
    # It opens no file, and is left what takes it into a namespace and to a port below 1024.
    assert int(broker["CapEff"], 16) == int(broker["CapPrm"], 16) == (0x200400 if broker["Uid"][0] == "0" else 0)
    assert (broker["NoNewPrivs"], broker["Threads"]) == ("1", "1")
    assert broker["Seccomp"] == ("2" if has_seccomp() else "0")


def test_which_files_landlock_leaves(found: dict[str, Any]) -> None:
    if has_landlock():
        assert {deed: found[deed] for deed in BY_LANDLOCK} == BY_LANDLOCK
        assert [deed for deed in WITHOUT_ANY if found[deed] != {"done": []}] == []
        assert found["link from outside"] in ("EXDEV", "EPERM")  # EPERM: the system protects others' files from links
    else:
        # Nothing but the file system's own rights is left then, and those of a pod's own user keep it from others.
        assert found["write a record"] == {"done": []} or found["status"]["Uid"].startswith("0 ")


def test_what_is_left_of_rights(found: dict[str, Any]) -> None:
    status = found["status"]
    assert status["NoNewPrivs"] == "1"
    # Root keeps what reads and changes files of a mount that are somebody else's, and nothing more.
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == (0xA if status["Uid"].startswith("0 ") else 0)


def test_what_a_guest_needs_is_there(found: dict[str, Any]) -> None:
    assert {deed: found[deed] for deed in ALLOWED} == ALLOWED
    assert 1000 < found["files open at once"]["done"] < 10_000


def test_a_dense_worker_is_held_as_well(shared: dict[str, Any]) -> None:
    check_calls(shared)
    check_sockets(shared)
    test_what_is_left_of_rights(shared)
    if has_landlock():
        expected = {deed: BY_LANDLOCK[deed] for deed in BY_LANDLOCK if deed in OF_DENSE}
        assert {deed: shared[deed] for deed in expected} == expected
        assert [deed for deed in WITHOUT_ANY if shared[deed] != {"done": []}] == []
