"""Many pods in one request: what is no batch is refused, and each pod of one has an answer of its own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import orjson
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from wasmlet_agent.batches import read_batch, read_lines
from wasmlet_agent.protocol import MOST_BATCH
from wasmlet_agent.protocol.codec import decode, encode
from wasmlet_agent.protocol.failures import Failure, Stale, error_of
from wasmlet_agent.protocol.messages import BatchedAnswer, BatchedDelete, BatchedForget, BatchedPod, EndedLine

from tests.remote.agents import AgentProcess, Caller, calling, pod
from wasmlet.errors import InvalidInput, NotFound

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def caller(agent: AgentProcess) -> AsyncIterator[Caller]:
    async with calling(agent) as found:
        yield found
        await found.clear()


def handed(uid: str) -> bytes:
    return orjson.dumps({"pod": pod(uid, "sleep", "1000"), "inputs": {}})


def batch(*pods: tuple[str, int, bytes]) -> bytes:
    return b"".join(encode(BatchedPod(uid, sequence)) + b"\n" + body + b"\n" for uid, sequence, body in pods)


def deletes(*pods: tuple[str, int, float]) -> bytes:
    return b"".join(encode(BatchedDelete(uid, sequence, grace)) + b"\n" for uid, sequence, grace in pods)


async def answers(caller: Caller, body: bytes, path: str = "/v1/pods", expect: int = 200) -> dict[str, Failure | None]:
    lines = (await caller.ask("POST", path, content=body, expect=expect)).content.splitlines()
    found = [decode(BatchedAnswer, line) for line in lines]
    assert len({answer.uid for answer in found}) == len(found)
    return {answer.uid: answer.failure for answer in found}


async def test_each_pod_has_its_own_answer(caller: Caller) -> None:
    await caller.put(pod("old", "sleep", "1000"))
    first = caller.sequence + 1
    found = await answers(
        caller,
        batch(
            ("a", first, handed("a")),
            ("other", first + 1, handed("b")),
            ("broken", first + 2, b"{"),
            ("old", 1, handed("old")),
            ("b", first + 3, handed("b")),
        ),
    )
    caller.sequence += 4
    errors = {uid: type(error_of(failure)) for uid, failure in found.items() if failure is not None}
    assert errors == {"other": InvalidInput, "broken": InvalidInput, "old": Stale}
    assert {uid for uid, failure in found.items() if failure is None} == {"a", "b"}
    assert {"a", "b", "old"} <= (await caller.pods()).keys()


async def test_what_is_taken_on_in_a_batch_is_the_same_as_what_is_put(caller: Caller) -> None:
    """Handed over again by a PUT it has the same digest."""
    body = handed("same")
    assert await answers(caller, batch(("same", caller.sequence + 1, body))) == {"same": None}
    caller.sequence += 1
    before = (await caller.pods())["same"].digest
    await caller.ask("PUT", "/v1/pods/same", content=body)
    assert (await caller.pods())["same"].digest == before != ""


async def test_pods_end_together_and_each_has_its_own_answer(caller: Caller) -> None:
    for uid in ("a", "b", "old"):
        await caller.put(pod(uid))
    first = caller.sequence + 1
    body = deletes(("a", first, 0), ("b", first + 1, 30), ("old", 1, 0), ("unknown", first + 2, 0))
    found = await answers(caller, body, "/v1/deletes", expect=202)
    caller.sequence += 3
    errors = {uid: type(error_of(failure)) for uid, failure in found.items() if failure is not None}
    assert errors == {"old": Stale, "unknown": NotFound}
    for uid in ("a", "b"):
        assert found[uid] is None
        ended = await caller.until(lambda line, uid=uid: isinstance(line, EndedLine) and line.uid == uid)
        assert isinstance(ended, EndedLine)
        assert ended.status is not None
    assert (await caller.pods()).keys() == {"old"}


async def test_ends_are_forgotten_together_and_each_has_its_own_answer(caller: Caller) -> None:
    for uid in ("a", "b", "c"):
        await caller.put(pod(uid))
        await caller.delete(uid, sequence=caller.sequence + 1)
        await caller.until(lambda line, uid=uid: isinstance(line, EndedLine) and line.uid == uid)
    caller.sequence += 1
    first = caller.sequence + 1
    forgets = (BatchedForget("a", first), BatchedForget("b", 1), BatchedForget("unknown", first + 1))
    found = await answers(caller, b"".join(encode(one) + b"\n" for one in forgets), "/v1/forgets")
    caller.sequence += 2
    errors = {uid: type(error_of(failure)) for uid, failure in found.items() if failure is not None}
    assert errors == {"b": Stale}
    await caller.delete("a", sequence=caller.sequence + 1, expect=404)
    await caller.delete("b", sequence=caller.sequence + 2)
    caller.sequence += 2


POD = handed("a")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n",
        b"{}\n{}\n",
        encode(BatchedPod("a", 1)) + b"\n",
        batch(("a", 0, POD)),
        batch(("../a", 1, POD)),
        batch(("a", 1, POD), ("a", 2, POD)),
        batch(*((f"p{number}", 1, POD) for number in range(MOST_BATCH + 1))),
        b"ab\n" * 2**20,
    ],
)
async def test_what_is_no_batch_is_refused(caller: Caller, body: bytes) -> None:
    assert isinstance(await caller.error("POST", "/v1/pods", 400, content=body), InvalidInput)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n",
        b"{}\n",
        POD + b"\n",
        deletes(("a", 0, 0)),
        deletes(("a", 1, -1)),
        deletes(("../a", 1, 0)),
        deletes(("a", 1, 0), ("a", 2, 0)),
        deletes(*((f"p{number}", 1, 0) for number in range(MOST_BATCH + 1))),
        b"ab\n" * 2**16,
    ],
)
async def test_what_says_of_no_pods_to_end_is_refused(caller: Caller, body: bytes) -> None:
    assert isinstance(await caller.error("POST", "/v1/deletes", 400, content=body), InvalidInput)


@pytest.mark.parametrize("body", [b"", b"{}\n", b'{"uid":"a","sequence":0}', b'{"uid":"a","sequence":1}\n' * 2])
async def test_what_says_of_no_ends_to_forget_is_refused(caller: Caller, body: bytes) -> None:
    assert isinstance(await caller.error("POST", "/v1/forgets", 400, content=body), InvalidInput)


async def test_a_request_to_end_pods_is_short(caller: Caller) -> None:
    assert isinstance(await caller.error("POST", "/v1/deletes", 413, content=b"x" * 2**20), InvalidInput)


@given(
    st.binary(max_size=200) | st.lists(st.sampled_from([b"\n", b'{"uid":"a","sequence":1}', POD, b"{"])).map(b"".join)
)
async def test_anything_else_is_no_batch_either(body: bytes) -> None:
    with contextlib.suppress(InvalidInput):
        found = read_batch(body)
        assert 1 <= len(found) <= MOST_BATCH
        assert all(head.sequence >= 1 for head, _ in found)
    for kind in (BatchedDelete, BatchedForget):
        with contextlib.suppress(InvalidInput):
            assert 1 <= len(read_lines(kind, body)) <= MOST_BATCH


async def test_a_pod_that_cannot_be_written_down_costs_nobody_else_anything(caller: Caller) -> None:
    deep = handed("deep").replace(b'"spec":{', b'"spec":{"x":' + b'{"a":' * 400 + b"1" + b"}" * 400 + b",")
    found = await answers(
        caller, batch(("deep", caller.sequence + 1, deep), ("good", caller.sequence + 2, handed("good")))
    )
    caller.sequence += 2
    assert found["good"] is None
    assert (await caller.ask("GET", "/healthz")).status_code == 200
