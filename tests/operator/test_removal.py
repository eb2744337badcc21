"""Pools that are removed, in ways that would pass the operator by: no node ends before its pods have left it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.operator.forged import guest, lone, registers, runs
from tests.operator.harness import DEFINITION, NODES, Fleet, Raw
from tests.operator.test_operator import said
from wasmlet.kube import errors
from wasmlet.operator.leftovers import KEY_TYPE, remove_objects
from wasmlet.operator.objects import keys_namespace, paths_of, prefixed
from wasmlet.operator.pool import LABEL, POOLS
from wasmlet.operator.seen import MEMBER

pytestmark = pytest.mark.timeout(180)
MORE_THAN_A_PAGE = 501


async def held(fleet: Fleet) -> None:
    """A pool of one node with a guest that may not leave."""
    await fleet.pool(replicas=1, disruption={"drainTimeout": "1h"})
    await runs(fleet, "edge-0")
    await registers(fleet, "edge-0")
    await guest(fleet, "edge-0", app="web")
    await fleet.admin.patch(
        f"{fleet.pods}/guest/status",
        {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}},
    )
    await fleet.budget("web", minAvailable=1)


def of_agents(path: str) -> bool:
    """Whether only a pool of agents has that object."""
    return "/deployments/" in path or "/rolebindings/" in path


def is_held(found: Mapping[str, Raw]) -> bool:
    conditions = (found["edge"].get("status") or {}).get("conditions") or ()
    return any(one["reason"] == "Held" for one in conditions)


async def let_go(fleet: Fleet) -> None:
    """End the guest; its node may end then, and the pool goes."""
    assert "deletionTimestamp" not in (await fleet.admin.get(f"{fleet.pods}/edge-0"))["metadata"]
    await fleet.admin.delete(f"{fleet.pods}/guest", {"gracePeriodSeconds": 0})
    await fleet.gone()


async def test_a_pool_that_is_removed_with_what_it_owns_is_emptied_first(tmp_path: Path, kubectl: Path) -> None:
    """The garbage collector would end what the pool owns at once."""
    async with lone(tmp_path, kubectl) as fleet:
        await fleet.operator()
        await held(fleet)
        there = [path for path in paths_of("default", "edge") if not of_agents(path)]
        before = {path: (await fleet.admin.get(path))["metadata"]["uid"] for path in there}
        await fleet.run("delete", "wnp", "edge", "--cascade=foreground", "--wait=false")
        await fleet.until(POOLS, is_held, seconds=60)
        assert before == {path: (await fleet.admin.get(path))["metadata"]["uid"] for path in before}
        await let_go(fleet)


async def test_a_node_keeps_its_rights_until_it_is_made_anew(tmp_path: Path, kubectl: Path) -> None:
    """Its pool is to have certificates, and it is held by a guest."""
    role = "/apis/rbac.authorization.k8s.io/v1/clusterroles"

    def resources(found: Mapping[str, Raw]) -> list[tuple[str, list[str]]]:
        rules = found[prefixed("edge")].get("rules") or ()
        return [(rule["resources"][0], rule.get("resourceNames", [])) for rule in rules]

    requests = ("certificatesigningrequests", list[str]())
    async with lone(tmp_path, kubectl) as fleet:
        await fleet.operator()
        await held(fleet)
        await fleet.change(identity="Certificate")
        found = await fleet.until(role, lambda found: requests in resources(found), seconds=60)
        assert resources(found) == [requests, ("users", ["system:node:edge-0"]), ("groups", ["system:nodes"])]
        await fleet.until(POOLS, is_held, seconds=60)
        await fleet.admin.delete(f"{fleet.pods}/guest", {"gracePeriodSeconds": 0})
        await fleet.until(role, lambda found: resources(found) == [requests], seconds=60)


async def test_a_pool_whose_statefulset_somebody_has_deleted_is_emptied_and_goes(tmp_path: Path, kubectl: Path) -> None:
    async with lone(tmp_path, kubectl) as fleet:
        operator = await fleet.operator()
        await held(fleet)
        await operator.kill()
        await fleet.run("delete", "sts", "edge", "--cascade=orphan")
        assert (await fleet.admin.get(f"{POOLS}/edge"))["metadata"]["finalizers"]
        await fleet.remove()
        await fleet.operator()
        await fleet.until(POOLS, is_held, seconds=60)
        await let_go(fleet)


async def test_what_a_pool_has_left_is_removed(tmp_path: Path, kubectl: Path) -> None:
    """Somebody has taken off its finalizer, or a second operator was late."""
    async with lone(tmp_path, kubectl) as fleet:
        account = {"name": prefixed("edge"), "labels": {LABEL: "edge"}}
        service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "edge"}, "spec": {"clusterIP": "None"}}
        accounts = "/api/v1/namespaces/default/serviceaccounts"
        await fleet.admin.create(accounts, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
        await fleet.admin.create("/api/v1/namespaces/default/services", service)
        await fleet.operator()
        await fleet.until(accounts, lambda found: prefixed("edge") not in found, seconds=60)
        await fleet.admin.get("/api/v1/namespaces/default/services/edge")  # it is nobody's pool's


async def test_what_a_pool_has_left_stays_while_it_has_nodes(tmp_path: Path, kubectl: Path) -> None:
    """They may be agents: their host is none of their own pods."""
    accounts = "/api/v1/namespaces/default/serviceaccounts"
    async with lone(tmp_path, kubectl) as fleet:
        await registers(fleet, "till-1")
        for pool in ("edge", "later"):
            account = {"name": prefixed(pool), "labels": {LABEL: pool}}
            await fleet.admin.create(accounts, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
        operator = await fleet.operator()
        await fleet.until(accounts, lambda found: prefixed("later") not in found, seconds=60)
        await fleet.admin.get(f"{accounts}/{prefixed('edge')}")  # pools are looked at by name
        assert [line["pool"] for line in operator.said() if "has left something" in line["event"]] == ["later"]


async def key(fleet: Fleet, path: str, name: str, pool: str, kind: str = KEY_TYPE) -> None:
    """Make the Secret of an agent that has joined."""
    metadata = {"name": f"agent-{name}", "labels": {"wasmlet.dev/agent": "true", LABEL: pool}}
    await fleet.admin.create(path, {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind})


async def test_agents_that_leave_go_and_other_nodes_with_the_label_stay(tmp_path: Path, kubectl: Path) -> None:
    async with lone(tmp_path, kubectl) as fleet:
        namespace = keys_namespace("default")
        await fleet.admin.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
        keys = f"/api/v1/namespaces/{namespace}/secrets"
        for name, pool in (("till-1", "edge"), ("till-2", "edge"), ("till-3", "edge"), ("other", "another")):
            await key(fleet, keys, name, pool)
        await key(fleet, keys, "till-4", "edge", kind="Opaque")
        await fleet.operator()
        agents = [{"name": "till-1"}, {"name": "till-2"}]
        await fleet.pool(provider="remote", config={}, remote={"agents": agents, "tlsSecret": "tls"})
        for name in ("till-1", "till-2", "stranger"):
            await registers(fleet, name)

        def marked(found: Mapping[str, Raw]) -> bool:
            return all(MEMBER in found[name]["metadata"].get("annotations", {}) for name in ("till-1", "till-2"))

        await fleet.until(NODES, marked, seconds=60)
        await fleet.change(remote={"agents": agents[:1]})
        await fleet.until(NODES, lambda found: "till-2" not in found, seconds=60)
        assert sorted(one["metadata"]["name"] for one in (await fleet.admin.get(keys))["items"]) == [
            "agent-other", "agent-till-1", "agent-till-4",
        ]  # fmt: skip
        role = await fleet.admin.get(f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{prefixed('edge')}")
        assert role["rules"][0]["resourceNames"] == ["system:node:till-1"]
        await fleet.remove()
        await fleet.until(POOLS, lambda found: "edge" not in found, seconds=60)
        found = await fleet.until(NODES, lambda found: "till-1" not in found, seconds=60)
        assert list(found) == ["stranger"]
        left = await fleet.until(keys, lambda found: "agent-till-1" not in found, seconds=60)
        assert sorted(left) == ["agent-other", "agent-till-4"]
        assert "annotations" not in found["stranger"]["metadata"]
        assert not found["stranger"].get("spec", {}).get("unschedulable")


async def test_a_statefulset_that_has_pods_by_now_stays(tmp_path: Path, kubectl: Path) -> None:
    """A watch that is behind has not told of them."""
    async with lone(tmp_path, kubectl) as fleet:
        operator = await fleet.operator()
        await fleet.pool(replicas=1)
        await runs(fleet, "edge-0")
        await operator.kill()
        with pytest.raises(errors.Conflict, match="StatefulSet edge has pods again"):
            await remove_objects(fleet.admin, "default", "edge")
        assert "deletionTimestamp" not in (await fleet.admin.get(f"{fleet.pods}/edge-0"))["metadata"]
        there = [path for path in paths_of("default", "edge") if not of_agents(path)]
        assert all([await fleet.admin.get(path) for path in there])


async def test_cleanup_removes_more_pools_than_a_page_has(tmp_path: Path, kubectl: Path) -> None:
    async with lone(tmp_path, kubectl) as fleet:
        for number in range(MORE_THAN_A_PAGE):
            await fleet.pool(f"pool-{number}", replicas=0)
        code, text = await said(f"--kubeconfig={fleet.plane.kubeconfig}", "--namespace=default", "--cleanup")
        assert code == 0, text
        assert (await fleet.admin.get(POOLS))["items"] == []
        await fleet.run("delete", "crd", "wasmnodepools.wasmlet.dev")
        await fleet.until(DEFINITION.rpartition("/")[0], lambda found: "wasmnodepools.wasmlet.dev" not in found)
