"""Providers with one fault each in exec, attach or port-forward; see `tests.testing.broken_providers`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from tests.testing.found_by import found_by
from wasmlet.model.pod import PodKey
from wasmlet.provider import Channel, Streams
from wasmlet.testing import ReferenceProvider


@found_by(test_exec_passes_output_and_the_exit_code="exec")
class KnowsNoExitCode(ReferenceProvider):
    """Takes every command that ran for one that went well."""

    async def exec(self, key: PodKey, container: str, command: Sequence[str], streams: Streams) -> int:
        await super().exec(key, container, command, streams)
        return 0


@found_by(test_exec_passes_input_until_its_end="exec", test_exec_without_input_has_none="exec")
class KeepsInputOpen(ReferenceProvider):
    """Never tells a command that its input is over."""

    async def exec(self, key: PodKey, container: str, command: Sequence[str], streams: Streams) -> int:
        return await super().exec(key, container, command, NeverOver(streams))


class NeverOver:
    """Streams whose stdin has no end."""

    def __init__(self, streams: Streams) -> None:
        self.stdin, self.stdout, self.stderr, self.tty = streams.stdin, streams.stdout, streams.stderr, streams.tty
        self.write_stdout, self.write_stderr, self.next_size = (
            streams.write_stdout,
            streams.write_stderr,
            streams.next_size,
        )
        self._read = streams.read_stdin

    async def read_stdin(self) -> bytes:
        if data := await self._read():
            return data
        await asyncio.Event().wait()
        return b""


@found_by(test_exec_ends_when_its_caller_leaves="exec")
class ForgetsThatItWasCancelled(ReferenceProvider):
    """Takes the end of a command for an answer."""

    async def exec(self, key: PodKey, container: str, command: Sequence[str], streams: Streams) -> int:
        try:
            return await super().exec(key, container, command, streams)
        except asyncio.CancelledError:
            return 137


@found_by(test_exec_where_nothing_runs="exec")
class RunsAnywhere(ReferenceProvider):
    """Runs commands in containers that are not there."""

    def _running(self, key: PodKey, container: str) -> Any:
        return self._held(key)


@found_by(test_attach_ends_with_the_container="attach")
class StaysAttached(ReferenceProvider):
    """Waits for more of a container that has ended."""

    async def attach(self, key: PodKey, container: str, streams: Streams) -> None:
        await super().attach(key, container, streams)
        await asyncio.Event().wait()


@found_by(test_attach_can_be_left="attach")
class EndsWithItsCaller(ReferenceProvider):
    """Ends a container when somebody looks away."""

    async def attach(self, key: PodKey, container: str, streams: Streams) -> None:
        try:
            await super().attach(key, container, streams)
        except asyncio.CancelledError:
            self.finish(key, 137)
            raise


@found_by(test_port_forward_passes_bytes_both_ways="port_forward")
class ForwardsText(ReferenceProvider):
    """Takes bytes for lines of text."""

    async def port_forward(self, key: PodKey, port: int, channel: Channel) -> None:
        await super().port_forward(key, port, Lines(channel))


class Lines:
    """A channel that mends line ends."""

    def __init__(self, channel: Channel) -> None:
        self.read = channel.read
        self._write = channel.write

    async def write(self, data: bytes) -> None:
        await self._write(data.replace(b"\r", b"\n"))


@found_by(test_port_forward_to_a_port_where_nothing_listens="port_forward")
class ForwardsAnything(ReferenceProvider):
    """Connects to whatever is asked for."""

    async def port_forward(self, key: PodKey, port: int, channel: Channel) -> None:
        await super().port_forward(key, 8080, channel)
