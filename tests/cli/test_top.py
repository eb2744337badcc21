"""`wasmlet top`: what it shows of a cluster, on a terminal and elsewhere, what it asks for it, and how it ends."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import struct
import sys
import termios
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import orjson
import pytest
from aiohttp import web
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from tests.node.cluster import NODE, Cluster, running
from wasmlet.cli import log
from wasmlet.cli.commands import cli
from wasmlet.cli.top.cluster import PodRow, pod_row
from wasmlet.cli.top.keys import parsed
from wasmlet.cli.top.screen import View
from wasmlet.cli.top.tables import GAP, Column, Table, ordered
from wasmlet.cli.top.usage import Amount, Usage, UsageReader
from wasmlet.controlplane.access.rules import Rule as Allowed
from wasmlet.controlplane.faults import Fail
from wasmlet.kube import Client, load_identity
from wasmlet.testing import ControlPlane
from wasmlet.testing.clock import FakeClock
from wasmlet.testing.reference import ReferenceProvider

BIN = Path(sys.executable).parent
NOW = datetime(2026, 1, 1, tzinfo=UTC)
READS = (Allowed(("get", "list", "watch"), ("nodes", "pods")),)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """A node of the reference provider with two pods, of which one waits for another node."""
    async with AsyncExitStack() as stack:
        plane = await stack.enter_async_context(ControlPlane())
        admin = await stack.enter_async_context(Client(await load_identity(plane.kubeconfig)))
        cluster = Cluster(plane, admin, tmp_path)
        await stack.enter_async_context(cluster.node(ReferenceProvider()))
        await cluster.create("web", metadata={"labels": {"app": "web"}})
        await cluster.until(running, "web")
        await cluster.create("waits", nodeName="", runtimeClassName=None, nodeSelector={"a": "b"})
        yield cluster


@pytest.fixture(autouse=True)
def _logs_of_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command sets up for its own log is not that of the tests that this process runs later."""
    monkeypatch.setattr(log, "configure", lambda level: None)


async def top(*arguments: Any) -> Result:
    """The command, in a thread: its loop is its own."""
    return await asyncio.to_thread(CliRunner().invoke, cli, ["top", "--once", *map(str, arguments)])


@attrs.define
class Answer:
    """Answers with a body, and counts requests."""

    body: Any
    count: int = 0

    async def apply(self, rule: Any, request: web.BaseRequest, proceed: Any) -> web.StreamResponse:
        self.count += 1
        return web.Response(body=orjson.dumps(self.body), content_type="application/json")


@attrs.define
class Counting:
    """Lets requests go on and counts them by path."""

    asked: Counter[str] = attrs.field(factory=Counter)

    async def apply(self, rule: Any, request: web.BaseRequest, proceed: Any) -> Any:
        self.asked[request.path] += 1
        return await proceed()


def without_metrics(cluster: Cluster) -> None:
    """Have the cluster be one without metrics-server."""
    cluster.plane.faults.add(Fail(404), path="/apis/metrics.k8s.io/*")


@pytest.mark.parametrize("metrics", [True, False])
async def test_nodes_and_pods_with_what_the_nodes_measure(cluster: Cluster, metrics: bool) -> None:
    if not metrics:
        without_metrics(cluster)
    found = await top("--kubeconfig", cluster.plane.kubeconfig)
    assert found.exception is None, found.output
    head, whole, _, nodes, node, _, pods, pod, *more = found.stdout.splitlines()
    assert head == "1 node, 1 ready; 1 pod: 1 Running"
    assert re.fullmatch(r"CPU \d+m, memory 4.0Mi; 0 restarts; start p50 <?\d+s, p99 <?\d+s", whole)
    assert nodes.split() == ["NODE", "STATUS", "PROVIDER", "PODS", "CPU", "CPU%", "MEMORY", "MEM%", "AGE"]
    assert re.fullmatch(rf"{NODE} +Ready +reference +1/1000 +\d+m +\d+% +4.0Mi +\d+% +\d+s", node)
    assert pods.split() == ["NAMESPACE", "POD", "READY", "STATUS", "RESTARTS", "CPU", "MEMORY", "START", "AGE", "NODE"]
    assert re.fullmatch(rf"default +web +1/1 +Running +0 +\d+m +4.0Mi +<?\d+s +\d+s +{NODE}", pod)
    assert more == []
    assert found.stderr == ""


