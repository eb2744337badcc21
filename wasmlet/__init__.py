"""wasmlet: make a Kubernetes node out of anything that can run a pod, first of all out of a WebAssembly engine.

What is exported here is the API; everything else may change.

    class Mine(wasmlet.Provider):
        name = "mine"
        ...

    wasmlet.run(Mine())
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from wasmlet import lean  # noqa: F401 - first of all

if TYPE_CHECKING:
    from wasmlet.clock import Backoff, Clock, SystemClock
    from wasmlet.errors import ConfigError, InvalidInput, NotFound, NotYet, Refused, Rejected, Unsupported, WasmletError
    from wasmlet.model.environment import Environment, environment
    from wasmlet.model.expansion import command_and_args
    from wasmlet.model.inputs import HandedImage, Inputs, TokenKey
    from wasmlet.model.pod import Container, Pod, PodKey, Raw
    from wasmlet.model.quantity import Quantity
    from wasmlet.model.status import Condition, ContainerStatus, PodStatus, Running, Terminated, Waiting
    from wasmlet.model.times import rfc3339_micro
    from wasmlet.node import Node, NodeConfig
    from wasmlet.options import option
    from wasmlet.provider import (
        Address,
        Change,
        Channel,
        Figure,
        LogOptions,
        NodeChanged,
        NodeContext,
        NodeImage,
        NodeStatus,
        PodEvent,
        PodRecord,
        ProbeCount,
        ProbeKind,
        Provider,
        StatusChanged,
        Streams,
        Taint,
    )

__version__ = "0.1.0"

__all__ = [
    "Address",
    "Backoff",
    "Change",
    "Channel",
    "Clock",
    "Condition",
    "ConfigError",
    "Container",
    "ContainerStatus",
    "Environment",
    "Figure",
    "HandedImage",
    "Inputs",
    "InvalidInput",
    "LogOptions",
    "Node",
    "NodeChanged",
    "NodeConfig",
    "NodeContext",
    "NodeImage",
    "NodeStatus",
    "NotFound",
    "NotYet",
    "Pod",
    "PodEvent",
    "PodKey",
    "PodRecord",
    "PodStatus",
    "ProbeCount",
    "ProbeKind",
    "Provider",
    "Quantity",
    "Raw",
    "Refused",
    "Rejected",
    "Running",
    "StatusChanged",
    "Streams",
    "SystemClock",
    "Taint",
    "Terminated",
    "TokenKey",
    "Unsupported",
    "Waiting",
    "WasmletError",
    "command_and_args",
    "environment",
    "option",
    "rfc3339_micro",
    "run",
]


_NAMES = {
    "wasmlet.clock": "Backoff Clock SystemClock",
    "wasmlet.errors": "ConfigError InvalidInput NotFound NotYet Refused Rejected Unsupported WasmletError",
    "wasmlet.model.environment": "Environment environment",
    "wasmlet.model.expansion": "command_and_args",
    "wasmlet.model.inputs": "HandedImage Inputs TokenKey",
    "wasmlet.model.pod": "Container Pod PodKey Raw",
    "wasmlet.model.quantity": "Quantity",
    "wasmlet.model.status": "Condition ContainerStatus PodStatus Running Terminated Waiting",
    "wasmlet.model.times": "rfc3339_micro",
    "wasmlet.options": "option",
    "wasmlet.provider": "Address Change Channel Figure LogOptions NodeChanged NodeContext NodeImage NodeStatus "
    "PodEvent PodRecord ProbeCount ProbeKind Provider StatusChanged Streams Taint",
    "wasmlet.node": "Node NodeConfig",
}
"""For each module the names that are exported from it. A module is imported when one of its names is first used."""
_MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}


def run(provider: Provider, config: NodeConfig | None = None) -> None:
    """Run a node with this provider until SIGTERM, SIGINT or SIGHUP. Its pods go on, unless `config` drains the node.

    The settings are in `config` and in the provider. Only the command line reads flags, `WASMLET_*` variables and TOML
    files: `wasmlet run --provider NAME`, which finds providers in the entry-point group `wasmlet.providers`.
    (`KUBECONFIG` is read here, too, if `config` names no kubeconfig.) The node logs to standard error, as with the
    command line, unless the program has set up structlog.

    This function is meant to be all that a program does. If only the user can mend an error, it prints one line on
    standard error and ends the process. A program that has to go on afterwards uses `Node` itself.

    Raises:
        SystemExit: 1 with what is wrong (a `WasmletError`); 130 where Ctrl-C came before the node had started.
    """
    import asyncio
    import sys

    from wasmlet.cli import execution, output
    from wasmlet.errors import WasmletError

    output.guard_errors()  # a node goes on when its log cannot be written
    try:
        execution.need_linux()
        import structlog

        from wasmlet import node
        from wasmlet.cli import log

        if not structlog.is_configured():
            log.configure("info")
        asyncio.run(node.run(node.Node(provider, config)))
    except WasmletError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if not TYPE_CHECKING:  # a type checker that sees __getattr__ accepts every name as one of this package

    def __getattr__(name: str) -> Any:
        """What is exported is imported when it is first used: a command that only prints help does not wait for it."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(importlib.import_module(_MODULES[name]), name)
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
