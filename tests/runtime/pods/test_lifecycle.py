"""Pods with real guests: what they are given, how they end, and how they are deleted."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from wasmlet_wasmtime import WasmtimeProvider

from tests.runtime.harness import Runtime, pod_of
from tests.worker.harness import children
from wasmlet.errors import ConfigError, NotFound
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod
from wasmlet.model.status import Running, Terminated, Waiting
from wasmlet.provider import NodeContext
from wasmlet.runtime import RuntimeConfig
from wasmlet.runtime.logs.files import of_pod


async def test_hello(runtime: Runtime, image: str) -> None:
    began = datetime.now(UTC)
    key = await runtime.create(pod_of("print", "hello", "error", "oops", image=image))
    ended = await runtime.ended(key)
    assert (ended.exit_code, ended.reason, ended.signal, ended.message) == (0, "Completed", None, "")
    assert ended.started_at is not None
    assert ended.finished_at is not None
    assert began < ended.started_at < ended.finished_at < datetime.now(UTC)
    assert await runtime.output(key) == b"hello\noops\n"
    status = (await runtime.provider.pod_status(key)).containers[0]
    assert (status.image, status.restart_count, status.last_state) == (image, 0, None)
    assert status.image_id.startswith("sha256:")
    assert len(status.image_id) == 71
    assert status.container_id.startswith("wasm://")
    assert ended.container_id == status.container_id
    events = [event for event in runtime.events if not event.reason.startswith("Compil")]  # told where it takes long
    told = [(event.reason, event.message, event.container_field) for event in events]
    where = "spec.containers{main}"
    assert told == [
        ("Pulled", f'Container image "{image}" already present on machine', where),
        ("Created", "Created container: main", where),
        ("Started", "Started container main", where),
    ]


async def test_variables_and_arguments(runtime: Runtime, image: str) -> None:
    env = [
        {"name": "GREETING", "value": "hello"},
        {"name": "BOTH", "value": "$(GREETING) world"},
        {"name": "UNICODE", "value": "\u00fc\u20ac"},
    ]
    key = await runtime.create(pod_of("args", "environ", "$(BOTH)", "$$(BOTH)", "$(NONE)", image=image, env=env))
    output = (await runtime.output(key)).decode().splitlines()
    assert output[:6] == ["driver.wasm", "args", "environ", "hello world", "$(BOTH)", "$(NONE)"]
    # What there is beside the pod's own is what Kubernetes gives every container, and nothing of this machine's.
    assert output[6:10] == ["HOSTNAME=web", "GREETING=hello", "BOTH=hello world", "UNICODE=\u00fc\u20ac"]
    assert output[10:] == ["no such instruction: hello world"]


async def test_a_command_is_all_of_argv(runtime: Runtime, image: str) -> None:
    pod = pod_of("args", image=image, command=["/bin/$(NAME)", "print", "x"], env=[{"name": "NAME", "value": "tool"}])
    key = await runtime.create(pod)
    assert await runtime.output(key) == b"x\n/bin/tool\nprint\nx\nargs\n"


async def test_a_guest_has_nothing_else(runtime: Runtime, image: str) -> None:
    key = await runtime.create(pod_of("environ", "stdin", "open", "/etc/passwd", "open", ".", image=image))
    output = (await runtime.output(key)).decode().splitlines()
    assert output[:2] == ["HOSTNAME=web", "stdin 0"]  # the only variable, as container runtimes set it
    assert len(output) == 4
    assert "open" not in output


@pytest.mark.parametrize(
    ("work", "code", "reason", "text"),
    [
        (["exit", "0"], 0, "Completed", ""),
        (["exit", "7"], 7, "Error", ""),
        (["exit", "125"], 125, "Error", ""),
        (["exit", "200"], 200, "Error", ""),
        (["exit", "255"], 255, "Error", ""),
        (["trap"], 134, "Error", "wasm trap: wasm `unreachable` instruction executed"),
        (["abort"], 134, "Error", "wasm trap: wasm `unreachable` instruction executed"),
        (["recurse"], 134, "Error", "wasm trap: call stack exhausted"),
    ],
)
async def test_how_a_guest_ends(
    runtime: Runtime, image: str, work: list[str], code: int, reason: str, text: str
) -> None:
    key = await runtime.create(pod_of("print", "first", *work, image=image))
    ended = await runtime.ended(key)
    assert (ended.exit_code, ended.reason, ended.signal) == (code, reason, None)
    assert ended.message.endswith(text)
    if text:
        assert "wasm backtrace:" in ended.message
        assert "note:" not in ended.message
        assert "main" in ended.message or "recurse" in ended.message  # the guest's own function names
    assert len(ended.message) <= 4096
    trap = f"{ended.message}\n" if text else ""
    assert await runtime.output(key) == f"first\n{trap}".encode()


async def test_a_memory_limit(ungrouped: Runtime, image: str) -> None:
    limits = {"limits": {"memory": "64Mi", "cpu": "1"}, "requests": {"memory": "1Mi", "cpu": "10m"}}
    key = await ungrouped.create(pod_of("alloc", "16", "alloc", "60", image=image, resources=limits))
    assert await ungrouped.output(key) == b"16 MiB\nno memory\n"


async def test_a_memory_limit_that_the_module_begins_over(ungrouped: Runtime, image: str) -> None:
    key = await ungrouped.create(pod_of("print", "x", image=image, resources={"limits": {"memory": "4Ki"}}))
    ended = await ungrouped.ended(key)
    assert (ended.exit_code, ended.reason) == (128, "StartError")
    assert "exceeds memory limits" in ended.message
    await ungrouped.event(key, "Failed", "exceeds memory limits")


async def test_creating_a_pod_twice_runs_it_once(runtime: Runtime, image: str) -> None:
    pod = pod_of("print", "once", "sleep", "1000", image=image)
    key = await runtime.create(pod)
    first = await runtime.running(key)
    await runtime.create(pod)
    await runtime.provider.update_pod(pod, Inputs())
    assert await runtime.running(key) == first
    assert await runtime.logged(key, b"once\n") == b"once\n"


async def test_two_pods_of_one_name(runtime: Runtime, image: str) -> None:
    old = await runtime.create(pod_of("sleep", "1000", image=image, uid="old"))
    new = await runtime.create(pod_of("sleep", "1000", image=image, uid="new"))
    await runtime.running(old)
    await runtime.running(new)
    await runtime.provider.delete_pod(old, 30)
    assert isinstance((await runtime.running(new)).state, Running)


async def test_several_containers(runtime: Runtime, image: str) -> None:
    containers = [
        {"name": "one", "image": image, "args": ["print", "1"]},
        {"name": "two", "image": image, "args": ["print", "2", "exit", "2"]},
        {"name": "three", "image": image, "args": ["sleep", "1000"]},
    ]
    key = await runtime.create(pod_of(spec={"containers": containers}))
    assert (await runtime.ended(key, "one")).exit_code == 0
    assert (await runtime.ended(key, "two")).exit_code == 2
    assert isinstance((await runtime.running(key, "three")).state, Running)
    assert await runtime.log(key, "two") == b"2\n"


async def test_init_containers_run_one_after_another(runtime: Runtime, image: str) -> None:
    init = [
        {"name": "first", "image": image, "args": ["sleep", "0", "print", "first"]},
        {"name": "second", "image": image, "args": ["print", "second"]},
    ]
    key = await runtime.create(pod_of("print", "main", image=image, spec={"initContainers": init}))
    assert (await runtime.provider.pod_status(key)).containers[0].state == Waiting("PodInitializing")
    await runtime.ended(key)
    status = await runtime.provider.pod_status(key)
    times = [s.state for s in (*status.init_containers, *status.containers)]
    assert all(isinstance(state, Terminated) for state in times)
    ends = [(s.started_at, s.finished_at) for s in times if isinstance(s, Terminated)]
    assert ends == sorted(ends)
    assert [s.is_ready for s in status.init_containers] == [True, True]
    assert await runtime.log(key, "second") == b"second\n"


async def test_an_init_container_that_fails_for_good(runtime: Runtime, image: str) -> None:
    init = [
        {"name": "first", "image": image, "args": ["exit", "3"]},
        {"name": "second", "image": image, "args": ["print", "x"]},
    ]
    key = await runtime.create(pod_of("print", "main", image=image, spec={"initContainers": init}))
    assert (await runtime.ended(key, "first")).exit_code == 3
    status = await runtime.provider.pod_status(key)
    assert status.containers[0].state == Waiting("PodInitializing")
    assert status.init_containers[1].state == Waiting("PodInitializing")


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({"max_container_restart_period": 0.5}, "max container restart period: expected 1 to 300, found 0.5"),
        ({"max_container_restart_period": 301}, "expected 1 to 300, found 301"),
        ({"container_log_max_files": 1}, "container log max files: expected at least 2, found 1"),
        ({"shim_idle_exit": float("inf")}, "shim idle exit: expected at least 1, found inf"),
        ({"compile_timeout": -1}, "compile timeout: expected at least 0.001, found -1"),
        ({"max_module_bytes": 0}, "max module bytes: expected at least 8, found 0"),
    ],
)
def test_a_setting_that_is_out_of_bounds(setting: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        RuntimeConfig(**setting)


async def test_modules_in_a_directory_that_is_not_there(tmp_path: Path) -> None:
    provider = WasmtimeProvider(RuntimeConfig(module_dir=tmp_path / "none"))
    with pytest.raises(ConfigError, match="module dir: expected a directory, found none at"):
        await provider.start(NodeContext("node", "127.0.0.1", 10, tmp_path))
    await provider.stop()


async def test_a_missing_reference_is_waited_for(timed: Runtime, image: str) -> None:
    env = [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "x"}}}]
    pod = pod_of("env", "X", image=image, env=env)
    key = await timed.create(pod)
    waiting = await timed.waiting(key, "CreateContainerConfigError")
    assert waiting.message == 'configmap "settings" not found'
    await timed.event(key, "Failed", 'Error: configmap "settings" not found')
    inputs = Inputs(config_maps={"settings": {"metadata": {"name": "settings"}, "data": {"x": "found"}}})
    await timed.provider.update_pod(pod, inputs)
    await timed.ended(key)
    assert await timed.log(key) == b"X=found\n"


async def test_variables_that_a_guest_cannot_have(runtime: Runtime, image: str) -> None:
    env = [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "x"}}}]
    inputs = Inputs(secrets={"s": {"metadata": {"name": "s"}, "data": {"x": "//4="}}})
    key = await runtime.create(pod_of("env", "X", image=image, env=env), inputs)
    waiting = await runtime.waiting(key, "CreateContainerConfigError")
    assert waiting.message == "spec.containers[0].env: the value of X is not UTF-8, which a guest needs"


async def test_node_status(runtime: Runtime) -> None:
    status = await runtime.provider.node_status()
    assert status.system_info["containerRuntimeVersion"].startswith("wasmtime://")
    assert list(status.runtime_handlers) == ["", "wasmlet", "wasmlet-dense"]
    assert float(status.capacity["cpu"].removesuffix("m")) > 0
    assert int(status.capacity["memory"].removesuffix("Ki")) > 1024
    await runtime.provider.ping()


async def test_a_uid_that_is_no_file_name(runtime: Runtime, image: str) -> None:
    raw = pod_of("print", "x", image=image, uid="../../escape").raw
    key = await runtime.create(Pod(raw))
    assert await runtime.output(key) == b"x\n"
    assert not (runtime.state_dir.parent / "escape").exists()
    await runtime.provider.delete_pod(key, 0)
    assert list((runtime.state_dir / "runtime" / "logs").rglob("*.log*")) == []


async def test_logs_are_removed_when_the_shim_has_let_go_of_them(
    runtime: Runtime, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await runtime.create(pod_of("sleep", "1000", image=image))
    await runtime.running(key)
    log = runtime.state_dir / "runtime" / f"{of_pod(key.uid)}main.0.log"
    there, client = [], runtime.provider.services.client
    forget = client.forget

    async def seen_first(container_ids: Sequence[str]) -> None:
        there.append(log.exists())
        await forget(container_ids)

    monkeypatch.setattr(client, "forget", seen_first)
    await runtime.provider.delete_pod(key, 0)
    assert there == [True]
    assert not log.exists()


async def test_logs_of_pods_in_one_directory_are_apart(runtime: Runtime, image: str) -> None:
    """What is left of a pod's logs goes with the pod, and no more, however much its neighbours' names are alike."""
    names = [f"{number}" for number in range(400)]
    first = names[0]
    other = next(name for name in names[1:] if Path(of_pod(f"uid-of-{name}")).parent == Path(of_pod("uid-of-0")).parent)
    keys = [await runtime.create(pod_of("print", name, image=image, name=name)) for name in (first, other)]
    for key in keys:
        await runtime.ended(key)
    directory = (runtime.state_dir / "runtime" / of_pod(keys[0].uid)).parent
    left = [directory / f"{key.uid},main.0.log.7.gz" for key in keys]
    alike = directory / f"{keys[0].uid}x,main.0.log"
    of_earlier = runtime.state_dir / "runtime" / "logs" / keys[0].uid
    of_earlier.mkdir()
    for path in (*left, alike, of_earlier / "main.0.log.1.gz"):
        path.touch()
    await runtime.provider.delete_pod(keys[0], 0)
    assert not of_earlier.exists()
    assert sorted(directory.iterdir()) == sorted([directory / f"{keys[1].uid},main.0.log", left[1], alike])
    assert await runtime.log(keys[1]) == f"{other}\n".encode()
    await runtime.provider.delete_pod(keys[1], 0)
    assert list(directory.iterdir()) == [alike]


async def test_ended_but_kept(runtime: Runtime, image: str) -> None:
    """Of a pod that the API goes on having there is the log, over a restart of the node loop, and nothing else."""
    volume = {"volumes": [{"name": "v", "emptyDir": {}}]}
    mounts = [{"name": "v", "mountPath": "/v"}]
    pod = pod_of("print", "x", "sleep", "1000", image=image, restart="Always", spec=volume, volumeMounts=mounts)
    key = await runtime.create(pod)
    await runtime.logged(key, b"x\n")
    status = await runtime.provider.end_pod(key, 0)
    assert status is not None
    assert isinstance(status.containers[0].state, Terminated)
    assert status.containers[0].state.exit_code == 137
    await runtime.provider.update_pod(pod, Inputs())  # nothing starts
    assert await runtime.provider.end_pod(key, 0) == status
    for _ in range(2):
        assert await runtime.log(key, follow=True) == b"x\n"
        assert (await runtime.provider.pod_status(key)).containers[0].state == status.containers[0].state
        assert not any(key.uid in path.name for path in (runtime.state_dir / "runtime" / "volumes").rglob("*"))
        assert "wasmlet-guest" not in children(runtime.shim).values()
        await runtime.restart()
    # The API was restored from a backup that has it running.
    await runtime.create(pod)
    assert (await runtime.running(key)).restart_count == 1
    await runtime.provider.end_pod(key, 0)
    await runtime.create(pod)
    assert (await runtime.running(key)).restart_count == 0
    await runtime.provider.delete_pod(key, 0)
    with pytest.raises(NotFound):
        await runtime.log(key)
    with pytest.raises(NotFound):
        await runtime.provider.end_pod(key, 0)
