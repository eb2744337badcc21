"""The board, the alerts and the settings of docs/monitoring: a Prometheus scrapes a node, and evaluates all of them."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from wasmlet_remote import RemoteProvider

from tests.conftest import CompileGuest, need
from tests.guests import build
from tests.node.cluster import NODE, Cluster, running
from tests.remote.agents import REAL
from tests.remote.agents import running as agent_running
from wasmlet.kube import Client, load_identity
from wasmlet.testing import ControlPlane

MONITORING = Path(__file__).parents[2] / "docs" / "monitoring"
PAGES = ("/metrics", "/metrics/cadvisor", "/metrics/resource", "/metrics/probes")
WITHOUT_DATA = {
    "rate(kubelet_runtime_operations_errors_total": "no call to the provider has failed",
}
"""Expressions of the board that have no data where all is well, by how they begin or by what they contain."""
NEVER_THERE = {"kubelet_runtime_operations_errors_total": "no call to the provider has failed"}
"""Metrics that a node shows only once there is something to count."""
SECONDS = 120


def tool(name: str) -> str:
    """Debian's prometheus has both tools."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        need(name, "found none; run `make prometheus`")
    assert found is not None
    return found


def board() -> Iterator[tuple[str, str]]:
    """The title of each panel, and each of its expressions as Grafana sends it."""
    content = json.loads((MONITORING / "board.json").read_text())
    for panel in content["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"].replace("$__rate_interval", "1m").replace("$instance", ".+")
            assert "$" not in expression, expression
            yield panel["title"], expression


def alerts() -> Iterator[tuple[str, str]]:
    """The name and the expression of each alert."""
    for group in yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


# -- without a node


async def checked(*command: str | Path, said: bytes = b"") -> str:
    """What a tool says that ends well."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=MONITORING, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    out, _ = await process.communicate(said)
    assert process.returncode == 0, out.decode()
    return out.decode()


async def test_the_alerts_are_rules_that_fire_when_they_should() -> None:
    promtool = tool("promtool")
    assert "rules found" in await checked(promtool, "check", "rules", "alerts.yaml")
    assert "SUCCESS" in await checked(promtool, "test", "rules", "alerts-tests.yaml")
    tested = {
        case["alertname"]
        for test in yaml.safe_load((MONITORING / "alerts-tests.yaml").read_text())["tests"]
        for case in test["alert_rule_test"]
        if case.get("exp_alerts")
    }
    assert tested == {name for name, _ in alerts()}, "each has a case in which it fires"


async def test_the_settings_are_settings(tmp_path: Path) -> None:
    """As far as Debian's promtool knows them: it has no discovery of nodes, so the nodes stand in a file here."""
    settings = yaml.safe_load((MONITORING / "prometheus.yaml").read_text())
    assert [job.get("metrics_path", "/metrics") for job in settings["scrape_configs"]] == [
        page
        for page in PAGES
        if page != "/metrics/resource"  # that is metrics-server's
    ]
    for job in settings["scrape_configs"]:
        assert job.pop("kubernetes_sd_configs") == [
            {"role": "node", "selectors": [{"role": "node", "label": "wasmlet.dev/provider"}]}
        ]
        job["file_sd_configs"] = [{"files": ["nodes.json"]}]
        job["authorization"]["credentials_file"] = job["tls_config"]["ca_file"] = "secret"
    await asyncio.to_thread(_save, tmp_path, settings)
    assert "SUCCESS" in await checked(tool("promtool"), "check", "config", tmp_path / "prometheus.yaml")


def _save(directory: Path, settings: dict[str, Any]) -> None:
    (directory / "nodes.json").write_text("[]")
    (directory / "secret").touch()
    (directory / "alerts.yaml").write_bytes((MONITORING / "alerts.yaml").read_bytes())
    (directory / "prometheus.yaml").write_text(yaml.safe_dump(settings))


# -- with one


@pytest.fixture
def image(compile_guest: CompileGuest) -> str:
    """The guest that does what its arguments say."""
    return f"file://{build('driver', compile_guest)}"


@pytest.fixture
async def cluster(tmp_path: Path, image: str) -> AsyncIterator[Cluster]:
    """A node whose agent runs wasmtime, with a certificate of its own, and two pods: one is well, one is not."""
    async with AsyncExitStack() as stack:
        plane = await stack.enter_async_context(ControlPlane())
        admin = await stack.enter_async_context(Client(await load_identity(plane.kubeconfig)))
        cluster = Cluster(plane, admin, tmp_path)
        options = ("--provider=wasmtime", "--allow-local-modules", "--shim-idle-exit=1")
        agent = await stack.enter_async_context(agent_running(tmp_path / "agent", *options, program=REAL))
        provider = RemoteProvider(RemoteProvider.Config(endpoint=agent.url))
        own = {"kubeconfig": None, "bootstrap_kubeconfig": plane.bootstrap_kubeconfig()}
        await stack.enter_async_context(cluster.node(provider, drain_on_exit=True, **own))
        for name, code in (("well", "0"), ("unwell", "1")):
            probe = {"exec": {"command": ["driver", "exit", code]}, "periodSeconds": 1}
            container = {"name": "c", "image": image, "args": ["print", "begun", "sleep", "100000"]}
            await cluster.create(
                name, containers=[container | {"readinessProbe": probe}], automountServiceAccountToken=False
            )
            await cluster.until(running, name)
        yield cluster


