"""How a check fails: what was expected of which method, what was found, and what to do about it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import attrs
import pytest

from wasmlet.model.status import ContainerStatus, PodStatus, Running, Terminated, Waiting
from wasmlet.provider import PodRecord

__tracebackhide__ = True  # pytest hides this module's calls in tracebacks, so that those of the provider are seen

ALL_CONTAINERS = "put a ContainerStatus of every container of the pod into PodStatus.containers"
ADVICE = (
    "handle this; an error that is meant goes out as one of wasmlet.errors "
    "(NotFound, Refused, Rejected, InvalidInput, Unsupported)"
)
NOT_FOUND = 'raise wasmlet.NotFound("pod ... is not here"), so that the node loop knows what to make of it'
SLOW = {
    "create_pod": "only accept the pod: start it in a task of the provider's own and return",
    "delete_pod": "end by force what is left when the grace period is over, and return when it has ended",
    "logs": "end the stream when everything is read; with follow, when the container has ended",
    "stop": "leave what runs alone, and close only what belongs to this process",
}
"""What to do about a method that takes too long."""


class ContractBroken(AssertionError):
    """The provider does not do what the node loop relies on."""


def broken(method: str, expected: str, found: object, mend: str, cause: BaseException | None = None) -> NoReturn:
    """Fail the check.

    Args:
        method: of the contract, as an author knows it: `delete_pod`.
        mend: what to do, as an instruction.
    """
    raise ContractBroken(f"{method}: expected {expected}\n  found: {found}\n  to mend: {mend}") from cause


def demand(holds: object, method: str, expected: str, found: object, mend: str) -> None:
    """Fail the check unless it holds."""
    if not holds:
        broken(method, expected, found, mend)


def left_out(reason: str) -> NoReturn:
    """Skip the check. pytest shows this place, since the other frames of the suite are hidden."""
    __tracebackhide__ = False
    pytest.skip(reason)


def awaitable(method: str, call: object) -> Any:
    """What the method gave, which has to be something to await.

    Without this check an `await` would fail with a TypeError, which says nothing of the method.
    """
    found = f"{type(call).__name__} {call!r}"
    demand(inspect.isawaitable(call), method, "a coroutine", found, f"define it with `async def {method}(...)`")
    return call


def shown(status: PodStatus | ContainerStatus | None) -> str:
    """A status in a line: what each container does."""
    if status is None:
        return "None"
    if isinstance(status, PodStatus):
        phase = f"phase {status.phase}, " if status.phase else ""
        everything = (*status.init_containers, *status.containers)
        return phase + (", ".join(map(shown, everything)) or "a status without containers")
    match status.state:
        case Running(started_at):
            text = f"Running since {started_at}"
        case Terminated(exit_code):
            text = f"Terminated with exit code {exit_code}"
        case Waiting(reason, message):
            text = f"Waiting ({reason}{': ' if message else ''}{message})"
    return f"container {status.name!r} {text}"


def differing(expected: object, found: object) -> str:
    """Both, with each field in which they differ: what `shown` leaves out may be what is wrong."""
    return "; ".join(f"{where} was {before!r} and is {now!r}" for where, before, now in _differences(expected, found))


def _differences(one: Any, other: Any, where: str = "") -> Iterator[tuple[str, object, object]]:
    if one == other:
        return
    if type(one) is type(other) and attrs.has(type(one)):
        for field in attrs.fields(type(one)):
            name = f"{where}.{field.name}" if where else field.name
            yield from _differences(getattr(one, field.name), getattr(other, field.name), name)
    elif isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other):
        for number, (mine, its) in enumerate(zip(one, other, strict=True)):
            yield from _differences(mine, its, f"{where}[{number}]")
    else:
        yield where or "the answer", one, other


async def let_go(task: asyncio.Future[Any], method: str, seconds: float) -> None:
    """Cancel a call, and see that it ends within that time; what comes of it does not matter."""
    task.cancel()
    ended, _ = await asyncio.wait([task], timeout=seconds)
    mend = "let asyncio.CancelledError through; in an `except BaseException`, raise it again"
    demand(ended, method, f"a call that ends within {seconds:g} s of being cancelled", "it goes on", mend)
    if not task.cancelled():
        task.exception()  # has been looked at


def listed(records: Sequence[PodRecord]) -> str:
    """The pods of a list in a line."""
    return ", ".join(f"{r.key} (uid {r.key.uid})" for r in records) or "an empty list"


def runs(status: PodStatus) -> bool:
    """Whether every container runs."""
    return bool(status.containers) and all(isinstance(c.state, Running) for c in status.containers)


def ended(status: PodStatus) -> bool:
    """Whether every container has ended."""
    return bool(status.containers) and all(isinstance(c.state, Terminated) for c in status.containers)
