"""One API server and one node for all checks of a process, a namespace for each; a node of one's own where time passes.

With `--kubeconfig` (see `tests.node.real`) the API server is a cluster's.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from wasmlet_wasmer import WasmerProvider
from wasmlet_wasmtime import WasmtimeProvider

from tests.conformance.harness import Kube, namespace
from tests.conformance.machine import Machine, administrator
from tests.conformance.runtimes import JOINED, LOCAL, REMOTE
from tests.conftest import wasmer_is_here
from tests.guests import build
from tests.node.real import RealPlane
from wasmlet.kube import Client, load_identity
from wasmlet.testing import ControlPlane
from wasmlet.testing.clock import FakeClock

HERE = Path(__file__).parent
MARKERS = (
    "refused: the node refuses what is asked, by name",
    "real_cluster: needs a cluster with controllers (--kubeconfig)",
)
PROVIDERS = {"wasmtime": WasmtimeProvider, "wasmer": WasmerProvider}
DENSE = "wasmtime/wasmlet-dense"
OF_DENSE = {1, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 19, 22, 23, 29, *range(32, 47), 61, 65, 66, 69, 70, 71, 72, 73, 74}
"""What the dense class is held to in every run: restarts, ends and exit codes, variables, files, logs, exec, ports."""
BEHIND_AGENTS = {REMOTE: {9, 22, 29, 40, 69, 71}, JOINED: {72, 73}}
"""And nodes whose pods run behind an agent: what crosses the wire; `--runtime` has all checks there."""
OF_WASMER = {1, 7, 9, 10, 13, 23, 29, *range(32, 35), *range(39, 47), 61, 62, 63, 67, 69, 70, 71, 72, 74}
"""And wasmer: what an engine has a part in."""


def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Every check runs in the loop of the node that it shares; what needs a cluster is left out without one."""
    ours = [item for item in items if item.path.is_relative_to(HERE)]
    for item in ours:
        item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
    if not config.getoption("--kubeconfig"):
        left_out = [item for item in ours if item.get_closest_marker("real_cluster")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every check that has a node is made with the engine and the handler that are asked for; see also `OF_DENSE`."""
    if "machine" in metafunc.fixturenames:
        names = ("--engine", "--handler", "--runtime", "--kubeconfig")
        engine, handler, runtime, cluster = map(metafunc.config.getoption, names)
        ways = [f"{engine or 'wasmtime'}/{handler}/{runtime or ''}".rstrip("/")]
        number = int(metafunc.definition.path.name.split("_")[1])
        if not (engine or handler or runtime or cluster):
            ways += [DENSE] if number in OF_DENSE else []
            ways += ["wasmer"] if number in OF_WASMER else []
            ways += [f"wasmtime//{where}" for where, numbers in BEHIND_AGENTS.items() if number in numbers]
        metafunc.parametrize("machine", ways, indirect=True, scope="session")


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def machine(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    kubectl: Path,
    compile_guest: Callable[..., None],
) -> AsyncGenerator[Machine, None]:
    """An API server, the guests, and what nodes are made of."""
    engine, handler, runtime, *_ = [*request.param.split("/"), "", ""]
    if engine == "wasmer":
        await wasmer_is_here()
    async with AsyncExitStack() as stack:
        # What a node itself answers to a taint is tried; no controller evicts its pods meanwhile.
        embedded = ControlPlane(node_monitor_grace=None)
        plane = RealPlane.of(request.config) or await stack.enter_async_context(embedded)
        admin = await stack.enter_async_context(Client(await load_identity(plane.kubeconfig), connections=0))
        driver, web = build("driver", compile_guest), build("web", compile_guest)
        directory = tmp_path_factory.mktemp("c")
        yield Machine(
            plane,
            admin,
            kubectl,
            driver,
            web,
            directory,
            administrator(plane.kubeconfig, directory),
            f"c{uuid.uuid4().hex[:8]}",
            PROVIDERS[engine],
            handler,
            runtime or LOCAL,
        )


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def shared(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[str, None]:
    """A node that many checks use at once; restarts wait one second at most."""
    name = machine.name()
    given = {"max_container_restart_period": 1.0, "allow_host_path": (str(tmp_path_factory.getbasetemp()),)}
    async with machine.node(name, given=given):
        yield name
    await machine.forget(name)


@pytest_asyncio.fixture(loop_scope="session")
async def kube(machine: Machine, shared: str) -> AsyncGenerator[Kube, None]:
    """A namespace on the shared node."""
    async with namespace(machine, shared) as kube:
        yield kube


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def networked(machine: Machine) -> AsyncGenerator[str, None]:
    """A node whose pods have addresses of loopback; restarts wait one second at most."""
    name = machine.name()
    async with machine.node(name, given={"max_container_restart_period": 1.0, "network": "address"}):
        yield name
    await machine.forget(name)


@pytest_asyncio.fixture(loop_scope="session")
async def net(machine: Machine, networked: str) -> AsyncGenerator[Kube, None]:
    """A namespace on the node whose pods have addresses."""
    async with namespace(machine, networked) as kube:
        yield kube


Own = Callable[..., Any]


@pytest.fixture
def own(machine: Machine) -> Own:
    """A node of the check's own: `async with own(clock=..., ...) as kube:`; arguments as for `Machine.node`."""

    @asynccontextmanager
    async def make(*, clock: Any = None, **settings: Any) -> AsyncIterator[Kube]:
        name = machine.name()
        try:
            async with machine.node(name, clock=clock, **settings), namespace(machine, name) as kube:
                kube.clock = clock
                yield kube
        finally:
            await machine.forget(name)

    return make


@pytest.fixture
def driver_copy(machine: Machine, tmp_path: Path) -> Path:
    """The driver in a file that the check may move about."""
    return Path(shutil.copy(machine.driver, tmp_path / "copy.wasm"))


@pytest_asyncio.fixture(loop_scope="session")
async def timed(own: Own) -> AsyncGenerator[Kube, None]:
    """A node of the check's own on whose clock time passes as the check says (`kube.clock.advance`)."""
    async with own(clock=FakeClock()) as kube:
        yield kube
