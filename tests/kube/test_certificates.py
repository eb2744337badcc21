"""Keys, requests and their files; when a certificate is renewed; what comes of a request that nobody signs."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import random
import stat
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
import structlog.testing
from aiohttp import web
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from tests.kube.server import serving
from wasmlet.controlplane.certificates.pki import Authority
from wasmlet.errors import ConfigError
from wasmlet.kube import Client, errors
from wasmlet.kube.certificates import SERVING_SIGNER, CertificateKeeper, NotSigned
from wasmlet.kube.keys import Pair, Wanted, new_key, request_for, request_name, write_private
from wasmlet.kubelet.tls import self_signed
from wasmlet.testing import FakeClock

WANTED = Wanted("system:node:n1", ("system:nodes",), frozenset(["n1"]), frozenset(["127.0.0.1"]))
KEY = new_key()
names = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
wanted = st.builds(
    Wanted,
    names.map("system:node:".__add__),
    st.lists(names, max_size=3).map(tuple),
    st.frozensets(names, max_size=3),
    st.frozensets(st.ip_addresses().map(str), max_size=3),
)


@given(wanted)
def test_a_request_says_what_is_wanted(content: Wanted) -> None:
    request = x509.load_pem_x509_csr(request_for(KEY, content))
    assert request.is_signature_valid
    assert content.common_name in request.subject.rfc4514_string()
    try:
        others = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        assert not content.dns
        assert not content.ips
    else:
        assert frozenset(others.get_values_for_type(x509.DNSName)) == content.dns
        assert frozenset(map(str, others.get_values_for_type(x509.IPAddress))) == content.ips


@given(wanted, wanted)
def test_a_name_stands_for_a_key_and_a_content(one: Wanted, other: Wanted) -> None:
    name = request_name(KEY, one, SERVING_SIGNER)
    assert name == request_name(KEY, one, SERVING_SIGNER)
    assert (name == request_name(KEY, other, SERVING_SIGNER)) == (one == other)
    assert name != request_name(KEY, one, "another")


def test_a_name_of_another_key_is_another() -> None:
    assert request_name(KEY, WANTED, SERVING_SIGNER) != request_name(new_key(), WANTED, SERVING_SIGNER)


@given(st.binary(max_size=200))
def test_what_is_no_pair_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        Pair.parse(data)


def test_a_certificate_of_another_key_is_refused() -> None:
    pem = self_signed("n1", "127.0.0.1", datetime.now(UTC))
    with pytest.raises(ValueError, match="another key"):
        Pair.parse(KEY + pem[pem.index(b"-----BEGIN CERTIFICATE") :])


def test_a_pair_knows_what_it_says_and_shows_no_key() -> None:
    now = datetime.now(UTC)
    pair = Pair.parse(self_signed("n1", "127.0.0.1", now))
    assert pair.says(WANTED)
    assert not pair.says(attrs.evolve(WANTED, ips=WANTED.ips | {"10.0.0.1"}))
    assert not pair.says(attrs.evolve(WANTED, common_name="system:node:n2"))
    assert pair.valid(now)
    assert not pair.valid(pair.not_after)
    assert "PRIVATE" not in repr(pair)


def test_a_file_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_private(tmp_path / "pki/one.pem", b"1")
        write_private(tmp_path / "pki/one.pem", b"2")
    finally:
        os.umask(before)
    found = tmp_path / "pki/one.pem"
    assert found.read_bytes() == b"2"
    assert stat.S_IMODE(found.stat().st_mode) == 0o600
    assert stat.S_IMODE(found.parent.stat().st_mode) == 0o700
    assert [file.name for file in found.parent.iterdir()] == ["one.pem"]


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match=r"one.pem cannot be written"):
        write_private(tmp_path / "file/one.pem", b"1")
    (tmp_path / "one.pem").mkdir()
    with pytest.raises(ConfigError, match=r"one.pem cannot be written"):
        write_private(tmp_path / "one.pem", b"1")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "one.pem"]


class Requests:
    """An API server's collection of requests, decided as a test says."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.made: dict[str, dict[str, Any]] = {}
        self.status: dict[str, Any] = {}
        self.changed = asyncio.Event()
        self.asked = asyncio.Event()
        self.failing: int | None = None

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if self.failing is not None:
            return web.json_response({"kind": "Status", "code": self.failing, "message": "no"}, status=self.failing)
        name = request.path.rpartition("/")[2]
        if request.method == "POST":
            body = await request.json()
            name = body["metadata"]["name"]
            if name in self.made:
                status = {"kind": "Status", "code": 409, "reason": "AlreadyExists", "message": "exists"}
                return web.json_response(status, status=409)
            body["metadata"] |= {"uid": f"uid-{len(self.made)}", "resourceVersion": "1"}
            self.made[name] = body
            return web.json_response(body, status=201)
        if "watch" in request.query:
            response = web.StreamResponse()
            await response.prepare(request)
            self.asked.set()
            await self.changed.wait()
            self.changed.clear()
            found = next(iter(self.made.values()), None)
            event: dict[str, Any] = {"type": "DELETED", "object": {"metadata": {"resourceVersion": "2"}}}
            if found is not None:
                event = {"type": "MODIFIED", "object": found | {"status": self.status}}
            await response.write(json.dumps(event).encode() + b"\n")
            return response
        if selector := request.query.get("fieldSelector"):
            found = self.made.get(selector.removeprefix("metadata.name="))
            items = [found | {"status": self.status}] if found else []
            return web.json_response({"metadata": {"resourceVersion": "1"}, "items": items})
        if name not in self.made:
            return web.json_response({"kind": "Status", "code": 404, "message": "gone"}, status=404)
        return web.json_response(self.made[name] | {"status": self.status})

    def sign(self, *, age: timedelta = timedelta(), key: bool = True) -> None:
        """The newest request has its certificate."""
        (*_, body) = self.made.values()
        request = x509.load_pem_x509_csr(base64.b64decode(body["spec"]["request"]))
        now = self.clock.now() - age
        authority = Authority("cluster", now)
        end = now + timedelta(days=90)
        pem = authority.sign(request, [], server=True, encipherment=False, start=now, end=end)
        if not key:
            pem = authority.client("other").certificate
        self.status = {"conditions": [{"type": "Approved"}], "certificate": base64.b64encode(pem).decode()}
        self.changed.set()


