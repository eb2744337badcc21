"""`/containerLogs`: reads the query of a request, and checks that the container has a log to show.

The rules and the wording are a kubelet's, because kubectl and people know them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import NoReturn

from wasmlet.model.pod import Pod
from wasmlet.model.status import PodStatus, Waiting
from wasmlet.model.times import parse
from wasmlet.provider import LogOptions

_FLAGS = ("follow", "previous", "timestamps")
_TRUE = {"1", "t", "T", "true", "TRUE", "True", ""}
_FALSE = {"0", "f", "F", "false", "FALSE", "False"}


class BadQuery(Exception):
    """The query is wrong; `status` is the HTTP status that a kubelet answers it with."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def log_options(query: Mapping[str, str], now: datetime) -> LogOptions:
    """Read the query of a log request (`PodLogOptions`).

    Raises:
        BadQuery: 400 for what cannot be read, 422 for values that are out of range.
    """
    flags = {name: _flag(name, query[name]) for name in _FLAGS if name in query}
    tail = _number(query, "tailLines", 0)
    limit = _number(query, "limitBytes", 1)
    seconds = _number(query, "sinceSeconds", 1)
    if query.get("stream", "All") != "All":
        _refuse(400, "stream: this node can only show both streams together")
    since = None
    if text := query.get("sinceTime"):
        if seconds is not None:
            _refuse(422, "at most one of sinceTime and sinceSeconds may be set")
        try:
            since = parse(text)
        except ValueError:
            _refuse(400, f"sinceTime: expected an RFC 3339 time, found {text!r}")
    if seconds is not None:
        try:
            since = now - timedelta(seconds=seconds)
        except OverflowError:
            _refuse(422, f"sinceSeconds: {seconds} is too long ago")
    return LogOptions(**flags, tail_lines=tail, limit_bytes=limit, since_time=since)


def check_container(pod: Pod, status: PodStatus | None, container: str, previous: bool) -> None:
    """See that the container has run, so that there is a log.

    Raises:
        BadQuery: 404 for an unknown container, 400 for one that has not started, as a kubelet answers.
    """
    if pod.container(container) is None:
        raise BadQuery(404, f"container {container} not found in pod {pod.name}")
    found = status.container(container) if status is not None else None
    waiting = found.state if found is not None and isinstance(found.state, Waiting) else None
    if previous:
        if found is None or found.last_state is None:
            raise BadQuery(400, f'previous terminated container "{container}" in pod "{pod.name}" not found')
    elif found is None or (waiting is not None and found.last_state is None):
        reason = waiting.reason if waiting is not None else "ContainerCreating"
        detail = {
            "ErrImagePull": "image can't be pulled",
            "ImagePullBackOff": "trying and failing to pull image",
        }.get(reason, reason)
        raise BadQuery(400, f'container "{container}" in pod "{pod.name}" is waiting to start: {detail}')


def _flag(name: str, text: str) -> bool:
    if text not in _TRUE | _FALSE:
        _refuse(400, f"{name}: expected true or false, found {text!r}")
    return text in _TRUE


def _number(query: Mapping[str, str], name: str, least: int) -> int | None:
    if (text := query.get(name)) is None:
        return None
    if not text.removeprefix("-").isascii() or not text.removeprefix("-").isdigit() or len(text) > 19:
        _refuse(400, f"{name}: expected a whole number, found {text[:40]!r}")
    if (number := int(text)) < least:
        _refuse(422, f"{name}: must be at least {least}, found {number}")
    return number


def _refuse(status: int, message: str) -> NoReturn:
    raise BadQuery(status, message)
