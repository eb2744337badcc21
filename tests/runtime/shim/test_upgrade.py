"""An upgrade while pods run: a node loop, a shim and an engine of different versions get on with each other."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import pytest
from wasmlet_wasmtime import WasmtimeEngine, WasmtimeProvider

from tests.guests import build
from tests.runtime.callers import Caller
from tests.runtime.harness import PATIENCE, Runtime, pod_of
from tests.worker.harness import Connection, alive, children, kill, wait_gone, zygote_of
from wasmlet.clock import Clock
from wasmlet.errors import WasmletError
from wasmlet.runtime import PROCESS, Isolation, RuntimeConfig, RuntimeProvider, engine
from wasmlet.runtime.shim import records as worker


def other_version(directory: Path, of: Path, changes: Mapping[str, tuple[str, str]]) -> Path:
    """A copy of a package's files; in each file named, the one text is replaced by the other."""
    shutil.copytree(of, directory, ignore=shutil.ignore_patterns("__pycache__"))
    for name, (before, after) in changes.items():
        text = (directory / name).read_text()
        assert before in text
        (directory / name).write_text(text.replace(before, after))
    return directory


_EXTENSIONS = "(messages.EXEC_COMMAND, messages.MAKE_MESSAGE, messages.NETWORK)"

OLDER = {
    # As before there was a dense class, and before exec and attach.
    "supervisor/records.py": ("    thread: int = 0\n    memory: int = 0\n", ""),
    "messages.py": ("Resize, Given, Exec, Attach, Detach,", "Resize, Exec, Detach,"),
    "supervisor/connections.py": (_EXTENSIONS, "()"),
}
NO_COMMANDS = {
    # As before an exec took one round trip.
    "supervisor/connections.py": (_EXTENSIONS, "()"),
}
NO_NETWORK = {
    # As before containers had sockets.
    "supervisor/connections.py": (_EXTENSIONS, "(messages.EXEC_COMMAND,)"),
}
NEVER_GIVEN = {
    # One that cannot be asked what a container was given: a command of the container's own program needs no asking.
    "messages.py": ("Resize, Given, Exec,", "Resize, Exec,"),
}
NEWER = {
    "supervisor/records.py": (
        '    requested: str = ""\n',
        '    requested: str = ""\n    novel: str = "of a later version"\n',
    ),
    "supervisor/connections.py": (
        "greeting.as_message()",
        'greeting.as_message() | {"novel": {"of": ["a later version"]}}',
    ),
}


def named_zygotes(shim: int) -> list[int]:
    return [pid for pid, name in children(shim).items() if name == "wasmlet-zygote"]


@pytest.mark.parametrize(
    "changes", [OLDER, NO_COMMANDS, NEVER_GIVEN, NEWER], ids=["older", "no commands", "never given", "newer"]
)
async def test_a_shim_of_another_version(
    tmp_path: Path, image: str, monkeypatch: pytest.MonkeyPatch, changes: dict[str, tuple[str, str]]
) -> None:
    other = other_version(tmp_path / "other", worker.WORKER, changes)
    monkeypatch.setattr(worker, "WORKER", other)
    async with Runtime(WasmtimeProvider, tmp_path / "state") as runtime:
        pod = pod_of("print", "up", "sleep", "1000", image=image, restart="Always")
        key = await runtime.create(pod)
        before, shim = await runtime.running(key), runtime.shim
        await runtime.logged(key, b"up\n")
        ends = await runtime.create(pod_of("exit", "3", image=image, name="ends"))
        assert (await runtime.ended(ends)).exit_code == 3

        await runtime.stop()
        monkeypatch.undo()
        shutil.rmtree(other)  # the upgrade has replaced it
        await runtime.start()

        assert runtime.shim == shim
        await runtime.create(pod)
        after = await runtime.running(key)
        assert (after.container_id, after.restart_count) == (before.container_id, 0)
        assert (await runtime.ended(ends)).exit_code == 3
        assert await runtime.log(key) == b"up\n"
        await asyncio.to_thread(kill, zygote_of(shim))  # so that it needs another one, of its own code
        new = await runtime.create(pod_of("print", "new", "exit", "4", image=image, name="new"))
        assert (await runtime.ended(new)).exit_code == 4
        assert await runtime.log(new) == b"new\n"
        if changes is OLDER:
            with pytest.raises(WasmletError, match=r"an older wasmlet has started the shim .* knows no 'given'"):
                await runtime.provider.exec(key, "main", ["driver", "exit", "5"], Caller())
        else:
            assert await runtime.provider.exec(key, "main", ["driver", "exit", "5"], Caller()) == 5
        final = await runtime.provider.delete_pod(key, 30)
        assert final is not None
        assert final.containers[0].state.exit_code == 143


