"""Chooses the kind of network of a node, by `--network`; for `auto` by what this machine supports."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs
import structlog

from wasmlet.clock import SystemClock
from wasmlet.concurrency import in_thread
from wasmlet.errors import ConfigError
from wasmlet.model.pod import Raw
from wasmlet.runtime.network import conflist
from wasmlet.runtime.network.address import AddressNetwork, Reach, directories, pod_cidrs_of
from wasmlet.runtime.network.cni import CniNetwork
from wasmlet.runtime.network.config import ADDRESS, AUTO, CNI, NONE, NetworkConfig
from wasmlet.runtime.network.network import Network
from wasmlet.runtime.network.node_network import NodeNetwork, least_port
from wasmlet.runtime.network.none import NoNetwork
from wasmlet.runtime.network.plugins import Plugins
from wasmlet.runtime.network.pod_networks import PodNetworks
from wasmlet.runtime.network.ranges import loopback_range
from wasmlet.runtime.network.reach import AnyIp

log = structlog.get_logger(__name__)

ANNOTATION = "wasmlet.dev/network"
"""Of the Node: which network its pods have, and why."""


@attrs.frozen
class Choice:
    """What was chosen: a kind, and why, in words for the log and the Node."""

    kind: str
    why: str

    def annotations(self) -> dict[str, str]:
        """As the Node has it."""
        return {ANNOTATION: f"{self.kind}: {self.why}"}


def choose(config: NetworkConfig) -> Choice:
    """Which kind of network the node is to have; blocks."""
    if config.network != AUTO:
        return Choice(config.network, f"--network {config.network} asks for it")
    if os.geteuid() != 0:
        return Choice(NONE, "the node does not run as root; --network address needs no root")
    found = conflist.files(config.cni_conf_dir)
    if not found:
        return Choice(NONE, f"there is no CNI configuration in {config.cni_conf_dir}; see --network")
    return Choice(CNI, f"the node runs as root, and there is {found[0]}")


async def started(config: NetworkConfig, state_dir: Path, node: Callable[[], Raw] = dict) -> PodNetworks:
    """The networks of the node's pods.

    Args:
        state_dir: of the provider.
        node: the Node as the API has it now.

    Raises:
        ConfigError: this machine has not what the network needs that was asked for.
    """
    choice = await in_thread(choose, config)
    chosen = await in_thread(_made, choice.kind, config, state_dir, node)
    try:
        await chosen.check()
    except ConfigError as error:
        if config.network != AUTO:
            raise
        choice, chosen = Choice(NONE, f"what this machine has cannot be used: {error}"), NoNetwork()
    log.info("the network of pods", network=choice.kind, why=choice.why)
    kinds = await in_thread(_former, choice.kind, state_dir)
    former = [await in_thread(_made, kind, config, state_dir, node) for kind in kinds]
    facts = NodeNetwork(
        on=choice.kind != NONE,
        host=config.allow_host_network,
        namespaces=choice.kind == CNI,
        loopback=str(loopback_range(state_dir)),
        least_port=await in_thread(least_port),
        ceiling=config.egress_ceiling(),
        node=node,
        ranges=chosen.ranges if isinstance(chosen, AddressNetwork) else tuple,
    )
    return PodNetworks(chosen, facts, choice.annotations(), former)


def _made(kind: str, config: NetworkConfig, state_dir: Path, node: Callable[[], Raw]) -> Network:
    match kind:
        case "address":
            return AddressNetwork(state_dir, config.pod_cidrs(), node, _reach(state_dir))
        case "cni":
            plugins = Plugins(config.bin_dirs(), SystemClock())
            return CniNetwork(
                state_dir / "network" / "cni",
                config.cni_conf_dir,
                plugins,
                lambda: [str(cidr) for cidr in config.pod_cidrs() or pod_cidrs_of(node())],
            )
    return NoNetwork()


def _reach(state_dir: Path) -> Reach | None:
    """What makes addresses that are not loopback's ones of this machine; None where this process may not."""
    return AnyIp(state_dir, SystemClock()) if os.geteuid() == 0 else None


def _former(chosen: str, state_dir: Path) -> Sequence[str]:
    """The kinds of which pods may have networks though the node has another one now; blocks."""
    known = {ADDRESS: bool(directories(state_dir)), CNI: (state_dir / "network" / "cni").is_dir()}
    return [kind for kind, there in known.items() if kind != chosen and there]
