"""A cluster with pools: the operator as a process, and a Linux node on which the pods of wasmlet's nodes run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import orjson
import pytest
import yaml

from tests.node.real import RealPlane
from wasmlet.kube import Client, errors
from wasmlet.kube.client import APPLY_PATCH, MERGE_PATCH
from wasmlet.operator.objects import keys_namespace
from wasmlet.operator.pool import LABEL, POOLS

ROOT = Path(__file__).parents[2]
CRD = ROOT / "charts/wasmlet-operator/crds/wasmnodepools.yaml"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
DEFINITION = f"{CRDS}/wasmnodepools.wasmlet.dev"
NODES = "/api/v1/nodes"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
SECONDS = 300.0
SLEEPING = ("sleep", "100000")
"""The arguments of a guest that sleeps."""
Raw = dict[str, Any]


@attrs.define
class Operator:
    """`wasmlet operator` as a process."""

    process: asyncio.subprocess.Process
    log: Path

    async def kill(self) -> None:
        """SIGKILL, which leaves no time for anything."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        return await self._end(signal.SIGTERM)

    async def _end(self, number: signal.Signals) -> int:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        async with asyncio.timeout(30):
            return await self.process.wait()

    def said(self) -> list[Raw]:
        """The lines of its log."""
        return [orjson.loads(line) for line in self.log.read_bytes().splitlines() if line.startswith(b"{")]


