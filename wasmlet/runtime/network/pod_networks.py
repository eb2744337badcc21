"""The networks of all pods of a node: those of the current kind (`--network`), and those of kinds that the node had
before.

A pod keeps its network as long as it exists, even if `--network` has changed since.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import structlog

from wasmlet.errors import ConfigError
from wasmlet.runtime.network.network import Network, NetworkError, NetworkRequest, PodNetwork
from wasmlet.runtime.network.node_network import NodeNetwork

log = structlog.get_logger(__name__)


class PodNetworks:
    """Gives pods their networks, finds them again, and takes them back.

    Args:
        chosen: where new pods' networks come from.
        node: what it means for all pods.
        why: annotations of the Node that say which network was chosen, and why.
        former: others that pods may have networks of, from the time before this process.
    """

    def __init__(
        self, chosen: Network, node: NodeNetwork, why: Mapping[str, str], former: Sequence[Network] = ()
    ) -> None:
        self.node = node
        self._chosen = chosen
        self._why = why
        self._all = (chosen, *former)
        self._known: dict[str, tuple[Network | None, PodNetwork | None]] = {}
        """Where a pod's network is from (None: it is the node's own), and what it is, None while it is being added."""

    async def start(self, uids: Collection[str]) -> None:
        """Find what pods have from the time before this process, and take it back from all but these.

        Raises:
            ConfigError: that cannot be found out of the network that the node has now.
        """
        for network in self._all:
            try:
                listed = await network.list()
            except NetworkError as error:
                if network is self._chosen:
                    raise ConfigError(f"network {network.name}: {error}") from error
                # What those of its pods have that are gone stays; the others go on with it.
                log.warning("network: that of a former kind cannot be listed", network=network.name, error=str(error))
                continue
            for uid, found in listed.items():
                if uid in uids:
                    self._known[uid] = (network, found)
                    continue
                try:
                    await network.remove(uid)
                except NetworkError as error:  # the next start is another try
                    log.warning("network: that of a pod which is gone is not removed", uid=uid, error=str(error))

    def of(self, uid: str) -> PodNetwork | None:
        """What the pod has."""
        known = self._known.get(uid)
        return known[1] if known is not None else None

    async def add(self, request: NetworkRequest, node_ips: Sequence[str]) -> PodNetwork | None:
        """Give the pod its network; one that has it already keeps it. None where pods have none.

        Args:
            node_ips: the addresses of a pod that asks for the node's own network.

        Raises:
            NetworkError: not now.
        """
        uid = request.pod.uid
        if request.host:
            found = PodNetwork(tuple(node_ips)) if self.node.given(host=True) and node_ips else None
            self._known[uid] = (None, found)
            return found
        network, _ = self._known.setdefault(uid, (self._chosen, None))
        assert network is not None
        found = await network.add(request)
        self._known[uid] = (network, found)
        return found

    async def remove(self, uid: str) -> None:
        """Take back what the pod has; nothing is no error, and costs nothing.

        Raises:
            NetworkError: not now; something is left.
        """
        network, _ = self._known.get(uid, (None, None))
        if network is not None:
            await network.remove(uid)
        self._known.pop(uid, None)

    def remarks(self) -> Mapping[str, str]:
        """Annotations of the Node."""
        return {**self._why, **self._chosen.remarks()}

    async def close(self) -> None:
        """The node loop ends. What pods have stays."""
        for network in self._all:
            await network.close()
