"""The settings of pods' networks, and the values that are computed from them."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import attrs

from wasmlet.errors import ConfigError
from wasmlet.options import option
from wasmlet.runtime.network import egress
from wasmlet.worker.grants import Rule

AUTO, NONE, ADDRESS, CNI = "auto", "none", "address", "cni"
KINDS = (AUTO, NONE, ADDRESS, CNI)

BIN_DIRS = (Path("/opt/cni/bin"), Path("/usr/lib/cni"))
"""Where CNI plugins are by custom, and where Debian has them."""

NO_EGRESS = "none"
"""Of `--egress-max`: no pod may dial anybody."""

Cidr = ipaddress.IPv4Network | ipaddress.IPv6Network

_UNFIT = tuple(
    map(ipaddress.ip_network, ("0.0.0.0/8", "127.0.0.0/16", "169.254.0.0/16", "224.0.0.0/3", "fe80::/10", "ff00::/8"))
)
"""No pod's: the node's own loopback is in the second."""
_LEAST_BITS = 3
"""Of a pod CIDR: room for a few pods beside the addresses that are never given away."""


def _check_kind(settings: object, field: attrs.Attribute[str], value: str) -> None:
    if value not in KINDS:
        raise ConfigError(f"network: expected one of {', '.join(KINDS)}, found {value!r}; set it with --network")


def _check_cidrs(settings: object, field: attrs.Attribute[tuple[str, ...]], value: tuple[str, ...]) -> None:
    cidrs_of(value)


def _check_ceiling(settings: object, field: attrs.Attribute[str | None], value: str | None) -> None:
    ceiling_of(value)


@attrs.frozen(slots=False)
class NetworkConfig:
    """The settings of pods' networks."""

    network: str = option(
        AUTO,
        help="Where pods get addresses: cni (the cluster's plugins; needs root), address (of --pod-cidr, of the Node's "
        "podCIDR, or of 127.0.0.0/8), none, or auto: cni where this machine has it, else none.",
        validator=[_check_kind],
    )
    pod_cidr: tuple[str, ...] = option(
        (),
        help="Network that pods' addresses are of, with --network address or without CNI configuration; may be "
        "repeated: one of IPv4 and one of IPv6.",
        validator=[_check_cidrs],
    )
    cni_conf_dir: Path = option(Path("/etc/cni/net.d"), help="Directory of the CNI configuration lists (conflists).")
    cni_bin_dir: tuple[Path, ...] = option(
        (), help="Directory of CNI plugins; may be repeated; /opt/cni/bin and /usr/lib/cni without it."
    )
    allow_host_network: bool = option(
        False, help="Let pods have the node's own network (hostNetwork): they listen at the node's address."
    )
    egress_max: str | None = option(
        None,
        help="Whom pods may dial at most, whatever their annotation wasmlet.dev/egress grants: HOST:PORT, ... as "
        "there; none for nobody; all that is granted without it.",
        validator=[_check_ceiling],
    )

    def pod_cidrs(self) -> tuple[Cidr, ...]:
        """The networks that pods' addresses are of; none where nobody said."""
        return cidrs_of(self.pod_cidr)

    def bin_dirs(self) -> tuple[Path, ...]:
        """Where CNI plugins are looked for; blocks."""
        return self.cni_bin_dir or tuple(path for path in BIN_DIRS if path.is_dir())

    def egress_ceiling(self) -> tuple[Rule, ...] | None:
        """Whom pods may dial at most; None for no such bound."""
        return ceiling_of(self.egress_max)


def cidrs_of(texts: tuple[str, ...]) -> tuple[Cidr, ...]:
    """The networks of `--pod-cidr`.

    Raises:
        ConfigError: one of them is none that pods can have addresses of.
    """
    found: dict[int, Cidr] = {}
    for text in texts:
        try:
            network = ipaddress.ip_network(text)
        except ValueError as error:
            raise ConfigError(f"pod cidr: expected a network such as 10.1.0.0/24: {error}; {_SET_CIDR}") from None
        if network.version in found:
            raise ConfigError(
                f"pod cidr: expected at most one network of IPv4 and one of IPv6, found {found[network.version]} "
                f"and {network}; {_SET_CIDR}"
            )
        if network.max_prefixlen - network.prefixlen < _LEAST_BITS:
            least = network.max_prefixlen - _LEAST_BITS
            raise ConfigError(f"pod cidr: expected a network of /{least} or larger, found {network}; {_SET_CIDR}")
        if taken := next((one for one in _UNFIT if one.version == network.version and one.overlaps(network)), None):
            raise ConfigError(f"pod cidr: no pod can have an address of {taken}, found {network}; {_SET_CIDR}")
        found[network.version] = network
    return tuple(found.values())


_SET_CIDR = "set it with --pod-cidr"


def ceiling_of(text: str | None) -> tuple[Rule, ...] | None:
    """The rules of `--egress-max`; None for no such bound.

    Raises:
        ConfigError: it is no list of rules.
    """
    if text is None:
        return None
    if text.strip() == NO_EGRESS:
        return ()
    try:
        return egress.parse(text)
    except egress.EgressError as error:
        raise ConfigError(f"egress max: {error}; set it with --egress-max") from None
