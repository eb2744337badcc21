"""The RuntimeClasses by which pods choose wasmlet's nodes. They belong to no pool: pods of all namespaces use them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from wasmlet.kube import Client, errors

CLASSES = "/apis/node.k8s.io/v1/runtimeclasses"
_OF_ENGINE = {"wasmtime": ("wasmlet", "wasmlet-dense"), "wasmer": ("wasmlet-wasmer",), "wascc": ("wasmlet-wascc",)}
_MEMORY = {"wasmlet": "3Mi", "wasmlet-dense": "128Ki", "wasmlet-wasmer": "4Mi", "wasmlet-wascc": "7Mi"}
"""The memory overhead of a pod, by RuntimeClass; examples/runtimeclasses.yaml says how it was measured."""


def handlers_of(engines: Iterable[str]) -> list[str]:
    """The RuntimeClass handlers of nodes with these engines. An engine that is not wasmlet's own has none here."""
    return [handler for engine in engines for handler in _OF_ENGINE.get(engine, ())]


def classes_of(engines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The RuntimeClasses of these engines. An engine that is not wasmlet's own has none here."""
    for handler in handlers_of(engines):
        yield {
            "apiVersion": "node.k8s.io/v1",
            "kind": "RuntimeClass",
            "metadata": {"name": handler},
            "handler": handler,
            "overhead": {"podFixed": {"memory": _MEMORY[handler]}},
            "scheduling": {
                "nodeSelector": {f"handler.wasmlet.dev/{handler}": "true"},
                "tolerations": [{"key": "wasmlet.dev/provider", "operator": "Exists", "effect": "NoSchedule"}],
            },
        }


async def make_classes(client: Client, engines: Iterable[str]) -> None:
    """Create the RuntimeClasses that do not exist; one that exists is left as it is."""
    for body in classes_of(engines):
        with contextlib.suppress(errors.AlreadyExists):
            await client.create(CLASSES, body)
