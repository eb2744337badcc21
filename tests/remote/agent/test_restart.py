"""An agent that is killed, a machine that is started anew: pods go on without a node loop, and nothing runs twice."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
from pathlib import Path
from typing import Any

import pytest
from wasmlet_agent.agent import Agent, Places
from wasmlet_agent.pods.journal import Journal
from wasmlet_agent.pods.store import Store
from wasmlet_agent.protocol.messages import EndedLine

from tests.remote.agents import AgentProcess, Caller, calling, pod, running
from wasmlet.clock import SystemClock
from wasmlet.errors import ConfigError
from wasmlet.model.status import Running, Terminated, Waiting
from wasmlet.testing import ReferenceProvider

SECRET = "correct-horse-battery-staple"


def inputs() -> dict[str, Any]:
    secret = {"metadata": {"name": "s"}, "data": {"key": SECRET}}
    token = {"audience": "", "expiration_seconds": 3600, "token": f"token-{SECRET}"}
    return {"secrets": {"s": secret}, "tokens": [token], "config_maps": {"c": {"data": {"k": "v"}}}}


def found_in(directory: Path) -> list[str]:
    """The files below a directory that have the secret."""
    return [
        str(file.relative_to(directory))
        for file in directory.rglob("*")
        if file.is_file() and SECRET.encode() in file.read_bytes()
    ]


def modes_in(directory: Path) -> set[int]:
    """The modes of the files that are kept of pods."""
    files = [*directory.glob("journal"), *directory.glob("*/*.json")]
    return {stat.S_IMODE(file.stat().st_mode) for file in files}


def reboot(agent: AgentProcess) -> None:
    """What a machine that starts anew clears."""
    shutil.rmtree(os.readlink(agent.state / "memory"))


async def state_of(caller: Caller, uid: str) -> Running | Terminated | Waiting:
    return (await caller.pods())[uid].status.containers[0].state


async def test_pods_start_again_by_themselves(tmp_path: Path) -> None:
    async with running(tmp_path / "state") as agent, calling(agent) as caller:
        for uid in ("a", "b"):
            await caller.put(pod(uid, "print", "text"), inputs())
        before = await caller.pods()
        await agent.restart(signal.SIGKILL)
        after = await caller.pods()
        assert {uid: found.digest for uid, found in after.items()} == {uid: p.digest for uid, p in before.items()}
        assert all(isinstance(found.status.containers[0].state, Running) for found in after.values())
        await caller.put(pod("a", "print", "text"), inputs(), sequence=1, expect=409)  # held back since before


async def test_secrets_reach_neither_disk_nor_log(tmp_path: Path) -> None:
    async with running(tmp_path / "state") as agent, calling(agent) as caller:
        await caller.put(pod("a"), inputs())
        memory = Path(os.readlink(agent.state / "memory"))
        assert found_in(agent.state) == []
        assert found_in(memory) == ["pods/a.json"]
        assert modes_in(agent.state) | modes_in(memory) == {0o600}
        await caller.ask("PUT", "/v1/pods/b", expect=400, json={"pod": pod("b"), "inputs": {"secrets": [SECRET]}})
        await agent.restart(signal.SIGKILL)
        assert (await caller.pods())["a"].digest
        await caller.delete("a", sequence=50)
        await caller.until(lambda line: isinstance(line, EndedLine))
        assert found_in(memory) == []
        assert await agent.end() == 0
        assert not memory.exists()  # noqa: ASYNC240
        assert SECRET not in "".join(agent.log)


async def test_after_a_reboot_pods_with_secrets_wait_for_their_node_loop(tmp_path: Path) -> None:
    async with running(tmp_path / "state") as agent, calling(agent) as caller:
        await caller.put(pod("secret"), inputs())
        await caller.put(pod("plain"), {"config_maps": {"c": {"data": {"k": "v"}}}})
        await agent.end(signal.SIGKILL)
        reboot(agent)
        await agent.start()
        pods = await caller.pods()
        assert isinstance(pods["plain"].status.containers[0].state, Running)
        assert pods["plain"].digest
        state = pods["secret"].status.containers[0].state
        assert isinstance(state, Waiting)
        assert state.reason == "WaitingForSecrets"
        assert "--keep-secrets" in state.message
        assert pods["secret"].digest == ""
        await caller.put(pod("secret"), inputs(), sequence=100)
        assert isinstance(await state_of(caller, "secret"), Running)
        await agent.restart(signal.SIGKILL)
        assert isinstance(await state_of(caller, "secret"), Running)


async def test_with_keep_secrets_pods_start_after_a_reboot(tmp_path: Path) -> None:
    async with running(tmp_path / "state", "--keep-secrets") as agent, calling(agent) as caller:
        await caller.put(pod("a"), inputs())
        assert found_in(agent.state) == ["secrets/a.json"]
        await agent.restart(signal.SIGKILL)
        assert isinstance(await state_of(caller, "a"), Running)
        agent.options.remove("--keep-secrets")
        await agent.restart(signal.SIGKILL)
        assert found_in(agent.state) == []
        assert isinstance(await state_of(caller, "a"), Waiting)


async def test_what_has_ended_does_not_run_again(tmp_path: Path) -> None:
    async with running(tmp_path / "state") as agent, calling(agent) as caller:
        await caller.put(pod("done", "print", "once", "exit", "7", restart="Never"))
        await caller.put(pod("lost", "sleep", "600", restart="Never"))
        await caller.put(pod("always", "exit", "7"))
        # Statuses are kept as they change: that of a pod that comes later is, once it is there.
        while (agent.state / "journal").read_bytes().count(b"status/") < 3:
            await caller.pods()
        await agent.restart(signal.SIGKILL)
        pods = {uid: found.status.containers[0].state for uid, found in (await caller.pods()).items()}
        assert isinstance(pods["done"], Terminated)
        assert pods["done"].exit_code == 7
        assert isinstance(pods["lost"], Terminated)
        assert (pods["lost"].exit_code, pods["lost"].reason) == (137, "ContainerStatusUnknown")
        await caller.put(pod("done", restart="Never"), sequence=100)
        assert (await state_of(caller, "done")) == pods["done"]
        await caller.delete("done", sequence=101)
        line = await caller.until(lambda line: isinstance(line, EndedLine))
        assert isinstance(line, EndedLine)
        assert line.status is not None
        assert line.status.containers[0].state == pods["done"]


async def test_an_end_outlives_the_agent_until_it_is_forgotten(tmp_path: Path) -> None:
    async with running(tmp_path / "state") as agent, calling(agent) as caller:
        await caller.put(pod("a", "exit", "5", restart="Never"))
        await caller.delete("a")
        first = await caller.until(lambda line: isinstance(line, EndedLine))
        await agent.restart(signal.SIGKILL)
        await caller.pods()
        again = await caller.until(lambda line: isinstance(line, EndedLine))
        assert isinstance(first, EndedLine)
        assert isinstance(again, EndedLine)
        assert again.status == first.status
        await caller.put(pod("a"), sequence=1, expect=409)
        await caller.ask("POST", "/v1/pods/a/forget", sequence=50)
        await agent.restart(signal.SIGKILL)
        assert await caller.pods() == {}
        await caller.delete("a", sequence=51, expect=404)


async def test_an_end_that_has_begun_goes_on(tmp_path: Path) -> None:
    async with running(tmp_path / "state") as agent, calling(agent) as caller:
        await caller.put(pod("a", "ignore"))
        await caller.delete("a", 3)
        while b"ends_at" not in (agent.state / "journal").read_bytes():
            await caller.pods()
        await agent.restart(signal.SIGKILL)
        line = await caller.until(lambda line: isinstance(line, EndedLine))
        assert isinstance(line, EndedLine)
        assert await caller.pods() == {}


async def test_what_was_half_written_is_passed_over(tmp_path: Path) -> None:
    """Also where it was a second record of a pod: then the first one counts."""
    async with running(tmp_path / "state") as agent, calling(agent) as caller:
        for uid in ("a", "b"):
            await caller.put(pod(uid))
        await agent.end(signal.SIGKILL)
        journal = agent.state / "journal"
        lines = journal.read_bytes().splitlines(keepends=True)
        (of_a,) = (line for line in lines if line.startswith(b"pod/a "))
        journal.write_bytes(b"".join(line for line in lines if b"/a " not in line) + of_a[:40])
        (agent.state / ".journal.new").write_bytes(b"{}")
        await agent.start()
        assert set(await caller.pods()) == {"b"}
        await caller.put(pod("a"), sequence=100)
        assert set(await caller.pods()) == {"a", "b"}
        await agent.end(signal.SIGKILL)
        with journal.open("ab") as file:
            file.write(of_a[:40])
        await agent.start()
        assert set(await caller.pods()) == {"a", "b"}


async def test_two_agents_do_not_share_a_state_directory(tmp_path: Path) -> None:
    async with running(tmp_path / "state") as agent:
        second = AgentProcess(agent.state)
        with pytest.raises(AssertionError, match="is in use by another agent"):
            await second.start()
        assert len(second.log) == 1


def as_earlier(state: Path) -> None:
    """Keep what an agent has kept as versions before the journal did: each record in a file of its own."""
    journal = Journal(state / "journal")
    for name, content in journal.records():
        kind, _, uid = name.partition("/")
        directory = state / {"pod": "pods", "status": "statuses", "end": "ends"}[kind]
        directory.mkdir(mode=0o700, exist_ok=True)
        (directory / f"{uid}.json").write_bytes(content.rstrip())
    journal.close()
    (state / "journal").unlink()


@pytest.mark.parametrize("options", [(), ("--keep-secrets",)])
async def test_what_an_earlier_version_has_kept_is_taken_over(tmp_path: Path, options: tuple[str, ...]) -> None:
    async with running(tmp_path / "state", *options) as agent, calling(agent) as caller:
        await caller.put(pod("a"), inputs())
        await caller.put(pod("done", "exit", "7", restart="Never"))
        await caller.put(pod("gone", "exit", "5", restart="Never"))
        await caller.put(pod("bad"), inputs())
        await caller.delete("gone")
        ended = await caller.until(lambda line: isinstance(line, EndedLine))
        before = await caller.pods()
        assert await agent.end() == 0
        as_earlier(agent.state)
        (agent.state / "pods" / "bad.json").write_bytes(b"{")
        (agent.state / "pods" / ".a.json.0123").write_bytes(b"{")
        for _ in range(2):
            await agent.start()
            after = await caller.pods()
            assert set(after) == {"a", "done"}
            assert after["a"].digest == before["a"].digest
            assert isinstance(after["a"].status.containers[0].state, Running)
            assert after["done"].status == before["done"].status
            again = await caller.until(lambda line: isinstance(line, EndedLine))
            assert isinstance(again, EndedLine)
            assert isinstance(ended, EndedLine)
            assert again.status == ended.status
            await agent.end(signal.SIGKILL)
        assert "".join(agent.log).count("a file of an earlier version cannot be read") == 1
        left = {
            str(file.relative_to(agent.state))
            for file in (*agent.state.glob("pods/*"), *agent.state.glob("statuses/*"), *agent.state.glob("ends/*"))
        }
        assert left == {"pods/bad.unreadable"}
        hidden = agent.state / ("secrets" if options else "memory/pods")
        assert {file.name for file in hidden.iterdir()} == {"a.json", "bad.json"}
        await agent.start()
        await caller.pods()  # waits until it has started
        await caller.delete("bad", expect=404)
        assert {file.name for file in hidden.iterdir()} == {"a.json"}
        assert await agent.end() == 0
        journal = Journal(agent.state / "journal")
        assert not [name for name, _ in journal.records() if name.endswith("/bad")]
        journal.close()


async def test_a_pod_whose_record_cannot_be_read_leaves_no_secret_when_it_comes_anew(tmp_path: Path) -> None:
    async with running(tmp_path / "state") as agent, calling(agent) as caller:
        await caller.put(pod("a"), inputs())
        assert await agent.end() == 0
        journal = Journal(agent.state / "journal")
        journal.append({"pod/a": b'{"of": "another version"}'})
        journal.close()
        await agent.start()
        assert set(await caller.pods()) == set()
        hidden = agent.state / "memory/pods"
        assert [file.name for file in hidden.iterdir()] == ["a.json"]
        await caller.put(pod("a"), sequence=100)
        assert list(hidden.iterdir()) == []


async def test_files_of_an_earlier_version_stay_until_they_are_records_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, "no more")

    state = tmp_path / "state"
    async with running(state) as agent, calling(agent) as caller:
        await caller.put(pod("a"))
        await agent.end()
    as_earlier(state)
    with monkeypatch.context() as patch:
        patch.setattr("os.fdatasync", broken)
        agent = Agent(ReferenceProvider, Places(state))
        with pytest.raises(ConfigError, match=f"--state-dir {state}: what is kept there .* no more"):
            await agent.__aenter__()
        await agent._store.close()
    assert (state / "pods" / "a.json").exists()
    store = Store(state, keep_secrets=False, clock=SystemClock())
    assert set(store.load().pods) == {"a"}
    assert not (state / "pods").exists()
    await store.close()
