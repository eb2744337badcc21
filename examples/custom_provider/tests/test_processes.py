"""What this provider does beyond the contract: restarts, signals, inputs, exec, refusals, and what a crash leaves."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import attrs
import pytest
from wasmlet_processes import ProcessConfig, ProcessProvider
from wasmlet_processes.streams import LAST_OUTPUT

import wasmlet
from wasmlet.testing import FakeClock

SECONDS = 20.0


def pod(*command: str, restart: str = "Never", name: str = "p", **fields: Any) -> wasmlet.Pod:
    """A pod of one container, `c`, that runs the command."""
    container = {"name": "c", "image": "none", "command": list(command)} | fields
    metadata = {"namespace": "default", "name": name, "uid": f"uid-of-{name}"}
    return wasmlet.Pod({"metadata": metadata, "spec": {"restartPolicy": restart, "containers": [container]}})


def shell(script: str, **fields: Any) -> wasmlet.Pod:
    return pod("sh", "-c", script, **fields)


@attrs.define
class Host:
    """A started provider, whose changes are read."""

    provider: ProcessProvider
    clock: FakeClock
    state_dir: Path
    events: list[wasmlet.PodEvent] = attrs.field(factory=list)
    _told: asyncio.Condition = attrs.field(factory=asyncio.Condition)

    async def start(self) -> None:
        await self.provider.start(wasmlet.NodeContext("n1", "127.0.0.1", 10, self.state_dir))

    async def read(self) -> None:
        async with aclosing(self.provider.changes()) as changes:
            async for change in changes:
                async with self._told:
                    if isinstance(change, wasmlet.PodEvent):
                        self.events.append(change)
                    self._told.notify_all()

    async def run(self, pod: wasmlet.Pod, inputs: wasmlet.Inputs | None = None) -> wasmlet.Pod:
        await self.provider.create_pod(pod, inputs or wasmlet.Inputs())
        return pod

    async def until(
        self, pod: wasmlet.Pod, holds: Callable[[wasmlet.ContainerStatus], bool]
    ) -> wasmlet.ContainerStatus:
        """The container's status once it is so."""
        async with asyncio.timeout(SECONDS), self._told:
            while not holds(found := (await self.provider.pod_status(pod.key)).containers[0]):
                await self._told.wait()
        return found

    async def ended(self, pod: wasmlet.Pod) -> wasmlet.Terminated:
        found = await self.until(pod, lambda status: isinstance(status.state, wasmlet.Terminated))
        assert isinstance(found.state, wasmlet.Terminated)
        return found.state

    async def running(self, pod: wasmlet.Pod) -> wasmlet.ContainerStatus:
        return await self.until(pod, lambda status: isinstance(status.state, wasmlet.Running))

    async def waiting(self, pod: wasmlet.Pod, reason: str) -> wasmlet.ContainerStatus:
        return await self.until(
            pod, lambda status: isinstance(status.state, wasmlet.Waiting) and status.state.reason == reason
        )

    async def log(self, pod: wasmlet.Pod, **options: Any) -> bytes:
        pieces = self.provider.logs(pod.key, "c", wasmlet.LogOptions(**options))
        async with asyncio.timeout(SECONDS), aclosing(pieces) as stream:
            return b"".join([piece async for piece in stream])

    async def log_of_ended(self, pod: wasmlet.Pod) -> bytes:
        """The log, once the container has ended, without reading changes."""
        async with asyncio.timeout(SECONDS):
            while not isinstance((await self.provider.pod_status(pod.key)).containers[0].state, wasmlet.Terminated):
                await self.provider.changes().__anext__()
        return await self.log(pod)

    async def first_line(self, pod: wasmlet.Pod) -> str:
        await self.running(pod)
        pieces = self.provider.logs(pod.key, "c", wasmlet.LogOptions(follow=True))
        async with asyncio.timeout(SECONDS), aclosing(pieces) as stream:
            return (await anext(stream)).decode().splitlines()[0]


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    clock = FakeClock()
    host = Host(ProcessProvider(clock=clock), clock, tmp_path)
    await host.start()
    async with asyncio.TaskGroup() as group:
        reader = group.create_task(host.read())
        yield host
        reader.cancel()
    await host.provider.stop()


