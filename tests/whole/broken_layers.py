"""A node of the command line, with wasmtime, whose layers raise at their first calls; a program for `test_secrets`.

Each layer raises once with the secrets of a pod among its variables, then works, so that one pod meets them all. What
has raised is written, a line each, to the file that `RAISED` names.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
from pathlib import Path
from typing import Any

LAYERS = (
    "wasmlet.node.inputs:InputStore.inputs",
    "wasmlet.node.tokens:TokenManager.tokens",
    "wasmlet.node.registration:NodeRegistration._status",
    "wasmlet.node.pods.report:PodReport._wanted",
    "wasmlet.runtime.provider:RuntimeProvider.list_pods",
    "wasmlet.runtime.provider:RuntimeProvider.node_status",
    "wasmlet.runtime.provider:RuntimeProvider.create_pod",
    "wasmlet.runtime.provider:RuntimeProvider.update_pod",
    "wasmlet.runtime.provider:RuntimeProvider.delete_pod",
    "wasmlet.runtime.provider:RuntimeProvider.stats",
    "wasmlet.runtime.provider:RuntimeProvider.exec",
    "wasmlet.runtime.provider:RuntimeProvider.logs",
    "wasmlet.runtime.pods.pod:PodLife._run_containers",
    "wasmlet.runtime.files.volumes:PodVolumes.refresh",
    "wasmlet.runtime.pods.container_runner:plan",
    "wasmlet.runtime.pods.launch:module_of",
    "wasmlet.runtime.pods.plan:environment",
    "wasmlet.runtime.pods.launch:spec_of",
    "wasmlet.runtime.pods.pulling:pull_keyring",
    "wasmlet.runtime.pods.hooks:run",
)
TIMES = 1


def failing(layer: str, original: Any, raised: Path) -> Any:
    """The same, but for its first calls."""
    left = TIMES

    def fail(*arguments: Any, **named: Any) -> None:
        nonlocal left
        if left:
            left -= 1
            secret = os.environ["MARKER"]
            everything = [secret, repr(vars(arguments[0])) if hasattr(arguments[0], "__dict__") else arguments, named]
            with raised.open("a") as file:
                file.write(f"{layer}\n")
            raise RuntimeError(f"{layer} is broken, with {len(everything)} variables")

    @functools.wraps(original)
    async def later(*arguments: Any, **named: Any) -> Any:
        fail(*arguments, **named)
        return await original(*arguments, **named)

    @functools.wraps(original)
    def at_once(*arguments: Any, **named: Any) -> Any:
        fail(*arguments, **named)
        return original(*arguments, **named)

    return later if inspect.iscoroutinefunction(original) else at_once


def main() -> None:
    raised = Path(os.environ["RAISED"])
    from wasmlet.clock import Backoff
    from wasmlet.runtime.pods import container_runner, restarts

    vars(restarts)["BACKOFF_SECONDS"] = 0.1
    vars(container_runner)["START_BACKOFF"] = Backoff(0.1, 300.0, jitter=0.0)
    for layer in LAYERS:
        module, _, path = layer.partition(":")
        *owners, name = path.split(".")
        owner = functools.reduce(getattr, owners, importlib.import_module(module))
        setattr(owner, name, failing(layer, getattr(owner, name), raised))
    from wasmlet_wasmtime import main as run

    run()


if __name__ == "__main__":
    main()
