"""Checks of exec, attach and port-forward. Each is skipped, by name, where the provider says `Unsupported`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

import attrs

from wasmlet.errors import InvalidInput, NotFound, Unsupported
from wasmlet.model.pod import Pod
from wasmlet.testing.contract.pods import pod_of, unknown
from wasmlet.testing.contract.suite import Suite
from wasmlet.testing.contract.trial import Trial
from wasmlet.testing.contract.verdict import broken, demand, ended, left_out, runs

__tracebackhide__ = True  # pytest hides this module's calls in tracebacks, so that those of the provider are seen

BYTES = bytes(range(256)) * 2000
"""More than a pipe holds, of every value."""


@attrs.define
class Caller:
    """Who runs a command: what it sends, and what came."""

    sends: list[bytes] = attrs.field(factory=list)
    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    tty: bool = False
    out: bytes = b""
    err: bytes = b""
    heard: asyncio.Event = attrs.field(factory=asyncio.Event)

    async def read_stdin(self) -> bytes:
        await asyncio.sleep(0)
        return self.sends.pop(0) if self.sends and self.stdin else b""

    async def write_stdout(self, data: bytes) -> None:
        await asyncio.sleep(0)
        self.out += data
        self.heard.set()

    async def write_stderr(self, data: bytes) -> None:
        await asyncio.sleep(0)
        self.err += data

    async def next_size(self) -> tuple[int, int]:
        await asyncio.Event().wait()
        return 80, 24


@attrs.define
class Client:
    """The near end of a port-forward."""

    sends: asyncio.Queue[bytes] = attrs.field(factory=asyncio.Queue)
    got: bytes = b""
    heard: asyncio.Condition = attrs.field(factory=asyncio.Condition)

    async def read(self) -> bytes:
        return await self.sends.get()

    async def write(self, data: bytes) -> None:
        async with self.heard:
            self.got += data
            self.heard.notify_all()

    async def until(self, length: int) -> None:
        async with self.heard:
            await self.heard.wait_for(lambda: len(self.got) >= length)


def pieces(data: bytes, size: int = 30_000) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


class Exec(Suite):
    """A command in a container that runs."""

    async def test_exec_passes_output_and_the_exit_code(self, trial: Trial) -> None:
        """What it writes, to which stream, and how it ended."""
        caller = Caller()
        code = await self._exec(trial, await trial.running(), caller, says="one two", complains="three", exit_code=5)
        mend = "pass on everything that the command wrote before you return"
        right = (caller.out, caller.err) == (b"one two\n", b"three\n")
        what = "'one two\\n' on stdout and 'three\\n' on stderr"
        demand(right, "exec", what, (caller.out, caller.err), mend)
        demand(code == 5, "exec", "the exit code 5", repr(code), "return the command's own exit code")

    async def test_exec_passes_input_until_its_end(self, trial: Trial) -> None:
        """Every byte of stdin, and that there are no more."""
        caller = Caller(pieces(BYTES), stdin=True)
        await self._exec(trial, await trial.running(), caller, copies=True)
        found = "the same" if caller.out == BYTES else f"{len(caller.out)} bytes"
        what = f"{len(BYTES)} bytes of stdin, by a command that copies it to stdout"
        demand(
            caller.out == BYTES, "exec", what, found, "pass on what read_stdin gives; b'' closes the command's stdin"
        )

    async def test_exec_without_input_has_none(self, trial: Trial) -> None:
        """A command that reads stdin sees its end where none is connected."""
        caller = Caller([b"not to be read"])
        await self._exec(trial, await trial.running(), caller, copies=True)
        demand(caller.out == b"", "exec", "no stdin where streams.stdin is False", caller.out,
               "give the command /dev/null, or close its stdin")  # fmt: skip

    async def test_exec_ends_when_its_caller_leaves(self, trial: Trial) -> None:
        """A cancelled call ends the command and returns."""
        pod, caller = await trial.running(), Caller()
        job = asyncio.ensure_future(self._exec(trial, pod, caller, says="up", stays=True))
        heard = asyncio.ensure_future(caller.heard.wait())
        await asyncio.wait([job, heard], return_when=asyncio.FIRST_COMPLETED)
        heard.cancel()
        if job.done():
            job.result()
            broken("exec", "a command that stays until it is ended", "it had returned", "return when it has ended")
        job.cancel()
        done, _ = await asyncio.wait([job], timeout=self.accept_seconds)
        left = job.cancelled() if done else False
        found = "it went on" if not done else "it returned as if the command had ended"
        demand(left, "exec", "CancelledError, once the command is ended", found,
               "end the command when you are cancelled, and let CancelledError through")  # fmt: skip
        status = await trial.status(pod)
        demand(runs(status), "exec", "the container to go on without its exec", "it has ended", "end the command alone")

    async def test_exec_where_nothing_runs(self, trial: Trial) -> None:
        """NotFound for a container that is not there or has ended."""
        pod = await trial.running()
        await self._exec(trial, pod, Caller())
        command = self.command()
        call = trial.provider.exec(pod.key, "nobody", command, Caller())
        await trial.missing("exec", call, "a container that the pod does not have")
        over = await trial.finished(0)
        await trial.missing(
            "exec", trial.provider.exec(over.key, "main", command, Caller()), "a container that has ended"
        )

    async def _exec(self, trial: Trial, pod: Pod, caller: Caller, **wanted: Any) -> int:
        call = trial.provider.exec(pod.key, "main", self.command(**wanted), caller)
        return await _supported(trial, "exec", call)  # type: ignore[no-any-return]


class Attach(Suite):
    """The streams of a container itself."""

    async def test_attach_ends_with_the_container(self, trial: Trial) -> None:
        """Nothing is left to see then."""
        pod = trial.pod(exit_code=0, after=4 * self.moment_seconds)
        await trial.create(pod)
        await trial.until(pod, runs, "every container Running")
        await _supported(trial, "attach", trial.provider.attach(pod.key, "main", Caller()))
        status = await trial.until(pod, ended, "every container Terminated")
        demand(ended(status), "attach", "to return when the container has ended", "it runs", "wait for its end")

    async def test_attach_can_be_left(self, trial: Trial) -> None:
        """The container goes on without a caller."""
        pod = await trial.running()
        call = _supported(trial, "attach", trial.provider.attach(pod.key, "main", Caller()))
        job = asyncio.ensure_future(call)
        await asyncio.wait([job], timeout=self.moment_seconds)
        if job.done():
            job.result()
            broken("attach", "to go on while the container runs", "it returned", "wait until the container has ended")
        job.cancel()
        done, _ = await asyncio.wait([job], timeout=self.accept_seconds)
        demand(done, "attach", "a cancelled call to end", "it still waits", "let CancelledError through")
        await asyncio.sleep(self.moment_seconds)
        status = await trial.status(pod)
        demand(runs(status), "attach", "the container to go on when its caller leaves", "it has ended",
               "only stop passing on what it writes")  # fmt: skip


class PortForward(Suite):
    """Connections to a port of a pod."""

    async def test_port_forward_passes_bytes_both_ways(self, trial: Trial) -> None:
        """Several connections at once, each with its own bytes."""
        pod, port = await self._serving(trial)
        clients = [Client(), Client()]
        jobs = [asyncio.ensure_future(self._forward(trial, pod, port, client)) for client in clients]
        try:
            for number, client in enumerate(clients):
                data = BYTES[number:]
                for piece in pieces(data):
                    client.sends.put_nowait(piece)
                waiting = asyncio.ensure_future(client.until(len(data)))
                await asyncio.wait([waiting, jobs[number]], timeout=self.patience_seconds,
                                   return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
                waiting.cancel()
                if jobs[number].done():
                    jobs[number].result()
                found = "the same" if client.got == data else f"{len(client.got)} bytes"
                what = f"{len(data)} bytes, sent to what echoes them, back"
                mend = "pass on what comes, unchanged, in both directions and for each connection by itself"
                demand(client.got == data, "port_forward", what, found, mend)
        finally:
            for job in jobs:
                job.cancel()
            await asyncio.wait(jobs, timeout=self.accept_seconds)
        demand(all(job.done() for job in jobs), "port_forward", "a cancelled call to end", "it still waits",
               "let CancelledError through")  # fmt: skip

    async def test_port_forward_to_a_port_where_nothing_listens(self, trial: Trial) -> None:
        """An error, which kubectl shows, and no connection to something else."""
        pod, port = await self._serving(trial)
        call = trial.provider.port_forward(pod.key, port ^ 1, Client())
        expected = "wasmlet.InvalidInput for a port where nothing of the pod listens"
        mend = "raise InvalidInput that says what was expected; never connect to what is not the pod's"
        try:
            await _supported(trial, "port_forward", call, allow=(Exception,))
        except (InvalidInput, NotFound):
            return
        except Exception as error:
            broken("port_forward", expected, repr(error), mend, error)
        broken("port_forward", expected, "it returned", mend)

    async def _serving(self, trial: Trial) -> tuple[Pod, int]:
        found = self.serving()
        if found is None:
            call = trial.provider.port_forward(unknown(), 1, Client())
            await _supported(trial, "port_forward", _quiet(call))
            left_out("serving is not overridden: there is no port to forward to")
        container, port = found
        pod = pod_of([{"name": "main"} | container], "contract-server")
        await trial.create(pod)
        await trial.until(pod, runs, "every container Running")
        return pod, port

    async def _forward(self, trial: Trial, pod: Pod, port: int, client: Client) -> None:
        """The call, made again while the pod has only begun and does not listen yet."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self.patience_seconds
        while True:
            try:
                await trial.provider.port_forward(pod.key, port, client)
                return
            except Unsupported:
                raise
            except InvalidInput:
                if loop.time() > end or client.got:
                    raise
                await asyncio.sleep(0.05)


async def _supported(
    trial: Trial, method: str, call: Awaitable[Any], *, allow: tuple[type[Exception], ...] = ()
) -> Any:
    """What the call returns; the check is skipped where it is unsupported."""
    try:
        return await trial.call(method, call, seconds=trial.suite.patience_seconds, allow=(Unsupported, *allow))
    except Unsupported as error:
        left_out(f"{method} raises Unsupported: {error}")


async def _quiet(call: Awaitable[Any]) -> None:
    """The call, of which only `Unsupported` is of interest."""
    with suppress(NotFound, InvalidInput):
        await call
