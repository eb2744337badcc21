"""What is reported of the hardening is what there is: parts that the kernel refuses are off, with the reason."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.worker.harness import FAKE_ENGINE, WORKER, running
from tests.worker.test_escapes import has_landlock, has_seccomp
from wasmlet.worker import linux
from wasmlet.worker.guest import confine, landlock, seccomp


def in_a_process(work: Callable[[], Any]) -> Any:
    """What this comes to in a process of its own, since nothing of it can be undone; JSON's types."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, json.dumps(work()).encode())
        except BaseException as error:
            os.write(writer, json.dumps(f"{type(error).__name__}: {error}").encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as answer:
        said = answer.read()
    _, status = os.waitpid(pid, 0)
    return json.loads(said) if said else status


def test_the_shim_says_what_is_on(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        parts = shim.connection.ask("hello")["confinement"]
    assert parts["no_new_privs"] == "on"
    assert parts["seccomp"].startswith("on" if has_seccomp() else "off: ")
    assert parts["landlock"].startswith("on (ABI " if has_landlock() else "off: ")
    assert "cgroup" in parts


def test_the_report_is_a_command_of_the_worker(python: str) -> None:
    said = subprocess.run([python, "-I", "-S", str(WORKER), "confine"], capture_output=True, check=True, timeout=60)
    assert set(json.loads(said.stdout)) == set(confine.PARTS)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSYS, "has no landlock"),
        (errno.EOPNOTSUPP, "expected it in lsm="),
        (errno.EPERM, "off: Operation not permitted"),
    ],
)
def test_landlock_that_the_kernel_refuses_is_off(monkeypatch: pytest.MonkeyPatch, number: int, words: str) -> None:
    def refuse() -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(landlock, "abi", refuse)
    report = confine.report()
    assert report["landlock"].startswith("off: ")
    assert words in report["landlock"]
    assert report["no_new_privs"] == "on"


def test_seccomp_that_ends_whoever_tries_it_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp.Program, "install", lambda self: os.kill(os.getpid(), 9))
    assert confine.report()["seccomp"] == "off: a process that tried it was ended"


def test_a_machine_without_a_list_of_calls_has_no_seccomp(monkeypatch: pytest.MonkeyPatch) -> None:
    class Machine:
        machine = "riscv64"

    monkeypatch.setattr(os, "uname", Machine)
    assert confine.report()["seccomp"] == "off: there is no list of system calls for riscv64"


def test_an_engine_that_needs_what_is_off_runs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confine, "missing", lambda: dict.fromkeys(confine.PARTS, "") | {"landlock": "too old"})

    def work() -> None:
        limits = confine.Confinement()
        limits.prepare()
        limits.confine_guest(0, (), None, ("landlock",))

    assert in_a_process(work) == "ValueError: this engine is not safe without landlock, which is off: too old"


def test_a_part_that_is_on_and_fails_lets_nothing_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(ruleset: int) -> None:
        raise OSError(errno.EPERM, "refused")

    monkeypatch.setattr(confine, "missing", lambda: dict.fromkeys(confine.PARTS, ""))
    monkeypatch.setattr(landlock, "restrict_self", refuse)

    def work() -> None:
        limits = confine.Confinement()
        limits.prepare()
        limits.confine_guest(0, ())

    assert in_a_process(work) == "PermissionError: [Errno 1] refused"


def test_threads_that_would_not_be_confined_are_an_error() -> None:
    def work() -> list[bool]:
        import _thread

        before = linux.has_threads()
        lock = _thread.allocate_lock()
        lock.acquire()
        _thread.start_new_thread(lock.acquire, ())
        return [before, linux.has_threads()]

    assert in_a_process(work) == [False, True]


def test_signals_do_not_leave_a_landlock_domain() -> None:
    def work() -> str:
        linux.no_new_privileges()
        landlock.restrict_self(landlock.create(landlock.abi(), files=False))
        try:
            os.kill(os.getppid(), 0)
        except OSError as error:
            return errno.errorcode[error.errno]
        return "sent"

    assert in_a_process(work) == ("EPERM" if has_landlock() and landlock.abi() >= 6 else "sent")


def test_tcp_does_not_leave_a_landlock_domain() -> None:
    def work() -> list[str]:
        import socket

        linux.no_new_privileges()
        landlock.restrict_self(landlock.create(landlock.abi(), files=False))
        found = []
        for name in ("bind", "connect"):
            with socket.socket() as sock:
                try:
                    getattr(sock, name)(("127.0.0.1", 9))
                except OSError as error:
                    found.append(errno.errorcode[error.errno])
        return found

    if has_landlock() and landlock.abi() >= 4:
        assert in_a_process(work) == ["EACCES", "EACCES"]


def _calls(column: int) -> list[int]:
    numbers = [pair[column] for pair in seccomp._NUMBERS.values()]
    return [number for number in numbers if number >= 0]


@pytest.mark.parametrize("column", [0, 1])
def test_no_call_is_on_the_list_twice(column: int) -> None:
    numbers = _calls(column)
    assert len(numbers) == len(set(numbers))
    assert set(seccomp.NEVER) <= set(seccomp._NUMBERS)


