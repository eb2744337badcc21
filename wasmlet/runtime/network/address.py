"""The network `address`: gives each pod an IP address, without a network namespace and without a network device.

Without root and without a configured network, addresses come from 127.0.0.0/8, which always belongs to this machine.
Then pods reach each other and the machine reaches them, but nobody else does. With `--pod-cidr`, or as root with a
`podCIDR` of the Node, addresses come from that network, and `Reach` makes them addresses of this machine. NetworkPolicy
is not enforced.

What a pod has is in a file that has the pod's UID as its name, so that a node loop that comes back finds it again, and
removes those of pods that are gone. These files are in memory, like what is made for each start of a container: making
one takes a twentieth of the time that it takes on a disk, and after a restart of the machine no pod runs that has its
address. Where there is no memory (left), they are in the state directory.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import json
import os
import random
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Protocol

import structlog

from wasmlet.concurrency import in_thread
from wasmlet.errors import ConfigError
from wasmlet.model.pod import Raw
from wasmlet.runtime.files.beneath import file_name
from wasmlet.runtime.files.memory import Memory
from wasmlet.runtime.network.config import Cidr, cidrs_of
from wasmlet.runtime.network.network import POLICY_ANNOTATION, Network, NetworkError, NetworkRequest, PodNetwork
from wasmlet.runtime.network.ranges import Pool, loopback_range

log = structlog.get_logger(__name__)

DIRECTORY = "addresses"
"""Where the files are, below `memory` or, on the disk, below `network`."""
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC


class Reach(Protocol):
    """Makes addresses outside of 127.0.0.0/8 local to this machine; rejects connections to ports that no pod has."""

    async def check(self) -> None:
        """Raises ConfigError where this machine cannot do that."""

    async def open(self, cidr: Cidr) -> None:
        """Prepare a network; called before each address of it is assigned. Raises NetworkError: not possible now."""

    async def add(self, found: PodNetwork, ports: Collection[int]) -> None:
        """Add a pod's addresses with the TCP ports at which it may listen. Raises NetworkError: not possible now."""

    async def remove(self, found: PodNetwork) -> None:
        """Remove a pod's addresses, also those from before this process. Raises NetworkError: not possible now."""

    async def close(self) -> None:
        """Undo everything; called when the node ends and no pod is left. Raises NetworkError: something is left."""


