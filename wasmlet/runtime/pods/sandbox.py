"""What a pod has beside its containers, as a kubelet's sandbox has it: a user of its own, and a network.

Both are there before the first container starts. What cannot be had is told as FailedCreatePodSandBox, and is tried
again with a growing pause, for as long as the pod exists.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TypeVar

from wasmlet.concurrency import in_thread
from wasmlet.errors import WasmletError
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod, PodKey
from wasmlet.runtime.files.pod_users import User, groups_of
from wasmlet.runtime.network.network import NetworkRequest, PodNetwork
from wasmlet.runtime.network.requests import on_host, request_of, wants_network
from wasmlet.runtime.pods.restarts import POD_BACKOFF
from wasmlet.runtime.services import RuntimeServices
from wasmlet.runtime.shim.instances import Labels
from wasmlet.runtime.shim.records import ContainerRecord

T = TypeVar("T")


class Sandbox:
    """A pod's user and network.

    Args:
        failed: tells a FailedCreatePodSandBox event's message.
    """

    def __init__(self, services: RuntimeServices, key: PodKey, failed: Callable[[str], None]) -> None:
        self._services = services
        self._key = key
        self._failed = failed
        self._left: tuple[str, ...] = ()
        """The addresses that the pod had: its status goes on to show them."""
        self._ports: dict[str, tuple[int, ...]] = {}
        """At which ports of TCP each container may listen."""
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

    async def join(self, now: Callable[[], tuple[Pod, Inputs]], *, dense: bool, runs: bool) -> None:
        """Give the pod its network, where it is to have one.

        Args:
            now: the pod and its inputs as they are.
            dense: its containers share a process with those of other pods.
            runs: a container of it runs already: a pod that began without a network goes on without one.
        """
        networks = self._services.networks

        async def add() -> None:
            pod, inputs = now()
            begun = runs and not on_host(pod)
            if networks.of(self._key.uid) is not None or (not begun and wants_network(pod, dense=dense)):
                await networks.add(self._request(pod), inputs.node_ips)

        await self._until_had(add)

    def listens(self, container: str, ports: tuple[int, ...]) -> None:
        """This container may listen at these ports of TCP, and at no others."""
        self._ports.pop(container, None)
        if ports:
            self._ports[container] = ports

    def taken(self, container: str) -> Mapping[int, str]:
        """The ports at which other containers than this one may listen, and their names."""
        return {port: name for name, ports in self._ports.items() if name != container for port in ports}

    async def open_ports(self, pod: Pod, inputs: Inputs) -> None:
        """Have those ports open at the pod's address that its containers may listen at now.

        Raises:
            NetworkError: not now.
        """
        async with self._turn:
            # In a namespace of the pod's own, there is nobody else who could listen.
            if self.network is not None and not self.network.namespace and not on_host(pod):
                await self._services.networks.add(self._request(pod), inputs.node_ips)

    def _request(self, pod: Pod) -> NetworkRequest:
        return request_of(pod, {port for ports in self._ports.values() for port in ports})

    async def leave(self) -> None:
        """Take back the pod's network.

        Raises:
            NetworkError: not now; to be tried again.
        """
        self._left = self.ips
        await self._services.networks.remove(self._key.uid)

    async def _until_had(self, find: Callable[[], Awaitable[T]]) -> T:
        pauses = POD_BACKOFF.pauses(random.Random())
        while True:
            try:
                return await find()
            except (WasmletError, OSError) as error:
                self._failed(f"Failed to create pod sandbox: {error}")
                await self._services.clock.sleep(next(pauses))
