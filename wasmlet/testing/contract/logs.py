"""Waits for what a container writes: one that runs has not always written yet."""

from __future__ import annotations

import asyncio

from wasmlet.model.pod import Pod
from wasmlet.testing.contract.trial import LOOK_SECONDS, Trial

__tracebackhide__ = True  # pytest hides this module's calls in tracebacks, so that those of the provider are seen


async def written(trial: Trial, pod: Pod, text: bytes) -> bytes | None:
    """The log of the pod's container once it has this text in it; as it is, where it has not in time.

    Returns:
        The log; None where the provider keeps none.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + trial.suite.patience_seconds
    while True:
        found = await trial.log(pod)
        if found is None or text in found or loop.time() >= end:
            return found
        await asyncio.sleep(LOOK_SECONDS)
