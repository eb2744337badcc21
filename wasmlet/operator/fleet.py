"""A cache of the objects of all pools: watches keep it up to date, and a change wakes the task of its pool."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from wasmlet.clock import Pacing
from wasmlet.kube import Client, History, Reflector, Selection, later, paths
from wasmlet.model.pod import Raw
from wasmlet.operator.objects import keys_namespace
from wasmlet.operator.pool import LABEL, ordinal_of
from wasmlet.operator.seen import MEMBER, Member, NodeSeen, PodSeen, Seen, SetSeen

T = TypeVar("T")
REMEMBERED = 1024
"""How many deleted objects are remembered, the newest ones."""
Wake = Callable[[str], None]
"""Called with the name of a pool when an object of the pool has changed."""


class Kept(Generic[T]):
    """The objects of one kind, by pool and name. It keeps of each object what `read` returns. A reflector's handler."""

    def __init__(self, read: Callable[[Raw], T], wake: Wake) -> None:
        self._read = read
        self._wake = wake
        self._found: defaultdict[str, dict[str, tuple[str, T]]] = defaultdict(dict)
        self._pools: dict[str, str] = {}
        """The pool of each object, by the object's name."""
        self._gone: OrderedDict[str, str] = OrderedDict()
        """The resourceVersion of each object that was deleted lately, by its UID. The answer to an earlier write may
        come after the watch has reported the deletion; that answer is ignored."""
        self.in_sync = asyncio.Event()

    def pools(self) -> Collection[str]:
        """The names of the pools that have objects of this kind."""
        return self._found.keys()

    def of(self, pool: str) -> Mapping[str, T]:
        """The pool's objects of this kind, by name."""
        return {name: value for name, (_, value) in self._found.get(pool, {}).items()}

    def synced(self, items: Sequence[dict[str, Any]]) -> None:
        before, self._found, self._pools = self._found, defaultdict(dict), {}
        for item in items:
            self._put(item)
        for pool in before.keys() | self._found.keys():
            if before.get(pool) != self._found.get(pool):
                self._wake(pool)
        self.in_sync.set()

    def applied(self, item: dict[str, Any]) -> None:
        """Take over an object, from a watch or from the answer to a write, unless a newer version is known."""
        metadata = item["metadata"]
        version = metadata["resourceVersion"]
        if (gone := self._gone.get(metadata["uid"])) is not None and not later(version, gone):
            return
        before = self._pools.get(metadata["name"])
        if before not in (None, _pool(item)):
            self._forget(str(before), metadata["name"])  # its label names another pool now
        known = self._found.get(_pool(item), {}).get(metadata["name"])
        if known is not None and not later(version, known[0]):
            return
        value = self._put(item)
        if known is None or known[1] != value:
            self._wake(_pool(item))

    def deleted(self, item: dict[str, Any]) -> None:
        metadata = item["metadata"]
        self._gone[metadata["uid"]] = metadata["resourceVersion"]
        while len(self._gone) > REMEMBERED:
            self._gone.popitem(last=False)
        self._forget(self._pools.get(metadata["name"], _pool(item)), metadata["name"])

    def _forget(self, pool: str, name: str) -> None:
        self._pools.pop(name, None)
        if self._found.get(pool, {}).pop(name, None) is not None:
            if not self._found[pool]:
                del self._found[pool]
            self._wake(pool)

    def _put(self, item: dict[str, Any]) -> T:
        metadata, value = item["metadata"], self._read(item)
        self._pools[metadata["name"]] = _pool(item)
        self._found[_pool(item)][metadata["name"]] = (metadata["resourceVersion"], value)
        return value


def _pool(item: Raw) -> str:
    return str((item["metadata"].get("labels") or {}).get(LABEL, ""))


def edition(item: Raw) -> str:
    """A text that changes when somebody changes the object.

    It has the UID, and the generation, or the resourceVersion of an object without a generation.
    """
    metadata = item["metadata"]
    return f"{metadata['uid']}/{metadata.get('generation') or metadata['resourceVersion']}"