@attrs.define
class Fleet:
    """A cluster, an administrator's client of it, and what tests of pools do there.

    Attributes:
        namespace: of the pods of nodes.
    """

    plane: Any
    admin: Client
    directory: Path
    kubectl: Path
    namespace: str
    operators: list[Operator] = attrs.field(factory=list)

    # --- the operator

    async def operator(self, *arguments: str, kubeconfig: Path | None = None) -> Operator:
        """Start one more, and return at once."""
        log = self.directory / f"operator-{len(self.operators)}.log"
        command = [
            f"--kubeconfig={kubeconfig or self.plane.kubeconfig}",
            f"--namespace={self.namespace}",
            "--node-image=wasmlet",
            *arguments,
        ]
        paths = [str(ROOT), *filter(None, sys.path)]
        with log.open("ab") as file:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                "from wasmlet.cli import main; main()",
                "operator",
                *command,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        self.operators.append(Operator(process, log))
        return self.operators[-1]

    @asynccontextmanager
    async def account(self) -> AsyncIterator[Path]:
        """The kubeconfig of the account that the deployment has, with its rights."""
        texts = [(ROOT / f"examples/operator/{name}.yaml").read_text() for name in ("identity", "keys")]
        objects = [one for text in texts for one in yaml.safe_load_all(text) if one["kind"] != "Namespace"]
        own = {"wasmlet": self.namespace, "wasmlet-keys": keys_namespace(self.namespace)}
        for one in objects:
            for place in (one["metadata"], *one.get("subjects", ())):
                if "namespace" in place:
                    place["namespace"] = own[place["namespace"]]
        file = self.directory / "identity.yaml"
        file.write_text(yaml.safe_dump_all(objects))
        try:
            assert "created" in (said := await self.run("create", "-f", str(file))), said
            token = await self.run("create", "token", "wasmlet-operator", "-n", self.namespace, "--duration=1h")
            config = yaml.safe_load(self.plane.kubeconfig.read_text())
            config["users"] = [{**one, "user": {"token": token.strip()}} for one in config["users"]]
            path = self.directory / "account.kubeconfig"
            path.write_text(yaml.safe_dump(config))
            yield path
        finally:
            await self.run("delete", "-f", str(file), "--ignore-not-found")

    async def end(self) -> None:
        """End the operators that are still there."""
        for one in self.operators:
            if one.process.returncode is None:
                await one.kill()

    # --- objects

    async def define(self) -> None:
        """Have the API server know pools."""
        body = yaml.safe_load(CRD.read_text())
        params = {"fieldManager": "tests", "force": "true"}
        await self.admin.request("PATCH", DEFINITION, params=params, body=body, content_type=APPLY_PATCH)
        await self.until(CRDS, lambda found: _established(found.get("wasmnodepools.wasmlet.dev")))

    async def pool(self, name: str = "edge", **spec: Any) -> Raw:
        """Make a pool, of this machine's own wasmlet."""
        given: Raw = {"config": {"allow-local-modules": "true"}, **spec}
        body = {"apiVersion": "wasmlet.dev/v1alpha1", "kind": "WasmNodePool", "metadata": {"name": name}, "spec": given}
        return await self.admin.create(POOLS, body)

    async def change(self, name: str = "edge", **spec: Any) -> None:
        """Change the pool's spec."""
        await self.admin.patch(f"{POOLS}/{name}", {"spec": spec}, MERGE_PATCH)

    async def remove(self, name: str = "edge") -> None:
        await self.admin.delete(f"{POOLS}/{name}")

    @property
    def pods(self) -> str:
        """The collection of pods, of nodes and of tests."""
        return f"/api/v1/namespaces/{self.namespace}/pods"

    async def deployment(
        self, name: str, replicas: int, image: str, args: Sequence[str] = SLEEPING, handler: str = "wasmlet"
    ) -> None:
        """Make a Deployment of wasm pods, which sleep by default, and wait until they are ready."""
        container = {"name": "c", "image": image, "args": list(args)}
        spec = {"runtimeClassName": handler, "containers": [container], "terminationGracePeriodSeconds": 5}
        labels = {"app": name}
        template = {"metadata": {"labels": labels}, "spec": spec}
        content = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
        body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": content}
        await self.admin.create(f"/apis/apps/v1/namespaces/{self.namespace}/deployments", body)
        await self.available(name, replicas)

    async def budget(self, app: str, **spec: int | str) -> None:
        """Make a budget for the pods of a Deployment, and wait until its controller has counted them."""
        path = f"/apis/policy/v1/namespaces/{self.namespace}/poddisruptionbudgets"
        content = {"selector": {"matchLabels": {"app": app}}, **spec}
        body = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": app}, "spec": content}
        await self.admin.create(path, body)
        await self.until(path, lambda found: (found[app].get("status") or {}).get("expectedPods"))

    async def available(self, name: str, count: int) -> None:
        """Return when so many pods of a Deployment are available."""
        path = f"/apis/apps/v1/namespaces/{self.namespace}/deployments"
        await self.until(path, lambda found: (found[name].get("status") or {}).get("availableReplicas") == count)

    async def ready_pods(self, app: str) -> int:
        """How many pods of a Deployment a budget counts as healthy."""
        found = await self.admin.get(self.pods, labelSelector=f"app={app}")
        return sum(healthy(pod) for pod in found["items"])

    async def names(self, path: str, pool: str = "edge") -> list[str]:
        """The names of the pool's objects in a collection."""
        found = await self.admin.get(path, labelSelector=f"{LABEL}={pool}")
        return sorted(item["metadata"]["name"] for item in found["items"])

    async def left(self, pool: str = "edge") -> list[str]:
        """What there is of a pool."""
        here, rbac = f"/api/v1/namespaces/{self.namespace}", "/apis/rbac.authorization.k8s.io/v1"
        found = [
            f"{path.rpartition('/')[2]}/{name}"
            for path in (
                NODES, f"{here}/pods", f"{here}/services", f"{here}/serviceaccounts", f"{rbac}/clusterroles",
                f"{rbac}/clusterrolebindings", f"/apis/apps/v1/namespaces/{self.namespace}/statefulsets",
            )
            for name in await self.names(path, pool)
        ]  # fmt: skip
        leases = (await self.admin.get(LEASES))["items"]
        found += [
            f"leases/{one['metadata']['name']}" for one in leases if one["metadata"]["name"].startswith(f"{pool}-")
        ]
        pools = (await self.admin.get(POOLS))["items"]
        return found + [f"pools/{one['metadata']['name']}" for one in pools if one["metadata"]["name"] == pool]

    async def gone(self, pool: str = "edge", seconds: float = SECONDS) -> None:
        """Return when nothing is left of a pool."""
        await self.until(POOLS, lambda found: pool not in found, seconds=seconds)
        async with asyncio.timeout(30):
            while await self.left(pool):  # noqa: ASYNC110 - the garbage collector takes many kinds
                await asyncio.sleep(0.2)

    # --- waiting

    async def ready(self, count: int, pool: str = "edge", seconds: float = SECONDS) -> None:
        """Return when the pool says that so many nodes are ready, and that nothing is to be done."""

        def settled(found: Mapping[str, Raw]) -> bool:
            status = found.get(pool, {}).get("status") or {}
            return status.get("readyReplicas") == count and condition(status, "Progressing") == "False"

        await self.until(POOLS, settled, seconds=seconds)

    async def until(
        self, path: str, wanted: Callable[[Mapping[str, Raw]], Any], *, seconds: float = SECONDS, **params: str
    ) -> dict[str, Raw]:
        """The objects of a collection by name, as soon as they are as wanted, by watching them."""
        found: dict[str, Raw] = {}
        try:
            async with asyncio.timeout(seconds), aclosing(self.versions(path, **params)) as versions:
                async for found in versions:
                    if wanted(found):
                        return found
        except TimeoutError:
            shown = orjson.dumps(
                {name: {"spec": one.get("spec"), "status": one.get("status")} for name, one in found.items()}
            )
            raise AssertionError(f"{path} never was as wanted; at last: {shown.decode()[-3000:]}") from None
        raise AssertionError("the watch ended")

    async def versions(self, path: str, **params: str) -> AsyncGenerator[dict[str, Raw], None]:
        """The objects of a collection by name: now, and after each change; also across an outage."""
        while True:
            try:
                listed = await self.admin.get(path, **params)
                found = {item["metadata"]["name"]: item for item in listed["items"]}
                yield dict(found)
                watch = {"watch": "1", "resourceVersion": listed["metadata"]["resourceVersion"], **params}
                async with self.admin.stream(path, watch) as content:
                    async for line in content:
                        event = orjson.loads(line)
                        if event["type"] == "ERROR":
                            break
                        item = event["object"]
                        found[item["metadata"]["name"]] = item
                        if event["type"] == "DELETED":
                            del found[item["metadata"]["name"]]
                        yield dict(found)
            except (errors.Unreachable, errors.ServerError):
                await asyncio.sleep(0.2)

    async def run(self, *arguments: str) -> str:
        """What kubectl says, with its errors."""
        process = await asyncio.create_subprocess_exec(
            str(self.kubectl), f"--kubeconfig={self.plane.kubeconfig}", f"--cache-dir={self.directory}/kubectl",
            *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        return (await process.communicate())[0].decode()


@asynccontextmanager
async def outage(fleet: Fleet) -> AsyncIterator[None]:
    """While open, the API server is away: the embedded one refuses connections, a real one is stopped."""
    if not isinstance(fleet.plane, RealPlane):
        async with fleet.plane.faults.outage():
            yield
        return
    if fleet.plane.api_server is None:
        pytest.skip("needs --api-server beside --kubeconfig")

    async def tell(word: str) -> None:
        process = await asyncio.create_subprocess_exec(str(fleet.plane.api_server), word)
        assert await process.wait() == 0

    await tell("stop")
    try:
        yield
    finally:
        await tell("start")


def condition(status: Raw, kind: str) -> str:
    """The status of a condition; "" where there is none."""
    return next((str(one["status"]) for one in status.get("conditions") or () if one["type"] == kind), "")


def healthy(pod: Raw) -> bool:
    """Whether a disruption budget counts the pod."""
    return condition(pod.get("status") or {}, "Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


def _established(raw: Raw | None) -> bool:
    return raw is not None and condition(raw.get("status") or {}, "Established") == "True"


@asynccontextmanager
async def open_fleet(plane: Any, admin: Client, directory: Path, kubectl: Path) -> AsyncIterator[Fleet]:
    """A namespace, a Linux node, and the definition of pools; nothing is left of any pool at the end."""
    from tests.shared.pods_as_processes import Image, linux_node

    namespaces = "/api/v1/namespaces"
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "wasmlet-test-"}}
    namespace = (await admin.create(namespaces, body))["metadata"]["name"]
    keys = keys_namespace(namespace)
    await admin.create(namespaces, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": keys}})
    fleet, machine = Fleet(plane, admin, directory, kubectl, namespace), f"linux-{namespace[-5:]}"
    try:
        async with linux_node(plane, directory, {"wasmlet": Image.wasmlet()}, machine):
            await fleet.define()
            try:
                yield fleet
            finally:
                await fleet.end()
                await _without_pools(fleet)
    finally:
        await _without_nodes(fleet)  # now, since a node that still runs would make its Node again
        await admin.delete(f"{namespaces}/{namespace}")
        await admin.delete(f"{namespaces}/{keys}")


async def _without_pools(fleet: Fleet) -> None:
    """Remove what a test that failed has left."""
    try:
        pools = (await fleet.admin.get(POOLS))["items"]
    except errors.ObjectNotFound:
        return  # not even their definition is left
    for name in [item["metadata"]["name"] for item in pools]:
        with contextlib.suppress(errors.ObjectNotFound):
            await fleet.admin.patch(f"{POOLS}/{name}", {"metadata": {"finalizers": []}}, MERGE_PATCH)
            await fleet.admin.delete(f"{POOLS}/{name}")


async def _without_nodes(fleet: Fleet) -> None:
    """Remove the Nodes of pools that are left, and what the nodes were allowed."""
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    for path in (NODES, f"{rbac}/clusterroles", f"{rbac}/clusterrolebindings"):
        for item in (await fleet.admin.get(path, labelSelector=LABEL))["items"]:
            with contextlib.suppress(errors.ObjectNotFound):
                await fleet.admin.delete(f"{path}/{item['metadata']['name']}")