class AddressNetwork(Network):
    """An address of a network for each pod.

    Args:
        state_dir: of the provider.
        cidrs: of `--pod-cidr`.
        node: the Node as the API has it now.
        reach: see `Reach`; None where nothing but loopback can be had.
        rng: where in a network the first address is.
    """

    name: ClassVar[str] = "address"

    def __init__(
        self,
        state_dir: Path,
        cidrs: Sequence[Cidr] = (),
        node: Callable[[], Raw] = dict,
        reach: Reach | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._state_dir = state_dir
        self._memory = Memory(state_dir)
        self._at_hand: Path | None = None
        """The directory in memory, once a file has been made there."""
        self.loopback = loopback_range(state_dir)
        self._cidrs = tuple(cidrs)
        self._node = node
        self._reach = reach
        self._rng = rng or random.Random()
        self._pools: dict[Cidr, Pool] = {}
        self._given: dict[str, PodNetwork] | None = None

    async def check(self) -> None:
        for cidr in self._cidrs:
            if not is_loopback(cidr[0]) and self._reach is None:
                await in_thread(_check_bindable, cidr)
        if self._reach is not None and not all(is_loopback(cidr[0]) for cidr in self._cidrs):
            await self._reach.check()

    async def add(self, request: NetworkRequest) -> PodNetwork | None:
        given = await self._known()
        if self._reach is not None:
            # Also for a pod that has its address already: the machine may have been restarted.
            for cidr in self.ranges():
                if not is_loopback(cidr[0]):
                    await self._reach.open(cidr)
        if (found := given.get(request.pod.uid)) is None:
            found = given[request.pod.uid] = await self._give(request.pod.uid)
        if self._reach is not None:
            await self._reach.add(found, request.ports)
        return found

    async def remove(self, uid: str) -> None:
        given = await self._known()
        found = given.get(uid)
        try:
            if found is not None and self._reach is not None:
                await self._reach.remove(found)
            await in_thread(self._unlink, uid)
        except OSError as error:
            raise NetworkError(f"the pod's address cannot be freed: {error}") from error
        if given.pop(uid, None) is not None and found is not None:
            self._free(found.ips)

    async def list(self) -> Mapping[str, PodNetwork]:
        return dict(await self._known())

    def ranges(self) -> Sequence[Cidr]:
        """The networks of which a new pod gets an address each."""
        if self._cidrs:
            return self._cidrs
        if self._reach is not None and (found := pod_cidrs_of(self._node())):
            return found
        return (self.loopback,)

    def remarks(self) -> Mapping[str, str]:
        where = ", ".join(map(str, self.ranges()))
        return {POLICY_ANNOTATION: f"not enforced: pods have addresses of {where}, and no network devices"}

    async def close(self) -> None:
        await in_thread(self._clear)
        if self._reach is not None and not await self._known():
            try:
                await self._reach.close()
            except NetworkError as error:
                log.warning("network: something is left of the way to pods' addresses", error=str(error))

    # --- within

    async def _give(self, uid: str) -> PodNetwork:
        """Find a pod its addresses, and write them down."""
        cidrs, ips = self.ranges(), []
        try:
            for cidr in cidrs:
                ips.append(self._pool(cidr).take())
            found = PodNetwork(tuple(ips))
            if not self._write_at_hand(uid, found):
                await in_thread(self._write, uid, found)
            return found
        except BaseException as error:
            self._free(ips)
            if isinstance(error, OSError):
                raise NetworkError(f"the pod's address cannot be written down: {error}") from error
            raise

    def _pool(self, cidr: Cidr) -> Pool:
        if (pool := self._pools.get(cidr)) is None:
            pool = self._pools[cidr] = Pool(cidr, self._rng)
            for found in (self._given or {}).values():
                for ip in found.ips:
                    pool.note(ip)
        return pool

    def _free(self, ips: Sequence[str]) -> None:
        for ip in ips:
            for pool in self._pools.values():
                pool.free(ip)

    async def _known(self) -> dict[str, PodNetwork]:
        if self._given is None:
            try:
                found = await in_thread(self._read)
            except OSError as error:
                raise NetworkError(f"which pod has which address cannot be read: {error}") from error
            if self._given is None:
                self._given = found
        return self._given

    def _read(self) -> dict[str, PodNetwork]:
        """Read the files. A file that is not ours, or is incomplete, is removed."""
        found: dict[str, PodNetwork] = {}
        for file in (file for directory in directories(self._state_dir) for file in directory.iterdir()):
            try:
                written = json.loads(file.read_text("utf-8"))
                ips = tuple(str(ipaddress.ip_address(ip)) for ip in written["ips"])
                if not ips or file_name(written["uid"]) != file.name:
                    raise ValueError("expected the addresses of the pod that the file is named after")
                found[written["uid"]] = PodNetwork(ips)
            except (ValueError, KeyError, TypeError) as error:
                log.warning("network: removing a file that names no pod's address", file=str(file), why=str(error))
                file.unlink(missing_ok=True)
        return found

    def _write_at_hand(self, uid: str, found: PodNetwork) -> bool:
        """As `_write`, but only in memory, so that it does not block; False if that is not possible."""
        if self._at_hand is None:
            return False
        try:
            _create(self._at_hand / file_name(uid), _text(uid, found))
        except OSError:  # it is full, or somebody has taken it away
            return False
        return True

    def _write(self, uid: str, found: PodNetwork) -> None:
        name, text, memory = file_name(uid), _text(uid, found), self._memory.find()
        if memory != self._state_dir:
            try:
                (memory / DIRECTORY).mkdir(mode=0o700, exist_ok=True)
                _create(memory / DIRECTORY / name, text)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
            else:
                self._at_hand = memory / DIRECTORY
                return
        _on_disk(self._state_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
        _create(_on_disk(self._state_dir) / name, text)

    def _unlink(self, uid: str) -> None:
        for directory in directories(self._state_dir):
            (directory / file_name(uid)).unlink(missing_ok=True)

    def _clear(self) -> None:
        """Remove the directories of files where nothing is in them."""
        for directory in directories(self._state_dir):
            with contextlib.suppress(OSError):
                directory.rmdir()
        self._memory.close()


def directories(state_dir: Path) -> list[Path]:
    """The existing directories with the files of pods' addresses: in memory and on the disk; blocks."""
    memory = Memory(state_dir).existing()
    places = [*([memory / DIRECTORY] if memory is not None else []), _on_disk(state_dir)]
    return [place for place in places if place.is_dir()]


def _on_disk(state_dir: Path) -> Path:
    return state_dir / "network" / DIRECTORY


def _text(uid: str, found: PodNetwork) -> bytes:
    return json.dumps({"uid": uid, "ips": found.ips}).encode()


def _create(file: Path, text: bytes) -> None:
    descriptor = os.open(file, _WRITE, 0o600)
    try:
        os.write(descriptor, text)
    except OSError:
        os.unlink(file)
        raise
    finally:
        os.close(descriptor)


def is_loopback(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether it is of 127.0.0.0/8, every address of which is this machine's without anybody's doing."""
    return address.version == 4 and address.is_loopback


def pod_cidrs_of(node: Raw) -> tuple[Cidr, ...]:
    """What `spec.podCIDRs` of a Node says; none where it says nothing that pods can have addresses of."""
    spec = node.get("spec") or {}
    texts = tuple(map(str, spec.get("podCIDRs") or filter(None, (spec.get("podCIDR"),))))
    try:
        return cidrs_of(texts)
    except ConfigError as error:
        log.warning("network: the Node's podCIDRs cannot be used", found=texts, why=str(error))
        return ()


def _check_bindable(cidr: Cidr) -> None:
    """See whether this machine takes an address of the network for its own (`ip route add local CIDR dev lo`)."""
    family = socket.AF_INET if cidr.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((str(cidr[2]), 0))
    except OSError as error:
        raise ConfigError(
            f"network address: addresses of {cidr} are not this machine's ({error.strerror}); run the node as root, "
            f"have root do `ip route add local {cidr} dev lo`, or leave --pod-cidr out to have addresses of 127.0.0.0/8"
        ) from None
