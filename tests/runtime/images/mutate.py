"""Mutated modules through compile and start: `python -m tests.runtime.images.mutate --count 10000 --seed 1`.

Each is compiled by the engine's own in-worker code, many in one process, since a process for each takes a hundred times
as long as most of them. What compiles, and a sample of what does not, then goes the whole way: a pod each, with the
compiler's process, the zygote and the shim. What runs for too long is ended. At the end nothing may be left of any, and
a pod that has run beside them all the time goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import itertools
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import attrs
from wasmlet_wasmtime import WasmtimeProvider

from tests.runtime.harness import Runtime, files_of, pod_of
from tests.runtime.images.mutations import mutants, seeds
from tests.shared.descriptors import open_descriptors
from tests.worker.harness import PATIENCE, children
from wasmlet.model.status import Terminated, Waiting

AT_ONCE = 6
RUNS_SECONDS = 2.0
"""How long a mutant may run before it is ended."""
SAMPLE = 0.03
"""Of what does not compile, how much goes the whole way too."""

_COMPILES = """
import base64, json, sys
from wasmlet_wasmtime import guest
for line in sys.stdin:
    try:
        guest.compile(base64.b64decode(line))
        answer = ""
    except ValueError as error:
        answer = str(error) or "no message"
    sys.stdout.write(json.dumps(answer) + chr(10))
    sys.stdout.flush()
