"""Port-forward: to what a pod's own processes listen at, and to nothing else of this machine."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Collection
from pathlib import Path

from wasmlet import Channel, InvalidInput

CHUNK = 64 * 1024
LISTENING = "0A"


async def forward(sessions: Collection[int], port: int, channel: Channel) -> None:
    """Connect the channel to the port until the process closes the connection.

    Args:
        sessions: of the pod's processes: each container is one, named by its first process's id.

    Raises:
        InvalidInput: none of them listens there.
    """
    address = await asyncio.to_thread(_address, sessions, port)
    if address is None:
        raise InvalidInput(f"expected a process of the pod to listen at port {port}, found none")
    try:
        reader, writer = await asyncio.open_connection(address, port)
    except OSError as error:
        raise InvalidInput(f"port {port} cannot be connected to: {error}") from None

    async def send() -> None:
        with contextlib.suppress(ConnectionError):  # the process does not read on; it may still write
            while data := await channel.read():
                writer.write(data)
                await writer.drain()
            writer.write_eof()

    try:
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(send())
            with contextlib.suppress(ConnectionResetError):
                while data := await reader.read(CHUNK):
                    await channel.write(data)
            sending.cancel()
    finally:
        writer.close()


def _address(sessions: Collection[int], port: int) -> str | None:
    """Where to reach the port, if one of these listens there; blocks."""
    listeners: dict[str, str] = {}  # a socket's link, as a process has it, to its address
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):  # a machine without IPv6
            for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
                fields = line.split()
                host, _, number = fields[1].rpartition(":")
                if fields[3] == LISTENING and int(number, 16) == port:
                    listeners[f"socket:[{fields[9]}]"] = _readable(host)
    for entry in Path("/proc").iterdir() if listeners else ():
        # Processes come and go meanwhile, and others' are not ours to read.
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and _session(entry) in sessions:
                for link in (entry / "fd").iterdir():
                    if (address := listeners.get(str(link.readlink()))) is not None:
                        return address
    return None


def _session(entry: Path) -> int:
    return int((entry / "stat").read_text().rpartition(")")[2].split()[3])


def _readable(host: str) -> str:
    """An address of /proc/net: words in the machine's byte order; all zeros is every address, loopback among them."""
    words = bytes.fromhex(host)
    packed = b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))
    family, loopback = (socket.AF_INET, "127.0.0.1") if len(packed) == 4 else (socket.AF_INET6, "::1")
    return socket.inet_ntop(family, packed) if any(packed) else loopback
