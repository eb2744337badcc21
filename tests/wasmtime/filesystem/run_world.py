"""Run scenarios of files in a world of preview 2: `python run_world.py WORLD WASM`, with JSON on standard input.

WORLD: `ours` (wasmlet_wasmtime.p2) or `native` (wasmtime's own). WASM: the component of `tests/guests/files`. JSON: a
list of scenarios; each is run in a process of its own, as a user without privileges, in a directory of its own:

    before     what is there, see `_MAKERS`, below a directory `mount`, next to which is a file `secret`
    mounts     where each is, by its name below that directory, and whether it is read-only
    lines      what the guest is to do
    system     what the machine is like, see `_SYSTEM`; needs root

The output is a list of what each has come to: `lines` (what the guest has printed), `ended` (how it ended), `outside`
(what is next to `mount` in the end) and `left` (descriptors that are there afterwards and were not before).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

NOBODY = 65534
_libc = ctypes.CDLL(None, use_errno=True)
_NEWNS, _PRIVATE, _RDONLY = 0x20000, 0x44000, 1


def _file(path: Path, content: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def _odd(path: Path) -> None:
    """A file whose name is not UTF-8, and a link to a target that is not."""
    os.mkdir(path)
    os.close(os.open(os.fsencode(path) + b"/\xff", os.O_CREAT))
    os.symlink(b"\xff", os.fsencode(path) + b"-link")


def _running(path: Path) -> None:
    """A program that runs, until this process does not any more."""
    shutil.copy("/bin/cat", path)
    path.chmod(0o755)
    subprocess.Popen([path], stdin=subprocess.PIPE)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


def _swapped(path: Path) -> None:
    """A directory that another process takes away and puts a link to the directory above in its place, all the time."""
    other = path.with_name("other")
    path.mkdir()
    _file(path / "secret", "inside")
    other.symlink_to("..")

    def swap() -> None:
        while True:
            _libc.renameat2(-100, os.fsencode(path), -100, os.fsencode(other), 2)

    threading.Thread(target=swap, daemon=True).start()


_MAKERS: dict[str, Callable[..., object]] = {
    "dir": lambda path: path.mkdir(parents=True, exist_ok=True),
    "file": _file,
    "link": lambda path, target: path.symlink_to(target),
    "pipe": os.mkfifo,
    "socket": _socket,
    "mode": lambda path, mode: path.chmod(int(mode, 8)),
    "times": lambda path, accessed, modified: os.utime(path, (int(accessed), int(modified)), follow_symlinks=False),
    "odd": _odd,
    "running": _running,
    "swapped": _swapped,
}


def _mount(kind: str, where: Path, flags: int = 0, options: str = "") -> None:
    where.mkdir(parents=True, exist_ok=True)
    if _libc.mount(b"none", os.fsencode(where), kind.encode(), flags, options.encode()):
        raise OSError(ctypes.get_errno(), f"cannot mount {where}")


def _file_systems(base: Path) -> None:
    """A small one, one that cannot be written to, and one at a directory below the mount."""
    if _libc.unshare(_NEWNS) or _libc.mount(b"none", b"/", None, _PRIVATE, None):
        raise OSError(ctypes.get_errno(), "no namespace for mounts")
    _mount("tmpfs", base / "mount/small", options=f"size=64k,uid={NOBODY}")
    _mount("tmpfs", base / "mount/fixed", options=f"uid={NOBODY}")
    (base / "mount/fixed/file").write_text("fixed")
    _mount("tmpfs", base / "mount/fixed", 0x20 | _RDONLY)
    _mount("proc", base / "mount/proc")


_SYSTEM: dict[str, Callable[[Path], object]] = {
    "file systems": _file_systems,
    "small files": lambda base: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    "few descriptors": lambda base: resource.setrlimit(resource.RLIMIT_NOFILE, (_open() + 6, _open() + 6)),
}


def _open() -> int:
    """How many descriptors are open, but for the engine's image of a module's memory, which it makes once."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one of the list itself
            found += not os.readlink(f"/proc/self/fd/{name}").startswith("/memfd:wasm-memory")
    return found


