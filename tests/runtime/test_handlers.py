"""One node with several engines: which of them runs a pod, and that it stays with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import attrs
import pytest
from wasmlet_wasmtime import WasmtimeEngine, WasmtimeProvider

from tests.runtime.callers import Caller
from tests.runtime.fake import FakeEngine
from tests.runtime.harness import Runtime, pod_of
from wasmlet.clock import Clock
from wasmlet.errors import ConfigError
from wasmlet.model.inputs import Inputs
from wasmlet.runtime import PROCESS, Isolation, RuntimeConfig, RuntimeProvider
from wasmlet.runtime.shim.instances import Labels


class OtherEngine(FakeEngine):
    """Its artifacts are no compiled modules, so what it runs cannot be mistaken for what wasmtime runs."""

    handlers: ClassVar[Mapping[str, Isolation]] = {"wasmlet-other": PROCESS}


class Both(RuntimeProvider):
    name: ClassVar[str] = "both"

    def __init__(self, config: RuntimeConfig | None = None, *, clock: Clock | None = None) -> None:
        super().__init__(OtherEngine(), attrs.evolve(config or RuntimeConfig(), engine=("wasmtime",)), clock=clock)


async def test_the_runtime_class_chooses_the_engine_and_the_pod_stays_with_it(tmp_path: Path, image: str) -> None:
    async with Runtime(Both, tmp_path / "state") as runtime:
        assert (await runtime.provider.node_status()).runtime_handlers == (
            "",
            "wasmlet-other",
            "wasmlet",
            "wasmlet-dense",
        )
        key = await runtime.create(pod_of("print", "here", image=image), Inputs(runtime_handler="wasmlet"))
        assert (await runtime.ended(key)).exit_code == 0
        assert await runtime.log(key) == b"here\n"
        labels = [Labels.of(record.labels) for record in runtime.provider.services.client.records.values()]
        assert [found.handler for found in labels if found] == ["wasmlet"]

        sleeper = pod_of("sleep", "1000", image=image, name="sleeper", restart="Always")
        key = await runtime.create(sleeper, Inputs(runtime_handler="wasmlet"))
        await runtime.running(key)
        await runtime.restart()
        # The class may have been deleted since; what has begun goes on as it began.
        await runtime.create(sleeper, Inputs(runtime_handler=None))
        assert (await runtime.running(key)).restart_count == 0
        assert await runtime.provider.exec(key, "main", ["driver", "exit", "7"], Caller()) == 7


async def test_a_class_that_is_gone_or_not_offered(tmp_path: Path, image: str) -> None:
    async with Runtime(WasmtimeProvider, tmp_path / "state") as runtime:
        pod = pod_of("print", "x", image=image, name="gone", spec={"runtimeClassName": "fast"})
        key = await runtime.create(pod, Inputs(runtime_handler=None))
        waiting = await runtime.waiting(key, "CreateContainerConfigError")
        assert waiting.message == 'spec.runtimeClassName: RuntimeClass "fast" does not exist'
        key = await runtime.create(pod_of("print", "x", image=image, name="none"), Inputs(runtime_handler="runc"))
        waiting = await runtime.waiting(key, "CreateContainerConfigError")
        assert "this node offers no handler 'runc' any more; it offers wasmlet, wasmlet-dense" in waiting.message


def test_an_engine_that_is_not_installed() -> None:
    with pytest.raises(ConfigError, match=r"^--engine: there is no engine 'wasmedge' \(installed: .*wasmtime.*\)$"):
        WasmtimeProvider(RuntimeConfig(engine=("wasmedge",)))


def test_the_providers_own_engine_is_there_once() -> None:
    provider = WasmtimeProvider(RuntimeConfig(engine=("wasmtime",)))
    assert [type(engine) for engine in provider.engines] == [WasmtimeEngine]


async def test_two_engines_with_one_handler(tmp_path: Path) -> None:
    class Clash(RuntimeProvider):
        name: ClassVar[str] = "clash"

        def __init__(self, config: RuntimeConfig | None = None, *, clock: Clock | None = None) -> None:
            super().__init__(FakeEngine(), RuntimeConfig(engine=("wasmtime",)), clock=clock)

    runtime = Runtime(Clash, tmp_path / "state")
    runtime.state_dir.mkdir(mode=0o700)
    with pytest.raises(ConfigError, match="engines fake and wasmtime both have a RuntimeClass handler 'wasmlet'"):
        await runtime.start()