"""


@attrs.define
class Found:
    """What has become of them.

    Attributes:
        broken: what ended the compiler or failed in it other than by saying that the module is wrong; and anything else
            that should not happen.
        ends: of those that ran, how often each exit code came; "ended" for those that were.
    """

    made: int = 0
    compiled: int = 0
    distinct: int = 0
    ran: int = 0
    refused: int = 0
    not_started: int = 0
    ends: Counter[str] = attrs.field(factory=Counter)
    broken: list[str] = attrs.field(factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        ends = ", ".join(f"{code}: {count}" for code, count in self.ends.most_common())
        lines = [
            f"{self.made} mutants, of which {self.compiled} compiled ({self.distinct} different ones)",
            f"the whole way: {self.ran} ran, {self.not_started} could not start, {self.refused} were refused",
            f"exit codes: {ends}",
            f"{len(self.broken)} things that should not happen, {self.seconds:.0f} s",
        ]
        return "\n".join([*lines, *(f"  {text}" for text in self.broken[:20])])


async def mutate(directory: Path, image: str, count: int, seed: int) -> Found:
    """Make so many mutants and see what becomes of them; `image` is what runs beside them."""
    began, found = time.monotonic(), Found()
    chosen = await _compile(list(itertools.islice(mutants(seed), count)), found, random.Random(seed))
    async with Runtime(WasmtimeProvider, directory / "state") as runtime:
        await _run(runtime, directory, image, chosen, found)
    found.seconds = time.monotonic() - began
    return found


async def _compile(modules: list[bytes], found: Found, rng: random.Random) -> list[bytes]:
    """Compile all; return those that go on, which are valid or of the sample."""
    chosen: dict[bytes, None] = {}
    paths = [entry for entry in sys.path if entry]
    while modules:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _COMPILES, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            limit=2**20,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        done = 0
        for module in modules:
            try:
                process.stdin.write(base64.b64encode(module) + b"\n")
                await process.stdin.drain()
                line = await asyncio.wait_for(process.stdout.readline(), PATIENCE)
            except (TimeoutError, ConnectionError):
                line = b""
            done += 1
            found.made += 1
            if not line:
                found.broken.append(f"the compiler ended or hung at {base64.b64encode(module).decode()}")
                break
            if not json.loads(line):
                found.compiled += 1
                chosen[module] = None
            elif rng.random() < SAMPLE:
                chosen[module] = None
        modules = modules[done:]
        if process.returncode is None:
            process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), PATIENCE)
            except TimeoutError:
                process.kill()
                await process.wait()
    return list(chosen)


async def _run(runtime: Runtime, directory: Path, image: str, modules: Iterable[bytes], found: Found) -> None:
    beside = await runtime.create(pod_of("print", "here", "sleep", "100000", name="beside", image=image))
    before, shim = await runtime.running(beside), runtime.shim
    await runtime.logged(beside, b"here")
    files, descriptors = _files(runtime), open_descriptors()
    queue = iter(enumerate(modules))

    async def work() -> None:
        for number, module in queue:
            path = directory / f"mutant-{number}.wasm"
            path.write_bytes(module)
            try:
                await _one(runtime, f"mutant-{number}", path, module, found)
            except Exception as error:
                found.broken.append(f"{type(error).__name__} ({error}) at {base64.b64encode(module).decode()}")
            path.unlink()

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work())
    await runtime.provider.ping()
    for compiler in runtime.provider.services.handlers.compilers:
        await compiler.keep(())  # as the collector does from time to time
    if await runtime.running(beside) != before:
        found.broken.append("the pod beside them did not go on")
    if runtime.shim != shim:
        found.broken.append("the shim is another one")
    if left := await _left(runtime, files):
        found.broken.append(f"files are left: {sorted(left)[:10]}")
    if (now := open_descriptors()) > descriptors:
        found.broken.append(f"{now - descriptors} descriptors are left")
    names = Counter(children(shim).values()) - Counter(
        {"wasmlet-guest": 1, "wasmlet-zygote": 2, "wasmlet-spare": 6}  # small ones, and those for components
    )
    if names or zombies(shim) or zombies(os.getpid()):
        found.broken.append(f"processes are left: {names}, zombies {zombies(shim)}, {zombies(os.getpid())}")
    if "an error of wasmlet's own" in (told := (runtime.state_dir / "runtime" / "shim.log").read_text()):
        found.broken.append(told[-2000:])
    await runtime.provider.delete_pod(beside, 0)


async def _one(runtime: Runtime, name: str, path: Path, module: bytes, found: Found) -> None:
    spec = {"volumes": [{"name": "v", "emptyDir": {}}]}
    mounts = [{"name": "v", "mountPath": "/data"}]
    limits = {"limits": {"memory": "32Mi"}}
    key = await runtime.create(
        pod_of(name=name, image=f"file://{path}", spec=spec, volumeMounts=mounts, resources=limits)
    )
    settled = (Terminated, Waiting)
    try:
        status = await runtime.main(
            key, lambda s: not isinstance(s.state, settled) or getattr(s.state, "reason", "") != "ContainerCreating"
        )
        if not isinstance(status.state, settled):
            try:
                async with asyncio.timeout(RUNS_SECONDS):
                    status = await runtime.main(key, lambda s: isinstance(s.state, Terminated))
            except TimeoutError:
                pass
        state = status.state
        if isinstance(state, Terminated) and state.reason == "StartError":
            found.not_started += 1
        elif isinstance(state, Waiting):
            found.refused += 1
            if any(sign in state.message for sign in ("Traceback", "wasmtime failed to compile", "the compiler ended")):
                found.broken.append(f"{state.message} at {base64.b64encode(module).decode()}")
        else:
            found.ran += 1
            found.distinct += 1
            found.ends[str(state.exit_code) if isinstance(state, Terminated) else "ended"] += 1
            if isinstance(state, Terminated) and state.signal:
                found.broken.append(f"signal {state.signal} at {base64.b64encode(module).decode()}")
    finally:
        await runtime.provider.delete_pod(key, 0)


def _files(runtime: Runtime) -> set[str]:
    """All that pods may have left: not compiled modules and refusals of modules, which are kept."""
    found = files_of(runtime.state_dir / "runtime")
    return {path for path in found if "refused" not in Path(path).parts and not path.endswith(".pyc")}


async def _left(runtime: Runtime, before: set[str]) -> set[str]:
    """The files that were not there before, once what goes a moment after its pod is gone."""
    left: set[str] = set()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            while left := await asyncio.to_thread(_files, runtime) - before:
                pass
    return left


def zombies(parent: int) -> list[int]:
    """Child processes that have ended and that nobody has reaped."""
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            state, of = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(of) == parent and state == "Z":
            found.append(pid)
    return found


def main() -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(prog="make mutate")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        image = Path(directory) / "beside.wasm"
        image.write_bytes(seeds()[-1])  # the component, which does what its arguments say
        found = asyncio.run(mutate(Path(directory), f"file://{image}", options.count, options.seed))
    print(found)
    return 1 if found.broken else 0


if __name__ == "__main__":
    sys.exit(main())
