"""Exec and attach, whatever carries the streams: a provider's call between stdin, stdout, stderr and a status.

How it went is told on the error stream: since version 4 of the protocol as a `metav1.Status` in JSON, with the exit
code among its causes; before that as text, and only if it went wrong.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import attrs
import structlog

from wasmlet.errors import InvalidInput, Unsupported, WasmletError
from wasmlet.failures import described
from wasmlet.kubelet.sessions import CallerLeft, SessionError, Stream, within
from wasmlet.kubelet.spdy_frames import Reset
from wasmlet.kubelet.spdy_session import SpdySession, SpdyStream
from wasmlet.provider import Streams

log = structlog.get_logger(__name__)

V4 = "v4.channel.k8s.io"
SPDY_PROTOCOLS = (V4, "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
RESIZABLE = SPDY_PROTOCOLS[:2]
KINDS = ("stdin", "stdout", "stderr", "error", "resize")
"""In the order of a websocket's channels."""
SIZE_BYTES = 4096
"""The longest text of a terminal size that is read."""

Call = Callable[[Streams], Awaitable[int | None]]
"""What the provider is asked to do; an exit code is told to the caller."""


@attrs.frozen
class Options:
    """Which streams the caller wants."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Options:
        """Read a query: the names that an API server uses towards a kubelet, or those of the API itself.

        Raises:
            InvalidInput: none is wanted.
        """

        def wants(*names: str) -> bool:
            return any(query.get(name) in ("1", "true") for name in names)

        tty = wants("tty")
        options = cls(wants("input", "stdin"), wants("output", "stdout"), wants("error", "stderr") and not tty, tty)
        if not (options.stdin or options.stdout or options.stderr):
            raise InvalidInput("you must specify at least 1 of stdin, stdout, stderr")
        return options

    def kinds(self, *, resizable: bool) -> set[str]:
        """Which streams a caller creates over SPDY."""
        wanted = {"stdin": self.stdin, "stdout": self.stdout, "stderr": self.stderr, "resize": self.tty and resizable}
        return {"error", *(kind for kind, wants in wanted.items() if wants)}


class Caller:
    """`wasmlet.provider.Streams` over whatever streams there are."""

    def __init__(self, options: Options, streams: Mapping[str, Stream]) -> None:
        self.stdin = options.stdin
        self.stdout = options.stdout
        self.stderr = options.stderr
        self.tty = options.tty
        self._streams = streams
        self._size: tuple[int, int] | None = None
        self._resized = asyncio.Event()

    async def read_stdin(self) -> bytes:
        return await self._streams["stdin"].read() if self.stdin else b""

    async def write_stdout(self, data: bytes) -> None:
        if self.stdout and data:
            await self._streams["stdout"].write(data)

    async def write_stderr(self, data: bytes) -> None:
        if self.stderr and data:
            await self._streams["stderr"].write(data)

    async def next_size(self) -> tuple[int, int]:
        while self._size is None:
            self._resized.clear()
            await self._resized.wait()
        size, self._size = self._size, None
        return size

    async def follow_sizes(self) -> None:
        """Read terminal sizes, JSON objects one behind the other, until they end or make no sense."""
        stream, text, decoder = self._streams.get("resize"), "", json.JSONDecoder()
        while stream is not None and (data := await stream.read()):
            text = (text + data.decode("utf-8", "replace")).lstrip()
            while text:
                try:
                    size, end = decoder.raw_decode(text)
                except (ValueError, RecursionError):
                    if len(text) > SIZE_BYTES:
                        text = ""
                    break
                text = text[end:].lstrip()
                self._resize(size)

    def _resize(self, size: Any) -> None:
        match size:
            case {"Width": int(columns), "Height": int(rows)} if 0 <= columns < 65536 and 0 <= rows < 65536:
                self._size = (columns, rows)
                self._resized.set()


async def serve(call: Call, options: Options, streams: Mapping[str, Stream], version: str, doing: str) -> None:
    """Make the provider's call, and tell the caller how it went.

    Args:
        streams: by kind; `error`, and all that are wanted.
        version: of the protocol; "" is the first.
        doing: for messages, as "executing command in container".

    Raises:
        CallerLeft: the caller is gone.
    """
    caller = Caller(options, streams)
    async with asyncio.TaskGroup() as group:
        sizes = group.create_task(caller.follow_sizes())
        try:
            status = await _outcome(call, caller, doing)
        finally:
            sizes.cancel()
    if isinstance(status, CallerLeft):
        raise status
    for kind in ("stdout", "stderr"):
        if kind in streams:
            await streams[kind].end()
    if version.startswith(("v4.", "v5.")):
        await streams["error"].write(json.dumps({"metadata": {}} | status).encode())
    elif status["status"] != "Success":
        await streams["error"].write(status["message"].encode())
    await streams["error"].end()


async def _outcome(call: Call, caller: Caller, doing: str) -> Any:
    """The status to send, or the reason why none is sent."""
    try:
        code = await call(caller)
    except CallerLeft as left:
        return left
    except Unsupported as error:
        return unsupported_status(str(error))
    except WasmletError as error:
        return _failure(500, "InternalError", f"Internal error occurred: error {doing}: {error}")
    except Exception as error:
        log.warning("a provider's call failed", doing=doing, **described(error))
        text = f"Internal error occurred: error {doing}: the provider failed; the node's log says why"
        return _failure(500, "InternalError", text)
    if not code:
        return {"status": "Success"}
    return {
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit code {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def unsupported_status(message: str) -> dict[str, Any]:
    """The Status that says that a provider cannot do this."""
    return _failure(501, "MethodNotAllowed", message)


def _failure(code: int, reason: str, message: str) -> dict[str, Any]:
    return {"status": "Failure", "message": message, "reason": reason, "code": code}


async def streams_of(session: SpdySession, wanted: set[str]) -> dict[str, Stream]:
    """Wait until the caller has created the streams that it asked for.

    Raises:
        SessionError: it did not in time.
    """
    found: dict[str, SpdyStream] = {}

    async def collect() -> None:
        while not wanted <= found.keys():
            stream = await session.opened()
            kind = stream.headers.get("streamtype", "")
            if kind not in KINDS or kind in found:
                stream.reset(Reset.PROTOCOL_ERROR)
                continue
            found[kind] = stream
            session.accept(stream)
            if kind not in wanted or kind not in ("stdin", "resize"):
                stream.inbox.discard()

    if not await within(session.clock, session.timeouts.create, collect()):
        missing = ", ".join(sorted(wanted - found.keys()))
        raise SessionError(f"timed out waiting for client to create streams (missing: {missing})")
    session.refuse_more()
    return dict(found)