async def test_what_is_not_known_is_passed_over(runtime: Runtime) -> None:
    connection = Connection(runtime.state_dir / "runtime")
    assert connection.ask("hello", novel="field")["pid"] == runtime.shim
    with pytest.raises(RuntimeError, match="expected an operation, found 'novel'"):
        connection.ask("novel")
    assert connection.ask("list", novel=["field"]) == []
    connection.close()


async def test_the_code_of_shims_that_are_gone_is_removed(
    tmp_path: Path, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(worker, "WORKER", other_version(tmp_path / "other", worker.WORKER, OLDER))
        runtime = Runtime(WasmtimeProvider, tmp_path / "state")
        async with runtime:
            shim = runtime.shim
            (old,) = (runtime.state_dir / "runtime" / worker.CODE).iterdir()
        await asyncio.to_thread(wait_gone, shim)
    async with runtime:
        (new,) = (runtime.state_dir / "runtime" / worker.CODE).iterdir()
        assert new != old


class Upgraded(WasmtimeEngine):
    """wasmtime in a directory of its own; each version compiles what the other one cannot load."""

    handlers: ClassVar[Mapping[str, Isolation]] = {"wasmlet": PROCESS}
    directory: ClassVar[Path]
    number: ClassVar[str]

    @property
    def version(self) -> str:  # type: ignore[override]
        return self.number

    @property
    def guest_module(self) -> Path:
        return self.directory / "guest.py"


class UpgradedProvider(RuntimeProvider):
    name: ClassVar[str] = "upgraded"

    def __init__(self, config: RuntimeConfig | None = None, *, clock: Clock | None = None) -> None:
        super().__init__(Upgraded(), config, clock=clock)


async def test_an_engine_that_is_upgraded_in_place(tmp_path: Path, image: str) -> None:
    """What runs goes on, commands in it included; what begins is the new version's."""
    Upgraded.directory = tmp_path / "engine"
    Upgraded.number = "1"
    installed = WasmtimeEngine().guest_module.parent
    other_version(Upgraded.directory, installed, {})
    async with Runtime(UpgradedProvider, tmp_path / "state") as runtime:
        pod = pod_of("print", "up", "sleep", "1000", image=image, restart="Always")
        key = await runtime.create(pod)
        before = await runtime.running(key)
        await runtime.stop()
        shutil.rmtree(Upgraded.directory)
        changed = {"direct.py": ('"epoch_interruption": own_world', '"epoch_interruption": True')}
        other_version(Upgraded.directory, installed, changed)
        Upgraded.number = "2"
        engine._digest.cache_clear()
        await runtime.start()
        await runtime.create(pod)
        assert (await runtime.running(key)).container_id == before.container_id
        assert await runtime.provider.exec(key, "main", ["driver", "exit", "5"], Caller()) == 5
        new = await runtime.create(pod_of("exit", "4", image=image, name="new"))
        assert (await runtime.ended(new)).exit_code == 4
        async with asyncio.timeout(PATIENCE):  # a child that was just forked goes by that name for a moment
            while len(zygotes := await asyncio.to_thread(named_zygotes, runtime.shim)) != 2:
                pass
        await runtime.provider.delete_pod(key, 0)
        await asyncio.to_thread(wait_gone, min(zygotes))
        assert sum(map(alive, zygotes)) == 1
    engine._digest.cache_clear()


async def test_a_shim_that_knows_no_networks_says_so(
    tmp_path: Path, image: str, compile_guest: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a container has something to ask of its network; all others start as before."""
    server = f"file://{build('server', compile_guest)}"
    monkeypatch.setattr(worker, "WORKER", other_version(tmp_path / "other", worker.WORKER, NO_NETWORK))
    config = RuntimeConfig(allow_local_modules=True, network="address")
    async with Runtime(WasmtimeProvider, tmp_path / "state", config) as runtime:
        key = await runtime.create(pod_of("sleep", "1000", image=image))
        await runtime.running(key)
        assert len((await runtime.provider.pod_status(key)).pod_ips) == 1
        ports = [{"containerPort": 8080}]
        serves = await runtime.create(pod_of(image=server, name="serves", ports=ports))
        waiting = await runtime.waiting(serves, "RunContainerError")
        assert waiting.message.startswith("an older wasmlet has started the shim")
        assert "knows no networks of pods" in waiting.message