@pytest.mark.parametrize(("restart", "code"), [("Always", 0), ("Always", 3), ("OnFailure", 3)])
async def test_a_container_is_started_again_after_a_pause_that_grows(host: Host, restart: str, code: int) -> None:
    crashing = await host.run(shell(f"echo run; exit {code}", restart=restart))
    for count, pause in enumerate([10, 20, 40, 80, 160, 300, 300]):
        assert await asyncio.wait_for(host.clock.next_sleep(), SECONDS) == pause
        status = await host.waiting(crashing, "CrashLoopBackOff")
        assert status.restart_count == count
        assert status.last_state is not None
        assert status.last_state.exit_code == code
        host.clock.advance(pause)
    assert await host.log(crashing) == b"run\n"
    assert await host.log(crashing, previous=True) == b"run\n"
    # The log before the previous one is not kept.
    assert len(sizes(host.state_dir)) <= 2


@pytest.mark.parametrize(("restart", "code"), [("Never", 0), ("Never", 3), ("OnFailure", 0)])
async def test_a_container_that_is_done_stays_so(host: Host, restart: str, code: int) -> None:
    done = await host.run(shell(f"exit {code}", restart=restart))
    assert (await host.ended(done)).exit_code == code
    last = await host.provider.delete_pod(done.key, 30)
    assert last is not None
    assert last.containers[0].restart_count == 0


async def test_a_pod_that_is_deleted_in_a_pause_ended_as_its_last_run_did(host: Host) -> None:
    crashing = await host.run(shell("exit 3", restart="Always"))
    await host.waiting(crashing, "CrashLoopBackOff")
    async with asyncio.timeout(SECONDS):
        last = await host.provider.delete_pod(crashing.key, 600)
    assert last is not None
    assert isinstance(last.containers[0].state, wasmlet.Terminated)
    assert last.containers[0].state.exit_code == 3


@pytest.mark.parametrize(
    ("script", "grace", "code", "signal"),
    [
        ("trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done", 600, 7, None),
        ("echo up; exec sleep 100000", 600, 143, 15),
        ("trap '' TERM; echo up; while :; do sleep 0.05; done", 0.2, 137, 9),
    ],
)
async def test_a_process_is_told_to_end_and_then_made_to(
    host: Host, script: str, grace: float, code: int, signal: int | None
) -> None:
    stubborn = await host.run(shell(script))
    assert await host.first_line(stubborn) == "up"
    last = await host.provider.delete_pod(stubborn.key, grace)
    assert last is not None
    state = last.containers[0].state
    assert isinstance(state, wasmlet.Terminated)
    assert (state.exit_code, state.signal) == (code, signal)


async def test_what_a_container_leaves_behind_ends_with_it(host: Host) -> None:
    parent = await host.run(shell("sleep 100000 & echo $!; exit 0"))
    assert (await host.ended(parent)).exit_code == 0
    child = int(await host.log(parent))
    await _gone(child)


async def _gone(pid: int) -> None:
    """Return when there is no such process; one that nobody has reaped yet is none."""
    async with asyncio.timeout(SECONDS):
        while _alive(pid):  # noqa: ASYNC110 - nobody tells: it is no child of ours
            await asyncio.sleep(0.01)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_a_program_that_is_not_there(host: Host) -> None:
    missing = await host.run(pod("/no/such/program"))
    state = await host.ended(missing)
    assert (state.exit_code, state.reason) == (128, "StartError")
    assert "/no/such/program" in state.message


async def test_variables_and_arguments_come_from_the_manifest_and_its_inputs(host: Host) -> None:
    env = [
        {"name": "WHO", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "who"}}},
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    ]
    greeter = pod("echo", env=env, args=["hello", "$(WHO)", "from", "$(POD)"])
    await host.run(greeter)
    status = await host.waiting(greeter, "CreateContainerConfigError")
    assert isinstance(status.state, wasmlet.Waiting)
    assert status.state.message == 'configmap "settings" not found'
    settings = {"metadata": {"name": "settings"}, "data": {"who": "world"}}
    await host.provider.update_pod(greeter, wasmlet.Inputs(config_maps={"settings": settings}))
    assert (await host.ended(greeter)).exit_code == 0
    assert await host.log(greeter) == b"hello world from p\n"
    assert [event.reason for event in host.events] == ["Failed", "Started"]


