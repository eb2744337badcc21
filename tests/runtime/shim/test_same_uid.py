"""A pod that comes again under its UID, as one of a manifest file that was changed, has nothing to do with its past."""

from __future__ import annotations

import itertools
from typing import Any

from tests.runtime.harness import Runtime, pod_of

VOLUME = {"volumes": [{"name": "e", "emptyDir": {}}]}
FILES: tuple[dict[str, Any], ...] = (
    {},
    {"spec": VOLUME, "volumeMounts": [{"name": "e", "mountPath": "/e"}]},
    {"spec": VOLUME, "volumeMounts": [{"name": "e", "mountPath": "/dev/x", "subPath": "x"}]},
)
"""Of the last, this process makes the directory that its termination message is in, and not the shim."""


async def test_what_the_shim_removes_later_is_not_the_next_pods(runtime: Runtime, image: str) -> None:
    for number, more in zip(range(24), itertools.cycle(FILES), strict=False):
        words = ("print", str(number), "put", "/dev/termination-log", f"said {number}", "exit", "3")
        key = await runtime.create(pod_of(*words, image=image, uid="same", **more))
        end = await runtime.ended(key)
        assert (end.exit_code, end.message) == (3, f"said {number}"), more
        assert (await runtime.log(key)).startswith(f"{number}\n".encode())
        await runtime.provider.delete_pod(key, 1)
    assert not [event for event in runtime.events if event.type == "Warning"]
