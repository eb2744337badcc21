"""Many small volumes of one pod: what of them the loop of the node writes itself, and what a thread does."""

from __future__ import annotations

import base64
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.files.test_volumes import memory_directory, mounts
from tests.runtime.harness import Runtime, pod_of
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod
from wasmlet.runtime.files import volumes as volumes_module


async def test_many_small_volumes_do_not_hold_up_the_loop(
    runtime: Runtime, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are written at once are few in all; changes of many are written elsewhere, too."""
    at_once = list[Path]()
    write = volumes_module._write

    def counted(directory: Path, *more: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            at_once.append(directory)
        write(directory, *more)

    monkeypatch.setattr(volumes_module, "_write", counted)

    def inputs(value: str) -> Inputs:
        data = {"key": base64.b64encode(f"{value}\n".encode()).decode()}
        return Inputs(secrets={"s": {"metadata": {"name": "s"}, "data": data}})

    def many(name: str, count: int) -> Pod:
        names = [f"v{number}" for number in range(count)]
        return pod_of(
            "cat", f"/v{count - 1}/key", "await", f"/v{count - 1}/key", "two", "print", "seen", "sleep", "1000",
            name=name,
            image=image,
            spec={"volumes": [{"name": name, "secret": {"secretName": "s"}} for name in names]},
            volumeMounts=[mount for name in names for mount in mounts(f"/{name}", name)],
        )  # fmt: skip

    await runtime.running(await runtime.create(many("first", 1), inputs("one")))  # finds the directory in memory
    for name, count, first, later in (("few", 8, 8, 8), ("many", 90, 16, 0)):
        at_once.clear()
        pod = many(name, count)
        key = await runtime.create(pod, inputs("one"))
        await runtime.logged(key, b"one")
        assert len(at_once) == first
        at_once.clear()
        await runtime.provider.update_pod(pod, inputs("two"))
        await runtime.logged(key, b"seen")
        assert len(at_once) == later
        await runtime.provider.delete_pod(key, 0)
        assert not memory_directory(runtime, key.uid).exists()
