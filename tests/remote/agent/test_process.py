"""`wasmlet-agent` as people start it: what it loads, where it runs, and how it ends."""

from __future__ import annotations

import asyncio
import resource
import signal
import sys
from pathlib import Path

import pytest
from wasmlet_agent.protocol.messages import EndedLine

from tests.remote.agents import AgentProcess, calling, running
from wasmlet.model.status import Running, Terminated

WASMTIME = ("--provider=wasmtime", "--allow-local-modules", "--shim-idle-exit=1")
TELLS = "import signal, sys; signal.signal(signal.SIGUSR1, lambda *_: print(*sorted(sys.modules), flush=True))"
WATCHED = ("-c", f"{TELLS}; from wasmlet_agent import main; main()")
"""The command line's agent, which tells what it has loaded when it is sent SIGUSR1."""
HARD = 2000
KUBERNETES = ("kopf", "kubernetes_asyncio", "wasmlet.kube", "wasmlet.node", "wasmlet.controlplane")


async def loaded(agent: AgentProcess) -> set[str]:
    """What an agent has loaded of what it must not, and of what it can do without."""
    modules = await agent.modules()
    assert "wasmlet_agent.server" in modules
    foreign = {name for name in modules if name in KUBERNETES or name.startswith(tuple(f"{k}." for k in KUBERNETES))}
    return foreign | {name for name in modules if name in ("cryptography", "wasmlet_remote", "wasmtime")}


async def test_an_agent_loads_no_kubernetes_client(tmp_path: Path, image: str) -> None:
    """Neither at rest nor when a pod has run; nor what takes memory and is needed by other commands only."""
    async with running(tmp_path / "state", *WASMTIME, program=WATCHED) as agent, calling(agent, claim=False) as caller:
        assert await loaded(agent) == set()
        answer = await caller.claim()
        assert answer.provider == "wasmtime"
        container = {"name": "c", "image": image, "args": ["print", "hello", "exit", "3"]}
        metadata = {"namespace": "default", "name": "a", "uid": "a"}
        await caller.put({"metadata": metadata, "spec": {"containers": [container], "restartPolicy": "Never"}})
        log = await caller.until_log("a", "c")
        assert log == b"hello\n"
        await caller.delete("a", 10)
        line = await caller.until(lambda line: isinstance(line, EndedLine))
        assert isinstance(line, EndedLine)
        assert line.status is not None
        state = line.status.containers[0].state
        assert isinstance(state, Terminated)
        assert state.exit_code == 3
        assert await loaded(agent) == set()


class Limited(AgentProcess):
    """An agent that is started with few file descriptors, as most shells have it."""

    def command(self) -> list[str]:
        return ["prlimit", f"--nofile=256:{HARD}", *super().command()]


async def test_an_agent_has_all_the_file_descriptors_that_it_may_have(tmp_path: Path) -> None:
    agent = Limited(tmp_path / "state")
    await agent.start()
    try:
        assert agent.process is not None
        assert resource.prlimit(agent.process.pid, resource.RLIMIT_NOFILE) == (HARD, HARD)
    finally:
        await agent.end()


async def test_guests_outlive_their_agent(tmp_path: Path, image: str) -> None:
    async with running(tmp_path / "state", *WASMTIME, program=WATCHED) as agent, calling(agent) as caller:
        container = {"name": "c", "image": image, "args": ["print", "begun", "sleep", "100000"]}
        metadata = {"namespace": "default", "name": "a", "uid": "a"}
        await caller.put({"metadata": metadata, "spec": {"containers": [container]}})
        begun = (await caller.until_running("a")).status.containers[0]
        assert isinstance(begun.state, Running)
        assert await agent.end(signal.SIGTERM) == 0
        await agent.start()
        again = (await caller.pods())["a"]
        assert again.status.containers[0].container_id == begun.container_id
        assert again.status.containers[0].state == begun.state
        assert again.status.containers[0].restart_count == 0
        assert again.digest
        await caller.delete("a", sequence=100)
        await caller.until(lambda line: isinstance(line, EndedLine))


@pytest.mark.parametrize(
    ("lacks", "said"),
    [
        (
            "import platform; platform.machine = lambda: 'armv7l'",
            "there is no wasmtime for this machine (armv7l): it is made for x86_64 and aarch64, 64 bits",
        ),
        (
            "from wasmlet.worker import linux; linux._PR_GET_CHILD_SUBREAPER = 9999",  # which no kernel knows
            "this system hands no orphans on to a subreaper (prctl), so ends of containers would not be seen: pods "
            "need a kernel of this machine, and not qemu-user",
        ),
    ],
    ids=["engine", "subreapers"],
)
async def test_what_a_machine_lacks_is_told_in_a_sentence(tmp_path: Path, lacks: str, said: str) -> None:
    program = f"{lacks}; from wasmlet_agent import main; main()"
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, "--provider=wasmtime", f"--state-dir={tmp_path}", "--listen=127.0.0.1:0",
        stdout=pipe, stderr=pipe,
    )  # fmt: skip
    out, err = await process.communicate()
    assert (process.returncode, out) == (1, b"")
    assert err.decode() == f"Error: {said}\n"
