"""One pod at a time: the time from its start to the first byte of its log, with an engine in a process of its own.

It is measured at the provider, without the node loop: from `create_pod` to the timestamp of the guest's first log line.
The shim sets that timestamp when it reads the line from the guest's pipe. The floor is the time that the system needs
for a process: from fork and exec of `echo` to the first byte in a pipe. Both are measured by turns, in one run.
"""

from __future__ import annotations

import asyncio
import subprocess
import time
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.burst import Figures, quantile
from benchmarks.processes import BenchmarkFailed
from benchmarks.report import Progress
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod
from wasmlet.model.status import Running, Terminated
from wasmlet.model.times import parse
from wasmlet.provider import LogOptions, NodeContext, Provider, StatusChanged

PATIENCE_SECONDS = 30.0
TRIES = 50


async def first_byte(
    provider: Provider, image: str, state_dir: Path, count: int, progress: Progress
) -> list[dict[str, Figures]]:
    """The p50 and p99 of `count` starts in milliseconds: one round, of `node` (the provider) and `floor`.

    Args:
        provider: not started yet; it is started and stopped here.
        state_dir: exists, for the provider alone.

    Raises:
        BenchmarkFailed: a pod did not run.
    """
    await provider.start(NodeContext("bench", "127.0.0.1", count, state_dir))
    try:
        with progress.step("one at a time"):
            await one_pod(provider, image, 0)  # to compile the module and to start the zygote
            starts: dict[str, list[float]] = {"node": [], "floor": []}
            async with progress.counting("started", count, lambda: len(starts["node"])):
                for number in range(1, count + 1):
                    starts["floor"].append(await asyncio.to_thread(native))
                    starts["node"].append((await one_pod(provider, image, number))[0])
    finally:
        await provider.stop()
    return [{who: {"p50": quantile(sorted(s), 0.5), "p99": quantile(sorted(s), 0.99)} for who, s in starts.items()}]


def pod_of(name: str, image: str) -> Pod:
    """A minimal pod, with one container."""
    return Pod(
        {
            "metadata": {"name": name, "namespace": "bench", "uid": f"uid-of-{name}"},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": image}]},
        }
    )


async def one_pod(provider: Provider, image: str, number: int, handler: str = "") -> tuple[float, bytes]:
    """Start a pod and end it. Returns the milliseconds to its first log line, and that line.

    Raises:
        BenchmarkFailed: it did not run.
    """
    name = f"first-{number}"
    pod = pod_of(name, image)
    begin = datetime.now(UTC)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await provider.create_pod(pod, Inputs(runtime_handler=handler))
            await _started(provider, pod)
            async with aclosing(provider.logs(pod.key, "c", LogOptions(follow=True, timestamps=True))) as pieces:
                async for piece in pieces:
                    if piece:
                        said, _, text = piece.partition(b" ")
                        return (parse(said.decode()) - begin) / timedelta(milliseconds=1), text
        raise BenchmarkFailed(f"pod {name}: expected a line in its log, found none")
    except TimeoutError:
        status = await provider.pod_status(pod.key)
        raise BenchmarkFailed(f"pod {name} wrote nothing within {PATIENCE_SECONDS:g} s: {status}") from None
    finally:
        await provider.delete_pod(pod.key, 0)


async def _started(provider: Provider, pod: Pod) -> None:
    """Return when the pod's container has a log."""
    changes = provider.changes()
    assert changes is not None
    async with aclosing(changes) as stream:
        async for change in stream:
            if isinstance(change, StatusChanged) and change.key == pod.key:
                container = change.status.container("c")
                if container is not None and isinstance(container.state, Running | Terminated):
                    return


def native(*command: str) -> float:
    """Run a native program. Returns the milliseconds to its first byte."""
    begin = time.perf_counter()
    with subprocess.Popen(
        command or ("/bin/echo", "ready"), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, bufsize=0
    ) as process:
        assert process.stdout is not None
        if not process.stdout.read(1):
            raise EOFError(f"{command[0]} wrote nothing")
        return 1000 * (time.perf_counter() - begin)