class Fleet:
    """The objects of all pools.

    Args:
        namespace: the namespace of the nodes' pods.
        wake: called for each pool one of whose objects has changed.
    """

    def __init__(self, client: Client, namespace: str, pacing: Pacing, wake: Wake) -> None:
        self.sets = Kept(SetSeen.of, wake)
        self.pods = Kept(PodSeen.of, wake)
        self.nodes = Kept(NodeSeen.of, wake)
        self._editions: dict[str, Kept[str]] = {}
        self._handlers: list[tuple[str, Any]] = [
            (f"/api/v1/namespaces/{namespace}/pods", self.pods),
            (paths.NODES, self.nodes),
        ]
        core, rbac = f"/api/v1/namespaces/{namespace}", "/apis/rbac.authorization.k8s.io/v1"
        for path in (
            f"{core}/serviceaccounts",
            f"{core}/services",
            f"{rbac}/clusterroles",
            f"{rbac}/clusterrolebindings",
            f"{rbac}/namespaces/{keys_namespace(namespace)}/rolebindings",
            f"/apis/apps/v1/namespaces/{namespace}/deployments",
        ):
            self._editions[path] = Kept(edition, wake)
            self._handlers.append((path, self._editions[path]))
        sets = f"/apis/apps/v1/namespaces/{namespace}/statefulsets"
        self._editions[sets] = Kept(edition, wake)
        self._handlers.append((sets, _Both(self._editions[sets], self.sets)))
        self._client = client
        self._pacing = pacing

    async def run(self) -> None:
        """Watch all kinds until cancelled."""
        history, params = History(), {"labelSelector": LABEL}
        async with asyncio.TaskGroup() as group:
            for path, handler in self._handlers:
                selection = Selection(path, params)
                group.create_task(
                    Reflector(self._client, selection, handler, pacing=self._pacing, history=history).run()
                )

    async def in_sync(self) -> None:
        """Wait until all kinds have been listed once."""
        for listed in self._listed():
            await listed.wait()

    def known(self) -> bool:
        """Whether all kinds have been listed once."""
        return all(listed.is_set() for listed in self._listed())

    def _listed(self) -> list[asyncio.Event]:
        own = [self.pods.in_sync, self.nodes.in_sync, self.sets.in_sync]
        return own + [kept.in_sync for kept in self._editions.values()]

    def of(self, pool: str) -> Seen:
        """The StatefulSet of a pool and its nodes, each with its pod and its Node."""
        return Seen(self.sets.of(pool).get(pool), list(self._members(pool)))

    def of_agents(self, pool: str, uid: str, agents: Sequence[str]) -> Seen:
        """The nodes of a pool of agents: first `agents` in their order, then former agents whose Nodes still exist.

        A Node that was never an agent of the pool is left out, although it may have the pool's label.
        """
        nodes = self.nodes.of(pool)
        own = {name for name, node in nodes.items() if node.annotations.get(MEMBER) == uid}
        names = [*agents, *sorted(own - set(agents))]
        return Seen(None, [Member(at, name, None, nodes.get(name), remote=True) for at, name in enumerate(names)])

    def pools(self) -> set[str]:
        """The names of pools that have objects other than Nodes; anybody may give a Node the label of a pool."""
        kept: list[Kept[Any]] = [self.sets, self.pods, *self._editions.values()]
        return {name for one in kept for name in one.pools() if name}

    def edition(self, path: str, pool: str) -> str | None:
        """The last known `edition` of the object at that path; None where there is no such object."""
        collection, _, name = path.rpartition("/")
        return self._editions[collection].of(pool).get(name)

    def written(self, path: str, answer: Raw) -> None:
        """Take over the object that the API server returned for a write."""
        collection = path.rpartition("/")[0]
        self._editions[collection].applied(dict(answer))
        if collection.endswith("/statefulsets"):
            self.sets.applied(dict(answer))

    def _members(self, pool: str) -> Iterator[Member]:
        pods, nodes = self.pods.of(pool), self.nodes.of(pool)
        ordinals = {ordinal_of(name, pool) for name in pods.keys() | nodes.keys()}
        for ordinal in sorted(ordinal for ordinal in ordinals if ordinal is not None):
            name = f"{pool}-{ordinal}"
            yield Member(ordinal, name, pods.get(name), nodes.get(name))


class _Both:
    """Passes the changes of one watch to two handlers."""

    def __init__(self, *handlers: Kept[Any]) -> None:
        self._handlers = handlers

    def synced(self, items: Sequence[dict[str, Any]]) -> None:
        for handler in self._handlers:
            handler.synced(items)

    def applied(self, item: dict[str, Any]) -> None:
        for handler in self._handlers:
            handler.applied(item)

    def deleted(self, item: dict[str, Any]) -> None:
        for handler in self._handlers:
            handler.deleted(item)
