"""The host of an actor by itself: time is kept where nobody serves HTTP, too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import wasmlet_wascc

from tests.wascc.signing import written

RUN = """
import sys, time
from wasmlet.worker.guest.zygote import load

guest = load(sys.argv[1])
prepared = guest.prepare()
compiled = guest.compile(open(sys.argv[2], "rb").read())
open(sys.argv[2] + ".bin", "wb").write(compiled)
loaded = guest.guest.load(prepared.engine, sys.argv[2] + ".bin")
code = guest.actor.Code(*map(guest.direct.pointer, (prepared.engine, prepared.linkers[1], loaded)))
told = {"granted": [], "refused": {}, "settings": {}, "bindings": {}}
spec = {"env": [], "mounts": [], "engine": told, "memory": None}
host = guest.Host(code, spec, {}, prepared.engine.increment_epoch, lambda line: print(line, flush=True))
host.start()
began = time.monotonic()
try:
    host.call("DeliverMessage", b"", began + 0.5)
except Exception as error:
    print(type(error).__name__, 0.4 < time.monotonic() - began < 10)
try:
    host.call("DeliverMessage", b"", time.monotonic() + 0.5)  # by another instance
except Exception as error:
    print(type(error).__name__)
"""
"""A process of its own, since a guest writes to the process's own streams."""


ASKS = """
import sys, time
from wasmlet.worker.guest.zygote import load

guest = load(sys.argv[1])
prepared = guest.prepare()
open(sys.argv[2] + ".bin", "wb").write(guest.compile(open(sys.argv[2], "rb").read()))
loaded = guest.guest.load(prepared.engine, sys.argv[2] + ".bin")
code = guest.actor.Code(*map(guest.direct.pointer, (prepared.engine, prepared.linkers[1], loaded)))
told = {"granted": ["a:b"], "refused": {}, "settings": {}, "bindings": {}}
spec = {"env": [], "mounts": [], "engine": told, "memory": None}


class Asked:
    def __init__(self, context):
        self.deadline = context.deadline

    def call(self, binding, operation, message):
        print("seconds", round(self.deadline() - time.monotonic()))


host = guest.Host(code, spec, {"a:b": Asked}, prepared.engine.increment_epoch, print)
host.start()
host.call("x", b"", time.monotonic() + 30)
"""


STARTS = """
import sys
from wasmlet.worker.guest.zygote import load

guest = load(sys.argv[1])
sys.modules[guest.Host.__module__].START_SECONDS = 0.5
prepared = guest.prepare()
open(sys.argv[2] + ".bin", "wb").write(guest.compile(open(sys.argv[2], "rb").read()))
loaded = guest.guest.load(prepared.engine, sys.argv[2] + ".bin")
code = guest.actor.Code(*map(guest.direct.pointer, (prepared.engine, prepared.linkers[1], loaded)))
told = {"granted": [], "refused": {}, "settings": {}, "bindings": {}}
spec = {"env": [], "mounts": [], "engine": told, "memory": None}
try:
    guest.Host(code, spec, {}, prepared.engine.increment_epoch, lambda line: None).start()
except ValueError as error:
    print(error)
"""
ASK = "(call $host_call (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) {rest})"
NEVER_READY = {
    "a start section": "(start $begin) (func $begin (loop (br 0)))",
    "wapc_init": '(func (export "wapc_init") (loop (br 0)))',
    "calls of the host": '(func (export "wapc_init") (loop (drop {ask}) (br 0)))'.replace(
        "{ask}", ASK.replace("{rest}", "(i32.const 0) (i32.const 0)")
    ),
    "lines of the log": '(func (export "_start") (loop (call $console_log (i32.const 0) (i32.const 0)) (br 0)))',
}


@pytest.mark.parametrize("fields", NEVER_READY.values(), ids=NEVER_READY)
def test_an_actor_that_is_never_ready(tmp_path: Path, fields: str) -> None:
    module = tmp_path / "actor.wasm"
    module.write_bytes(written("(i32.const 1)", fields))
    guest = Path(wasmlet_wascc.__file__).parent / "worker" / "guest.py"
    done = subprocess.run([sys.executable, "-c", STARTS, guest, module], capture_output=True, text=True, timeout=120)
    assert done.stdout == "the actor cannot be started: it is not ready after 0.5 s\n", done.stderr


def test_what_an_actor_asks_has_as_long_as_the_actor(tmp_path: Path) -> None:
    """At its start, too."""
    call = "(call $host_call (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 3) {rest})".replace(
        "{rest}", "(i32.const 0) (i32.const 1) (i32.const 0) (i32.const 0)"
    )
    module = tmp_path / "actor.wasm"
    starts = f'(data (i32.const 0) "a:b") (func (export "wapc_init") (drop {call}))'
    module.write_bytes(written(call, starts))
    guest = Path(wasmlet_wascc.__file__).parent / "worker" / "guest.py"
    done = subprocess.run([sys.executable, "-c", ASKS, guest, module], capture_output=True, text=True, timeout=120)
    first, second = (int(line.split()[1]) for line in done.stdout.splitlines())
    assert first <= 10 < second <= 30


@pytest.mark.parametrize(
    "body", ["(loop (br 0)) (i32.const 1)", "(call $console_log (i32.const 0) (i32.const 4)) (loop (br 0)) unreachable"]
)
def test_a_call_that_takes_too_long_is_ended(tmp_path: Path, body: str) -> None:
    module = tmp_path / "actor.wasm"
    module.write_bytes(written(body, '(data (i32.const 0) "here")'))
    guest = Path(wasmlet_wascc.__file__).parent / "worker" / "guest.py"
    done = subprocess.run([sys.executable, "-c", RUN, guest, module], capture_output=True, text=True, timeout=120)
    assert [line for line in done.stdout.splitlines() if "here" not in line] == ["TimedOut True", "TimedOut"], (
        done.stderr
    )
