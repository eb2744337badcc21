"""Who drives an agent: one node loop at a time, by compare-and-swap, and never again once another has begun."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import httpx
import pytest
from aiohttp.test_utils import make_mocked_request
from wasmlet_agent import following
from wasmlet_agent.protocol.failures import LateDuplicate, OtherNode, SessionOver, Unclaimed
from wasmlet_agent.protocol.messages import Beat, EventLine

from tests.remote.agents import NODE, PATIENCE, calling, pod, running
from tests.remote.beside import claimed
from wasmlet import PodEvent, PodKey
from wasmlet.testing import ReferenceProvider


async def test_an_agent_without_a_node_waits_for_its_first_session(tmp_path: Path) -> None:
    async with running(tmp_path / "state") as agent, calling(agent, claim=False) as caller:
        assert (await caller.ask("GET", "/healthz")).json() == {}
        caller.session = 1
        assert isinstance(await caller.error("GET", "/v1/pods", 409), Unclaimed)
        answer = await caller.claim(previous=0)
        assert (answer.session, answer.provider) == (1, "reference")
        batches = {"batches", "batched_deletes", "batched_forgets"}
        assert set(answer.supports) == batches | {"logs", "exec", "attach", "port_forward", "stats"}


async def test_a_session_follows_the_one_that_it_names(tmp_path: Path) -> None:
    async with running(tmp_path / "state") as agent, calling(agent) as caller:
        body = {"node": {"name": "n1", "ip": "10.0.0.1", "max_pods": 110}, "claimant": "other"}
        error = await caller.error("POST", "/v1/session", 412, json=body)
        assert isinstance(error, LateDuplicate)
        assert error.session == 1
        assert (await caller.claim(claimant="other", previous=1)).session == 2
        # Two at once: one of them.
        both = [caller.http.post(f"{agent.url}/v1/session", json={**body, "previous": 2}) for _ in range(2)]
        assert sorted(answer.status_code for answer in await asyncio.gather(*both)) == [200, 412]


async def test_a_session_that_is_over_changes_nothing_and_hears_nothing(tmp_path: Path) -> None:
    async with running(tmp_path / "state") as agent, calling(agent) as old, calling(agent, claim=False) as new:
        await old.put(pod("a", "print", "text"))
        log = old.http.stream(
            "GET", f"{agent.url}/v1/pods/a/containers/main/logs?follow", headers={"Wasmlet-Session": "1"}
        )
        async with old.changes() as lines, log as followed:
            await anext(lines)
            text = followed.aiter_bytes()
            assert await anext(text) == b"text\n"
            assert (await new.claim(claimant="second", previous=1)).session == 2
            async with asyncio.timeout(PATIENCE):
                async for line in lines:
                    assert not isinstance(line, Beat)
                broken = False
                try:
                    await anext(text)
                except httpx.RemoteProtocolError:
                    broken = True
        assert broken
        for method, path, rest in (
            ("GET", "/v1/pods", {}),
            ("GET", "/v1/changes", {}),
            ("PUT", "/v1/pods/b", {"json": {"pod": pod("b"), "inputs": {}}}),
            ("DELETE", "/v1/pods/a", {"params": {"grace": 0}}),
        ):
            assert isinstance(await old.error(method, path, 409, sequence=1000, **rest), SessionOver)
        assert set(await new.pods()) == {"a"}
        await new.put(pod("a"), sequence=1)  # numbers begin anew with each session


async def test_a_session_that_ends_while_a_body_is_on_its_way(tmp_path: Path) -> None:
    body = json.dumps({"pod": pod("b"), "inputs": {}}).encode()
    sent = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield body[:10]
        await sent.wait()
        yield body[10:]

    async with running(tmp_path / "state") as agent, calling(agent) as old, calling(agent, claim=False) as new:
        late = asyncio.create_task(old.error("PUT", "/v1/pods/b", 409, content=pieces()))
        await old.error("PUT", "/v1/pods/other", 400, content=b"")  # by then the head has come
        assert (await new.claim(claimant="second", previous=1)).session == 2
        sent.set()
        assert isinstance(await late, SessionOver)
        assert await new.pods() == {}


async def test_an_agent_belongs_to_one_node_unless_it_may_be_handed_over(tmp_path: Path) -> None:
    other = attrs.evolve(NODE, name="n2")
    async with running(tmp_path / "state") as agent, calling(agent) as caller:
        await caller.put(pod("a"))
        body = {"node": {"name": "n2", "ip": "10.0.0.1", "max_pods": 110}, "claimant": "x", "previous": 1}
        error = await caller.error("POST", "/v1/session", 409, json=body)
        assert isinstance(error, OtherNode)
        assert "'n1'" in str(error)
        assert "--handover" in str(error)
        agent.options.append("--handover")
        await agent.restart()
        async with calling(agent, claim=False) as second:
            assert (await second.claim(other, previous=1)).session == 2
            assert set(await second.pods()) == {"a"}
            assert isinstance(await caller.error("GET", "/v1/pods", 409), SessionOver)


async def test_the_number_of_a_session_outlives_the_agent(tmp_path: Path) -> None:
    async with running(tmp_path / "state") as agent, calling(agent) as caller:
        await caller.claim()
        await agent.restart()
        assert await caller.pods() == {}  # the session goes on
        assert (await caller.claim()).session == 3
        (agent.state / "session.json").write_bytes(b"{}")
        await agent.restart()
        assert isinstance(await caller.error("GET", "/v1/pods", 409), Unclaimed)


async def test_a_session_file_that_cannot_be_read_is_no_session_zero(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with running(state) as agent:
        await agent.end()
        (state / "session.json").write_bytes(b"\0\0")
        process = await asyncio.create_subprocess_exec(*agent.command(), stderr=asyncio.subprocess.PIPE)
        _, said = await process.communicate()
        assert process.returncode == 1
        assert said.decode().startswith("Error: ")
        assert "expected the newest session" in said.decode()
        assert len(said.splitlines()) == 1


async def test_what_an_old_stream_sends_last_does_not_count_as_sent_to_the_next_node_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with claimed(tmp_path / "state", ReferenceProvider) as agent:
        written: list[bytes] = []

        async def write(_: object, data: bytes) -> None:
            written.append(data)
            if b"Told" in data:  # the next session begins while this is on its way
                agent.sessions.end_streams()

        monkeypatch.setattr(following, "_write", write)
        agent.changes.event(PodEvent(PodKey("default", "a", "a"), "Told", "text"))
        await following.send_changes(make_mocked_request("GET", "/v1/changes"), agent, 0)
        assert b"Told" in b"".join(written)
        agent.changes.new_session()
        assert [line.event.reason for line in agent.changes.newer(0) if isinstance(line, EventLine)] == ["Told"]
