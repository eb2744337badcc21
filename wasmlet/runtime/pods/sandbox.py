"""Gives a pod what its containers share: a Linux user of its own and a network. A kubelet calls that a pod's sandbox.

A pod gets both before its first container starts, where the node has them to give. If that fails, an event
FailedCreatePodSandBox says why, and it is tried again with growing pauses as long as the pod exists.

Where pods share one network namespace, the sandbox also opens and closes ports: a port of a pod's address is open only
while a container runs that may listen there (`listens`, `closes`, `sync_ports`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TypeVar

import structlog

from wasmlet.clock import Backoff
from wasmlet.concurrency import Event, first_of, in_thread
from wasmlet.errors import WasmletError
from wasmlet.failures import described
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod, PodKey
from wasmlet.runtime.files.pod_users import User, groups_of
from wasmlet.runtime.network.network import NetworkRequest, PodNetwork
from wasmlet.runtime.network.requests import declared, on_host, request_of, wants_network
from wasmlet.runtime.pods.restarts import POD_BACKOFF
from wasmlet.runtime.services import RuntimeServices
from wasmlet.runtime.shim.instances import Labels
from wasmlet.runtime.shim.records import ContainerRecord

log = structlog.get_logger(__name__)

PORTS_BACKOFF = Backoff(1.0, 10.0, jitter=0.0)
"""The pauses between tries to open and close ports, in seconds."""

T = TypeVar("T")
Now = Callable[[], tuple[Pod, Inputs]]
"""The pod and its inputs as they are."""


class Sandbox:
    """The user, the network and the open ports of one pod.

    Args:
        failed: is called with the message of a FailedCreatePodSandBox event.
    """

    def __init__(self, services: RuntimeServices, key: PodKey, failed: Callable[[str], None]) -> None:
        self._services = services
        self._key = key
        self._failed = failed
        self._left: tuple[str, ...] = ()
        """The addresses that the pod had before `leave`: its status still shows them."""
        self._ports: dict[str, tuple[int, ...] | None] = {}
        """The TCP ports of each container, also while it waits for a restart; None: the declared ones."""
        self._open: frozenset[str] = frozenset()
        """The containers that may listen at their ports now."""
        self._stale = False
        """Whether other ports may be open at the pod's address than should be."""
        self._changed = Event()
        """Set when other ports should be open than at the last try."""
        self._syncing: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    @property
    def network(self) -> PodNetwork | None:
        """What the pod has; None for no network."""
        return self._services.networks.of(self._key.uid)

    @property
    def ips(self) -> tuple[str, ...]:
        """The pod's addresses, or those that it had; none where it has no network."""
        found = self.network
        return found.ips if found is not None else self._left

    async def user(self, pod: Pod, records: Iterable[ContainerRecord]) -> User | None:
        """The pod's own user, which it keeps; None where it has none.

        Args:
            records: the instances of its containers: a pod that began without a user goes on without one.
        """
        users = self._services.users
        if users is None:
            return None
        known = [labels.user for record in records if (labels := Labels.of(record.labels)) is not None]
        if known and not any(known):
            return None

        async def find() -> int:
            return users.at_hand(self._key.uid) or await in_thread(users.of, self._key.uid)

        return User(await self._until_had(find), groups_of(pod))

    async def join(self, now: Now, *, dense: bool, runs: bool) -> None:
        """Give the pod its network, where it is to have one.

        Args:
            dense: its containers share a process with those of other pods.
            runs: a container of it runs already: a pod that began without a network goes on without one.
        """
        networks = self._services.networks

        async def add() -> None:
            pod, inputs = now()
            begun = runs and not on_host(pod)
            if networks.of(self._key.uid) is not None or (not begun and wants_network(pod, dense=dense)):
                async with self._turn:
                    await self._add(pod, inputs)

        await self._until_had(add)

    def listens(self, container: str, ports: tuple[int, ...] | None) -> None:
        """This container may listen at these ports of TCP, and at no others; None: at those that it declares."""
        if container in self._open and self._ports.get(container) == ports:
            return
        self.closes(container)
        self._ports.pop(container, None)
        if ports is None or ports:
            self._ports[container] = ports
            self._open |= {container}
            self._stale = True
            self._changed.set()

    def closes(self, container: str) -> None:
        """It does not run (any more): nobody listens at its ports, which may be open for the node behind them."""
        if container in self._open:
            self._open -= {container}
            self._stale = True
            self._changed.set()

    def gives_up(self, container: str) -> None:
        """It will not run again: another one may have its ports."""
        self._ports.pop(container, None)

    def taken(self, container: str) -> Mapping[int, str]:
        """The ports that other containers than this one have, as far as these may be other than declared ones."""
        return {port: name for name, ports in self._ports.items() if name != container for port in ports or ()}

    async def open_ports(self, pod: Pod, inputs: Inputs) -> None:
        """Have those ports open at the pod's address that its containers may listen at now.

        Raises:
            NetworkError: not now.
        """
        async with self._turn:
            # In a namespace of the pod's own, there is nobody else who could listen.
            if self.network is not None and not self.network.namespace and not on_host(pod):
                await self._add(pod, inputs)
            else:
                self._stale = False

    async def _add(self, pod: Pod, inputs: Inputs) -> None:
        self._stale = False
        try:
            await self._services.networks.add(self._request(pod), inputs.node_ips)
        except BaseException:
            self._stale = True
            raise

    def sync_ports(self, now: Now) -> None:
        """As `open_ports`, where something has changed: soon, and as often as it has to be tried."""
        if self._stale and (self._syncing is None or self._syncing.done()):
            self._syncing = self._services.background(self._sync(now))

    async def _sync(self, now: Now) -> None:
        pauses, first = PORTS_BACKOFF.pauses(), True
        while self._stale:
            self._changed.clear()
            try:
                await self.open_ports(*now())
            except (WasmletError, OSError) as error:
                log.warning(
                    "network: a pod's ports cannot be opened or closed, trying again",
                    pod=str(self._key),
                    **described(error, first=first),
                )
                first = False
                await first_of(self._services.clock.sleep(next(pauses)), self._changed.wait())

    def _request(self, pod: Pod) -> NetworkRequest:
        found = set[int]()
        for name in self._open:
            ports, container = self._ports.get(name), pod.container(name)
            if ports is None and container is not None:
                ports = declared(container)
            found.update(ports or ())
        return request_of(pod, found)

    async def leave(self) -> None:
        """Take back the pod's network.

        Raises:
            NetworkError: not now; to be tried again.
        """
        self._left = self.ips
        async with self._turn:  # else it could be had again for its ports
            await self._services.networks.remove(self._key.uid)

    async def _until_had(self, find: Callable[[], Awaitable[T]]) -> T:
        pauses = POD_BACKOFF.pauses()
        while True:
            try:
                return await find()
            except (WasmletError, OSError) as error:
                self._failed(f"Failed to create pod sandbox: {error}")
                await self._services.clock.sleep(next(pauses))