GUESTS = set(seccomp._NUMBERS) - {
    "socket", "connect", "bind", "sendto", "recvfrom", "setsockopt", "getsockopt", "sendmsg",
}  # fmt: skip
"""What guests have, as far as it is on the list at all."""


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize(
    ("calls", "allowed"),
    [
        (seccomp.guest_calls(), GUESTS),
        (seccomp.guest_calls(datagrams=True), GUESTS | {"sendmsg"}),
        (seccomp.broker_calls(), set(seccomp._BROKERS)),
    ],
    ids=["guest", "datagrams", "broker"],
)
def test_the_program_says_of_each_number_what_the_list_does(
    monkeypatch: pytest.MonkeyPatch, machine: str, calls: Any, allowed: set[str]
) -> None:
    class Machine:
        pass

    Machine.machine = machine  # type: ignore[attr-defined]
    monkeypatch.setattr(os, "uname", Machine)
    code = seccomp.Program(calls)._code
    architecture, column = seccomp._ARCHITECTURES[machine]
    names = {pair[column]: name for name, pair in seccomp._NUMBERS.items() if pair[column] >= 0}
    checked = {"kill", "tgkill", "clone", "ioctl", "fcntl", "prctl", "prlimit64"}
    never = set(seccomp.NEVER) - ({"setns"} if "socket" in calls else set())
    for number in range(600):
        name = names.get(number, "")
        answer = _run(code, architecture, number)
        if name in never:
            assert answer == 0x80000000, name
        elif name == "clone3" and "socket" not in calls:
            assert answer == 0x50000 | errno.ENOSYS
        elif name in allowed and name not in checked:
            assert answer == 0x7FFF0000, name
        else:
            assert answer == 0x50000 | errno.EPERM, (number, name)
    assert _run(code, architecture, 0x40000000) == _run(code, 0x40000003, 1) == 0x80000000


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_arguments_that_would_say_an_address_or_another_namespace(
    monkeypatch: pytest.MonkeyPatch, machine: str
) -> None:
    class Machine:
        pass

    Machine.machine = machine  # type: ignore[attr-defined]
    monkeypatch.setattr(os, "uname", Machine)
    architecture, column = seccomp._ARCHITECTURES[machine]
    datagrams = seccomp.Program(seccomp.guest_calls(datagrams=True))._code
    broker = seccomp.Program(seccomp.broker_calls())._code

    def answer(code: bytes, name: str, argument: int) -> bool:
        return _run(code, architecture, seccomp._NUMBERS[name][column], argument) == 0x7FFF0000

    assert not answer(datagrams, "sendmsg", socket.MSG_FASTOPEN | 64)
    assert answer(datagrams, "sendmsg", 64)
    assert answer(broker, "setns", 0x40000000)
    assert not answer(broker, "setns", 0x40000000 | 0x20000)
    assert answer(broker, "sendto", 0)
    assert not answer(broker, "sendto", 4096)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_options_of_sockets(monkeypatch: pytest.MonkeyPatch, machine: str) -> None:
    class Machine:
        pass

    Machine.machine = machine  # type: ignore[attr-defined]
    monkeypatch.setattr(os, "uname", Machine)
    architecture, column = seccomp._ARCHITECTURES[machine]
    code = seccomp.Program(seccomp.guest_calls())._code
    allowed = {
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE), (socket.SOL_SOCKET, socket.SO_RCVBUF),
        (socket.SOL_SOCKET, socket.SO_SNDBUF), (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL), (socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
        (socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT),
        (socket.IPPROTO_IP, socket.IP_TTL), (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS),
    }  # fmt: skip
    for name in ("setsockopt", "getsockopt"):
        number = seccomp._NUMBERS[name][column]
        found = {
            (level, option)
            for level in (*range(64), 255, 270)
            for option in range(128)
            if _run(code, architecture, number, 3, level, option) == 0x7FFF0000
        }
        assert found == allowed


def _run(code: bytes, architecture: int, number: int, *given: int) -> int:
    """A few of the instructions of classic BPF, on a call with these arguments; all others are the last, or 99."""
    values = [*given, *[given[-1] if given else 99] * 6]
    arguments = {16 + 8 * i + 4 * half: values[i] * (not half) for i in range(6) for half in (0, 1)}
    data = {0: number, 4: architecture} | arguments
    place = held = 0
    while True:
        what, yes, no, value = seccomp._INSTRUCTION.unpack_from(code, place * 8)
        place += 1
        if what == seccomp._RET:
            return int(value)
        if what == seccomp._LD:
            held = data[value]
        elif what == seccomp._JA:
            place += value
        else:
            true = {seccomp._JEQ: held == value, seccomp._JGE: held >= value, seccomp._JSET: bool(held & value)}[what]
            place += yes if true else no


@pytest.mark.parametrize("whose", ["shim", "zygote"])
def test_what_makes_children_has_no_new_privileges_nor_others_descriptors(tmp_path: Path, whose: str) -> None:
    slipped = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(slipped, True)
    try:
        with running(tmp_path / "state") as shim:
            shim.ended(shim.run("start"))
            pid = shim.pid if whose == "shim" else shim.zygote_pid()
            assert "NoNewPrivs:\t1" in Path(f"/proc/{pid}/status").read_text()
            paths = {os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}
            assert str(tmp_path) not in paths
            if whose == "zygote":  # beside its channel nothing but its streams
                assert {path.partition(":")[0] for path in paths} <= {
                    "/dev/null",
                    "socket",
                    str(shim.state / "shim.log"),
                }
    finally:
        os.close(slipped)


def test_an_engine_that_would_be_missed_is_told_so(tmp_path: Path) -> None:
    engine = tmp_path / "engine.py"
    engine.write_text(FAKE_ENGINE.read_text() + "\nREQUIRES = ('a moat',)\n")
    with running(tmp_path / "state", sys.executable) as shim:
        shim.engine = engine
        record = shim.ended(shim.run("start"))
        assert record["reason"] == "StartError"
        assert record["message"] == "this engine is not safe without a moat, which is off: no such part is known"
