"""exec: runs a second instance of a running container's module, or a module from a file in one of its mounts.

A WebAssembly container has one program. A command gets what the container got at its start (environment, mounts,
memory limit), which the shim has kept, and its own words as arguments. If the first word names a `.wasm` file in a
mount, that file is run instead. The instance ends with its container, with the call that asked for it, and with this
process.

WASI has no terminals. With a tty, the instance gets one all the same, so that typing works (echo, line editing,
Ctrl-C, Ctrl-D) and `isatty` is true. Then stdout and stderr are one stream, and the guest cannot find out the
terminal's size.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import posixpath
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import attrs

from wasmlet.concurrency import in_thread
from wasmlet.errors import InvalidInput, NotFound, WasmletError
from wasmlet.provider import Streams
from wasmlet.runtime.files.beneath import open_beneath
from wasmlet.runtime.handlers import Handler, Handlers
from wasmlet.runtime.images import images
from wasmlet.runtime.images.compiler import CompileError
from wasmlet.runtime.images.images import ImageError, Module
from wasmlet.runtime.shim.client import ShimClient, ShimError
from wasmlet.runtime.shim.instances import Labels
from wasmlet.runtime.shim.records import ContainerRecord
from wasmlet.runtime.streams.pipes import Pipe
from wasmlet.worker import wire

T = TypeVar("T")

MODULE = ".wasm"
"""What the name of a file ends with that a command may name."""

SHELLS = ("ash", "bash", "dash", "ksh", "sh", "zsh")
NO_SHELL = (
    "there is no shell in this container: it has one program, which runs once more with these words as its arguments; "
    "kubectl debug adds a container to look around with"
)
"""What is said to whoever asks for a shell, and would see nothing otherwise."""
NOT_FOUND_CODE = 127
"""How a command ends that is not there: a script that asks for a shell must not take its silence for success."""

MAX_OUTPUT = 10 * 1024
"""Bytes of a probe's or hook's output that are kept, as a kubelet keeps them."""


@attrs.frozen
class Execs:
    """Runs commands in containers, over the shim.

    Attributes:
        max_module_bytes: of a module in a mount.
    """

    client: ShimClient
    handlers: Handlers
    max_module_bytes: int

    async def run(self, container_id: str, command: Sequence[str]) -> tuple[int, bytes]:
        """Run a command to its end; return its exit code and the first `MAX_OUTPUT` bytes that it wrote.

        Cancelled: the command is killed.

        Raises:
            WasmletError: it cannot be run, or the container does not run.
        """
        kept = bytearray()

        async def keep(data: bytes) -> None:
            kept.extend(data[: MAX_OUTPUT - len(kept)])

        with _Guests() as guest:
            out = guest.output()
            record = await self._run(self._start(container_id, command, guest.theirs), guest, [_pump(out, keep)], [])
        if record.message:
            await keep(record.message.encode() + b"\n")
        return record.exit_code, bytes(kept)

    async def stream(self, container_id: str, command: Sequence[str], streams: Streams) -> int:
        """Run a command with the caller's streams; return its exit code. Cancelled: it is killed.

        A trap is told on stderr, with the guest's backtrace, and has exit code 134. Whoever asks for a shell is told
        that there is none: at once where somebody types, and at the end where nothing has been written.

        Raises:
            WasmletError: it cannot be run, or the container does not run.
            ConnectionError: the caller is gone.
        """
        with _Guests() as guest:
            outputs, inputs = guest.terminal(streams) if streams.tty else guest.pipes(streams)
            shell = bool(command) and posixpath.basename(command[0]) in SHELLS

            async def start() -> ContainerRecord:
                if shell and streams.stdin:
                    await _tell(streams, NO_SHELL)
                return await self._start(container_id, command, guest.theirs)

            record = await self._run(start(), guest, outputs, inputs)
        if record.message:
            await _tell(streams, record.message)
        elif shell and not guest.wrote and not streams.stdin:
            await _tell(streams, NO_SHELL)
        return NOT_FOUND_CODE if shell and not guest.wrote and record.exit_code == 0 else record.exit_code

    async def _run(
        self,
        start: Awaitable[ContainerRecord],
        guest: _Guests,
        outputs: Sequence[Awaitable[None]],
        inputs: Sequence[Awaitable[None]],
    ) -> ContainerRecord:
        """Run it while the streams are pumped: outputs to their ends, inputs for as long as it runs."""
        writing = [asyncio.ensure_future(output) for output in outputs]
        reading = [asyncio.ensure_future(each) for each in inputs]
        running = asyncio.ensure_future(start)
        everything: list[asyncio.Future[Any]] = [running, *writing, *reading]
        done = set[asyncio.Future[Any]]()
        try:
            pending: set[asyncio.Future[Any]] = set(everything)
            while not running.done() and pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            guest.close_theirs()  # the last ends to write to, so the outputs end
            await asyncio.gather(*writing)
            return running.result()
        finally:
            for task in everything:
                task.cancel()
            try:
                await asyncio.gather(*everything, return_exceptions=True)
            finally:
                del everything, running, writing, reading, done, task  # one may have an error, which has this call

    async def _start(self, container_id: str, command: Sequence[str], streams: Sequence[int]) -> ContainerRecord:
        if not command:
            raise InvalidInput("expected a command, found no word of one")
        if any("\0" in word for word in command):
            raise InvalidInput("a word of the command has a NUL byte, which ends an argument")
        handler = self._handler(container_id)
        if self.client.takes_commands and not command[0].endswith(MODULE):
            record = await self._asked(container_id, self.client.exec_command(container_id, command, streams))
        else:
            record = await self._start_with_module(container_id, handler, command, streams)
        if record.reason == wire.START_ERROR:
            raise WasmletError(f"{command[0]} cannot be started: {record.message}")
        return record

    async def _start_with_module(
        self, container_id: str, handler: Handler, command: Sequence[str], streams: Sequence[int]
    ) -> ContainerRecord:
        """The same where the first word may name a file in a mount, which has to be looked at first."""
        inherited = await self._asked(container_id, self.client.inherited(container_id))
        try:
            spec = json.loads(os.pread(inherited[0], os.fstat(inherited[0]).st_size, 0))
            spec["args"] = list(command)
            async with self._module(handler, spec, inherited, command[0]) as (module, digest):
                descriptors, changed = (*streams, module, *inherited[2:]), json.dumps(spec).encode()
                asked = self.client.exec(container_id, handler.zygote, changed, descriptors, own=not digest)
                record = await self._asked(container_id, asked)
        finally:
            wire.close(inherited)
        if record.fault == wire.BAD_ARTIFACT and digest:
            handler.compiler.discard(digest)  # the next one compiles it again
        return record

    def _handler(self, container_id: str) -> Handler:
        """What runs the container."""
        record = self.client.records.get(container_id)
        labels = Labels.of(record.labels) if record is not None else None
        if labels is None:
            raise NotFound("the container is not running")
        return self.handlers.of(labels.handler)

    async def _asked(self, container_id: str, answer: Awaitable[T]) -> T:
        try:
            return await answer
        except ShimError as error:
            record = self.client.records.get(container_id)
            if record is None or record.state != wire.RUNNING:
                raise NotFound("the container is not running") from None
            raise error

    @contextlib.asynccontextmanager
    async def _module(
        self, handler: Handler, spec: Mapping[str, Any], inherited: Sequence[int], word: str
    ) -> AsyncIterator[tuple[int, str]]:
        """The compiled module of a command whose first word is this; the container's own where it names no file.

        With it the module's digest, if it is not the container's own.
        """
        opened = await in_thread(_opened, spec, inherited[2:], word)
        if opened is None:
            yield inherited[1], ""
            return
        try:
            path = Path(f"/proc/self/fd/{opened}")
            digest = await in_thread(images.read, path, self.max_module_bytes, None)
            async with handler.compiler.artifact(Module(word, digest, path)) as artifact:
                yield artifact, digest
        except (ImageError, CompileError) as error:
            raise InvalidInput(str(error).replace(f"/proc/self/fd/{opened}", word)) from None
        finally:
            os.close(opened)


async def _tell(streams: Streams, message: str) -> None:
    write = streams.write_stdout if streams.tty else streams.write_stderr
    await write(message.encode() + (b"\r\n" if streams.tty else b"\n"))


def _opened(spec: Mapping[str, Any], mounts: Sequence[int], word: str) -> int | None:
    """Open the file that the first word of a command names; None where it names none. Blocks.

    Everything lies below a mount at `/`, which an image's files have. A word that is no file there is the program's
    name, as it is where there is no such mount.

    Raises:
        InvalidInput: it names a file that cannot be opened.
    """
    file = _named(spec, word)
    if file is None:
        return None
    mount, relative = file
    try:
        return open_beneath(mounts[mount], relative)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and spec["mounts"][mount]["path"] == "/":
            return None
        raise InvalidInput(f"{word} cannot be run: {error.strerror}") from None


def _named(spec: Mapping[str, Any], word: str) -> tuple[int, str] | None:
    """The mount and the path in it that the first word of a command names, if it is a `.wasm` file in a mount."""
    if not word.endswith(MODULE):
        return None
    path = posixpath.normpath(posixpath.join("/", word))
    found = None
    for number, mount in enumerate(spec.get("mounts") or ()):
        top = posixpath.normpath(mount["path"])
        below = path[len(top) :].lstrip("/") if path.startswith(top.rstrip("/") + "/") else ""
        if below and (found is None or len(below) < len(found[1])):
            found = number, below
    return found


class _Guests:
    """The guest's side of an exec's streams, for as long as it runs, and ours."""

    def __init__(self) -> None:
        self.wrote = False
        self.theirs: list[int] = []
        self._ours: list[Pipe] = []

    def __enter__(self) -> _Guests:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close_theirs()
        for pipe in self._ours:
            pipe.close()

    def close_theirs(self) -> None:
        wire.close(self.theirs)
        self.theirs = []

    def output(self) -> Pipe:
        """No stdin, and one stream for what it writes."""
        self.theirs.append(_nothing())
        ours = self._pipe(reading=True)
        self.theirs.append(os.dup(self.theirs[1]))
        return ours

    def pipes(self, streams: Streams) -> tuple[list[Awaitable[None]], list[Awaitable[None]]]:
        """A pipe for each stream that the caller has connected."""
        inputs: list[Awaitable[None]] = []
        outputs: list[Awaitable[None]] = []
        if streams.stdin:
            inputs.append(_feed(self._pipe(reading=False), streams, close=True))
        else:
            self.theirs.append(_nothing())
        for wanted, write in ((streams.stdout, streams.write_stdout), (streams.stderr, streams.write_stderr)):
            if wanted:
                outputs.append(self._copy(self._pipe(reading=True), write))
            else:
                self.theirs.append(_nothing())
        return outputs, inputs

    def terminal(self, streams: Streams) -> tuple[list[Awaitable[None]], list[Awaitable[None]]]:
        """A terminal for all of them."""
        master, slave = os.openpty()
        ours = Pipe(master)
        self._ours.append(ours)
        self.theirs += [slave if streams.stdin else _nothing(), os.dup(slave), os.dup(slave)]
        if not streams.stdin:
            os.close(slave)
        inputs: list[Awaitable[None]] = [_follow_size(ours, streams)]
        if streams.stdin:
            inputs.append(_feed(ours, streams, close=False))
        return [self._copy(ours, streams.write_stdout)], inputs

    async def _copy(self, pipe: Pipe, write: Callable[[bytes], Awaitable[None]]) -> None:
        """Pump what the guest writes, and remember that it has."""

        async def noted(data: bytes) -> None:
            self.wrote = True
            await write(data)

        await _pump(pipe, noted)

    def _pipe(self, *, reading: bool) -> Pipe:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        mine, theirs = (reader, writer) if reading else (writer, reader)
        self.theirs.append(theirs)
        pipe = Pipe(mine)
        self._ours.append(pipe)
        return pipe


def _nothing() -> int:
    return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)


async def _pump(pipe: Pipe, write: Callable[[bytes], Awaitable[None]]) -> None:
    while data := await pipe.read():
        await write(data)


async def _feed(pipe: Pipe, streams: Streams, *, close: bool) -> None:
    with contextlib.suppress(BrokenPipeError):  # the guest does not want more
        while data := await streams.read_stdin():
            await pipe.write(data)
    if close:
        pipe.close()


async def _follow_size(terminal: Pipe, streams: Streams) -> None:
    while True:
        terminal.resize(*await streams.next_size())
