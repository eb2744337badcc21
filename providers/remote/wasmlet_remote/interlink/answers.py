"""Reads the answers of an interLink plugin about a pod.

Plugins spell keys in two ways, and both are accepted. What is about another pod is ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from wasmlet import Container, ContainerStatus, Pod, PodStatus, Running, Terminated, Waiting
from wasmlet.model.status import ContainerState, Phase
from wasmlet.model.times import parse

UNKNOWN = Waiting("ContainerCreating")
_TEXT = 1024
"""Characters of a reason or message."""
_EXIT_CODES = range(-(2**31), 2**31)
_YEAR = 1970
"""Go writes a time that is not set as one of the year 1."""


def job_in(answer: Any, uid: str) -> str | None:
    """The plugin's own name of the job, from the answer to `/create`; None where it is about another pod."""
    entries = answer if isinstance(answer, list) else [answer]
    for entry in entries:
        if isinstance(entry, dict) and _value(entry, "PodUID", "pod_uid") not in (None, uid):
            return None
    first = next((entry for entry in entries if isinstance(entry, dict)), {})
    return str(_value(first, "PodJID", "pod_jid") or "")


def status_in(answer: Any, pod: Pod, created: datetime) -> PodStatus | None:
    """The pod's status from the answer to `/status`; None where the plugin does not know the pod now.

    Args:
        created: when the pod was handed over; the start of a container whose start the plugin does not tell.
    """
    entries = answer if isinstance(answer, list) else [answer]
    mine = next((e for e in entries if isinstance(e, dict) and _value(e, "UID", "uid", "PodUID") == pod.uid), None)
    if mine is None:
        return None
    mains = _statuses(_value(mine, "containers"), pod.containers, created)
    inits = _statuses(_value(mine, "initContainers", "init_containers"), pod.init_containers, created)
    if all(status.state is UNKNOWN for status in (*mains, *inits)):
        return None
    return PodStatus(mains, inits, phase=_phase(mains), start_time=created)


def ended(status: PodStatus) -> bool:
    """Whether the pod has ended for good. A plugin never restarts a container, so that no restart policy counts."""
    return status.phase is not None


def _phase(containers: Sequence[ContainerStatus]) -> Phase | None:
    """The phase once all have ended, whatever the restart policy says; else what follows from the containers."""
    codes = [c.state.exit_code for c in containers if isinstance(c.state, Terminated)]
    if len(codes) < len(containers):
        return None
    return "Failed" if any(codes) else "Succeeded"


def _statuses(raw: Any, containers: Sequence[Container], created: datetime) -> tuple[ContainerStatus, ...]:
    by_name = {entry.get("name"): entry for entry in raw if isinstance(entry, dict)} if isinstance(raw, list) else {}
    return tuple(
        ContainerStatus(
            container.name,
            _state(by_name.get(container.name, {}).get("state"), created),
            image=container.image,
            container_id=f"interlink://{container.name}",
        )
        for container in containers
    )


def _state(raw: Any, created: datetime) -> ContainerState:
    if not isinstance(raw, dict):
        return UNKNOWN
    if isinstance(terminated := raw.get("terminated"), dict):
        code = _value(terminated, "exitCode", "exit_code")
        return Terminated(
            code if isinstance(code, int) and code in _EXIT_CODES else 128,
            _text(terminated, "reason"),
            _text(terminated, "message"),
            started_at=_time(_value(terminated, "startedAt", "started_at")) or created,
            finished_at=_time(_value(terminated, "finishedAt", "finished_at")),
        )
    if isinstance(running := raw.get("running"), dict):
        return Running(_time(_value(running, "startedAt", "started_at")) or created)
    if isinstance(waiting := raw.get("waiting"), dict):
        return Waiting(_text(waiting, "reason") or "ContainerCreating", _text(waiting, "message"))
    return UNKNOWN


def _value(raw: Mapping[str, Any], *names: str) -> Any:
    return next((raw[name] for name in names if raw.get(name) is not None), None)


def _text(raw: Mapping[str, Any], name: str) -> str:
    return str(raw.get(name) or "")[:_TEXT]


def _time(value: Any) -> datetime | None:
    try:
        found = parse(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if found.year >= _YEAR else None
