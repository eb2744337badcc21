"""A host and agents that join it, as processes: pods run, streams work, and either side may be killed."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from wasmlet_agent.authorities import ca_hash
from wasmlet_agent.keys import make_keys

from tests.node.cluster import running
from tests.remote.host_killings import killed
from tests.remote.hosts import NODES, SECRETS, Stand, ready, stand
from wasmlet.kube import Client, errors, load_identity

CONTAINER = {"name": "c", "image": "x", "command": ["script"], "args": ["print", "hello"]}


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Stand]:
    async with stand(tmp_path) as found:
        yield found


async def test_an_agent_joins_by_tls_and_its_pods_run(there: Stand, kubectl: Path, tmp_path: Path) -> None:
    make_keys(tmp_path / "keys", ["127.0.0.1"], datetime.now(UTC) + timedelta(days=1))
    keys = tmp_path / "keys"
    there.grant("edge-1")
    await there.start_host(
        f"--tls-cert-file={keys}/agent.crt", f"--tls-key-file={keys}/agent.key", f"--tls-ca-file={keys}/ca.crt"
    )
    digest = ca_hash(x509.load_pem_x509_certificate((keys / "ca.crt").read_bytes()))
    agent = await there.agent("edge-1", await there.token(names="edge-*", pool="shop"), f"--ca-hash={digest}")
    node = await there.node("edge-1", ready("True"))
    assert node["metadata"]["labels"]["wasmlet.dev/pool"] == "shop"
    await there.cluster.create(containers=[CONTAINER], nodeName="edge-1")
    await there.cluster.until(running)
    command = (str(kubectl), "--kubeconfig", str(there.plane.kubeconfig))
    for args, said in ((("logs", "p"), b"hello\n"), (("exec", "p", "--", "echo", "hi"), b"hi\n")):
        process = await asyncio.create_subprocess_exec(*command, *args, stdout=asyncio.subprocess.PIPE)
        assert (await process.communicate())[0] == said
    await there.cluster.delete()
    await there.cluster.until_gone()
    assert there.host is not None
    key = (tmp_path / "agent-edge-1" / "joined.json").read_text().split('"key":"')[1].split('"')[0]
    assert key not in "".join((*there.host.log, *agent.log))


async def test_a_host_that_is_killed_finds_its_agents_again_and_pods_go_on(there: Stand) -> None:
    """`tests.remote.host_killings` has it with more agents, and more often."""
    await killed(there, agents=3, kills=2, seconds=4.0)


async def test_an_agent_that_is_killed_comes_back_with_its_key(there: Stand) -> None:
    there.grant("edge-1")
    await there.start_host()
    agent = await there.agent("edge-1", await there.token())
    await there.node("edge-1", ready("True"))
    await agent.end(signal.SIGKILL)
    await there.node("edge-1", ready("False"))
    await there.agent("edge-1")  # without the token, which is used up
    await there.node("edge-1", ready("True"))


async def test_an_agent_that_may_not_join_ends_and_says_why(there: Stand) -> None:
    there.grant("edge-1", "worker")
    await there.admin.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "worker"}})
    await there.start_host()
    old = datetime(2020, 1, 1, tzinfo=UTC)
    cases: list[tuple[str, dict[str, object], str]] = [
        ("edge-1", {"expires": old}, "the token has expired at 2020-01-01T00:00:00Z"),
        ("edge-1", {"uses": 0}, "the token has been used up"),
        ("shop-1", {"names": "edge-*"}, "the token is for names like 'edge-*', found 'shop-1'"),
        ("edge-2", {}, "the host may not make requests as system:node:edge-2"),
        ("worker", {}, "there is a node worker already that is no agent's"),
    ]
    for name, settings, why in cases:
        agent = await there.agent(name, await there.token(**settings))
        assert await agent.ended() == 1
        assert agent.log[-1].startswith("Error: ")
        assert why in agent.log[-1]
        assert "Traceback" not in "".join(agent.log)
        assert await there.secret(f"agent-{name}") is None


async def test_another_agent_cannot_take_a_name(there: Stand, tmp_path: Path) -> None:
    there.grant("edge-1")
    await there.start_host()
    token = await there.token(uses=5)
    await there.agent("edge-1", token)
    await there.node("edge-1", ready("True"))
    thief = await there.program(
        "-m", "tests.remote.joined_agents", there.url, f"--state-dir={tmp_path / 'thief'}", "--node-name=edge-1",
        f"--token={token}",
    )  # fmt: skip
    assert await thief.ended() == 1
    assert "another agent has joined as edge-1" in thief.log[-1]


async def test_an_agent_whose_key_is_deleted_is_let_in_no_more(there: Stand) -> None:
    there.grant("edge-1")
    host = await there.start_host()
    agent = await there.agent("edge-1", await there.token())
    await there.node("edge-1", ready("True"))
    await there.admin.delete(f"{SECRETS}/agent-edge-1")
    await host.says("the agent's key is gone")
    await agent.says("does not know this agent's key (HTTP 401)")
    assert len([line for line in agent.log if "HTTP 401" in line]) <= 2


async def test_a_host_without_rights_ends_and_says_what_it_needs(there: Stand) -> None:
    there.grant("edge-1")
    there.plane.revoke("system:serviceaccount:wasmlet:wasmlet-host")
    _, common = there.settings
    host = await there.program(
        "-c", "from wasmlet.cli import main; main()", "host", "--listen=127.0.0.1:0",
        f"--kubeconfig={common.kubeconfig}", f"--state-dir={common.state_dir}",
    )  # fmt: skip
    assert await host.ended() == 1
    assert "the host may not read its Secrets" in host.log[-1]
    assert "`wasmlet host rbac`" in host.log[-1]
    assert "Traceback" not in "".join(host.log)


async def test_a_node_is_its_own_user_and_the_host_has_no_rights_beside(there: Stand) -> None:
    there.grant("edge-1")
    _, common = there.settings
    identity = await load_identity(common.kubeconfig)
    async with Client(identity) as host:
        for path in (NODES, "/api/v1/pods", "/api/v1/namespaces/default/secrets"):
            with pytest.raises(errors.Forbidden):
                await host.get(path)
    for name in ("edge-2", "worker"):
        async with Client(identity.as_node(name)) as other:
            with pytest.raises(errors.Forbidden, match="cannot impersonate"):
                await other.get(f"{NODES}/{name}")


async def test_the_agent_s_command_joins_with_wasmtime(there: Stand, tmp_path: Path) -> None:
    there.grant("edge-1")
    await there.start_host()
    token = tmp_path / "token"
    token.write_text(await there.token())
    agent = await there.program(
        "-m", "wasmlet_agent", "join", there.url, "--provider=wasmtime", f"--token-file={token}",
        f"--state-dir={tmp_path / 'state'}", "--node-name=edge-1",
    )  # fmt: skip
    node = await there.node("edge-1", ready("True"))
    assert node["metadata"]["labels"]["wasmlet.dev/provider"] == "remote"
    assert await agent.end() == 0, "".join(agent.log)