@attrs.define
class Bench:
    requests: Requests
    client: Client
    clock: FakeClock
    file: Path

    def keeper(self, **more: Any) -> CertificateKeeper:
        return CertificateKeeper(self.file, SERVING_SIGNER, lambda: WANTED, self.clock, random.Random(1), **more)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    clock = FakeClock()
    requests = Requests(clock)
    async with serving(requests.answer, tmp_path) as client:
        yield Bench(requests, client, clock, tmp_path / "pki/serving.pem")


async def test_a_request_goes_on_after_a_restart_with_the_same_key(bench: Bench) -> None:
    first = asyncio.create_task(bench.keeper().obtain(bench.client))
    await bench.requests.asked.wait()
    first.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await first
    assert [file.name for file in bench.file.parent.iterdir()] == ["serving.key"]
    async with asyncio.TaskGroup() as group:
        again = group.create_task(bench.keeper().obtain(bench.client))
        bench.requests.sign()
    assert len(bench.requests.made) == 1
    assert [file.name for file in bench.file.parent.iterdir()] == ["serving.pem"]
    kept = bench.keeper()
    assert await kept.load() == again.result()


@pytest.mark.parametrize("verdict", ["Denied", "Failed"])
async def test_a_verdict_is_told_and_the_next_request_has_another_key(bench: Bench, verdict: str) -> None:
    bench.requests.status = {"conditions": [{"type": verdict, "reason": "Because", "message": "of the test"}]}
    keeper = bench.keeper()
    for number in (1, 2):
        with pytest.raises(NotSigned, match=r"\(Because: of the test\)"):
            await keeper.obtain(bench.client)
        assert len(bench.requests.made) == number


@pytest.mark.parametrize("fault", ["another key", "ended", "no certificate", "removed"])
async def test_an_answer_that_cannot_be_used_is_told(bench: Bench, fault: str) -> None:
    keeper = bench.keeper()
    task = asyncio.create_task(keeper.obtain(bench.client))
    await bench.requests.asked.wait()
    if fault == "removed":
        bench.requests.made.clear()
        bench.requests.changed.set()
    else:
        bench.requests.sign(age=timedelta(days=400) if fault == "ended" else timedelta(), key=fault != "another key")
        if fault == "no certificate":
            bench.requests.status["certificate"] = base64.b64encode(b"nonsense").decode()
    with pytest.raises(NotSigned):
        await task
    assert not bench.file.exists()
    assert keeper.pair is None


