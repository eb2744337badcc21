"""Makes the answers of the node's API about pods, settings and health, in the form that a kubelet gives them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import orjson
from aiohttp import web

from wasmlet.model.pod import Pod, Raw
from wasmlet.model.status import Running
from wasmlet.provider import PodRecord

Check = Callable[[], str]
"""What is wrong, or ""."""


def json_answer(body: Any) -> web.Response:
    return web.Response(body=orjson.dumps(body), content_type="application/json")


def pod_list(pods: Iterable[Raw]) -> Raw:
    """`/pods`: the pods as the node has them, newest status included."""
    return {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": list(pods)}


def running_pods(records: Sequence[PodRecord], known: Callable[[str], Pod | None]) -> Raw:
    """`/runningpods/`: what the provider says that it runs, which may be other than what it should.

    Args:
        known: the pod of a UID, for the images of its containers.
    """
    items = []
    for key, status in ((record.key, record.status) for record in records):
        pod = known(key.uid)
        containers = []
        for state in (*status.init_containers, *status.containers, *status.ephemeral_containers):
            if isinstance(state.state, Running):
                spec = pod.container(state.name) if pod is not None else None
                image = state.image or (spec.image if spec is not None else "")
                containers.append({"name": state.name, "image": image, "resources": {}})
        if containers:
            metadata = {"name": key.name, "namespace": key.namespace, "uid": key.uid, "creationTimestamp": None}
            items.append({"metadata": metadata, "spec": {"containers": containers}, "status": {}})
    return pod_list(items)


def health(checks: Mapping[str, Check], query: Mapping[str, Any], only: str | None = None) -> web.Response:
    """`/healthz`, with `?verbose` and `?exclude=NAME`, or one check of it."""
    if only is not None:
        if (check := checks.get(only)) is None:
            return web.Response(status=404, text="404 page not found\n")
        if check():
            return web.Response(status=500, text=f"internal server error: {check()}\n")
        return web.Response(text="ok")
    lines, failed = [], False
    for name, check in checks.items():
        if query.get("exclude") == name:
            lines.append(f"[+]{name} excluded: ok")
        elif check():
            failed = True
            lines.append(f"[-]{name} failed: reason withheld")
        else:
            lines.append(f"[+]{name} ok")
    if failed:
        return web.Response(status=500, text="\n".join([*lines, "healthz check failed"]) + "\n")
    if "verbose" in query:
        return web.Response(text="\n".join([*lines, "healthz check passed"]) + "\n")
    return web.Response(text="ok")
