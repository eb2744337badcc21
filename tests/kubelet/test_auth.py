"""Who may use the node's API: certificates, tokens, permissions, and what happens where nobody can tell."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
import structlog.testing
from hypothesis import given
from hypothesis import strategies as st

from tests.kubelet.harness import NODE, Kubelet, kubelet
from wasmlet.controlplane.certificates.pki import Authority
from wasmlet.kubelet import reviews
from wasmlet.kubelet.auth import attributes, bearer_token, certificate_user
from wasmlet.kubelet.tls import self_signed
from wasmlet.testing import FakeClock

TOKEN = "very-secret-token"


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Kubelet]:
    async with kubelet(tmp_path) as made:
        yield made


@pytest.mark.parametrize(
    ("method", "path", "verb", "subresources"),
    [
        ("GET", "/pods", "get", ("pods", "proxy")),
        ("GET", "/pods/", "get", ("pods", "proxy")),
        ("GET", "/runningpods/", "get", ("pods", "proxy")),
        ("GET", "/healthz", "get", ("healthz", "proxy")),
        ("GET", "/healthz/ping", "get", ("healthz", "proxy")),
        ("GET", "/healthzx", "get", ("proxy",)),
        ("GET", "/configz", "get", ("configz", "proxy")),
        ("GET", "/stats/summary", "get", ("stats",)),
        ("POST", "/stats/summary", "create", ("stats",)),
        ("GET", "/metrics", "get", ("metrics",)),
        ("GET", "/metrics/resource", "get", ("metrics",)),
        ("GET", "/logs/", "get", ("log",)),
        ("GET", "/checkpoint/a/b/c", "get", ("checkpoint",)),
        ("GET", "/containerLogs/a/b/c", "get", ("proxy",)),
        ("POST", "/exec/a/b/c", "create", ("proxy",)),
        ("GET", "/exec/a/b/c", "create", ("proxy",)),
        ("GET", "/attach/a/b/c", "create", ("proxy",)),
        ("GET", "/portForward/a/b", "create", ("proxy",)),
        ("DELETE", "/pods", "delete", ("pods", "proxy")),
        ("PUT", "/x", "update", ("proxy",)),
        ("PATCH", "/x", "patch", ("proxy",)),
        ("HEAD", "/pods", "", ("pods", "proxy")),
        ("BREW", "/", "", ("proxy",)),
    ],
)
def test_what_a_request_does(method: str, path: str, verb: str, subresources: tuple[str, ...]) -> None:
    assert attributes(method, path) == (verb, subresources)


@given(st.sampled_from(["GET", "POST", "HEAD", "X"]), st.text(alphabet="/podsexcmtricz.%2\x00", max_size=40))
def test_no_path_is_without_a_permission(method: str, path: str) -> None:
    verb, subresources = attributes(method, path)
    assert subresources
    assert verb in ("get", "create", "")


@given(st.text(max_size=60))
def test_any_authorization_header_is_read(header: str) -> None:
    token = bearer_token(header)
    assert token is None or (token and token in header and header.strip().lower().startswith("bearer"))


async def test_a_certificate_names_the_user_and_the_groups(node: Kubelet) -> None:
    node.reviewer.allowed.add(("alice", "get", "pods"))
    assert (await node("/pods", who="alice/devs/ops"))[0] == 200
    assert node.reviewer.specs == [
        {
            "user": "alice",
            "groups": ["devs", "ops", "system:authenticated"],
            "resourceAttributes": {
                "verb": "get",
                "version": "v1",
                "resource": "nodes",
                "subresource": "pods",
                "name": NODE,
            },
        }
    ]


async def test_nobody_is_let_in_without_a_name(node: Kubelet) -> None:
    for path in ("/healthz", "/pods", "/metrics", "/containerLogs/a/b/c", "/exec/a/b/c", "/nowhere"):
        assert await node(path, who=None) == (401, "Unauthorized")
        assert await node(path, token="guess") == (401, "Unauthorized")
        assert await node(path, who=None, headers={"Authorization": "Basic eDp5"}) == (401, "Unauthorized")
    assert await node("/pods", who=None, method="POST") == (401, "Unauthorized")
    assert not node.reviewer.asked["SubjectAccessReview"]


async def test_a_certificate_of_another_authority_is_no_certificate(node: Kubelet) -> None:
    stranger = node.client("root/system:masters", Authority("clients", datetime.now(UTC)))
    url = f"https://127.0.0.1:{node.server.port}/healthz"
    with pytest.raises(aiohttp.ClientError):
        await node.session.get(url, ssl=stranger)
    assert not node.reviewer.asked


async def test_a_certificate_for_servers_is_no_certificate_of_a_client(node: Kubelet, tmp_path: Path) -> None:
    pair = node.authority.server(["root"])
    (tmp_path / "server.pem").write_bytes(pair.certificate + pair.key)
    context = node.client(None)
    context.load_cert_chain(tmp_path / "server.pem")
    with pytest.raises(aiohttp.ClientError):
        await node.session.get(f"https://127.0.0.1:{node.server.port}/healthz", ssl=context)


def test_a_connection_that_outlives_its_certificate_has_no_user() -> None:
    certificate = {"subject": ((("commonName", "alice"),),), "notAfter": "Jan  5 09:34:43 2030 GMT"}
    before = datetime(2030, 1, 5, 9, 34, 42, tzinfo=UTC).timestamp()
    user = certificate_user(certificate, before)
    assert user is not None
    assert user.name == "alice"
    assert certificate_user(certificate, before + 2) is None
    assert certificate_user(certificate | {"subject": ()}, before) is None


async def test_a_token_is_reviewed_and_its_owner_may_what_the_api_server_says(node: Kubelet) -> None:
    extra = {"authentication.kubernetes.io/pod-name": ["p"]}
    node.reviewer.tokens[TOKEN] = {"username": "bob", "uid": "7", "groups": ["devs"], "extra": extra}
    node.reviewer.allowed.add(("bob", "get", "metrics"))
    assert (await node("/metrics/probes", token=TOKEN))[0] == 200
    access = node.reviewer.specs[-1]
    assert (access["user"], access["uid"], access["extra"]) == ("bob", "7", extra)
    assert access["groups"] == ["devs", "system:authenticated"]
    assert await node("/stats/summary", token=TOKEN) == (
        403,
        "Forbidden (user=bob, verb=get, resource=nodes, subresource(s)=[stats])\n",
    )


async def test_a_fine_permission_and_the_one_it_falls_back_to(node: Kubelet) -> None:
    node.reviewer.allowed |= {("fine", "get", "pods"), ("coarse", "get", "proxy")}
    for who in ("fine", "coarse"):
        assert (await node("/pods", who=who))[0] == 200
    assert (await node("/configz", who="coarse"))[0] == 200
    assert await node("/configz", who="fine") == (
        403,
        "Forbidden (user=fine, verb=get, resource=nodes, subresource(s)=[configz proxy])\n",
    )
    assert (await node("/metrics", who="coarse"))[0] == 403  # proxy is not enough where a kubelet knows a subresource
    for path in ("/exec/a/b/c", "/attach/a/b/c", "/portForward/a/b"):
        status, text = await node(path, who="coarse", headers={"Upgrade": "websocket", "Connection": "Upgrade"})
        assert (status, text) == (403, "Forbidden (user=coarse, verb=create, resource=nodes, subresource(s)=[proxy])\n")


async def test_answers_are_kept_as_long_as_a_kubelet_keeps_them(tmp_path: Path) -> None:
    clock = FakeClock()
    async with kubelet(tmp_path, clock=clock) as node:
        asked = node.reviewer.asked
        node.reviewer.tokens[TOKEN] = {"username": "bob", "groups": []}
        node.reviewer.allowed.add(("bob", "get", "metrics"))

        async def ask(path: str, expected: int, tokens: int, access: int) -> None:
            assert (await node(path, token=TOKEN))[0] == expected
            assert (asked["TokenReview"], asked["SubjectAccessReview"]) == (tokens, access)

        await ask("/metrics", 200, 1, 1)
        await ask("/metrics/probes", 200, 1, 1)
        await ask("/stats/summary", 403, 1, 2)
        await ask("/stats/summary", 403, 1, 2)
        clock.advance(reviews.DENIED_SECONDS + 1)
        await ask("/stats/summary", 403, 1, 3)
        clock.advance(reviews.TOKEN_SECONDS - 10)
        await ask("/metrics", 200, 2, 3)
        clock.advance(reviews.ALLOWED_SECONDS)
        node.reviewer.tokens.clear()
        await ask("/metrics", 401, 3, 3)


async def test_the_same_question_by_many_is_asked_once(node: Kubelet) -> None:
    node.reviewer.gate = asyncio.Event()
    node.reviewer.tokens[TOKEN] = {"username": "root"}
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(node("/healthz", token=TOKEN)) for _ in range(20)]
        await node.reviewer.waiting.wait()
        tasks.pop().cancel()  # one that leaves takes the answer from nobody
        node.reviewer.gate.set()
    assert {task.result() for task in tasks} == {(200, "ok")}
    assert node.reviewer.asked["TokenReview"] <= 2  # those who connect after the answer know it already
    assert node.reviewer.asked["SubjectAccessReview"] == 1


async def test_a_cache_is_bounded(node: Kubelet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reviews, "KEPT", 4)
    for number in range(12):
        assert (await node("/healthz", token=f"guess-{number}"))[0] == 401
    answers = node.server._guarded_by._reviews._tokens
    assert len(answers._kept) == 4
    assert (await node("/healthz", token="guess-11"))[0] == 401
    assert node.reviewer.asked["TokenReview"] == 12
    assert not any(b"guess" in key for key in answers._kept)


async def test_more_reviews_than_may_wait_are_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reviews, "WAITING", 1)
    async with kubelet(tmp_path) as node:
        node.reviewer.gate = asyncio.Event()
        first = asyncio.create_task(node("/healthz", token="one"))
        await node.reviewer.waiting.wait()
        assert (await node("/healthz", token="two"))[0] == 401
        node.reviewer.gate.set()
        assert (await first)[0] == 401
        assert node.reviewer.asked["TokenReview"] == 1


@pytest.mark.parametrize("status", [500, 403, 404, 401])
async def test_a_review_that_fails_lets_nobody_in_and_tells_no_token(tmp_path: Path, status: int) -> None:
    async with kubelet(tmp_path) as node:
        node.reviewer.status = status
        with structlog.testing.capture_logs() as logs:
            assert await node("/healthz", token=TOKEN) == (401, "Unauthorized")
            answer = await node("/healthz")
        assert answer == (403, "Authorization error (user=root, verb=get, resource=nodes, subresource=healthz)")
        assert logs
        assert TOKEN not in str(logs)
        node.reviewer.status = 201
        assert await node("/healthz") == (200, "ok")  # a failure is not kept


async def test_an_identity_that_may_not_ask_is_told_once(node: Kubelet) -> None:
    node.reviewer.status = 403
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            assert (await node("/healthz"))[0] == 403
    (told,) = [entry for entry in logs if entry["log_level"] == "error"]
    assert "system:auth-delegator" in told["event"]


async def test_a_review_that_takes_too_long_lets_nobody_in(tmp_path: Path) -> None:
    async with kubelet(tmp_path, review_seconds=0.05) as node:
        node.reviewer.gate = asyncio.Event()
        assert (await node("/healthz", token=TOKEN))[0] == 401
        assert (await node("/healthz"))[0] == 403
        node.reviewer.gate.set()


async def test_an_api_server_that_is_away_lets_nobody_in(node: Kubelet) -> None:
    node.server._guarded_by._reviews._client.identity.server = "http://127.0.0.1:1"
    assert (await node("/healthz", token=TOKEN))[0] == 401
    assert (await node("/healthz"))[0] == 403


async def test_the_client_ca_may_change(node: Kubelet) -> None:
    """Who is of the new one gets in at once, who is of the old one does not; a file that is broken changes nothing."""
    url = f"https://127.0.0.1:{node.server.port}/healthz"
    other = Authority("clients", datetime.now(UTC))
    before, after = node.client("root"), node.client("root", other)

    async def gets_in(who: ssl.SSLContext) -> bool:
        try:
            async with node.session.get(url, ssl=who) as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    assert (await gets_in(before), await gets_in(after)) == (True, False)
    file = node.directory / "ca.crt"
    file.with_suffix(".new").write_bytes(other.pem)
    file.with_suffix(".new").rename(file)
    assert (await gets_in(before), await gets_in(after)) == (False, True)
    file.write_bytes(b"-----BEGIN CERTIFICATE-----")
    assert (await gets_in(before), await gets_in(after)) == (False, True)
    node.tls.show(self_signed(NODE, "127.0.0.1", datetime.now(UTC)))
    assert await gets_in(after)
    file.write_bytes(node.authority.pem)
    assert (await gets_in(before), await gets_in(after)) == (True, False)