async def test_a_process_gets_no_variable_of_the_node(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_OF_THE_NODE", "secret")
    curious = await host.run(pod("env", workingDir="/tmp"))
    await host.ended(curious)
    names = {line.partition("=")[0] for line in (await host.log(curious)).decode().splitlines()}
    assert names == {"PATH", "WASMLET_PROCESSES"}


@pytest.mark.parametrize(
    ("fields", "spec", "field"),
    [
        ({"command": []}, {}, "spec.containers[0].command"),
        ({"livenessProbe": {"exec": {"command": ["true"]}}}, {}, "spec.containers[0].livenessProbe"),
        ({"resources": {"limits": {"memory": "1Gi"}}}, {}, "spec.containers[0].resources.limits"),
        ({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}, {}, "spec.containers[0].volumeMounts"),
        ({"securityContext": {"runAsUser": 1000}}, {}, "spec.containers[0].securityContext"),
        (
            {"terminationMessagePolicy": "FallbackToLogsOnError"},
            {},
            "spec.containers[0].terminationMessagePolicy",
        ),
        ({}, {"initContainers": [{"name": "i"}]}, "spec.initContainers"),
        ({}, {"volumes": [{"name": "v", "emptyDir": {}}]}, "spec.volumes"),
        ({}, {"aFieldOfTheFuture": {"x": 1}}, "spec.aFieldOfTheFuture"),
    ],
)
async def test_what_cannot_be_honoured_is_named(
    host: Host, fields: dict[str, Any], spec: dict[str, Any], field: str
) -> None:
    asked = pod("true", **fields)
    asked = wasmlet.Pod({**asked.raw, "spec": {**asked.spec, **spec}})
    with pytest.raises(wasmlet.Refused) as refused:
        await host.run(asked)
    assert refused.value.field == field
    assert await host.provider.list_pods() == []


@attrs.define
class Terminal:
    """The caller of an exec."""

    sent: list[bytes] = attrs.field(factory=list)
    tty: bool = False
    stdin: bool = True
    stdout: bool = True
    stderr: bool = True
    out: bytes = b""
    err: bytes = b""
    written: asyncio.Event = attrs.field(factory=asyncio.Event)

    async def read_stdin(self) -> bytes:
        return self.sent.pop(0) if self.sent else b""

    async def write_stdout(self, data: bytes) -> None:
        self.out += data
        self.written.set()

    async def write_stderr(self, data: bytes) -> None:
        self.err += data

    async def next_size(self) -> tuple[int, int]:
        return 80, 24


async def test_exec_passes_on_streams_variables_and_the_exit_code(host: Host) -> None:
    sleeper = await host.run(pod("sleep", "100000", env=[{"name": "A", "value": "1"}]))
    await host.running(sleeper)
    terminal = Terminal([b"one\n", b"two\n"])
    code = await host.provider.exec(sleeper.key, "c", ["sh", "-c", "cat; echo $A; echo no >&2; exit 5"], terminal)
    assert (code, terminal.out, terminal.err) == (5, b"one\ntwo\n1\n", b"no\n")
    assert await host.provider.exec(sleeper.key, "c", ["sh", "-c", "kill -9 $$"], Terminal()) == 137
    with pytest.raises(wasmlet.InvalidInput, match="/no/such"):
        await host.provider.exec(sleeper.key, "c", ["/no/such"], Terminal())
    with pytest.raises(wasmlet.InvalidInput, match="--tty"):
        await host.provider.exec(sleeper.key, "c", ["sh"], Terminal(tty=True))
    with pytest.raises(wasmlet.NotFound):
        await host.provider.exec(sleeper.key, "other", ["true"], Terminal())


async def test_an_exec_whose_caller_leaves_is_ended(host: Host) -> None:
    sleeper = await host.run(pod("sleep", "100000"))
    await host.running(sleeper)
    terminal = Terminal()
    call = host.provider.exec(sleeper.key, "c", ["sh", "-c", "echo $$; exec sleep 100000"], terminal)
    task = asyncio.ensure_future(call)
    await asyncio.wait_for(terminal.written.wait(), SECONDS)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _gone(int(terminal.out))


async def test_attach_shows_what_comes_and_takes_input(host: Host) -> None:
    talker = await host.run(shell("while read line; do echo got $line; done; echo over", stdin=True, stdinOnce=True))
    await host.running(talker)
    terminal = Terminal([b"one\n", b"two\n"])
    await asyncio.wait_for(host.provider.attach(talker.key, "c", terminal), SECONDS)
    assert terminal.out == b"got one\ngot two\nover\n"
    assert await host.log_of_ended(talker) == terminal.out
    with pytest.raises(wasmlet.NotFound):
        await host.provider.attach(talker.key, "c", Terminal())


async def test_an_exec_waits_for_a_slow_caller_with_its_last_output(host: Host) -> None:
    class Slow(Terminal):
        async def write_stdout(self, data: bytes) -> None:
            await asyncio.sleep(LAST_OUTPUT + 0.2)
            await super().write_stdout(data)

    sleeper = await host.run(pod("sleep", "100000"))
    await host.running(sleeper)
    terminal = Slow()
    assert await host.provider.exec(sleeper.key, "c", ["sh", "-c", "echo slow"], terminal) == 0
    assert terminal.out == b"slow\n"


async def test_only_ports_of_the_pods_own_processes_are_forwarded(host: Host) -> None:
    sleeper = await host.run(pod("sleep", "100000"))
    await host.running(sleeper)
    with socket.create_server(("127.0.0.1", 0)) as others:
        port = others.getsockname()[1]
        with pytest.raises(wasmlet.InvalidInput, match=f"listen at port {port}, found none"):
            await host.provider.port_forward(sleeper.key, port, Nobody())
        others.setblocking(False)
        with pytest.raises(BlockingIOError):
            others.accept()


class Nobody:
    """The near end of a port-forward, who says nothing."""

    async def read(self) -> bytes:
        return b""

    async def write(self, data: bytes) -> None:
        raise AssertionError("expected nothing to come")


async def test_what_a_node_that_was_killed_left_behind_is_ended(host: Host) -> None:
    lost = await host.run(shell("echo $$$$; exec sleep 100000"))
    pid = int(await host.first_line(lost))
    elsewhere = host.state_dir / "another"
    elsewhere.mkdir()
    other = ProcessProvider()
    await other.start(wasmlet.NodeContext("n2", "127.0.0.1", 10, elsewhere))
    assert _alive(pid)  # another node's processes are left alone
    await other.stop()
    successor = ProcessProvider()
    await successor.start(wasmlet.NodeContext("n1", "127.0.0.1", 10, host.state_dir))
    assert await successor.list_pods() == []
    await _gone(pid)
    await successor.stop()


async def test_a_pod_goes_by_the_signal_that_ended_it(host: Host) -> None:
    victim = await host.run(shell("kill -11 $$$$"))  # "$$" is one "$" in a manifest
    state = await host.ended(victim)
    assert (state.exit_code, state.signal, state.cause) == (139, 11, "Error")


def sizes(directory: Path) -> dict[str, int]:
    """The files below, by name."""
    return {path.name: path.stat().st_size for path in directory.rglob("*") if path.is_file()}


async def test_the_size_of_a_log_is_an_option(tmp_path: Path) -> None:
    provider = ProcessProvider(ProcessConfig(max_log_bytes=1000))
    host = Host(provider, FakeClock(), tmp_path)
    await host.start()
    flood = await host.run(shell("for i in $(seq 200); do echo line $i; sleep 0.001; done"))
    assert (await host.log_of_ended(flood)).endswith(b"line 200\n")
    assert sum(sizes(tmp_path).values()) < 10_000
    await provider.stop()
