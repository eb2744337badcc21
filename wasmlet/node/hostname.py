"""Whether a node's name is an address that others may dial: an API server dials a Hostname first, if it is told one."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

HOSTS = Path("/etc/hosts")
"""What it says is true on this machine alone. In a pod it always names the pod itself."""
RESOLVE_SECONDS = 2.0
_MOST_BYTES = 2**20


async def names_this_node(name: str, ip: str) -> bool:
    """Whether the name stands for the address for others, too, as far as this machine finds out in a short time."""
    if await asyncio.to_thread(_only_here, name):
        return False
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError):
        return False
    return ip in {str(address[0]) for *_, address in found}


def _only_here(name: str) -> bool:
    """Whether the name is from the hosts file, so that nothing follows for others."""
    try:
        with HOSTS.open("rb") as file:
            text = file.read(_MOST_BYTES).decode(errors="replace")
    except OSError:
        return False
    wanted = name.lower().rstrip(".")
    return any(wanted in line.partition("#")[0].lower().split()[1:] for line in text.splitlines())
