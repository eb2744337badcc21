"""The network `cni`: each pod has a network namespace, and the cluster's CNI plugins set up its addresses there.

What a pod got, and with which configuration, is stored in a file beside its namespace. So it can be undone in the same
way, even if the configuration has changed or this process was restarted.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import attrs
import structlog

from wasmlet.concurrency import in_thread
from wasmlet.errors import ConfigError
from wasmlet.model.pod import PodKey
from wasmlet.runtime.files.beneath import file_name
from wasmlet.runtime.network import bandwidth, conflist, namespaces
from wasmlet.runtime.network.conflist import PORT_MAPPINGS, Conflist
from wasmlet.runtime.network.network import POLICY_ANNOTATION, Network, NetworkError, NetworkRequest, PodNetwork
from wasmlet.runtime.network.plugins import Attachment, Plugins, addresses, end_orphans

log = structlog.get_logger(__name__)

AT_ONCE = 4
"""Pods that plugins work for at the same time: each call is a few processes, and starts of pods want the CPU, too."""


DEFAULT_CIDRS = ("10.86.0.0/16",)
"""Of the built-in network where neither `--pod-cidr` nor the Node says another one."""


@attrs.frozen
class _Kept:
    """The content of one pod's file: a line when its network is begun, and another one when that is done.

    Attributes:
        result: of `ADD`; None until that has succeeded.
    """

    network: Conflist
    attachment: Attachment
    result: Mapping[str, Any] | None

    def begun(self) -> bytes:
        """The first line of the file."""
        pod = self.attachment.pod
        kept = {
            "network": self.network.as_raw(),
            "source": self.network.source,
            "pod": [pod.namespace, pod.name, pod.uid],
            "namespace": self.attachment.namespace,
            "runtime": self.attachment.runtime,
        }
        return json.dumps(kept).encode() + b"\n"

    def finished(self) -> bytes:
        """The second line, once there is a result."""
        return json.dumps(self.result).encode() + b"\n"

    @classmethod
    def of(cls, data: bytes) -> _Kept:
        """Raises `ValueError`, `KeyError`, `TypeError` or `ConfigError` where it is none."""
        begun, _, finished = data.partition(b"\n")
        raw = json.loads(begun)
        attachment = Attachment(PodKey(*raw["pod"]), raw["namespace"], raw["runtime"])
        # A line without its end was being written when the process ended. Once the result was in the first line.
        result = json.loads(finished) if finished.endswith(b"\n") else raw.get("result")
        return cls(conflist.parse(raw["network"], raw.get("source", "")), attachment, result)


class CniNetwork(Network):
    """The network `cni`, see the module.

    Args:
        directory: where this keeps its files; nobody else's.
        conf_dir: where the cluster's network configuration is. It is read again for each pod.
        cidrs: what the built-in network takes addresses from; it is used while `conf_dir` has had no network, as far
            as this process and the pods that are there know.
    """

    name: ClassVar[str] = "cni"

    def __init__(self, directory: Path, conf_dir: Path, plugins: Plugins, cidrs: Callable[[], Sequence[str]]) -> None:
        self._directory = directory
        self._conf_dir = conf_dir
        self._plugins = plugins
        self._cidrs = cidrs
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._ahead = asyncio.Semaphore(2 * AT_ONCE)
        """Pods that have their turn, and those whose namespaces are made before it."""
        self._source = ""
        """The last file of `conf_dir` that was a network; of the time before this process, one that a pod still has."""

    async def check(self) -> None:
        if os.geteuid() != 0:
            raise ConfigError("--network cni: expected to run as root, which namespaces and CNI plugins need")
        try:
            await in_thread(self._network)
        except ConfigError as error:
            raise ConfigError(f"--network cni: {error}") from error

    def _network(self) -> Conflist:
        """The network of new pods. Blocks.

        Raises:
            ConfigError: there is none that can be used; the message says why.
        """
        found = conflist.find(self._conf_dir)
        if found is not None:
            self._source = found.source
        elif self._source:  # an address of the built-in network would be of use on this node alone
            raise ConfigError(f"CNI network {self._source}: it is gone, and there is no other one in {self._conf_dir}")
        else:
            ports = self._plugins.has("portmap")
            found = conflist.built_in(self._cidrs() or DEFAULT_CIDRS, self._directory / "addresses", maps_ports=ports)
        if plugin := self._plugins.missing(found):
            raise ConfigError(
                f"{found.source or 'the built-in network'} wants CNI plugin {plugin}, which is not there; install it "
                "(Debian: containernetworking-plugins), or set --cni-bin-dir"
            )
        return found

    async def add(self, request: NetworkRequest) -> PodNetwork | None:
        async with self._ahead:
            # Before its turn: while plugins work for others, its namespace is made.
            kept, known = await self._begun(request)
            if known:
                async with self._turns:
                    if (intact := await self._again(kept)) is not None:
                        return intact
                    await self._take_back(kept)
                kept, _ = await self._begun(request)
            try:
                async with self._turns:
                    result = await self._plugins.add(kept.network, kept.attachment)
                kept = attrs.evolve(kept, result=result)
                await in_thread(self._finish, kept)
            except (NetworkError, OSError) as error:
                with contextlib.suppress(NetworkError):
                    async with self._turns:
                        await self._take_back(kept)
                raise NetworkError(str(error)) from error
        return _network_of(kept)

    async def _begun(self, request: NetworkRequest) -> tuple[_Kept, bool]:
        """What is to be done for a pod, with a namespace for it; or what was begun before, and True.

        Raises:
            NetworkError: there is no network for it.
        """
        try:
            return await in_thread(self._begin, request)
        except (ConfigError, OSError) as error:
            raise NetworkError(str(error)) from error

    async def _again(self, kept: _Kept) -> PodNetwork | None:
        """The network of a pod that was added before; None if it is not intact any more."""
        attachment = kept.attachment
        if kept.result is None or not await in_thread(namespaces.exists, Path(attachment.namespace)):
            return None
        try:
            await self._plugins.check(kept.network, attachment, kept.result)
        except NetworkError as error:
            # A pod that runs has its listeners there: another namespace would cut it off for good.
            log.warning("network: what a pod has is not whole any more", pod=str(attachment.pod), error=str(error))
        return _network_of(kept)

    async def remove(self, uid: str) -> None:
        async with self._turns:
            kept = await in_thread(self._read, uid)
            if kept is not None:
                await self._take_back(kept)
            elif await in_thread(self._is_left, uid):
                await self._take_back_unread(uid)

    async def _take_back(self, kept: _Kept) -> None:
        attachment = kept.attachment
        there = await in_thread(namespaces.exists, Path(attachment.namespace))
        known = attachment if there else attrs.evolve(attachment, namespace="")
        await self._plugins.delete(kept.network, known, kept.result)
        await in_thread(self._forget, attachment.pod.uid)

    async def _take_back_unread(self, uid: str) -> None:
        """Remove the network of a pod whose file cannot be read: only the UID is known, which the plugins know, too."""
        namespace = self._namespace(uid)
        there = str(namespace) if await in_thread(namespaces.exists, namespace) else ""
        try:
            network = await in_thread(self._network)
            await self._plugins.delete(network, Attachment(PodKey("", "", uid), there), None)
        except (ConfigError, NetworkError) as error:  # it may be of another network
            log.warning("network: plugins cannot take back what a pod had", uid=uid, error=str(error))
        await in_thread(self._forget, uid)

    async def list(self) -> Mapping[str, PodNetwork]:
        await in_thread(end_orphans, self._directory / "namespaces")
        found: dict[str, PodNetwork] = {}
        for kept in await in_thread(self._all):
            known = _network_of(kept) if kept.result is not None else PodNetwork(())
            found[kept.attachment.pod.uid] = known
            self._source = self._source or kept.network.source
        for name in await in_thread(self._names):
            found.setdefault(name, PodNetwork(()))  # nothing is known of it any more
        return found

    def remarks(self) -> Mapping[str, str]:
        source = self._source or "a bridge of this node alone"
        return {POLICY_ANNOTATION: f"as the CNI plugins of {source} have it"}

    async def close(self) -> None:
        self._plugins.close()

    # Files; all of these block

    def _file(self, uid: str) -> Path:
        return self._directory / "pods" / f"{file_name(uid)}.json"

    def _namespace(self, uid: str) -> Path:
        return self._directory / "namespaces" / file_name(uid)

    def _read(self, uid: str) -> _Kept | None:
        return _kept(self._file(uid))

    def _all(self) -> Sequence[_Kept]:
        try:
            files = sorted((self._directory / "pods").glob("*.json"))
        except OSError:
            return []
        return [kept for file in files if (kept := _kept(file)) is not None]

    def _names(self) -> set[str]:
        """Pods by the names of their files (which are their UIDs), whether they can be read or not."""
        files = {file.stem for file in (self._directory / "pods").glob("*.json")}
        return files | {file.name for file in (self._directory / "namespaces").glob("*")}

    def _is_left(self, uid: str) -> bool:
        return self._file(uid).exists() or self._namespace(uid).exists()

    def _begin(self, request: NetworkRequest) -> tuple[_Kept, bool]:
        if (known := self._read(request.pod.uid)) is not None:
            return known, True
        namespace = self._namespace(request.pod.uid)
        kept = _Kept(self._network(), Attachment(request.pod, str(namespace), _runtime(request)), None)
        file = self._file(request.pod.uid)

        def make() -> None:
            # The file is written first: if this process dies now, the next one can undo this.
            file.write_bytes(kept.begun())
            namespaces.make(namespace)

        try:
            make()
        except FileNotFoundError:
            for directory in (namespace.parent, file.parent):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            make()
        return kept, False

    def _finish(self, kept: _Kept) -> None:
        if not namespaces.exists(Path(kept.attachment.namespace)):
            raise NetworkError("the CNI plugins have removed the pod's network namespace")
        result = kept.finished()
        with self._file(kept.attachment.pod.uid).open("ab", buffering=0) as file:
            if file.write(result) != len(result):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _forget(self, uid: str) -> None:
        namespaces.remove(self._namespace(uid))
        self._file(uid).unlink(missing_ok=True)


def _kept(file: Path) -> _Kept | None:
    try:
        return _Kept.of(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
        log.warning("network: what was kept of a pod cannot be read", file=str(file), error=str(error)[:200])
        return None


def _network_of(kept: _Kept) -> PodNetwork:
    assert kept.result is not None
    return PodNetwork(addresses(kept.result), kept.attachment.namespace, kept.network.maps_ports)


def _runtime(request: NetworkRequest) -> Mapping[str, Any]:
    """What the pod asks for, by CNI's capabilities.

    Raises:
        NetworkError: its annotations ask for what cannot be.
    """
    mappings = [
        {
            "hostPort": port.host_port,
            "containerPort": port.container_port,
            "protocol": port.protocol.lower(),
            **({"hostIP": port.host_ip} if port.host_ip else {}),
        }
        for port in request.host_ports
    ]
    rates = bandwidth.as_capability(request.bandwidth)
    return {
        **({PORT_MAPPINGS: mappings} if mappings else {}),
        **({bandwidth.CAPABILITY: rates} if rates else {}),
    }
