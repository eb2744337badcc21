"""Who may join a host: tokens and keys, against an API server."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from wasmlet_agent.protocol.failures import Unauthorized
from wasmlet_agent.protocol.joining import JoinRequest, hash_of
from wasmlet_remote.host import manifests
from wasmlet_remote.host.command import command
from wasmlet_remote.host.config import HostConfig
from wasmlet_remote.host.tokens import KEY_TYPE, Refusal, Tokens, agent_in, data_of

from tests.remote.hosts import ACCOUNT, NAMESPACE, SECRETS, Stand, stand
from wasmlet import ConfigError, InvalidInput, SystemClock
from wasmlet.controlplane.faults import Fail
from wasmlet.kube import Client, errors, load_identity

KEY = hash_of("a key")


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Stand]:
    async with stand(tmp_path) as found:
        found.grant("edge-1")
        yield found


@pytest.fixture
async def tokens(there: Stand) -> AsyncIterator[Tokens]:
    """With the rights of a host."""

    async def anybody(name: str) -> None:
        pass

    async with Client(await load_identity(there.plane.user_kubeconfig(ACCOUNT, token=True))) as client:
        yield Tokens(client, NAMESPACE, anybody, SystemClock())


async def uses(there: Stand, token: str) -> str:
    found = await there.secret(f"join-{token.partition('.')[0]}")
    assert found is not None
    return data_of(found)["uses"]


async def test_a_token_is_used_and_a_key_is_kept(there: Stand, tokens: Tokens) -> None:
    token = await there.token(names="edge-*", uses=2, pool="shop")
    agent = await tokens.admit(JoinRequest("edge-1", token, KEY))
    assert (agent.name, agent.pool) == ("edge-1", "shop")
    kept = await there.secret("agent-edge-1")
    assert kept is not None
    assert kept["type"] == KEY_TYPE
    assert agent_in(kept) == agent
    for other in ("é" * 32, "A" * 64, "0" * 63):
        data = kept["data"] | {"hash": base64.b64encode(other.encode()).decode()}
        assert agent_in({**kept, "data": data}) is None
    assert agent.has(KEY)
    assert KEY not in repr(agent)
    assert await uses(there, token) == "1"


async def test_the_same_request_again_uses_nothing(there: Stand, tokens: Tokens) -> None:
    token = await there.token()
    first = await tokens.admit(JoinRequest("edge-1", token, KEY))
    assert await tokens.admit(JoinRequest("edge-1", token, KEY)) == first
    assert await uses(there, token) == "0"


async def test_a_use_whose_key_could_not_be_kept_is_not_lost(there: Stand, tokens: Tokens) -> None:
    token = await there.token(uses=1)
    with there.plane.faults.add(Fail(403), verb="create", path="*/secrets"), pytest.raises(errors.ApiError):
        await tokens.admit(JoinRequest("edge-1", token, KEY))
    assert await uses(there, token) == "0"
    for other in (JoinRequest("edge-1", token, hash_of("another")), JoinRequest("edge-2", token, KEY)):
        with pytest.raises(Refusal, match="has been used up"):
            await tokens.admit(other)
    assert (await tokens.admit(JoinRequest("edge-1", token, KEY))).name == "edge-1"
    await there.admin.delete(f"{SECRETS}/agent-edge-1")  # that takes the key back, for the token is used up
    with pytest.raises(Refusal, match="has been used up"):
        await tokens.admit(JoinRequest("edge-1", token, KEY))


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"expires": datetime(2020, 1, 1, tzinfo=UTC)}, "has expired at 2020-01-01T00:00:00Z"),
        ({"uses": 0}, "has been used up"),
        ({"names": "shop-*"}, r"for names like 'shop-\*', found 'edge-1'"),
        ({"names": "EDGE-1"}, "for names like"),
    ],
)
async def test_a_token_that_is_of_no_use_is_told(
    there: Stand, tokens: Tokens, settings: dict[str, Any], why: str
) -> None:
    token = await there.token(**settings)
    with pytest.raises(Refusal, match=why):
        await tokens.admit(JoinRequest("edge-1", token, KEY))
    assert await there.secret("agent-edge-1") is None


async def test_a_wrong_token_learns_nothing(there: Stand, tokens: Tokens) -> None:
    token = await there.token(uses=0)
    identifier, _, secret = token.partition(".")
    opaque = {"secret": base64.b64encode(b"x" * 24).decode()}
    await there.admin.create(SECRETS, {"metadata": {"name": "join-other"}, "type": "Opaque", "data": opaque})
    await there.admin.create(
        SECRETS, {"metadata": {"name": "join-empty"}, "type": "wasmlet.dev/join-token", "data": {}}
    )
    said = set()
    for wrong in (
        f"{identifier}.{secret.swapcase()}", f"{identifier}.{secret}x", f"nosuch.{secret}", "other." + "x" * 24,
        "empty." + "x" * 24, "", ".", secret, f"{identifier}.", f"../{identifier}.{secret}", "a" * 9000,
    ):  # fmt: skip
        with pytest.raises(Unauthorized) as refused:
            await tokens.admit(JoinRequest("edge-1", wrong, KEY))
        said.add(str(refused.value))
    assert len(said) == 1
    assert await uses(there, token) == "0"


@pytest.mark.parametrize(
    ("name", "key"),
    [("Edge", KEY), ("", KEY), ("a/../b", KEY), ("a..b", KEY), ("a.-b", KEY), ("a" * 201, KEY), ("edge-1", "x")],
)
async def test_a_name_or_key_that_is_none_is_told(there: Stand, tokens: Tokens, name: str, key: str) -> None:
    with pytest.raises(InvalidInput, match=r"^(name|key): expected"):
        await tokens.admit(JoinRequest(name, await there.token(), key))


async def test_a_name_that_another_agent_has_is_refused(there: Stand, tokens: Tokens) -> None:
    token = await there.token(uses=5)
    await tokens.admit(JoinRequest("edge-1", token, KEY))
    with pytest.raises(Refusal, match=r"another agent has joined as edge-1; .* delete Secret agent-edge-1"):
        await tokens.admit(JoinRequest("edge-1", token, hash_of("another")))
    assert await uses(there, token) == "4"
    await there.admin.delete(f"{SECRETS}/agent-edge-1")
    assert (await tokens.admit(JoinRequest("edge-1", token, hash_of("another")))).name == "edge-1"


async def test_many_at_once_use_a_token_no_more_often_than_they_may(there: Stand, tokens: Tokens) -> None:
    token = await there.token(uses=3)
    answers = await asyncio.gather(
        *(tokens.admit(JoinRequest(f"edge-{i}", token, KEY)) for i in range(8)), return_exceptions=True
    )
    joined = [answer for answer in answers if not isinstance(answer, BaseException)]
    kept = (await there.admin.get(SECRETS, labelSelector="wasmlet.dev/agent=true"))["items"]
    assert len(joined) == len(kept) == 3
    assert await uses(there, token) == "0"


async def test_two_that_want_one_name_at_once(there: Stand, tokens: Tokens) -> None:
    token = await there.token(uses=2)
    answers = await asyncio.gather(
        *(tokens.admit(JoinRequest("edge-1", token, hash_of(key))) for key in "ab"), return_exceptions=True
    )
    assert sorted(isinstance(answer, Refusal) for answer in answers) == [False, True]


async def test_a_name_that_the_host_may_not_have_uses_no_token(there: Stand) -> None:
    async def nobody(name: str) -> None:
        raise Refusal(f"not {name}")

    token = await there.token()
    async with Client(await load_identity(there.plane.kubeconfig)) as client:
        with pytest.raises(Refusal, match="not edge-1"):
            await Tokens(client, NAMESPACE, nobody, SystemClock()).admit(JoinRequest("edge-1", token, KEY))
    assert await uses(there, token) == "1"


async def test_a_host_of_a_pool_takes_its_tokens_alone(there: Stand) -> None:
    async def anybody(name: str) -> None:
        pass

    async with Client(await load_identity(there.plane.kubeconfig)) as client:
        tokens = Tokens(client, NAMESPACE, anybody, SystemClock(), pool="shop")
        for pool in ("", "edge"):
            with pytest.raises(Refusal, match="this host is pool shop's"):
                await tokens.admit(JoinRequest("edge-1", await there.token(pool=pool), KEY))
        assert (await tokens.admit(JoinRequest("edge-1", await there.token(pool="shop"), KEY))).pool == "shop"


@pytest.mark.parametrize("field", [{"expires": "tomorrow"}, {"uses": "many"}])
async def test_a_token_that_somebody_wrote_wrong_is_named(there: Stand, tokens: Tokens, field: dict[str, str]) -> None:
    token = await there.token()
    name = f"join-{token.partition('.')[0]}"
    await there.admin.patch(f"{SECRETS}/{name}", {"stringData": field})
    with pytest.raises(Refusal, match=f"Secret {name} has an `expires` or `uses` that cannot be read"):
        await tokens.admit(JoinRequest("edge-1", token, KEY))


# --- what is printed


def test_rights_name_each_node_and_no_other(capfd: pytest.CaptureFixture[str]) -> None:
    command.main(["rbac", "edge-1", "edge-2"], standalone_mode=False)
    documents = list(yaml.safe_load_all(capfd.readouterr().out))
    rules = [rule for document in documents for rule in document.get("rules", ()) if "impersonate" in rule["verbs"]]
    assert {rule["resources"][0]: rule["resourceNames"] for rule in rules} == {
        "users": ["system:node:edge-1", "system:node:edge-2"],
        "groups": ["system:nodes"],
    }
    assert [document["kind"] for document in documents] == [
        "Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding",
    ]  # fmt: skip


@pytest.mark.parametrize("names", [[], ["*"], ["Edge"], ["system:admin"]])
def test_rights_at_large_are_not_printed(names: list[str]) -> None:
    with pytest.raises(ConfigError):
        manifests.rights(names, NAMESPACE)


def test_a_token_whose_authority_cannot_be_read_is_not_made(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "token"
    args = ["token", "--token-file", str(file), "--tls-ca-file", str(tmp_path / "nowhere")]
    with pytest.raises(ConfigError, match="--tls-ca-file"):
        command.main(args, standalone_mode=False)
    assert capfd.readouterr().out == ""
    assert not file.exists()


def test_a_token_goes_to_a_file_and_its_secret_to_the_output(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "token"
    args = ["token", "--names", "edge-*", "--uses", "3", "--hours", "2", "--token-file", str(file)]
    command.main(args, standalone_mode=False)
    manifest = yaml.safe_load(capfd.readouterr().out)
    identifier, _, secret = file.read_text().strip().partition(".")
    assert file.stat().st_mode & 0o777 == 0o600
    assert manifest["metadata"]["name"] == f"join-{identifier}"
    data = data_of(manifest)
    assert (data["secret"], data["names"], data["uses"]) == (secret, "edge-*", "3")
    until = datetime.fromisoformat(data["expires"]) - datetime.now(UTC)
    assert timedelta(minutes=110) < until < timedelta(minutes=121)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"listen": "0.0.0.0:8443"}, "plain HTTP is for loopback only"),
        ({"listen": "localhost"}, "--listen: expected ADDRESS:PORT"),
        ({"listen": "127.0.0.1:99999"}, "--listen: expected ADDRESS:PORT"),
        ({"tls_cert_file": Path("x")}, "both, or neither"),
    ],
)
def test_settings_of_a_host_that_are_wrong_are_named(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        HostConfig(**settings)


def test_files_of_a_host_that_are_wrong_are_named(tmp_path: Path) -> None:
    config = HostConfig(tls_cert_file=tmp_path / "crt", tls_key_file=tmp_path / "key")
    with pytest.raises(ConfigError, match=r"--tls-cert-file .*: No such file"):
        config.context()
    for file in ("crt", "key"):
        (tmp_path / file).write_text("nothing")
    with pytest.raises(ConfigError, match="TLS of --listen: expected a certificate"):
        config.context()
