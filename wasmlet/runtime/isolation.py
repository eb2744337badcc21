"""Describes in words how guests are isolated on this node, besides by their engine. For the log, the Node and the CLI.
`check` sees that the system has what no pod can do without.

The shim reports what is on among its processes (`wasmlet.worker.guest.confine`, and control groups), and
`files.pod_users` whether pods have users of their own. Each part is "on", perhaps with details, or "off: " and the
reason.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping

from wasmlet.concurrency import in_thread
from wasmlet.errors import ConfigError
from wasmlet.runtime.files.pod_users import Range, impossible
from wasmlet.runtime.shim.records import WORKER, worker_environment

ANNOTATION = "wasmlet.dev/isolation"
"""Of the Node: all parts as a JSON object."""

_SECONDS = 30.0


def check() -> None:
    """See that this system has what every pod needs.

    Raises:
        ConfigError: it has not.
    """
    from wasmlet.worker import linux  # which other systems cannot load

    if not linux.has_subreapers():
        raise ConfigError(
            "this system hands no orphans on to a subreaper (prctl), so ends of containers would not be seen: "
            "pods need a kernel of this machine, and not qemu-user"
        )


def node_annotations(parts: Mapping[str, str]) -> dict[str, str]:
    """The Node's annotations that say it."""
    return {ANNOTATION: json.dumps(parts, sort_keys=True)} if parts else {}


async def lacking(users: Range | None) -> list[str]:
    """The parts that cannot be had on this machine, each with the reason; found out by a worker process that tries.

    Args:
        users: where users for pods are to come from; None where pods are to have none of their own.

    Raises:
        ConfigError: no worker process can be had.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", str(WORKER), "confine",
        env=worker_environment(), stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(_SECONDS):
            answer, _ = await process.communicate()
        parts: dict[str, str] = json.loads(answer)
    except (TimeoutError, ValueError) as error:
        raise ConfigError(f"{sys.executable} cannot run {WORKER}: expected a JSON object, found none") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if users is not None and (why := await in_thread(impossible, users)):
        parts["user"] = f"off: {why}"
    return [f"{part} is {words}" for part, words in parts.items() if words.startswith("off: ")]
