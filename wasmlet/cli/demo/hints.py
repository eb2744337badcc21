"""The commands that `wasmlet demo` suggests: those to type while it stays up, and what to try next."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wasmlet.cli.demo.follow import Say
from wasmlet.cli.demo.manifests import RUNS

TRY = {
    "retries.yaml": "work that fails twice, and is tried again",
    "config.yaml": "variables and files from a ConfigMap and a Secret",
    "sidecar.yaml": "an init container and a sidecar",
    "probes.yaml": "a pod that says when it is ready",
    "claim.yaml": "a volume that outlives the pod which wrote to it",
    "limits.yaml": "pods that want more than they may have",
    "periodic.yaml": "a preStop hook, and a good end",
}
"""Manifests of `examples/` that run in the demo as they are, and what each shows."""


def to_type(kubeconfig: Path, objects: Sequence[dict[str, Any]], say: Say, *, pool: bool) -> None:
    """Print the first commands to try with kubectl, while the demo stays up.

    Args:
        objects: those that are applied; none where the user makes the first pod.
        pool: whether there is a pool of nodes.
    """
    say(f"kubeconfig     {kubeconfig}")
    say("try            (in another terminal)")
    if shutil.which("kubectl") is None:
        beside = Path(sys.executable).with_name("kubectl")
        if beside.is_file():
            say(f"  export PATH={beside.parent}:$PATH")
        else:
            say("  # kubectl is not on PATH: https://kubernetes.io/docs/tasks/tools/ (in a checkout: make kubectl)")
    say(f"  export KUBECONFIG={kubeconfig}")
    of_pool = ("get wnp,nodes", "scale wnp edge --replicas 3", "describe wnp edge") if pool else ()
    for command in (*of_pool, *_about(objects)):
        say(f"  kubectl {command}")


def _about(objects: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """Commands about the first of the objects that makes pods; about the node where there is none."""
    first = next((body for body in objects if body["kind"] in RUNS), None)
    if first is None:
        return ("get nodes -o wide", "describe nodes")
    kind, name = first["kind"].lower(), first["metadata"].get("name") or first["kind"].upper()
    logs = f"logs {name}" if kind == "pod" else f"logs {kind}/{name}"
    return ("get pods -o wide", f"describe {kind} {name}", logs, "top pods")


def next_examples(examples: Path, say: Say) -> None:
    """Print the examples to apply next, while the demo stays up.

    Args:
        examples: the directory with the manifests.
    """
    there = [(examples / name, about) for name, about in TRY.items() if (examples / name).is_file()]
    if not there:
        return
    say("try next       (each file says at its top what to expect)")
    width = max(len(_shown(file)) for file, _ in there)
    for file, about in there:
        say(f"  kubectl apply -f {_shown(file):<{width}}  # {about}")


def next_commands(examples: Path, say: Say) -> None:
    """Print what to try once the demo has ended."""
    program = "wasmlet" if _on_path() else _shown(Path(sys.argv[0]).absolute())
    lines = [
        ("demo --keep", "the same, and it stays up for kubectl and curl"),
        (f"demo {_shown(examples / 'retries.yaml')}", TRY["retries.yaml"]),
        ("demo FILE.wasm ARGS", "a module of yours"),
        ("new provider NAME", "a package that makes pods of something else"),
        ("doctor", "what a node in your cluster would lack"),
    ]
    width = max(len(line) for line, _ in lines)
    say("try next")
    for line, about in lines:
        say(f"  {program} {line:<{width}}  # {about}")


def _on_path() -> bool:
    found = shutil.which("wasmlet")
    return found is not None and Path(found).resolve() == Path(sys.argv[0]).resolve()


def _shown(file: Path) -> str:
    """The path as one types it here."""
    here = Path.cwd()
    return str(file.relative_to(here) if file.is_relative_to(here) else file)
