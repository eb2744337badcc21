"""What an agent does with pods: each request once, in order, and ends that are told until somebody has heard them."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from wasmlet_agent.protocol.failures import Stale
from wasmlet_agent.protocol.messages import EndedLine, Hello, NodeLine, StatusLine

from tests.remote.agents import PATIENCE, AgentProcess, Caller, calling, kept, pod
from wasmlet.errors import InvalidInput, NotFound, Refused
from wasmlet.model.status import Running, Terminated

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def caller(agent: AgentProcess) -> AsyncIterator[Caller]:
    async with calling(agent) as found:
        yield found
        await found.clear()


async def test_a_pod_runs_and_its_end_is_told_until_it_is_forgotten(caller: Caller) -> None:
    body = json.dumps({"pod": pod("a", "exit", "3", restart="Never"), "inputs": {}}).encode()
    await caller.ask("PUT", "/v1/pods/a", content=body)
    listed = (await caller.pods())["a"]
    assert listed.digest == hashlib.sha256(body).hexdigest()
    assert isinstance(listed.status.containers[0].state, Terminated)
    assert listed.status.containers[0].state.exit_code == 3

    await caller.delete("a", 30)
    first = await caller.until(lambda line: isinstance(line, EndedLine))
    assert await caller.pods() == {}
    await caller.delete("a", 30)
    again = await caller.until(lambda line: isinstance(line, EndedLine))
    assert isinstance(first, EndedLine)
    assert isinstance(again, EndedLine)
    assert again.status == first.status == listed.status
    assert again.n > first.n

    await caller.ask("POST", "/v1/pods/a/forget")
    assert isinstance(await caller.error("DELETE", "/v1/pods/a", 404, params={"grace": 0}), NotFound)
    await caller.put(pod("b"))
    async with caller.changes() as lines:
        async for line in lines:
            assert not isinstance(line, EndedLine)
            if isinstance(line, StatusLine):
                break


async def test_a_pod_that_is_handed_over_twice_runs_once(caller: Caller) -> None:
    await caller.put(pod("a", "print", "once"))
    started = (await caller.pods())["a"].status.containers[0].state
    await asyncio.gather(*(caller.put(pod("a", "print", "once"), sequence=10), caller.put(pod("b"))))
    assert (await caller.pods())["a"].status.containers[0].state == started
    log = await caller.ask("GET", "/v1/pods/a/containers/main/logs")
    assert log.content == b"once\n"


async def test_what_is_not_newer_changes_nothing(caller: Caller) -> None:
    await caller.put(pod("a"), sequence=5)
    for sequence in (5, 4):
        assert isinstance(
            await caller.error("DELETE", "/v1/pods/a", 409, params={"grace": 0}, sequence=sequence), Stale
        )
        body = {"pod": pod("a"), "inputs": {}}
        assert isinstance(await caller.error("PUT", "/v1/pods/a", 409, json=body, sequence=sequence), Stale)
    await caller.put(pod("b"), sequence=1)  # each pod has its own
    assert set(await caller.pods()) == {"a", "b"}


async def test_a_create_that_arrives_after_its_delete_starts_nothing(caller: Caller) -> None:
    await caller.delete("a", expect=404, sequence=8)
    await caller.put(pod("a"), sequence=7, expect=409)
    assert await caller.pods() == {}
    await caller.put(pod("a"), sequence=9)  # the API was restored from a backup
    assert set(await caller.pods()) == {"a"}


async def test_a_delete_that_waits_is_answered_at_once_and_hurries_when_asked_to(caller: Caller) -> None:
    await caller.put(pod("a", "ignore"))
    await caller.delete("a", 600)
    await caller.delete("a", 900)
    assert isinstance((await caller.pods())["a"].status.containers[0].state, Running)
    await caller.delete("a", 0)
    line = await caller.until(lambda line: isinstance(line, EndedLine))
    assert isinstance(line, EndedLine)
    assert line.status is not None
    state = line.status.containers[0].state
    assert isinstance(state, Terminated)
    assert state.exit_code == 137


async def test_a_pod_that_is_refused_is_not_held(caller: Caller) -> None:
    refused = pod("a", hostPID=True)
    error = await caller.error("PUT", "/v1/pods/a", 422, json={"pod": refused, "inputs": {}})
    assert isinstance(error, Refused)
    assert error.field == "spec.hostPID"
    assert await caller.pods() == {}
    assert "pod/a" not in kept(caller.agent.state)
    await caller.delete("a", expect=404)


async def test_nothing_is_kept_of_pods_that_have_ended(caller: Caller) -> None:
    async def life(uid: str) -> None:
        await caller.put(pod(uid), sequence=1)
        await caller.delete(uid, sequence=2)

    uids = {f"p{number}" for number in range(50)}
    await asyncio.gather(*map(life, uids))
    async with asyncio.timeout(PATIENCE), caller.changes() as lines:
        ended: set[str] = set()
        async for line in lines:
            ended |= {line.uid} if isinstance(line, EndedLine) else set()
            if ended >= uids:
                break
    assert not {name for name in kept(caller.agent.state) if name.startswith(("pod/", "ending/", "status/"))}
    for uid in uids:
        await caller.ask("POST", f"/v1/pods/{uid}/forget", sequence=3)
    assert kept(caller.agent.state) == set()


async def test_updates_are_for_pods_that_are_here(caller: Caller) -> None:
    body = {"pod": pod("a"), "inputs": {}}
    assert isinstance(await caller.error("PATCH", "/v1/pods/a", 404, json=body), NotFound)
    await caller.put(pod("a"))
    before = (await caller.pods())["a"].digest
    body["pod"]["metadata"]["labels"] = {"changed": "yes"}
    await caller.ask("PATCH", "/v1/pods/a", json=body)
    assert (await caller.pods())["a"].digest not in ("", before)


async def test_changes_resume_where_a_reader_left(caller: Caller) -> None:
    await caller.put(pod("a"))
    last = await caller.until(lambda line: isinstance(line, StatusLine))
    hello = await caller.until(lambda line: isinstance(line, Hello))
    assert isinstance(last, StatusLine)
    assert isinstance(hello, Hello)
    await caller.put(pod("b"))
    seen = []
    async with caller.changes(instance=hello.instance, after=last.n) as lines:
        async for line in lines:
            seen.append(line)
            if isinstance(line, StatusLine):
                break
    assert [line.key.uid for line in seen if isinstance(line, StatusLine)] == ["b"]
    assert not any(isinstance(line, NodeLine) for line in seen)
    # A number of another process means nothing.
    again = await caller.until(lambda line: isinstance(line, StatusLine), instance="other", after=last.n)
    assert isinstance(again, StatusLine)
    assert again.key.uid == "a"


UNREADABLE: list[tuple[str, str, dict[str, Any]]] = [
    ("DELETE", "/v1/pods/a", {"params": {"grace": -1}}),
    ("DELETE", "/v1/pods/a", {"params": {"grace": "nan"}}),
    ("DELETE", "/v1/pods/a", {}),
    ("DELETE", "/v1/pods/..%2fa", {"params": {"grace": 0}}),
    ("PUT", "/v1/pods/a", {"content": b"{"}),
    ("PUT", "/v1/pods/a", {"content": b"[" * 100_000}),
    ("PUT", "/v1/pods/a", {"json": {"pod": {}, "inputs": {}}}),
    ("PUT", "/v1/pods/b", {"json": {"pod": pod("a"), "inputs": {}}}),
    ("PUT", "/v1/pods/a", {"json": {"pod": pod("a"), "inputs": {"secrets": 1}}}),
    ("GET", "/v1/changes", {"params": {"after": "x"}}),
    ("GET", "/v1/pods", {"headers": {"Wasmlet-Session": "one"}}),
    ("PUT", "/v1/pods/a", {"json": {"pod": pod("a"), "inputs": {}}, "headers": {"Wasmlet-Sequence": "-1"}}),
]


async def test_what_cannot_be_read_is_told(caller: Caller) -> None:
    for method, path, rest in UNREADABLE:
        assert isinstance(await caller.error(method, path, 400, **rest), InvalidInput), (method, path, rest)
    assert await caller.pods() == {}
