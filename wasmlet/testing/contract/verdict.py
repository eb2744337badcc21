"""How a check fails: what was expected of which method, what was found, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from wasmlet.model.status import ContainerStatus, PodStatus, Running, Terminated, Waiting
from wasmlet.provider import PodRecord

ALL_CONTAINERS = "put a ContainerStatus of every container of the pod into PodStatus.containers"


class ContractBroken(AssertionError):
    """The provider does not do what the node loop relies on."""


def broken(method: str, expected: str, found: object, mend: str, cause: BaseException | None = None) -> NoReturn:
    """Fail the check.

    Args:
        method: of the contract, as an author knows it: `delete_pod`.
        mend: what to do, as an instruction.
    """
    __tracebackhide__ = True
    raise ContractBroken(f"{method}: expected {expected}\n  found: {found}\n  to mend: {mend}") from cause


def demand(holds: object, method: str, expected: str, found: object, mend: str) -> None:
    """Fail the check unless it holds."""
    __tracebackhide__ = True
    if not holds:
        broken(method, expected, found, mend)


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


def listed(records: Sequence[PodRecord]) -> str:
    """The pods of a list in a line."""
    return ", ".join(f"{r.key} (uid {r.key.uid})" for r in records) or "an empty list"


def runs(status: PodStatus) -> bool:
    """Whether every container runs."""
    return bool(status.containers) and all(isinstance(c.state, Running) for c in status.containers)


def ended(status: PodStatus) -> bool:
    """Whether every container has ended."""
    return bool(status.containers) and all(isinstance(c.state, Terminated) for c in status.containers)