class Ours:
    """The world of `wasmlet_wasmtime.p2`."""

    def __init__(self, wasm: bytes) -> None:
        import wasmtime
        from wasmlet_wasmtime import direct, guest
        from wasmlet_wasmtime.p2 import interfaces, world
        from wasmlet_wasmtime.p2.instances import Code
        from wasmtime import component

        del interfaces  # which imports all of the world
        self._engine = wasmtime.Engine(guest.configuration(own_world=True))
        self._component = component.Component(self._engine, wasm)
        linker = world.linker_of(self._engine, self._component)
        self._code = Code(direct.pointer(self._engine), linker, direct.pointer(self._component))

    def run(self, spec: dict[str, Any]) -> str:
        import wasmtime
        from wasmlet_wasmtime.p2.instances import Exited, Instance, Trapped
        from wasmlet_wasmtime.p2.system import Process

        instance = Instance(Process(spec), self._code, None)
        try:
            instance.call(instance.function("wasi:cli/run@0.2.0", "run"), results=1)
        except Exited as error:
            return f"exited {error.code}"
        except (wasmtime.WasmtimeError, wasmtime.Trap, Trapped):
            return "trapped"
        finally:
            instance.close()
        return "returned"


class Native:
    """wasmtime's own."""

    def __init__(self, wasm: bytes) -> None:
        import wasmtime
        from wasmlet_wasmtime import guest

        self._engine = wasmtime.Engine(guest.configuration())
        self._file = tempfile.NamedTemporaryFile()  # noqa: SIM115 - as long as this process
        self._file.write(guest.compile(wasm))
        self._file.flush()
        os.chmod(self._file.name, 0o644)

    def run(self, spec: dict[str, Any]) -> str:
        from wasmlet_wasmtime import direct, guest, socketed

        links = socketed.Links(0, 0, 0, direct.pointer(self._engine))
        code, _ = guest.run(guest.Prepared(self._engine, None, links, None), spec, self._file.name, lambda: None)
        return "trapped" if code == 134 else "returned" if code == 0 else f"exited {code}"


def one(world: Ours | Native, base: Path, scenario: dict[str, Any]) -> dict[str, Any]:
    """Run a scenario, in a process that is only for this."""
    (base / "mount").mkdir()
    if os.geteuid() == 0:
        os.chown(base / "mount", NOBODY, NOBODY)
        for name in scenario.get("system", ()):
            if name == "file systems":
                _SYSTEM[name](base)
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    (base / "secret").write_text("outside")
    for kind, name, *rest in scenario["before"]:
        _MAKERS[kind](base / "mount" / name, *rest)
    mounts = [
        {"directory": str(base / "mount" / name), "path": f"/{number}", "read_only": read_only}
        for number, (name, read_only) in enumerate(scenario.get("mounts") or [(".", False)])
    ]
    output = os.open(base / "output", os.O_CREAT | os.O_RDWR, 0o600)
    os.dup2(output, 1)
    spec = {"args": ["files", *scenario["lines"]], "env": [], "mounts": mounts, "sockets": None, "memory": None}
    for name in scenario.get("system", ()):
        if name != "file systems":
            _SYSTEM[name](base)
    before = _open()
    ended = world.run(spec)
    left = _open() - before

    return {
        "lines": os.pread(output, 2**20, 0).decode().splitlines(),
        "ended": ended,
        "outside": [*sorted(entry.name for entry in base.iterdir()), (base / "secret").read_text()],
        "left": left,
    }


def apart(world: Ours | Native, scenario: dict[str, Any]) -> Any:
    """Run a scenario in a process of its own."""
    with temporary() as base:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(reader)
                os.write(writer, json.dumps(one(world, base, scenario)).encode())
            except BaseException as error:
                os.write(writer, json.dumps({"failed": repr(error)}).encode())
            os._exit(0)
        os.close(writer)
        with open(reader, "rb") as answers:
            found = answers.read()
        os.waitpid(child, 0)
    return json.loads(found)


@contextlib.contextmanager
def temporary() -> Iterator[Path]:
    """A directory that anybody may write to."""
    made = tempfile.mkdtemp()
    try:
        os.chmod(made, 0o777)
        yield Path(made)
    finally:
        for folder, names, _ in os.walk(made):
            for path in (Path(folder, name) for name in names):
                if not path.is_symlink():
                    path.chmod(stat.S_IRWXU)
        shutil.rmtree(made)


def main() -> None:
    wasm = Path(sys.argv[2]).read_bytes()
    world = Ours(wasm) if sys.argv[1] == "ours" else Native(wasm)
    print(json.dumps([apart(world, scenario) for scenario in json.load(sys.stdin)]))


if __name__ == "__main__":
    main()