async def test_what_is_chosen(cluster: Cluster) -> None:
    config = ("--kubeconfig", cluster.plane.kubeconfig, "--no-headers")
    assert " web " in (await top(*config, "-l", "app=web")).stdout
    assert " web " not in (await top(*config, "-l", "app=other")).stdout
    others = (await top(*config, "-n", "kube-system")).stdout
    assert " web " not in others
    assert " -/1000 " in others  # how many pods the node has in all is not known
    assert " web " in (await top(*config, "-n", "default", "--node", NODE)).stdout
    assert "there is no node other of wasmlet" in str((await top(*config, "--node", "other")).exception)
    assert "-n and -A exclude each other" in (await top(*config, "-n", "default", "-A")).output
    assert "unable to parse" in str((await top(*config, "-l", "a=b=c")).exception)


async def test_the_metrics_api_is_asked_first(cluster: Cluster) -> None:
    usage = {"cpu": "1500m", "memory": "64Mi"}
    pods = {"items": [{"metadata": {"namespace": "default", "name": "web"}, "containers": [{"usage": usage}] * 2}]}
    nodes = {"items": [{"metadata": {"name": NODE}, "usage": usage}]}
    of_pods, of_nodes, proxy = Answer(pods), Answer(nodes), Answer({})
    cluster.plane.faults.add(of_pods, path="/apis/metrics.k8s.io/v1beta1/pods")
    cluster.plane.faults.add(of_nodes, path="/apis/metrics.k8s.io/v1beta1/nodes")
    cluster.plane.faults.add(proxy, path="*/proxy/*")
    found = await top("--kubeconfig", cluster.plane.kubeconfig, "--no-headers")
    assert re.search(r"n1 .* 1500m +\d+% +64Mi", found.stdout)
    assert re.search(r"web .* 3000m +128Mi", found.stdout)
    assert (of_pods.count, of_nodes.count, proxy.count) == (1, 1, 0)


async def test_who_may_not_read_usage_sees_the_rest_and_which_right_is_missing(cluster: Cluster) -> None:
    cluster.plane.grant("somebody", *READS)
    found = await top("--kubeconfig", cluster.plane.user_kubeconfig("somebody"))
    assert found.exception is None, found.output
    assert re.search(r"default +web +1/1 +Running +0 +- +- +<?\d+s", found.stdout)
    assert "nodes/proxy: not allowed" in found.stderr
    assert "the right to get nodes/proxy, which is as strong as exec" in found.stderr


async def test_who_may_see_nothing_is_told_what_is_needed(cluster: Cluster) -> None:
    found = await top("--kubeconfig", cluster.plane.user_kubeconfig("nobody"))
    assert "needs the right to list and watch nodes, and pods" in str(found.exception)


async def test_a_node_that_measures_nothing_keeps_no_other_one_from_being_asked(cluster: Cluster) -> None:
    """The API server, or the node, knows no Summary of it: it is asked again after a minute, and the others go on."""
    without_metrics(cluster)
    clock, counting = FakeClock(), Counting()
    reader = UsageReader(cluster.admin, None, clock)
    cluster.plane.faults.add(counting, path="*/proxy/*")
    for _ in range(2):
        usage = await reader.read(["absent", NODE])
        assert (list(usage.nodes), list(usage.pods)) == ([NODE], [("default", "web")])
        assert "no usage of absent" in usage.remark
        assert "absent: it has no Summary" in usage.remark
    path = "/api/v1/nodes/{}/proxy/stats/summary"
    assert counting.asked == {path.format("absent"): 1, path.format(NODE): 2}
    clock.advance(61)
    await reader.read(["absent", NODE])
    assert counting.asked == {path.format("absent"): 2, path.format(NODE): 3}


@pytest.mark.parametrize("answer", [{}, {"node": 1}, {"node": {}, "pods": [{}]}, []])
async def test_a_node_that_answers_nonsense_has_no_usage(cluster: Cluster, answer: Any) -> None:
    without_metrics(cluster)
    cluster.plane.faults.add(Answer(answer), path="*/proxy/*")
    found = await top("--kubeconfig", cluster.plane.kubeconfig)
    assert found.exception is None, found.output
    assert "no usage" in found.stderr or " 0m " in found.stdout


# -- on a terminal


