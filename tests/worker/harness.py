"""A shim under test, driven over its socket: `with running(...) as shim:`. Nothing that it started is left behind."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from wasmlet.worker import wire
from wasmlet.worker.grants import TCP
from wasmlet.worker.supervisor.store import RECORDS
from wasmlet.worker.supervisor.zygotes import SPARE

WORKER = Path(wire.__file__).parent
FAKE_ENGINE = Path(__file__).with_name("fake_engine.py")
PATIENCE = 30.0
POD = f"127.{64 + (os.getpid() >> 16) % 64}.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
"""An address of a pod that no other process of tests has."""


def launch(python: str, state: Path, idle_exit: float, *more: str) -> None:
    """Start a shim; raises `subprocess.CalledProcessError`, whose `stderr` has the shim's words."""
    command = [python, "-I", "-S", str(WORKER), "shim", "--state-dir", str(state), "--idle-exit", str(idle_exit), *more]
    subprocess.run(
        command,
        check=True,
        env={},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


class Connection:
    """A node loop's end of the socket, which waits for what it asks."""

    def __init__(self, state: Path) -> None:
        self.socket = wire.connect(str(state))
        self.socket.setblocking(True)
        self.socket.settimeout(PATIENCE)
        self._numbers = itertools.count(1)
        self.events: list[dict[str, Any]] = []
        """Everything that was told of containers, in order."""
        self.received: list[int] = []
        """Descriptors that came with what was received; the test's to close."""

    def ask(self, operation: str, descriptors: Sequence[int] = (), **fields: Any) -> Any:
        """The answer: what is in `ok`, for `list` the items; a `RuntimeError` where it is an error."""
        number = next(self._numbers)
        wire.send(self.socket, wire.pack({"op": operation, "n": number, **fields}), tuple(descriptors))
        items = []
        while True:
            message = self.next()
            if message.get("re") != number:
                self.events.append(message["container"])
            elif "item" in message:
                items.append(message["item"])
            elif "error" in message:
                raise RuntimeError(message["error"])
            else:
                return items if operation == "list" else message["ok"]

    def next(self) -> dict[str, Any]:
        received = wire.receive(self.socket)
        if received is None:
            raise EOFError("the shim has left")
        self.received += received[1]
        return received[0]

    def take(self) -> list[int]:
        """The descriptors that have come; now the caller's to close."""
        taken, self.received = self.received, []
        return taken

    def until(self, name: str, *states: str) -> dict[str, Any]:
        """The container's record once it is in one of these states; needs `list` with `watch` before."""
        seen = 0
        while True:
            for event in self.events[seen:]:
                if event["id"] == name and event["state"] in states:
                    return event
            seen = len(self.events)
            message = self.next()
            if "event" in message:
                self.events.append(message["container"])

    def close(self) -> None:
        self.socket.close()


class Shim:
    """One shim in one state directory, and a connection to it that watches."""

    def __init__(self, python: str, state: Path, idle_exit: float, *more: str) -> None:
        self.python, self.state, self.idle_exit, self.more = python, state, idle_exit, more
        self.pids: set[int] = set()
        self.engine = FAKE_ENGINE
        self.start()

    def restart(self) -> None:
        """Another shim in place of one that has ended."""
        self.connection.close()
        self.start()

    def start(self) -> None:
        launch(self.python, self.state, self.idle_exit, *self.more)
        self.connection = Connection(self.state)
        self.pid = self.connection.ask("hello")["pid"]
        self.pids.add(self.pid)
        self.connection.ask("list", watch=True)

    @property
    def zygote(self) -> dict[str, str]:
        return {"python": self.python, "module": str(self.engine)}

    def run(self, *args: str, name: str | None = None, **more: Any) -> str:
        """Start a container with these arguments; its id. `compiled`: its module."""
        name = name or secrets.token_hex(8)
        spec = os.memfd_create("spec")
        module = os.memfd_create("module")
        try:
            words = {"args": args, "env": more.pop("env", []), "memory": None, "mounts": more.pop("mounts", [])}
            if "network" in more:  # a grant
                grant = more["network"]
                of_tcp = (port for port in grant.ports if port.protocol == TCP)
                listeners = [{"number": port.number, "name": port.name} for port in of_tcp]
                words["network"] = {"addresses": grant.addresses, "listeners": listeners}
                more["network"] = grant.as_message()
            os.write(spec, json.dumps(words).encode())
            os.write(module, more.pop("compiled", b"the module"))
            fields = {"labels": {"name": name}, "log": f"logs/{name}/0.log", "zygote": self.zygote} | more
            self.connection.ask("run", (spec, module), id=name, **fields)
        finally:
            os.close(spec)
            os.close(module)
        return name

    def exec(self, container: str, *args: str, stdin: bytes = b"") -> tuple[dict[str, Any], bytes]:
        """Run a second instance with what the container was given; how it ended, and what it wrote to stdout."""
        self.connection.ask("given", id=container)
        spec, *given = self.connection.take()
        words = json.loads(os.pread(spec, 1 << 20, 0)) | {"args": args}
        changed, source = os.memfd_create("spec"), os.memfd_create("stdin")
        reader, writer = os.pipe()
        null = os.open(os.devnull, os.O_WRONLY)
        os.write(changed, json.dumps(words).encode())
        os.write(source, stdin)
        os.lseek(source, 0, os.SEEK_SET)
        try:
            streams = (source, writer, null)
            fields = {"id": secrets.token_hex(8), "container": container, "zygote": self.zygote}
            answer = self.connection.ask("exec", (*streams, changed, *given), **fields)
        finally:
            wire.close((spec, *given, changed, source, writer, null))
        with open(reader, "rb") as output:
            return answer["exec"], output.read()

    def ended(self, name: str) -> dict[str, Any]:
        return self.connection.until(name, wire.ENDED)

    def running(self, name: str) -> dict[str, Any]:
        return self.connection.until(name, wire.RUNNING)

    def recorded(self, name: str) -> dict[str, Any]:
        """What the file of records says of a container now; {} where it says nothing of it."""
        said: dict[str, Any] = {}
        for line in filter(None, (self.state / RECORDS).read_text().split("\n")):
            fields = json.loads(line)
            if name in fields.get("gone", ()):
                said = {}
            elif fields.get("id") == name:
                said = fields
        return said

    def log(self, name: str) -> bytes:
        return (self.state / "logs" / name / "0.log").read_bytes()

    def logged(self, name: str) -> tuple[int, int]:
        """How far the container's log has come: full files so far, and bytes in the present one."""
        directory = self.state / "logs" / name
        numbers = [int(path.name.split(".")[2]) for path in directory.glob("0.log.*")]
        with contextlib.suppress(FileNotFoundError):
            return max(numbers, default=0), (directory / "0.log").stat().st_size
        return self.logged(name)  # the present one was full just now, and the next is not there yet

    def taken(self, name: str) -> int:
        """What the container's log takes of the disk."""
        total = 0
        for path in (self.state / "logs" / name).iterdir():
            with contextlib.suppress(FileNotFoundError):
                total += path.stat().st_size
        return total

    def waits_to_compress(self, name: str) -> bool:
        """Whether a full file other than the newest is not compressed yet."""
        names = os.listdir(self.state / "logs" / name)
        full = self.logged(name)[0]
        plain = [entry for entry in names if entry.removeprefix("0.log.").isdigit()]
        return any(entry.endswith(".tmp") for entry in names) or plain not in ([f"0.log.{full}"], [])

    def output(self, name: str, stream: str = "stdout") -> bytes:
        """What the guest wrote, put together from the log."""
        out = b""
        for entry in self.log(name).splitlines(keepends=True):
            _, entry_stream, tag, text = entry.split(b" ", 3)
            if entry_stream.decode() == stream:
                out += text if tag == b"F" else text[:-1]
        return out

    def children(self) -> dict[int, str]:
        """The shim's child processes, with their names."""
        return children(self.pid)

    def broker(self) -> int:
        """The broker's pid, once it is there."""
        until = time.monotonic() + PATIENCE
        while not (found := [pid for pid, name in self.children().items() if name == "wasmlet-broker"]):
            assert time.monotonic() < until, "there is no broker"
            time.sleep(0.01)
        return found[0]

    def filled(self) -> set[int]:
        """Its spare children, once all of them are there."""
        return filled(self.pid)

    def zygote_pid(self) -> int:
        return zygote_of(self.pid)


def children(parent: int) -> dict[int, str]:
    """Live child processes of `parent`, with the names that ps shows."""
    found = {}
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with contextlib.suppress(OSError):
            name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
            state, ppid = rest.split()[:2]
            if int(ppid) == parent and state != "Z":
                found[pid] = name
    return found


def zygote_of(shim: int) -> int:
    """The only zygote of a shim. A child that it has just forked goes by its name for a moment, so: the oldest."""
    return min((_started(pid), pid) for pid, name in children(shim).items() if name == "wasmlet-zygote")[1]


def _started(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def spares(shim: int) -> set[int]:
    """Children of a shim that wait for a container."""
    return {pid for pid, name in children(shim).items() if name == "wasmlet-spare"}


def filled(shim: int) -> set[int]:
    """The spare children of a shim, once all of them are there."""
    until = time.monotonic() + PATIENCE
    while len(found := spares(shim)) != SPARE:
        assert time.monotonic() < until, f"expected {SPARE} spare children, found {found}"
        time.sleep(0.01)
    return found


def wait_removed(path: Path) -> None:
    """Return when there is nothing at this path."""
    until = time.monotonic() + PATIENCE
    while path.exists():
        assert time.monotonic() < until, f"{path} is still there"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_gone(pid: int) -> None:
    """Return when the process has ended, whoever its parent is."""
    try:
        watch = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    import select

    ready, _, _ = select.select([watch], [], [], PATIENCE)
    os.close(watch)
    assert ready, f"process {pid} is still there"


@contextlib.contextmanager
def running(state: Path, python: str = sys.executable, idle_exit: float = 60.0, *more: str) -> Iterator[Shim]:
    """A shim that is ended, with all that runs in it, at the end; `more` arguments are its own."""
    shim = Shim(python, state, idle_exit, *more)
    try:
        yield shim
    finally:
        below = [pid for parent in shim.pids for pid in children(parent)]
        with contextlib.suppress(OSError, EOFError, RuntimeError):
            shim.connection.ask("shutdown", force=True)
        shim.connection.close()
        deadline = time.monotonic() + PATIENCE
        for pid in (*shim.pids, *below):
            wait_gone(pid)
        assert time.monotonic() < deadline


def kill(pid: int) -> None:
    """End a process that this test has started, and wait for that."""
    with contextlib.suppress(ProcessLookupError):  # it was about to end by itself
        os.kill(pid, signal.SIGKILL)
    wait_gone(pid)


def unconnected(state: Path) -> bool:
    """Whether no shim listens there."""
    try:
        wire.connect(str(state)).close()
    except (FileNotFoundError, ConnectionRefusedError):
        return True
    return False
