"""Every deed of `escape_engine`, each in a container of a shim of its own; prints what came of each.

    python -m tests.worker.escapes '{"directory": ..., "python": ..., "uid": ..., "user": ..., "dense": null}'

This process becomes that uid first, if it is not yet. With `user`, containers run as users of their own: the one that
tries as that, its sibling as the next. `dense` is a list of deeds, of which each is tried in a dense worker; its
sibling is a process. Each that tries has a network. The directory is there, is that uid's, and has a copy of the worker
and of the engine, `worker` and `escape_engine.py`, since a checkout may be where only root can read. Standard
output gets one JSON object: of each deed what the engine said, or how its process ended; as "status" what the kernel
says of the process of a container, and as "broker" of the broker.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import sys
from pathlib import Path
from typing import Any

from tests.worker import harness
from tests.worker.escape_engine import DEEDS
from tests.worker.harness import POD, Shim, running
from wasmlet.worker.grants import Grant, Port, Rule
from wasmlet.worker.supervisor.store import RECORDS

GRANTED, OTHER = ("127.9.0.12", 9), "127.9.0.13"
STATUS = ("Seccomp", "NoNewPrivs", "CapEff", "CapPrm", "Uid", "Groups", "Threads")


def main(asked: dict[str, Any]) -> None:
    directory, uid, user = Path(asked["directory"]), asked["uid"], asked["user"]
    harness.WORKER = directory / "worker"
    if uid != os.getuid():
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    (directory / "compiled").mkdir()
    (directory / "compiled/module").write_text("module")
    for name, owner in (("given", user), ("own", user), ("theirs", user and user + 1)):
        (directory / name).mkdir()
        for file in ("file", "own"):
            (directory / name / file).write_text(name)
            (directory / name / file).chmod(0o600)
        for path in (directory / name, *(directory / name).iterdir()):
            if owner is not None:
                os.chown(path, owner, owner)
    other = socket.create_server((OTHER, 0))
    with other, running(directory / "state", asked["python"]) as shim:
        shim.engine = directory / "escape_engine.py"
        sibling = _run(shim, "wait", {}, [(directory / "theirs", False)], user and user + 1)
        pid = shim.running(sibling)["pid"]
        found = _all(shim, directory, {"sibling": pid, "other": other.getsockname()}, user, asked["dense"])
        if asked["dense"] is not None:
            pid = next(pid for pid, name in shim.children().items() if name == "wasmlet-dense")
        broker = _status(shim.broker())
        other.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            found["somebody was dialled"] = other.accept()[1]
        print(json.dumps(found | {"status": _status(pid), "broker": broker}))


def _all(
    shim: Shim, directory: Path, known: dict[str, Any], user: int | None, dense: list[str] | None
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    about: dict[str, Any] = {
        **known,
        "granted": GRANTED,
        "shim": shim.pid,
        "pids": [shim.pid, shim.zygote_pid(), known["sibling"]],
        "state": str(shim.state),
        "secret": str(directory / "theirs/file"),
        "records": [str(shim.state / RECORDS)],
        "logs": [str(path) for path in (shim.state / "logs").glob("*/*")],
    }
    with socket.create_server((POD, 0)) as probe:
        about["port"] = probe.getsockname()[1]
    rule = Rule(cidr=f"{GRANTED[0]}/32", first=GRANTED[1], last=GRANTED[1])
    grant = Grant(addresses=(POD,), ports=(Port(about["port"]),), egress=(rule,)).as_message()
    for deed in DEEDS if dense is None else dense:
        mounts = [(directory / "given", True), (directory / "own", False)]
        more = {"network": grant} | ({} if dense is None else {"dense": "namespace"})
        name = _run(shim, deed, about, mounts, user, more)
        record = shim.ended(name)
        said = shim.output(name)
        found[deed] = json.loads(said) if said else f"signal {record['signal']}"
        if not said and not record["signal"]:
            found[deed] = record["message"]
    return found


def _run(shim: Shim, deed: str, about: Any, mounts: list[tuple[Path, bool]], user: int | None, more: Any = None) -> str:
    name = secrets.token_hex(8)
    spec = {
        "args": [deed, json.dumps(about)],
        "env": [["SECRET", "hidden"]],
        "memory": None,
        "mounts": [{"path": f"/{number}", "read_only": read_only} for number, (_, read_only) in enumerate(mounts)],
        "user": user and {"uid": user, "gid": user, "groups": []},
    }
    with contextlib.ExitStack() as opened:
        files = [os.memfd_create("spec"), os.open(shim.engine.parent / "compiled/module", os.O_RDONLY)]
        files += [os.open(path, os.O_PATH | os.O_DIRECTORY) for path, _ in mounts]
        for file in files:
            opened.callback(os.close, file)
        os.write(files[0], json.dumps(spec).encode())
        fields = {"labels": {}, "log": f"logs/{name}/0.log", "zygote": shim.zygote} | (more or {})
        shim.connection.ask("run", files, id=name, **fields)
    return name


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {name: " ".join(fields[name].split()) for name in STATUS if name in fields}


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