@pytest.mark.parametrize("status", [401, 403, 500])
async def test_an_api_server_that_says_no_leaves_the_key_for_the_next_try(bench: Bench, status: int) -> None:
    bench.requests.failing = status
    keeper = bench.keeper()
    for _ in range(2):
        with pytest.raises(errors.ApiError):
            await keeper.obtain(bench.client)
    assert [file.name for file in bench.file.parent.iterdir()] == ["serving.key"]


async def test_who_waits_long_is_asked_to_approve_again_and_again(bench: Bench) -> None:
    told: list[tuple[str, float]] = []
    keeper = bench.keeper(pending=lambda name, seconds: told.append((name, seconds)))
    async with asyncio.TaskGroup() as group:
        group.create_task(keeper.obtain(bench.client))
        await bench.requests.asked.wait()
        for seconds in (3.0, 300.0, 300.0):
            assert await bench.clock.next_sleep() == seconds
            bench.clock.advance(seconds)
        await bench.clock.next_sleep()
        bench.requests.sign()
    (name,) = bench.requests.made
    assert told == [(name, 3.0), (name, 303.0), (name, 603.0)]


async def test_it_is_renewed_between_70_and_90_percent_of_its_life(bench: Bench) -> None:
    keeper = bench.keeper()
    pair = Pair.parse(self_signed("n1", "127.0.0.1", bench.clock.now()))
    life = (pair.not_after - pair.not_before).total_seconds()
    shares = [(keeper.deadline(pair) - pair.not_before).total_seconds() / life for _ in range(200)]
    assert 0.7 <= min(shares) < 0.75
    assert 0.85 < max(shares) <= 0.9
    bench.clock.advance(life)  # however old it is, not at once
    late = attrs.evolve(pair, not_after=bench.clock.now() + timedelta(seconds=1000))
    assert (keeper.deadline(late) - bench.clock.now()).total_seconds() >= 100


async def test_the_wait_for_renewal_ends_when_it_is_due_or_lacks_an_address(bench: Bench) -> None:
    content = WANTED
    keeper = CertificateKeeper(bench.file, SERVING_SIGNER, lambda: content, bench.clock, random.Random(1))
    keeper.pair = Pair.parse(self_signed("n1", "127.0.0.1", bench.clock.now()))
    waiting = asyncio.create_task(keeper.due())
    await bench.clock.next_sleep()
    bench.clock.advance(200 * 86400)
    await bench.clock.next_sleep()
    assert not waiting.done()
    bench.clock.advance(140 * 86400)
    await waiting
    keeper.pair = Pair.parse(self_signed("n1", "127.0.0.1", bench.clock.now()))
    waiting = asyncio.create_task(keeper.due())
    await bench.clock.next_sleep()
    content = attrs.evolve(WANTED, ips=frozenset(["10.0.0.1"]))
    bench.clock.advance(60)
    await waiting


async def test_failures_are_repeated_with_pauses_until_it_is_signed(bench: Bench) -> None:
    installed: asyncio.Queue[Pair] = asyncio.Queue()

    @contextlib.asynccontextmanager
    async def requester() -> AsyncIterator[Client]:
        yield bench.client

    bench.requests.failing = 500
    keeper = bench.keeper()
    with structlog.testing.capture_logs() as logs:
        task = asyncio.create_task(keeper.keep(requester, installed.put))
        pauses = []
        for _ in range(3):
            pauses.append(await bench.clock.next_sleep())
            bench.clock.advance(pauses[-1])
        bench.requests.failing = 403
        while (pause := await bench.clock.next_sleep()) < 60:
            bench.clock.advance(pause)
        bench.requests.failing = None
        bench.clock.advance(pause)
        await bench.requests.asked.wait()
        bench.requests.sign()
        pair = await installed.get()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert 2 <= pauses[0] <= 3
    assert pauses == sorted(pauses)
    assert pair.pem == bench.file.read_bytes()
    assert "PRIVATE" not in str(logs)
    assert {entry["log_level"] for entry in logs} == {"warning", "info"}
