"""What pods refer to, kept up to date: config maps and secrets watched by name, services watched as a whole.

A node's identity may read only the config maps and secrets that its pods refer to, and only by name (Node authorizer),
so there is one watch for each such object, shared by all pods that refer to it, and none for an immutable one. A watch
holds a connection (HTTP/1.1); above `WATCHES` of them, objects are looked at every minute or so instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import attrs
import structlog

from wasmlet.clock import Backoff
from wasmlet.concurrency import let_go
from wasmlet.errors import WasmletError
from wasmlet.kube import errors, paths
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod, Raw
from wasmlet.model.references import References, references
from wasmlet.node.claims import ClaimStore
from wasmlet.node.collection import LOAD_SECONDS, Collection, Watching
from wasmlet.node.tokens import TokenManager

log = structlog.get_logger(__name__)

WATCHES = 200
POLL_SECONDS = 60.0
POLL_RETRIES = Backoff(initial=0.2, cap=POLL_SECONDS, jitter=0.5)
"""The pauses after a read of an object that failed: the API server may not know yet that the pod is on this node."""

_COLLECTIONS = {"ConfigMap": "configmaps", "Secret": "secrets"}


@attrs.frozen
class ObjectKey:
    """One object that pods refer to."""

    kind: str
    namespace: str
    name: str

    @property
    def collection(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/{_COLLECTIONS[self.kind]}"

    def __str__(self) -> str:
        return f"{self.kind.lower()} {self.namespace}/{self.name}"


class InputStore:
    """Knows the objects that the node's pods refer to.

    Args:
        runtime_class: finds a RuntimeClass by name; None where there is none.
        changed: told the UID of a pod when something it refers to has changed.
        allocatable: what the node can give, for `resourceFieldRef`.
    """

    def __init__(
        self,
        watching: Watching,
        *,
        node_name: str,
        node_ips: Sequence[str],
        allocatable: Callable[[], Mapping[str, str]],
        runtime_class: Callable[[str], Awaitable[Raw | None]],
        changed: Callable[[str], None],
    ) -> None:
        self._watching = watching
        self._node_name = node_name
        self._node_ips = tuple(node_ips)
        self._allocatable = allocatable
        self._runtime_class = runtime_class
        self._changed = changed
        watching.history.on_rewound(self._rewound)
        self._objects: dict[ObjectKey, _Object] = {}
        self._used: dict[str, frozenset[ObjectKey]] = {}
        self._services = Collection(watching, "/api/v1/services")
        self._tokens = TokenManager(watching.requests, watching.group, changed, watching.clock, watching.rng)
        self._claims = ClaimStore(watching.requests, watching.group, changed, watching.clock, watching.rng)
        self._slots = asyncio.Semaphore(WATCHES)

    async def inputs(self, pod: Pod) -> Inputs:
        """What the pod refers to, as it stands now; waits until all of it has been looked for once.

        From then on `changed` is called for the pod, until `release`.

        Raises:
            WasmletError: the API does not say, as yet, whether an object exists.
        """
        wanted = references(pod)
        keys = self._retain(pod, wanted)
        await self._services.load()
        if keys:
            await self._loaded(keys)
        tokens = await self._tokens.tokens(pod, wanted.tokens)
        bound = await self._claims.bound(pod)
        found: dict[str, dict[str, Raw]] = {kind: {} for kind in _COLLECTIONS}
        for key in keys:
            if (value := self._objects[key].value) is not None:
                found[key.kind][key.name] = value
        return Inputs(
            config_maps=found["ConfigMap"],
            secrets=found["Secret"],
            tokens=tokens,
            services=self._services_of(pod.namespace),
            claims=bound.claims,
            persistent_volumes=bound.volumes,
            node_name=self._node_name,
            node_ips=self._node_ips,
            runtime_handler=await self._handler(pod),
            node_allocatable=self._allocatable(),
        )

    async def _loaded(self, keys: frozenset[ObjectKey]) -> None:
        """Return when each of these has been looked for once."""
        try:
            async with asyncio.timeout(LOAD_SECONDS):
                for key in keys:
                    await self._objects[key].loaded.wait()
        except TimeoutError:
            unknown = sorted(str(key) for key in keys if not self._objects[key].loaded.is_set())
            raise WasmletError(f"{', '.join(unknown)} could not be read from the API server yet") from None

    async def _handler(self, pod: Pod) -> str | None:
        name = pod.spec.get("runtimeClassName")
        found = await self._runtime_class(name) if name else {}
        return None if found is None else str(found.get("handler", ""))

    def release(self, uid: str) -> None:
        """The pod is gone: what only it referred to is watched no more."""
        self._tokens.release(uid)
        self._claims.release(uid)
        self._drop(uid, self._used.pop(uid, frozenset()))

    @property
    def watched(self) -> int:
        """How many objects are watched or read again and again."""
        return len(self._objects)

    def _services_of(self, namespace: str) -> Sequence[Raw]:
        """The namespace's services, and `default/kubernetes`, which every pod is told of."""
        found = dict(self._services.of(namespace))
        if (kubernetes := self._services.of("default").get("kubernetes")) is not None:
            found["kubernetes"] = kubernetes
        return tuple(found.values())

    def _retain(self, pod: Pod, wanted: References) -> frozenset[ObjectKey]:
        keys = frozenset(
            {ObjectKey("ConfigMap", pod.namespace, name) for name in wanted.config_maps}
            | {ObjectKey("Secret", pod.namespace, name) for name in wanted.secrets}
        )
        before = self._used.get(pod.uid, frozenset())
        if keys:
            self._used[pod.uid] = keys
        for key in keys - before:
            found = self._objects.get(key)
            if found is None:
                found = self._objects[key] = _Object(self._tell)
                found.task = self._watching.group.create_task(self._follow(key, found))
            found.users.add(pod.uid)
        self._drop(pod.uid, before - keys)
        return keys

    def _drop(self, uid: str, keys: frozenset[ObjectKey]) -> None:
        for key in keys:
            found = self._objects[key]
            found.users.discard(uid)
            if not found.users:
                del self._objects[key]
                if found.task is not None:
                    found.task.cancel()
                    found.task = None  # it has the object, too

    def _rewound(self) -> None:
        """The API server was restored from a backup, and an object that is immutable now may be another one there."""
        for key, found in self._objects.items():
            if found.settled.is_set():
                found.settled.clear()
                found.task = self._watching.group.create_task(self._follow(key, found))

    def _tell(self, users: frozenset[str]) -> None:
        for uid in users:
            self._changed(uid)

    async def _follow(self, key: ObjectKey, found: _Object) -> None:
        """Keep one object up to date: watch it or, if there are too many watches, read it about once a minute."""
        if not paths.may_name(key.name):
            found.synced(())  # there is none, and there will never be one
            return
        if self._slots.locked():
            await self._poll(key, found)
            return
        async with self._slots:
            selector = {"fieldSelector": f"metadata.name={key.name}"}
            reflector = self._watching.reflector(key.collection, selector, found)
            watching = asyncio.create_task(reflector.run())
            settled = asyncio.create_task(found.settled.wait())
            try:
                await asyncio.wait({watching, settled}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                watching.cancel()
                settled.cancel()
                await asyncio.wait({watching, settled})
                let_go(watching)

    async def _poll(self, key: ObjectKey, found: _Object) -> None:
        client, clock, rng = self._watching.client, self._watching.clock, self._watching.rng
        pauses = client.recovery.pauses(POLL_RETRIES, clock, rng)
        while not found.settled.is_set():
            try:
                found.applied(await client.get(paths.named(key.collection, key.name)))
            except errors.ObjectNotFound:
                found.synced(())
            except errors.ApiError as error:
                log.warning("an object that pods refer to cannot be read", object=str(key), error=str(error))
                await pauses.wait()
                continue
            pauses.start_over()
            await clock.sleep(POLL_SECONDS * (0.8 + 0.4 * rng.random()))


class _Object:
    """One object and who refers to it; handler of its reflector."""

    def __init__(self, tell: Callable[[frozenset[str]], None]) -> None:
        self._tell = tell
        self.value: Raw | None = None
        self.users: set[str] = set()
        self.loaded = asyncio.Event()
        self.settled = asyncio.Event()
        """The object is immutable: it can only vanish, which changes nothing for those that have it."""
        self.task: asyncio.Task[None] | None = None

    def synced(self, items: Sequence[Raw]) -> None:
        self._set(items[0] if items else None)

    def applied(self, item: Raw) -> None:
        self._set(item)

    def deleted(self, item: Raw) -> None:
        self._set(None)

    def _set(self, value: Raw | None) -> None:
        before, first = self.value, not self.loaded.is_set()
        self.value = value
        self.loaded.set()
        if value is not None and value.get("immutable"):
            self.settled.set()
        if not first and _data(before) != _data(value):
            self._tell(frozenset(self.users))


def _data(value: Raw | None) -> tuple[object, ...] | None:
    return None if value is None else (value.get("data"), value.get("binaryData"))
