"""Port-forward: connects a caller to a port of a pod; from inside the pod's network namespace, if it has one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection

from wasmlet.errors import InvalidInput
from wasmlet.provider import Channel
from wasmlet.runtime.network import dialing
from wasmlet.runtime.network.network import PodNetwork

_CHUNK = 65536


async def forward(
    network: PodNetwork | None, pod: str, port: int, channel: Channel, ports: Collection[int] | None
) -> None:
    """Pass bytes on between the caller and the port, until the pod's side closes. Cancelled when the caller leaves.

    Args:
        network: of the pod; None where it has none.
        pod: its name.
        ports: see `Place`.

    Raises:
        InvalidInput: it has no network, or nothing listens at that port.
    """
    if network is None or not network.ips:
        raise InvalidInput(f"pod {pod} has no network: nothing can be forwarded to it")
    try:
        dialing.Place(network.ips[0], ports).check(port)
        reader, writer = await dialing.connect_inside(network, port)
    except OSError as error:
        raise InvalidInput(f"cannot connect to port {port} of the pod: {dialing.words(error)}") from error
    try:
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(_send(channel, writer))
            with contextlib.suppress(OSError):  # of either side, an address that nobody has any more, too: it is an end
                while data := await reader.read(_CHUNK):
                    await channel.write(data)
            sending.cancel()
    finally:
        await dialing.hang_up(writer)


async def _send(channel: Channel, writer: asyncio.StreamWriter) -> None:
    """Until the caller sends no more; it may still read then."""
    with contextlib.suppress(OSError):
        while data := await channel.read():
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
