"""Port-forward: connections to ports at which the pod's own processes listen, and to no other port of this machine."""

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
        sessions: ids of the operating system's sessions of the pod, one for each container.

    Raises:
        InvalidInput: no process in these sessions listens at the port.
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
    """The address at which a process of these sessions listens at the port; None if none does. Blocks."""
    listeners: dict[str, str] = {}  # from a link such as socket:[123], as in /proc/PID/fd, to the address
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
    """An address of /proc/net/tcp as text. There it is hexadecimal: words of 32 bits, in the machine's byte order.

    An address of zeros only stands for every address of the machine; the loopback address is returned for it.
    """
    words = bytes.fromhex(host)
    packed = b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))
    family, loopback = (socket.AF_INET, "127.0.0.1") if len(packed) == 4 else (socket.AF_INET6, "::1")
    return socket.inet_ntop(family, packed) if any(packed) else loopback