def _job(path: str, target: str) -> dict[str, Any]:
    """The settings by which a page of the node is scraped."""
    return {
        "job_name": path.strip("/").replace("/", "-"),
        "metrics_path": path,
        "scheme": "https",
        "tls_config": {"cert_file": "client-certificate", "key_file": "client-key", "insecure_skip_verify": True},
        "static_configs": [{"targets": [target], "labels": {"instance": NODE, "pool": "edge"}}],
    }


def _write(directory: Path, settings: dict[str, Any], kubeconfig: Path) -> None:
    """Make a directory with the settings, and with the certificate that this kubeconfig has."""
    directory.mkdir()
    user = yaml.safe_load(kubeconfig.read_text())["users"][0]["user"]
    for name in ("client-certificate", "client-key"):
        (directory / name).write_bytes(base64.b64decode(user[f"{name}-data"]))
    (directory / "prometheus.yaml").write_text(yaml.safe_dump(settings))


@asynccontextmanager
async def prometheus(cluster: Cluster, directory: Path) -> AsyncIterator[str]:
    """A Prometheus that scrapes the node; its address."""
    node = await cluster.admin.get(f"/api/v1/nodes/{NODE}")
    target = f"127.0.0.1:{node['status']['daemonEndpoints']['kubeletEndpoint']['Port']}"
    settings = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(MONITORING / "alerts.yaml")],
        "scrape_configs": [_job(path, target) for path in PAGES],
    }
    await asyncio.to_thread(_write, directory, settings, cluster.plane.kubeconfig)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    process = await asyncio.create_subprocess_exec(
        tool("prometheus"), "--config.file=prometheus.yaml", f"--web.listen-address={address}",
        f"--storage.tsdb.path={directory / 'data'}", "--log.level=warn",
        cwd=directory, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        _, said = await process.communicate()
        assert b"level=error" not in said, said.decode()


class Asking:
    """Asks a Prometheus."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def get(self, path: str, **params: str) -> Any:
        async with self._session.get(f"{self._url}/api/v1/{path}", params=params) as answer:
            found = await answer.json()
            assert found["status"] == "success", found
            return found["data"]

    async def query(self, expression: str) -> list[Any]:
        found: list[Any] = (await self.get("query", query=expression))["result"]
        return found

    async def until(self, expression: str) -> None:
        """Return when the expression has data."""
        async with asyncio.timeout(SECONDS):
            while True:
                try:
                    if await self.query(expression):
                        return
                except aiohttp.ClientError:
                    pass  # it has not started yet
                await asyncio.sleep(0.5)


async def test_a_prometheus_has_data_for_all_of_it(cluster: Cluster, tmp_path: Path) -> None:
    async with prometheus(cluster, tmp_path / "prometheus") as url, aiohttp.ClientSession() as session:
        ask = Asking(session, url)
        # Every page is scraped, more than once; and both probes have had results in between.
        await ask.until(f"count(sum_over_time(up[1m]) >= 5) == {len(PAGES)}")
        for result in ("successful", "failed"):
            await ask.until(f'rate(prober_probe_total{{result="{result}"}}[1m]) > 0')
        without = []
        for title, expression in board():
            if not await ask.query(expression) and not any(part in expression for part in WITHOUT_DATA):
                without.append(f"{title}: {expression}")
        assert without == []
        rules = [rule for group in (await ask.get("rules"))["groups"] for rule in group["rules"]]
        assert {rule["name"]: rule["health"] for rule in rules} == {name: "ok" for name, _ in alerts()}
        assert {rule["name"] for rule in rules if rule["state"] != "inactive"} == set()
        there = set(await ask.get("label/__name__/values")) | set(NEVER_THERE)
        used = {name for _, rule in alerts() for name in re.findall(r"\b(?:up|[a-z]+_[a-z_]+)\b", _bare(rule))}
        assert used - there == set()
        assert {"kubelet_running_pods", "rest_client_requests_total"} < used


def _bare(expression: str) -> str:
    """An expression without functions, labels and clauses: what is left are numbers, operators and names of metrics."""
    plain = re.sub(r"\{[^}]*\}|\[[^]]*\]|\b(?:by|on)\s*\([^)]*\)", "", expression)
    return re.sub(r"\b\w+\s*(?=\()", "", plain)


async def test_each_page_is_as_promtool_wants_it(cluster: Cluster) -> None:
    context = (await load_identity(cluster.plane.kubeconfig)).ssl_context
    assert context is not None
    context.check_hostname, context.verify_mode = False, 0
    node = await cluster.admin.get(f"/api/v1/nodes/{NODE}")
    base = f"https://127.0.0.1:{node['status']['daemonEndpoints']['kubeletEndpoint']['Port']}"
    async with aiohttp.ClientSession() as session:
        for page in PAGES:
            async with session.get(base + page, ssl=context) as answer:
                text = await answer.read()
            said = await checked(tool("promtool"), "check", "metrics", said=text)
            ours = [line for line in said.splitlines() if line.startswith("wasmlet_")]
            assert ours == [], page
