"""Makes the addresses of a network local to this machine, for the network `address` on a node that runs as root.

One route makes all addresses of the network local (AnyIP), so a pod's address costs nothing. But a service that
listens at all addresses of the node would answer at a pod's address, too. So nftables rejects connections to ports at
which no pod may listen. Each node has an nftables table of its own, which stays when the node restarts.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from wasmlet.clock import Clock
from wasmlet.concurrency import first_of, in_thread
from wasmlet.errors import ConfigError
from wasmlet.runtime.network.config import Cidr
from wasmlet.runtime.network.network import NetworkError, PodNetwork

SECONDS = 20.0
"""How long one command may take."""
PROGRAMS = {"ip": "iproute2", "nft": "nftables"}
"""What is called, and which package of Debian has it."""
_PATH = "/usr/sbin:/sbin:/usr/local/sbin"
_FAMILIES = {4: ("ip", "ports4", "ipv4_addr"), 6: ("ip6", "ports6", "ipv6_addr")}
_SHOWN = 300

Element = tuple[str, int]
"""An address and a port that is listened at."""


class AnyIp:
    """The way to pods' addresses, by `ip` and `nft`. Calls come one after the other.

    Args:
        state_dir: of the provider; the table is named after it.
    """

    def __init__(self, state_dir: Path, clock: Clock) -> None:
        digest = hashlib.sha256(str(state_dir.absolute()).encode()).hexdigest()[:12]
        self.table = f"wasmlet-{digest}"
        self._clock = clock
        self._turn = asyncio.Lock()
        self._open: set[Cidr] = set()
        self._ports: dict[str, Collection[int]] = {}

    async def check(self) -> None:
        """See whether the programs are there.

        Raises:
            ConfigError: one is not.
        """
        for program, package in PROGRAMS.items():
            if await in_thread(_found, program) is None:
                raise ConfigError(
                    f"network address: expected {program}, which gives pods addresses of a network and closes all "
                    f"other ports there; install it (Debian: {package}), or leave --pod-cidr out"
                )

    async def open(self, cidr: Cidr) -> None:
        """Addresses of this network are about to be given.

        Raises:
            NetworkError: not now.
        """
        async with self._turn:
            if cidr in self._open:
                return
            # The rule comes first, so that at no time a port is open that belongs to no pod.
            await self._nft(self._rules({*self._open, cidr}))
            await self._run("ip", f"-{cidr.version}", "route", "replace", "local", str(cidr), "dev", "lo")
            self._open.add(cidr)

    async def add(self, found: PodNetwork, ports: Collection[int]) -> None:
        """A pod has these addresses, and may listen at these ports of TCP alone.

        Raises:
            NetworkError: not now.
        """
        numbers = frozenset(ports)
        async with self._turn:
            wanted = [ip for ip in found.ips if numbers != self._ports.get(ip) and not _loopback(ip)]
            if not wanted:
                return
            before = await self._elements() if any(ip not in self._ports for ip in wanted) else set()
            stale = {(ip, port) for ip, port in before if ip in wanted and port not in numbers}
            stale |= {(ip, port) for ip in wanted for port in self._ports.get(ip, ()) if port not in numbers}
            fresh = {(ip, port) for ip in wanted for port in numbers}
            others = {ip: known for ip, known in self._ports.items() if ip not in wanted}
            self._ports = dict(others)  # unknown until this is done: a cancelled call may leave anything
            if stale or fresh:
                try:
                    await self._nft([*self._changes("delete", stale), *self._changes("add", fresh)])
                except NetworkError:
                    # Who loads the machine's own firewall again (`flush ruleset`) takes this table away, too.
                    await self._restore({**others, **dict.fromkeys(wanted, numbers)})
            self._ports.update(dict.fromkeys(wanted, numbers))

    async def remove(self, found: PodNetwork) -> None:
        """The pod has them no more.

        Raises:
            NetworkError: not now.
        """
        async with self._turn:
            gone = [ip for ip in found.ips if not _loopback(ip)]
            if any(self._ports.get(ip) != frozenset() for ip in gone):
                stale = {(ip, port) for ip, port in await self._elements() if ip in gone}
                if stale:
                    await self._nft(list(self._changes("delete", stale)))
            for ip in gone:
                self._ports.pop(ip, None)

    async def close(self) -> None:
        """No pod has an address of it any more, and the node ends: take the table and the routes back."""
        async with self._turn:
            for cidr in self._open:
                await self._run("ip", f"-{cidr.version}", "route", "del", "local", str(cidr), "dev", "lo")
            if self._open:
                await self._nft([f"delete table inet {self.table}"])
            self._open.clear()

    async def _restore(self, ports: Mapping[str, Collection[int]]) -> None:
        """Have the table with these ports in it, whatever is there now."""
        elements = {(ip, port) for ip, numbers in ports.items() for port in numbers}
        await self._nft([*self._rules(self._open), *self._changes("add", elements)])

    def _rules(self, cidrs: Collection[Cidr]) -> list[str]:
        """The table, without the elements of its sets, which stay."""
        lines = [f"add table inet {self.table}"]
        for _, name, kind in _FAMILIES.values():
            lines.append(f"add set inet {self.table} {name} {{ type {kind} . inet_service; }}")
        lines.append(f"add chain inet {self.table} input {{ type filter hook input priority 0; }}")
        lines.append(f"flush chain inet {self.table} input")
        for cidr in sorted(cidrs, key=str):
            family, name, _ = _FAMILIES[cidr.version]
            rule = f"add rule inet {self.table} input {family} daddr {cidr}"
            lines.append(
                f"{rule} meta l4proto tcp ct state new {family} daddr . tcp dport != @{name} reject with tcp reset"
            )
            lines.append(f"{rule} meta l4proto != {{ tcp, icmp, ipv6-icmp }} ct state new reject")
        return lines

    def _changes(self, verb: str, elements: Collection[Element]) -> Iterator[str]:
        for version, (_, name, _) in _FAMILIES.items():
            own = sorted(f"{ip} . {port}" for ip, port in elements if ipaddress.ip_address(ip).version == version)
            if own:
                yield f"{verb} element inet {self.table} {name} {{ {', '.join(own)} }}"

    async def _elements(self) -> set[Element]:
        """What is in the sets now; also of the time before this process."""
        found: set[Element] = set()
        tables = json.loads(await self._run("nft", "-j", "list", "tables"))["nftables"]
        if not any((one.get("table") or {}).get("name") == self.table for one in tables):
            return found  # the machine was restarted
        for _, name, _ in _FAMILIES.values():
            try:
                listed = json.loads(await self._run("nft", "-j", "list", "set", "inet", self.table, name))
                for one in listed["nftables"]:
                    for element in (one.get("set") or {}).get("elem") or ():
                        ip, port = element["concat"]
                        found.add((str(ip), int(port)))
            except (ValueError, KeyError, TypeError) as error:
                raise NetworkError(f"nft: expected a set as JSON: {error}") from error
        return found

    async def _nft(self, lines: Sequence[str]) -> None:
        """All of these, or none."""
        await self._run("nft", "-f", "-", said="\n".join([*lines, ""]).encode())

    async def _run(self, program: str, *arguments: str, said: bytes = b"") -> bytes:
        path = await in_thread(_found, program)
        if path is None:
            raise NetworkError(f"{program} is not here; install it (Debian: {PROGRAMS[program]})")
        # No pipe for what is said: where the program ends without reading it, uvloop raises a RuntimeError.
        given, pipe = os.memfd_create("said", os.MFD_CLOEXEC), asyncio.subprocess.PIPE
        try:
            os.pwrite(given, said, 0)
            process = await asyncio.create_subprocess_exec(path, *arguments, stdin=given, stdout=pipe, stderr=pipe)
        except OSError as error:
            raise NetworkError(f"{program}: cannot be run: {error.strerror}") from error
        finally:
            os.close(given)
        answer: tuple[bytes, bytes] | None = None

        async def talk() -> None:
            nonlocal answer
            answer = await process.communicate()

        try:
            await first_of(talk(), self._clock.sleep(SECONDS))
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if answer is None:
            raise NetworkError(f"{program} {' '.join(arguments)}: took longer than {SECONDS:g} seconds")
        if process.returncode:
            why = answer[1].decode("utf-8", "replace").strip()[:_SHOWN]
            raise NetworkError(f"{program} {' '.join(arguments)}: {why or f'exit status {process.returncode}'}")
        return answer[0]


def _found(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:{_PATH}")


def _loopback(ip: str) -> bool:
    address = ipaddress.ip_address(ip)
    return address.version == 4 and address.is_loopback
