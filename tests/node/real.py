"""A real API server under the tests of the node loop.

    pytest tests/node --kubeconfig admin.kubeconfig --node-credentials ./node-kubeconfig --client-ca-file ca.crt

What others have in the cluster is left alone: each test has a namespace of its own, which the cluster names, and after
it the objects are removed that the test or its nodes made, each by its UID. The node is called `NODE` in
`tests.node.cluster`; a node that has this name already fails the tests. Run them one after the other (without -n),
because all use that name.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from wasmlet.kube import Client, Identity, errors
from wasmlet.kube.client import MERGE_PATCH
from wasmlet.model.pod import Raw

LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
EVENTS = "/api/v1/namespaces/default/events"
"""Those of nodes. What is told of a pod is in its namespace, and goes with it."""
NAMESPACES = "/api/v1/namespaces"
NODES = "/api/v1/nodes"
WITHOUT_NAME = ("authentication.k8s.io", "authorization.k8s.io")
"""What is created in these groups is answered and not kept."""


@attrs.frozen
class RealPlane:
    """What tests use of a `ControlPlane`, for a cluster that is there already."""

    kubeconfig: Path
    client_ca_file: Path
    credentials: str
    api_server: str | None = None
    """A command that stops and starts the API server."""
    nodes: set[str] = attrs.field(factory=set)
    """The names that credentials were asked for: these nodes are the tests'."""

    @classmethod
    def of(cls, config: pytest.Config) -> RealPlane | None:
        kubeconfig = config.getoption("--kubeconfig")
        if not kubeconfig:
            return None
        ca, credentials = config.getoption("--client-ca-file"), config.getoption("--node-credentials")
        if not ca or not credentials:
            raise pytest.UsageError("--kubeconfig needs --client-ca-file and --node-credentials beside it")
        return cls(Path(kubeconfig), Path(ca), credentials, config.getoption("--api-server"))

    def node_kubeconfig(self, name: str) -> Path:
        self.nodes.add(name)
        answer = subprocess.run([self.credentials, name], check=True, capture_output=True, text=True)
        return Path(answer.stdout.strip())

    @property
    def url(self) -> str:
        return pytest.skip("needs the embedded control plane")

    @property
    def ca_file(self) -> Path:
        return pytest.skip("needs the embedded control plane")

    def user_kubeconfig(self, name: str, groups: Sequence[str] = (), *, token: bool = False) -> Path:
        return pytest.skip("needs the embedded control plane, which makes users as it is told")

    def bootstrap_kubeconfig(self) -> Path:
        return pytest.skip("needs the embedded control plane, which gives out bootstrap tokens")

    def grant(self, subject: str, *rules: object) -> None:
        pytest.skip("needs the embedded control plane, which permits what it is told to")

    @property
    def faults(self) -> object:
        return pytest.skip("needs the embedded control plane: nobody breaks a real one on request")


class Recording(Client):
    """An administrator's client that remembers what it has created."""

    def __init__(self, identity: Identity) -> None:
        super().__init__(identity)
        self.made: list[tuple[str, str]] = []
        """Path and UID of each object, in the order in which they were created."""

    async def create(self, path: str, body: Raw) -> dict[str, Any]:
        answer = await super().create(path, body)
        metadata = answer.get("metadata", {})
        if "uid" in metadata and not any(group in path for group in WITHOUT_NAME):
            self.made.append((f"{path}/{metadata['name']}", metadata["uid"]))
        return answer


@asynccontextmanager
async def alone(plane: RealPlane, admin: Recording, name: str) -> AsyncIterator[str]:
    """A namespace for one test; nothing of the tests is left at the end, and everything of others is as it was.

    The namespace itself is deleted and not waited for: its controller takes some seconds, and each test has another.

    Args:
        name: of the node that a test makes unless it says otherwise; nobody may have such a node.
    """
    if any(node["metadata"]["name"] == name for node in (await admin.get(NODES))["items"]):
        pytest.fail(f"node {name} is there already: expected none of that name, which is the tests'", pytrace=False)
    async with _namespace(admin) as namespace:
        try:
            yield namespace
        finally:
            gone = [(path, uid) for path, uid in reversed(admin.made) if await _removed(admin, path, uid)]
            for path, uid in await _of_tests(plane.nodes, {uid for _, uid in admin.made}, admin):
                await _removed(admin, path, uid)
            async with asyncio.timeout(30):
                for path, uid in gone:
                    while await _there(admin, path, uid):  # noqa: ASYNC110 - of any kind, by any path
                        await asyncio.sleep(0.1)


@asynccontextmanager
async def _namespace(admin: Client) -> AsyncIterator[str]:
    """A namespace that is deleted at the end, with its service account: no pod can be made before that is there."""
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "wasmlet-test-"}}
    made = (await Client.create(admin, NAMESPACES, body))["metadata"]
    path = f"{NAMESPACES}/{made['name']}"
    try:
        async with asyncio.timeout(30):
            while not await _there(admin, f"{path}/serviceaccounts/default"):  # noqa: ASYNC110 - a controller makes it
                await asyncio.sleep(0.1)
        yield made["name"]
    finally:
        await admin.delete(path, {"preconditions": {"uid": made["uid"]}})


async def _of_tests(names: Collection[str], made: Collection[str], admin: Client) -> list[tuple[str, str]]:
    """Of nodes with these names their Node objects, leases and requests; and events about them or about what was made.

    Args:
        made: UIDs of what the test has created.
    """
    found = []
    for path in (EVENTS, REQUESTS, LEASES, NODES):
        for item in (await admin.get(path))["items"]:
            metadata, spec = item["metadata"], item.get("spec", {})
            if path == EVENTS:
                about = item["involvedObject"]
                node = about["kind"] == "Node" and about.get("name") in names
                ours = node or about.get("uid") in made or item.get("source", {}).get("host") in names
            elif path == REQUESTS:
                ours = spec["username"].removeprefix("system:node:") in names
            else:
                ours = metadata["name"] in names
            if ours:
                found.append((f"{path}/{metadata['name']}", metadata["uid"]))
    return found


async def _removed(admin: Client, path: str, uid: str) -> bool:
    """Delete that very object at once, whatever holds it; False where it is gone already."""
    try:
        found = await admin.get(path)
        if found["metadata"]["uid"] != uid:
            return False
        if found["metadata"].get("finalizers"):
            await admin.patch(path, {"metadata": {"finalizers": [], "uid": uid}}, MERGE_PATCH)
        await admin.delete(path, {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}})
    except (errors.ObjectNotFound, errors.Conflict):
        return False
    return True


async def _there(admin: Client, path: str, uid: str | None = None) -> bool:
    """Whether there is such an object, of that UID where one is given."""
    try:
        found = (await admin.get(path))["metadata"]["uid"]
    except errors.ObjectNotFound:
        return False
    return uid in (None, found)
