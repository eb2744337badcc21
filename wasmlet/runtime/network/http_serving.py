"""Settings for components that serve HTTP: at the container's first TCP port, and with the pod's annotations.

wasmlet.dev/http-instances: reuse        one instance serves one request after the other; else each has its own
wasmlet.dev/http-concurrency: "4"        so many instances at a time
wasmlet.dev/http-timeout: "30"           seconds that a request may be served
wasmlet.dev/http-access-log: "true"      each request is a line of the container's log
"""

from __future__ import annotations

from typing import Any

from wasmlet.errors import Refused
from wasmlet.model.pod import Pod

PORT = 8080
"""Where one is served whose container declares no port of TCP, unless this variable of the container names another."""
VARIABLE = "PORT"

INSTANCES, CONCURRENCY, TIMEOUT, ACCESS_LOG = (
    "wasmlet.dev/http-instances",
    "wasmlet.dev/http-concurrency",
    "wasmlet.dev/http-timeout",
    "wasmlet.dev/http-access-log",
)
REUSE, PER_REQUEST = "reuse", "per-request"
MOST_INSTANCES = 64
MOST_SECONDS = 86400


def of_pod(pod: Pod) -> dict[str, Any]:
    """What the pod says, as its guests' processes are told it (`spec["network"]["http"]`).

    Raises:
        Refused: an annotation says nothing that can be; names it.
    """
    found: dict[str, Any] = {}
    instances = pod.annotations.get(INSTANCES)
    if instances is not None:
        if instances not in (REUSE, PER_REQUEST):
            raise _refused(INSTANCES, f"{REUSE} or {PER_REQUEST}", instances)
        found["reuse"] = instances == REUSE
    for name, key, most in ((CONCURRENCY, "concurrency", MOST_INSTANCES), (TIMEOUT, "seconds", MOST_SECONDS)):
        text = pod.annotations.get(name)
        if text is not None:
            if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= most):
                raise _refused(name, f"a whole number from 1 to {most}", text)
            found[key] = int(text)
    log = pod.annotations.get(ACCESS_LOG)
    if log is not None:
        if log not in ("true", "false"):
            raise _refused(ACCESS_LOG, "true or false", log)
        found["log"] = log == "true"
    return found


def _refused(name: str, expected: str, found: str) -> Refused:
    return Refused(f"metadata.annotations[{name}]", f"expected {expected}, found {found[:40]!r}")
