"""The store: all objects, the version counter that they share, and the recent changes of each resource (the ring).

An object in the store is never changed; a write replaces it. So lists, watches and snapshots share the object and its
JSON. `objects.registry` decides what may be written; `http.watch` sends changes to clients. A write has no await in it,
so on the event loop it is atomic without a lock.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, Protocol

import attrs
import orjson

from wasmlet.controlplane.storage.kinds import Catalog, Kind
from wasmlet.controlplane.storage.selectors import Selector
from wasmlet.controlplane.storage.status import Object, expired

RING = 4096
"""How many changes of a resource are kept for watches that resume."""
RING_BYTES = 16 * 2**20
"""The most bytes of these changes together, as JSON. The latest change is kept whatever its size."""
SNAPSHOTS = 64
"""How many lists in pages may be open at a time; the oldest is forgotten, and its next page answers 410."""

Change = Literal["ADDED", "MODIFIED", "DELETED"]


class Record:
    """An object as stored, with values that are needed often.

    A record that was replaced or deleted keeps only its JSON (`pack`): a parsed object takes several times as much
    memory.
    """

    __slots__ = ("_json", "_raw", "name", "namespace", "node", "prefix", "version")

    def __init__(self, raw: Object, version: int, prefix: int) -> None:
        metadata = raw["metadata"]
        self._raw: Object | None = raw
        self.version = version
        self.prefix = prefix
        self.namespace: str = metadata.get("namespace", "")
        self.name: str = metadata["name"]
        spec = raw.get("spec")
        self.node: str = spec.get("nodeName", "") if isinstance(spec, dict) else ""
        self._json: bytes | None = None

    @property
    def raw(self) -> Object:
        """The object; where the record is packed, it is parsed at each access."""
        if self._raw is not None:
            return self._raw
        parsed: Object = orjson.loads(self.json)
        return parsed

    @property
    def json(self) -> bytes:
        """The object as JSON for clients; made once, and shared."""
        if self._json is None:
            self._json = orjson.dumps(self._raw)
        return self._json

    def pack(self) -> None:
        """Keep only the JSON, as the object is history now."""
        # A copy, since orjson returns its whole buffer, which is up to five times as large.
        self._json, self._raw = bytes(memoryview(self.json)), None

    def unpack(self) -> None:
        """Keep the object parsed, as it is in the store again."""
        self._raw = self.raw

    @property
    def bare(self) -> bytes:
        """The object without apiVersion and kind, as the items of a list are."""
        return b"{" + self.json[self.prefix :]

    @property
    def key(self) -> tuple[str, str]:
        return (self.namespace, self.name)


class Event:
    """One change. `old` is the record before it, or None."""

    __slots__ = ("change", "old", "record", "version")

    def __init__(self, change: Change, record: Record, old: Record | None) -> None:
        self.change = change
        self.record = record
        self.old = old
        self.version = record.version


class Follower(Protocol):
    """Somebody who gets each change of a resource at once; must not block or raise."""

    def offer(self, event: Event) -> None: ...

    def end(self) -> None:
        """Called when there will be no more changes."""
        ...


class Collection:
    """All objects of one kind."""

    def __init__(self, kind: Kind, ring: int, start: int) -> None:
        self.kind = kind
        self.spaces: dict[str, dict[str, Record]] = {}
        self.nodes: dict[str, dict[tuple[str, str], Record]] = {}
        self.ring: deque[Event] = deque()
        self.size = ring
        self._ring_bytes = 0
        self.start = start
        self.followers: set[Follower] = set()

    @property
    def head(self) -> bytes:
        """How each object of the kind begins as JSON."""
        return self.kind.head

    def end(self) -> None:
        """End all watches."""
        for follower in list(self.followers):
            follower.end()

    def get(self, namespace: str, name: str) -> Record | None:
        space = self.spaces.get(namespace)
        return space.get(name) if space else None

    def on_node(self, node: str) -> Iterable[Record]:
        """The pods whose spec.nodeName is `node`."""
        return list(self.nodes.get(node, {}).values())

    def __iter__(self) -> Iterator[Record]:
        for space in list(self.spaces.values()):
            yield from list(space.values())

    def select(self, selector: Selector) -> list[Record]:
        """The objects that a selector matches, in the order of namespace and name."""
        candidates: Iterable[Record]
        name = selector.exact("metadata.name")
        node = selector.exact("spec.nodeName") if self.kind.key == "pods" else None
        if name is not None and selector.namespace:
            found = self.get(selector.namespace, name)
            candidates = [found] if found else []
        elif node:
            candidates = self.nodes.get(node, {}).values()
        elif selector.namespace:
            candidates = self.spaces.get(selector.namespace, {}).values()
        else:
            candidates = self
        if selector.namespace:
            candidates = (record for record in candidates if record.namespace == selector.namespace)
        if not selector.everything:
            candidates = (record for record in candidates if selector.matches(record.raw))
        return sorted(candidates, key=lambda record: record.key)

    def since(self, version: int) -> list[Event]:
        """The changes after a version.

        Raises:
            ApiError: 410, the ring no longer reaches back that far.
        """
        if version < self.start:
            raise expired(f"too old resource version: {version} ({self.start})")
        out: list[Event] = []
        for event in reversed(self.ring):
            if event.version <= version:
                break
            out.append(event)
        out.reverse()
        return out

    def _put(self, record: Record, old: Record | None) -> None:
        self.spaces.setdefault(record.namespace, {})[record.name] = record
        if self.kind.key == "pods":
            if old is not None and old.node and old.node != record.node:
                self.nodes[old.node].pop(old.key, None)
            if record.node:
                self.nodes.setdefault(record.node, {})[record.key] = record

    def _drop(self, record: Record) -> None:
        space = self.spaces[record.namespace]
        del space[record.name]
        if not space:
            del self.spaces[record.namespace]
        if self.kind.key == "pods" and record.node and record.node in self.nodes:
            self.nodes[record.node].pop(record.key, None)
            if not self.nodes[record.node]:
                del self.nodes[record.node]

    def publish(self, event: Event) -> None:
        self.ring.append(event)
        self._ring_bytes += len(event.record.json)
        while len(self.ring) > self.size or (self._ring_bytes > RING_BYTES and len(self.ring) > 1):
            self._drop_eldest()
        for follower in list(self.followers):
            follower.offer(event)

    def _drop_eldest(self) -> None:
        eldest = self.ring.popleft()
        self._ring_bytes -= len(eldest.record.json)
        self.start = eldest.version

    def put_back(self, records: Iterable[Record], version: int) -> list[Event]:
        """Replace all objects by these, and empty the ring. Returns the changes; nobody has been told of them."""
        before = {record.key: record for record in self}
        after = {record.key: record for record in records}
        self.spaces, self.nodes, self.start = {}, {}, version
        self.ring.clear()
        self._ring_bytes = 0
        for record in after.values():
            record.unpack()
            self._put(record, None)
        gone = [Event("DELETED", old, old) for key, old in before.items() if key not in after]
        there = [
            Event("MODIFIED" if key in before else "ADDED", record, before.get(key))
            for key, record in after.items()
            if record is not before.get(key)
        ]
        return gone + there

    def forget(self, version: int) -> None:
        """Remove the changes up to a version from the ring: a watch that resumes from before it gets 410."""
        while self.ring and self.ring[0].version <= version:
            self._drop_eldest()
        self.start = max(self.start, version)


@attrs.frozen
class State:
    """All objects of a store at one time, for `Store.restore`."""

    version: int
    records: Mapping[str, tuple[Kind, Sequence[Record]]] = attrs.field(repr=False)


class Store:
    """All collections, and the version, which each write increases."""

    def __init__(self, *, ring: int = RING) -> None:
        self.version = 1
        self.catalog = Catalog()
        self._ring = ring
        self.collections = {kind.key: Collection(kind, ring, self.version) for kind in self.catalog.stored()}
        self.listeners: list[Callable[[Kind, Event], None]] = []
        self._snapshots: OrderedDict[str, tuple[list[Record], int]] = OrderedDict()

    def of(self, kind: Kind) -> Collection:
        return self.collections[kind.shares or kind.key]

    def __getitem__(self, key: str) -> Collection:
        return self.collections[key]

    def define(self, stored: Kind, served: Sequence[Kind]) -> None:
        """Serve a custom resource, or serve it by another definition: then its watches end, and clients begin anew."""
        self.catalog.define(stored, served)
        collection = self.collections.get(stored.key)
        if collection is None:
            self.collections[stored.key] = Collection(stored, self._ring, self.version)
        else:
            collection.kind = stored
            collection.end()

    def undefine(self, key: str) -> None:
        """Stop serving a custom resource, and drop its objects."""
        self.catalog.drop(key)
        collection = self.collections.pop(key, None)
        if collection is not None:
            collection.end()

    def _record(self, collection: Collection, raw: Object) -> Record:
        self.version += 1
        stored = {
            "apiVersion": collection.kind.api_version,
            "kind": collection.kind.kind,
            **{key: value for key, value in raw.items() if key not in ("apiVersion", "kind")},
        }
        stored["metadata"] = {**raw["metadata"], "resourceVersion": str(self.version)}
        return Record(stored, self.version, len(collection.head))

    def write(self, kind: Kind, raw: Object) -> Record:
        """Store an object, in place of an old one if there is one, and tell followers and listeners."""
        collection = self.of(kind)
        metadata = raw["metadata"]
        old = collection.get(metadata.get("namespace", ""), metadata["name"])
        record = self._record(collection, raw)
        collection._put(record, old)
        self._publish(collection, Event("MODIFIED" if old else "ADDED", record, old))
        return record

    def remove(self, kind: Kind, old: Record, final: Object | None = None) -> Record:
        """Remove an object; `final` is its last state, as watches show it."""
        collection = self.of(kind)
        collection._drop(old)
        record = self._record(collection, final if final is not None else old.raw)
        self._publish(collection, Event("DELETED", record, old))
        return record

    def _publish(self, collection: Collection, event: Event) -> None:
        collection.publish(event)
        for listener in self.listeners:
            listener(collection.kind, event)
        if event.old is not None:
            event.old.pack()
        if event.change == "DELETED":
            event.record.pack()

    def keep(self, token: str, rest: list[Record], version: int) -> None:
        """Keep the rest of a list that is read in pages."""
        self._snapshots[token] = (rest, version)
        while len(self._snapshots) > SNAPSHOTS:
            self._snapshots.popitem(last=False)

    def resume(self, token: str) -> tuple[list[Record], int]:
        """The rest of a list that `keep` was given, and its version.

        Raises:
            ApiError: 410, the list is no longer kept.
        """
        try:
            return self._snapshots[token]
        except KeyError:
            raise expired(
                "The provided continue parameter is too old to display a consistent list result. "
                "Start the list again without the continue parameter."
            ) from None

    def snapshot(self) -> State:
        """All objects and the version, as they are now."""
        return State(self.version, {key: (found.kind, tuple(found)) for key, found in self.collections.items()})

    def restore(self, state: State) -> None:
        """Restore a state, with its version. Listeners get the changes; there must be no followers."""
        self.version = state.version
        self._snapshots.clear()
        for key, (kind, _) in state.records.items():
            self.collections.setdefault(key, Collection(kind, self._ring, state.version))
        changes = [
            (collection.kind, event)
            for key, collection in list(self.collections.items())
            for event in collection.put_back(state.records[key][1] if key in state.records else (), state.version)
        ]
        for kind, event in changes:
            for listener in self.listeners:
                listener(kind, event)