@attrs.define
class Terminal:
    """The command on a terminal of its own."""

    process: asyncio.subprocess.Process
    master: int
    before: list[Any]
    written: bytearray = attrs.field(factory=bytearray)
    more: asyncio.Event = attrs.field(factory=asyncio.Event)

    def read(self) -> None:
        try:
            data = os.read(self.master, 65536)
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self.master)
        self.written += data
        self.more.set()

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    async def until(self, pattern: str) -> re.Match[str]:
        """The next place in what is written; what is before it is not looked at again."""
        async with asyncio.timeout(60):
            while (found := re.search(pattern, self.written.decode(errors="replace"))) is None:
                self.more.clear()
                await self.more.wait()
        del self.written[: len(self.written.decode(errors="replace")[: found.end()].encode())]
        return found

    def modes(self) -> list[Any]:
        return termios.tcgetattr(self.master)


@asynccontextmanager
async def terminal(*arguments: Any, rows: int = 24, **environment: str) -> AsyncIterator[Terminal]:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 80, 0, 0))
    process = await asyncio.create_subprocess_exec(
        BIN / "wasmlet", "top", *map(str, arguments), stdin=slave, stdout=slave, stderr=slave,
        env=os.environ | {"TERM": "xterm-256color"} | environment, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    found = Terminal(process, master, termios.tcgetattr(master))
    os.close(slave)
    loop = asyncio.get_running_loop()
    loop.add_reader(master, found.read)
    try:
        yield found
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        loop.remove_reader(master)
        os.close(master)


@pytest.mark.parametrize("end", ["q", "\x03"], ids=["q", "Ctrl-C"])
async def test_a_terminal_is_as_it_was_when_it_ends(cluster: Cluster, end: str) -> None:
    async with terminal("--kubeconfig", cluster.plane.kubeconfig) as screen:
        await screen.until("\x1b\\[\\?1049h")  # another screen
        await screen.until("wasmlet top   https://")
        await screen.until("web .*Running")
        assert screen.modes() != screen.before  # keys are read one by one
        screen.type(end)
        await screen.until("\x1b\\[\\?1049l")
        async with asyncio.timeout(30):
            assert await screen.process.wait() == 0
        assert screen.modes() == screen.before
        assert "Traceback" not in screen.written.decode()


async def test_it_follows_the_cluster(cluster: Cluster) -> None:
    async with terminal("--kubeconfig", cluster.plane.kubeconfig, "--interval", 60, NO_COLOR="1") as screen:
        await screen.until("1 pod: 1 Running")
        await cluster.create("second")
        await screen.until("2 pods: 2 Running")
        await cluster.delete("second")
        await screen.until("1 pod: 1 Running")
        screen.type("n")
        await screen.until("4mPOD")  # underlined: it is sorted by that
        assert b"\x1b[3" not in screen.written, "there are no colours"


async def test_an_api_server_that_is_away_is_said_and_comes_back_by_itself(cluster: Cluster) -> None:
    async with terminal("--kubeconfig", cluster.plane.kubeconfig, "--interval", 1) as screen:
        await screen.until("1 pod: 1 Running")
        async with cluster.plane.faults.outage():
            await screen.until("the API server is away since .*, trying again")
            await screen.until("web .*Running")  # what was known last
        await cluster.create("second")
        await screen.until("2 pods: 2 Running")
        await screen.until("wasmlet top(?:(?!away)[^q])*q quit")


@pytest.mark.parametrize("metrics", [True, False])
async def test_what_it_asks_for_in_an_interval(cluster: Cluster, metrics: bool) -> None:
    """Two watches; beside them two lists of the Metrics API, or where that is not there a request for each node."""
    if not metrics:
        without_metrics(cluster)
    async with terminal("--kubeconfig", cluster.plane.kubeconfig, "--interval", 1) as screen:
        await screen.until("1 pod: 1 Running")
        await screen.until(r"CPU \d+m")
        counting, began = Counting(), time.monotonic()
        with cluster.plane.faults.add(counting, path="*"):
            for _ in range(4):
                await screen.until("wasmlet top   https://")
                await asyncio.sleep(1)
        asked = {path: n for path, n in counting.asked.items() if "leases" not in path and "authorization" not in path}
    lists = {f"/apis/metrics.k8s.io/v1beta1/{kind}" for kind in ("nodes", "pods")}
    assert set(asked) == (lists if metrics else {f"/api/v1/nodes/{NODE}/proxy/stats/summary"})
    assert max(asked.values()) <= time.monotonic() - began + 2  # one a second


async def test_lines_elsewhere(cluster: Cluster) -> None:
    """`wasmlet top | head`: the same again after each interval, without a terminal's codes."""
    command = f"{BIN}/wasmlet top --kubeconfig {cluster.plane.kubeconfig} --interval 1 | head -n 16"
    process = await asyncio.create_subprocess_shell(command, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    assert b"\x1b" not in out
    assert len(re.findall(r"(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$", out.decode())) == 2


@pytest.mark.parametrize(
    "modules", ["wasmlet.cli.run, wasmlet.cli.inspecting, wasmlet.cli.demo.demo", "wasmlet.runtime"]
)
async def test_what_draws_nothing_does_not_load_rich(modules: str) -> None:
    """What it uses does, of itself: structlog for tracebacks, httpx for a command line. Later, it is there as ever."""
    code = f"import sys, {modules}; print('rich' in sys.modules, 'pygments' in sys.modules); import httpx, rich.table"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert (out, process.returncode) == (b"False False\n", 0)


# -- rows and columns


def row(name: str, **fields: Any) -> PodRow:
    given = {
        "created": NOW,
        "node": NODE,
        "phase": "Running",
        "ready": "1/1",
        "status": "Running",
        "restarts": 0,
        "start": 0.0,
    }
    return PodRow(namespace="default", name=name, ours=True, **(given | fields))


def test_the_order_of_pods() -> None:
    pods = [row("a", restarts=1), row("b", start=None), row("c", start=9.0, created=NOW + timedelta(seconds=1))]
    usage = Usage(pods={("default", "b"): Amount(0.5, 2**20), ("default", "c"): Amount(0.1, 2**30)})
    found = {sort: "".join(p.name for p in ordered(pods, usage, sort)) for sort in
             ("name", "cpu", "memory", "restarts", "start", "age")}  # fmt: skip
    assert found == {
        "name": "abc", "cpu": "bca", "memory": "cba", "restarts": "abc", "start": "cab", "age": "cab",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("states", "start"),
    [
        ([], None),
        ([{"state": {"waiting": {}}}], None),
        ([{"state": {"running": {"startedAt": "2026-01-01T00:00:02Z"}}}], 2.0),
        ([{"state": {"terminated": {"startedAt": "2026-01-01T00:00:03Z"}}}, {"state": {"waiting": {}}}], None),
        ([{"restartCount": 1, "state": {"running": {"startedAt": "2026-01-01T00:00:09Z"}}}], None),
    ],
)
def test_how_long_a_pod_took_to_start(states: list[Any], start: float | None) -> None:
    metadata = {"namespace": "default", "name": "p", "creationTimestamp": "2026-01-01T00:00:00Z"}
    statuses = [{"name": f"c{i}", **state} for i, state in enumerate(states)]
    pod = {"metadata": metadata, "spec": {}, "status": {"containerStatuses": statuses}}
    assert pod_row(pod, NOW).start == start


@given(
    st.lists(st.lists(st.text("ab", max_size=30), min_size=4, max_size=4), max_size=5),
    st.integers(20, 150),
)
def test_a_table_fits_into_a_line_with_what_matters(rows: list[list[str]], width: int) -> None:
    columns = (Column("A", least=5), Column("B", least=5, spare=1), Column("C", least=3), Column("D", least=2, spare=2))
    table, widths = Table(columns, rows).fitted(width)
    assert sum(widths) + GAP * (len(widths) - 1) <= width
    assert {"A", "C"} <= {column.name for column in table.columns}
    assert all(len(cell) <= wide for row in table.rows for cell, wide in zip(row, widths, strict=True))
    if len(table.columns) == 4 and sum(max([1, *(len(r[i]) for r in rows)]) for i in range(4)) + 3 * GAP <= width:
        assert [list(row) for row in table.rows] == rows  # nothing is cut without need


@given(st.binary(max_size=40))
def test_keys_are_told_whatever_is_typed(data: bytes) -> None:
    assert len(list(parsed(data))) <= len(data)


def test_keys() -> None:
    assert list(parsed(b"\x1b[A\x1b[6~cq")) == ["up", "page down", "c", "q"]
    assert list(parsed(b"\x1b[200~")) == []
    view = View("cpu", page=10, count=25)
    for key, first in (("down", 1), ("page down", 11), ("end", 15), ("page down", 15), ("up", 14), ("home", 0)):
        assert (view.press(key), view.first) == (key != "page down" or first != 15, first), key
    assert not view.press("x")
    assert view.press("M")
    assert view.sort == "memory"
