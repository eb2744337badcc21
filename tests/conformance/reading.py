"""What a check reads in an object of the API: how a container is, how it ended, what a condition says."""

from __future__ import annotations

from typing import Any

Raw = dict[str, Any]


def status(pod: Raw, container: str = "c") -> Raw:
    """What the API has of that container, whichever kind it is; {} for nothing."""
    kinds = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
    found = [one for kind in kinds for one in pod.get("status", {}).get(kind) or () if one["name"] == container]
    return found[0] if found else {}


def state(pod: Raw, container: str = "c") -> Raw:
    """Its state: one of waiting, running, terminated, with what belongs to it."""
    found: Raw = status(pod, container).get("state") or {}
    return found


def begun(pod: Raw, container: str = "c") -> bool:
    """Whether it runs or has run, so that it has a log."""
    now = state(pod, container)
    return bool(now and "waiting" not in now) or bool(status(pod, container).get("lastState"))


def terminated(pod: Raw, container: str = "c") -> Raw:
    """How it ended; {} while it has not."""
    found: Raw = state(pod, container).get("terminated") or {}
    return found


def condition(of: Raw, kind: str) -> Raw:
    """The condition of that type; {} where there is none."""
    return next((c for c in of.get("status", {}).get("conditions") or () if c["type"] == kind), {})
