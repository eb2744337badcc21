"""Checks of what a provider may leave out: logs, exec, attach, port-forward and stats.

A method that is left out raises `Unsupported`; one that is there keeps its rules.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import pytest

from wasmlet.errors import InvalidInput, NotFound, Unsupported
from wasmlet.model.pod import Pod, PodKey
from wasmlet.provider import LogOptions
from wasmlet.testing.contract.logs import written
from wasmlet.testing.contract.pods import unknown
from wasmlet.testing.contract.suite import Suite
from wasmlet.testing.contract.trial import Trial
from wasmlet.testing.contract.verdict import ContractBroken, awaitable, broken, demand, ended, left_out, runs

__tracebackhide__ = True  # pytest hides this module's calls in tracebacks, so that those of the provider are seen

LINES = ("one", "two", "three")
TEXT = b"one\ntwo\nthree\n"
_STAMPED = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d) (.*)")
OPTIONAL_SECONDS = 2.0


class Logs(Suite):
    """The options of `kubectl logs`. Where logs are not kept, each of these checks is skipped."""

    async def test_logs_are_what_the_container_wrote(self, trial: Trial) -> None:
        """All lines, in order, and as bytes."""
        pod = await self._ended(trial)
        await self._expect(trial, pod, TEXT, "yield what the container wrote, byte for byte")

    @pytest.mark.parametrize(("lines", "text"), [(0, b""), (1, b"three\n"), (2, b"two\nthree\n"), (9, TEXT)])
    async def test_logs_tail_lines(self, trial: Trial, lines: int, text: bytes) -> None:
        """The last so many lines; 0 is none of them."""
        pod = await self._ended(trial)
        mend = "give the last options.tail_lines lines; None means all and 0 means none (lines[-0:] is all of them)"
        await self._expect(trial, pod, text, mend, tail_lines=lines)

    @pytest.mark.parametrize(("limit", "text"), [(1, b"o"), (6, b"one\ntw"), (1000, TEXT)])
    async def test_logs_limit_bytes(self, trial: Trial, limit: int, text: bytes) -> None:
        """The first so many bytes, cut within a line if need be."""
        pod = await self._ended(trial)
        await self._expect(trial, pod, text, "stop after options.limit_bytes bytes", limit_bytes=limit)

    async def test_logs_timestamps(self, trial: Trial) -> None:
        """Each line opens with its time and a space."""
        pod = await self._ended(trial)
        text = await self._read(trial, pod, timestamps=True)
        matches = [_STAMPED.fullmatch(line) for line in text.splitlines()]
        right = all(matches) and [match[3] for match in matches if match] == TEXT.splitlines()
        mend = "put the RFC 3339 time at which a line was written, and a space, before it"
        demand(
            right, "logs", f"with timestamps, '2026-01-01T00:00:00.000000Z ' before each line of {TEXT!r}", text, mend
        )

    async def test_logs_since_time(self, trial: Trial) -> None:
        """Lines before that time are left out."""
        pod = await self._ended(trial)
        mend = "leave out the lines that were written before options.since_time"
        await self._expect(trial, pod, TEXT, mend, since_time=datetime(2000, 1, 1, tzinfo=UTC))
        await self._expect(trial, pod, b"", mend, since_time=datetime(2100, 1, 1, tzinfo=UTC))

    async def test_logs_follow_ends_with_the_container(self, trial: Trial) -> None:
        """With follow the stream goes on while the container runs, and ends when it has ended or is deleted."""
        pod = trial.pod(lines=LINES, exit_code=0, after=self.moment_seconds)
        await trial.create(pod)
        await trial.until(pod, lambda status: runs(status) or ended(status), "the container started")
        await self._expect(trial, pod, TEXT, "end the stream when the container has ended for good", follow=True)
        pod = await trial.running(lines=LINES)
        await written(trial, pod, TEXT)
        reader = asyncio.ensure_future(self._read(trial, pod, follow=True))
        await asyncio.wait([reader], timeout=self.moment_seconds)
        demand(not reader.done(), "logs", "with follow, a stream that goes on while the container runs", "its end",
               "wait for more until the container has ended")  # fmt: skip
        await trial.delete(pod)
        text = await trial.call("logs", reader, seconds=trial.suite.patience_seconds)
        demand(
            text == TEXT, "logs", f"with follow, to the end of the container: {TEXT!r}", text, "lose nothing at the end"
        )

    async def test_logs_follow_can_be_left(self, trial: Trial) -> None:
        """A reader that goes away closes the stream; that returns at once and harms nobody."""
        pod = await trial.running(lines=LINES)
        await self._read(trial, pod)
        stream = trial.provider.logs(pod.key, "main", LogOptions(follow=True))
        async with aclosing(stream) as pieces:
            await trial.call("logs", anext(pieces), seconds=trial.suite.patience_seconds)
        reader = asyncio.ensure_future(self._read(trial, pod, follow=True))
        await asyncio.wait([reader], timeout=0.1)
        reader.cancel()
        gone, _ = await asyncio.wait([reader], timeout=trial.suite.accept_seconds)
        demand(gone, "logs", "a cancelled reader to be let go", "it still waits", "let CancelledError through")
        await self._read(trial, pod)

    async def test_logs_of_what_is_not_there(self, trial: Trial) -> None:
        """NotFound for a pod or a container that is not known, and for an instance that never was."""
        pod = await self._ended(trial)
        key = unknown()
        await trial.missing("logs", trial.logs(key, "main"), "a pod that is not here")
        await trial.missing("logs", trial.logs(pod.key, "nobody"), "a container that the pod does not have")
        what = "previous where the container was never started again"
        await trial.missing("logs", trial.logs(pod.key, "main", previous=True), what)

    @classmethod
    async def _ended(cls, trial: Trial) -> Pod:
        """A pod that has written its lines and ended."""
        pod = await trial.finished(0, lines=LINES)
        await cls._read(trial, pod)
        return pod

    @staticmethod
    async def _read(trial: Trial, pod: Pod, **options: Any) -> bytes:
        text = await trial.log(pod, **options)
        if text is None:
            left_out("logs raises Unsupported: this provider keeps none")
        return text

    @classmethod
    async def _expect(cls, trial: Trial, pod: Pod, text: bytes, mend: str, **options: Any) -> None:
        found = await cls._read(trial, pod, **options)
        asked = f"with {', '.join(f'{name}={value}' for name, value in options.items())}, " if options else ""
        demand(found == text, "logs", f"{asked}{text!r} of a container that wrote {TEXT!r}", repr(found), mend)


class Nobody:
    """The caller of an exec or attach who sends nothing and looks at nothing."""

    stdin, stdout, stderr, tty = False, True, True, False

    async def read_stdin(self) -> bytes:
        return b""

    async def write_stdout(self, data: bytes) -> None:
        pass

    async def write_stderr(self, data: bytes) -> None:
        pass

    async def next_size(self) -> tuple[int, int]:
        await asyncio.Event().wait()
        return 80, 24


class Silence:
    """A connection whose other side says nothing and leaves at once."""

    async def read(self) -> bytes:
        return b""

    async def write(self, data: bytes) -> None:
        pass


class OptionalMethods(Suite):
    """Methods beside the pod's life: there, or `Unsupported`; never anything else."""

    @pytest.mark.parametrize("method", ["logs", "exec", "attach", "port_forward", "stats"])
    async def test_what_is_left_out_is_unsupported(self, trial: Trial, method: str) -> None:
        """A method that is not there raises Unsupported, which the API answers with 501 (for logs 400)."""
        pod = await trial.running()
        await self._try(trial, method, pod.key)

    @pytest.mark.parametrize("method", ["exec", "attach", "port_forward"])
    async def test_streams_into_an_unknown_pod(self, trial: Trial, method: str) -> None:
        """NotFound for a pod that is not here, or Unsupported."""
        try:
            answer = await self._call(trial, method, unknown())
        except (NotFound, Unsupported):
            return
        except ContractBroken:
            raise
        except Exception as error:
            broken(method, "NotFound for a pod that is not here, or Unsupported", repr(error), _mend(method), error)
        broken(method, "NotFound for a pod that is not here, or Unsupported", f"it returned {answer!r}", _mend(method))

    @classmethod
    async def _try(cls, trial: Trial, method: str, key: PodKey) -> None:
        try:
            async with asyncio.timeout(OPTIONAL_SECONDS) as clock:
                await cls._call(trial, method, key)
        except (InvalidInput, NotFound, Unsupported):
            pass  # the three that a caller is told in words
        except ContractBroken:
            raise
        except TimeoutError as error:  # where it is ours, the method is supported and goes on as long as the pod does
            if not clock.expired():
                broken(method, "an answer, or wasmlet.Unsupported", repr(error), _mend(method), error)
        except Exception as error:
            broken(method, "an answer, or wasmlet.Unsupported", repr(error), _mend(method), error)

    @staticmethod
    async def _call(trial: Trial, method: str, key: PodKey) -> object:
        provider = trial.provider
        call: Awaitable[object]
        match method:
            case "logs":
                call = trial.logs(key, "main")
            case "exec":
                call = provider.exec(key, "main", ["true"], Nobody())
            case "attach":
                call = provider.attach(key, "main", Nobody())
            case "port_forward":
                call = provider.port_forward(key, 1, Silence())
            case _:
                call = provider.stats()
        return await awaitable(method, call)


def _mend(method: str) -> str:
    return (
        f"delete your {method}, or raise wasmlet.Unsupported in it: both tell the caller so; anything else is answered "
        "with 500"
    )
