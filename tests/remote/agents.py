"""An agent as a process, and a caller that speaks its protocol by hand."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
from wasmlet_agent.pods.journal import Journal
from wasmlet_agent.protocol.codec import decode
from wasmlet_agent.protocol.failures import error_in
from wasmlet_agent.protocol.messages import (
    EndedLine,
    Line,
    ListedPod,
    NodeDescription,
    PodList,
    SessionAnswer,
    StatusLine,
    line_in,
)

from wasmlet.model.pod import Raw
from wasmlet.model.status import Running, Waiting

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
NODE = NodeDescription("n1", "10.0.0.1", 110)
REFERENCE = ("-m", "tests.remote.reference_agent")
REAL = ("-m", "wasmlet_agent")


class AgentProcess:
    """The agent of one state directory, started and ended as often as a test likes.

    Attributes:
        url: where it serves.
        log: the lines of its log, of all its processes.
    """

    def __init__(self, state: Path, *options: str, program: tuple[str, ...] = REFERENCE) -> None:
        self.state = state
        self.options = list(options)
        self.program = program
        self.url = ""
        self.log: list[str] = []
        self.process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._serves = asyncio.Event()

    def command(self) -> list[str]:
        """What is run."""
        listen = "--listen=127.0.0.1:0"
        return [sys.executable, *self.program, f"--state-dir={self.state}", listen, *self.options]

    async def start(self) -> None:
        """Start it; returns when it serves."""
        self._serves.clear()
        pipe = asyncio.subprocess.PIPE
        self.process = await asyncio.create_subprocess_exec(
            *self.command(), cwd=ROOT, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
        )
        self._reader = asyncio.create_task(self._read(self.process))
        serves = asyncio.create_task(self._serves.wait())
        await asyncio.wait([serves, self._reader], timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        serves.cancel()
        assert self._serves.is_set(), "\n".join(self.log)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal and wait for its end; its exit code."""
        assert self.process is not None
        assert self._reader is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        async with asyncio.timeout(PATIENCE):
            code = await self.process.wait()
            await self._reader
        return code

    async def restart(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it and start another one."""
        await self.end(number)
        await self.start()

    async def modules(self) -> list[str]:
        """What the process has loaded, which an agent of `reference_agent` tells."""
        assert self.process is not None
        assert self.process.stdout is not None
        self.process.send_signal(signal.SIGUSR1)
        async with asyncio.timeout(PATIENCE):
            return (await self.process.stdout.readline()).decode().split()

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        async for line in process.stderr:
            self.log.append(line.decode())
            with contextlib.suppress(ValueError):
                told = json.loads(line)
                if told.get("event") == "the agent serves":
                    self.url = told["at"]
                    self._serves.set()


def kept(state: Path) -> set[str]:
    """The names of the records that an agent has in its state directory; it may run meanwhile."""
    with tempfile.TemporaryDirectory() as beside:
        journal = Journal(Path(shutil.copy(state / "journal", beside)))
        try:
            return {name for name, _ in journal.records()}
        finally:
            journal.close()


@contextlib.asynccontextmanager
async def running(state: Path, *options: str, program: tuple[str, ...] = REFERENCE) -> AsyncIterator[AgentProcess]:
    """An agent that serves; it is killed when the context ends."""
    agent = AgentProcess(state, *options, program=program)
    try:
        await agent.start()
        yield agent
    finally:
        if agent.process is not None and agent.process.returncode is None:
            await agent.end(signal.SIGTERM)
        # The secrets of pods that are left outlive their agent; not the test.
        await asyncio.to_thread(lambda: shutil.rmtree(os.path.realpath(state / "memory"), ignore_errors=True))


class Caller:
    """Makes requests to an agent; numbers them in its session."""

    def __init__(self, agent: AgentProcess, **rest: Any) -> None:
        self.agent = agent
        self.session = 0
        self.sequence = 0
        self._rest = rest
        self.http = httpx.AsyncClient(timeout=PATIENCE, trust_env=False, **rest)

    async def ask(
        self, method: str, path: str, *, expect: int = 200, sequence: int | None = None, **rest: Any
    ) -> httpx.Response:
        """Make a request in the session, and see that it is answered with this status."""
        headers = {"Wasmlet-Session": str(self.session)} | rest.pop("headers", {})
        if method not in ("GET", "HEAD"):
            self.sequence += 1
            headers.setdefault("Wasmlet-Sequence", str(self.sequence if sequence is None else sequence))
        answer = await self.http.request(method, self.agent.url + path, headers=headers, **rest)
        assert answer.status_code == expect, f"{answer.status_code}: {answer.text}"
        return answer

    async def error(self, method: str, path: str, expect: int, **rest: Any) -> Exception:
        """The error that a request is answered with."""
        answer = await self.ask(method, path, expect=expect, **rest)
        return error_in(answer.status_code, answer.content)

    async def claim(
        self, node: NodeDescription = NODE, claimant: str = "loop", previous: int | None = None
    ) -> SessionAnswer:
        """Begin a session after the newest, or after that of this number."""
        node_raw = {"name": node.name, "ip": node.ip, "max_pods": node.max_pods}
        body = {"node": node_raw, "claimant": claimant, "previous": self.session if previous is None else previous}
        answer = await self.http.post(f"{self.agent.url}/v1/session", json=body)
        if answer.status_code == 412 and previous is None:
            answer = await self.http.post(
                f"{self.agent.url}/v1/session", json=body | {"previous": answer.json()["session"]}
            )
        assert answer.status_code == 200, answer.text
        found = decode(SessionAnswer, answer.content)
        self.session = found.session
        self.sequence = 0
        return found

    async def clear(self) -> None:
        """End and forget every pod."""
        async with asyncio.timeout(PATIENCE):
            for uid in await self.pods():
                await self.delete(uid, sequence=10_000)
                await self.until(lambda line, uid=uid: isinstance(line, EndedLine) and line.uid == uid)
                await self.ask("POST", f"/v1/pods/{uid}/forget", sequence=10_001)

    async def put(self, pod: Raw, inputs: Raw | None = None, **rest: Any) -> httpx.Response:
        """Hand a pod over."""
        body = {"pod": pod, "inputs": inputs or {}}
        return await self.ask("PUT", f"/v1/pods/{pod['metadata']['uid']}", json=body, **rest)

    async def delete(self, uid: str, grace: float = 0, **rest: Any) -> httpx.Response:
        """Ask for a pod's end."""
        params = {"grace": grace, "namespace": "default", "name": uid}
        return await self.ask("DELETE", f"/v1/pods/{uid}", params=params, expect=rest.pop("expect", 202), **rest)

    async def pods(self) -> dict[str, ListedPod]:
        """Every pod, by UID; waits while the agent starts."""
        async with asyncio.timeout(PATIENCE):
            while True:
                headers = {"Wasmlet-Session": str(self.session)}
                answer = await self.http.get(f"{self.agent.url}/v1/pods", headers=headers)
                if answer.status_code != 503:
                    break
                await asyncio.sleep(0.05)
        assert answer.status_code == 200, answer.text
        return {pod.key.uid: pod for pod in decode(PodList, answer.content).pods}

    @contextlib.asynccontextmanager
    async def changes(self, **params: Any) -> AsyncIterator[AsyncIterator[Line]]:
        """The lines of the stream of changes."""
        headers = {"Wasmlet-Session": str(self.session)}
        async with self.http.stream("GET", f"{self.agent.url}/v1/changes", params=params, headers=headers) as answer:
            assert answer.status_code == 200

            async def lines() -> AsyncIterator[Line]:
                async for text in answer.aiter_lines():
                    line = line_in(text.encode())
                    assert line is not None
                    yield line

            yield lines()

    async def until(self, hold: Callable[[Line], bool], **params: Any) -> Line:
        """The first line of a new stream of which this holds."""
        async with asyncio.timeout(PATIENCE), self.changes(**params) as lines:
            async for line in lines:
                if hold(line):
                    return line
        raise AssertionError("the stream has ended")

    async def until_running(self, uid: str) -> ListedPod:
        """The pod, once its first container runs."""

        def runs(line: Line) -> bool:
            return (
                isinstance(line, StatusLine)
                and line.key.uid == uid
                and any(isinstance(one.state, Running) for one in line.status.containers)
            )

        await self.until(runs)
        return (await self.pods())[uid]

    async def until_log(self, uid: str, container: str) -> bytes:
        """The log of a container that ends, once it has begun."""
        await self.until(
            lambda line: (
                isinstance(line, StatusLine)
                and line.key.uid == uid
                and not isinstance(line.status.containers[0].state, Waiting)
            )
        )
        return (await self.ask("GET", f"/v1/pods/{uid}/containers/{container}/logs?follow")).content

    async def close(self) -> None:
        await self.http.aclose()


@contextlib.asynccontextmanager
async def calling(agent: AgentProcess, *, claim: bool = True, **rest: Any) -> AsyncIterator[Caller]:
    """A caller, in a session unless `claim` is false."""
    caller = Caller(agent, **rest)
    try:
        if claim:
            await caller.claim()
        yield caller
    finally:
        await caller.close()


def pod(uid: str, *script: str, restart: str = "Always", **spec: Any) -> dict[str, Any]:
    """A pod of one container, which does what the script says."""
    container = {"name": "main", "image": "none", "command": ["script"], "args": list(script)}
    metadata = {"namespace": "default", "name": uid, "uid": uid}
    return {"metadata": metadata, "spec": {"containers": [container], "restartPolicy": restart, **spec}}
