"""The endpoints that stream nothing: their shapes, their errors, and what is refused."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import structlog.testing
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from tests.kubelet.harness import NODE, Kubelet, View, kubelet
from wasmlet.errors import Unsupported, WasmletError
from wasmlet.kubelet import stats
from wasmlet.kubelet.cadvisor import cadvisor_metrics
from wasmlet.kubelet.server import REQUEST_BYTES
from wasmlet.kubelet.tls import self_signed
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod, PodKey, Raw
from wasmlet.model.times import parse
from wasmlet.provider import LogOptions
from wasmlet.testing.reference import ReferenceProvider
from wasmlet.testing.usage import Usage

POD = Pod(
    {
        "metadata": {"name": "p", "namespace": "default", "uid": "u1"},
        "spec": {"containers": [{"name": "c", "image": "file:///c.wasm"}]},
    }
)


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Kubelet]:
    provider = ReferenceProvider()
    await provider.create_pod(POD, Inputs())
    async with kubelet(tmp_path, provider=provider) as made:
        made.pods.views.append(View(POD, await provider.pod_status(POD.key)))
        yield made


def samples(text: str) -> dict[tuple[str, ...], tuple[float, float | None]]:
    """Name and label values (by their labels' names) of each sample, to its value and its time."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): (sample.value, sample.timestamp)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class TestPaths:
    @pytest.mark.parametrize(
        ("method", "path", "status", "text"),
        [
            ("GET", "/", 404, "404: Page Not Found"),
            ("GET", "/nowhere", 404, "404: Page Not Found"),
            ("GET", "/containerLogs/default/p", 404, "404: Page Not Found"),
            ("GET", "/stats", 404, "404: Page Not Found"),
            ("GET", "/stats/../pods", 404, "404: Page Not Found"),
            ("GET", "/%68ealthz", 200, "ok"),
            ("GET", "/metrics%2fresource", 404, "404: Page Not Found"),
            ("POST", "/pods", 405, "405: Method Not Allowed"),
            ("DELETE", "/containerLogs/default/p/c", 405, "405: Method Not Allowed"),
            ("GET", "/logs/", 405, "logs endpoint is disabled.\n"),
            ("GET", "/logs/syslog", 405, "logs endpoint is disabled.\n"),
            ("GET", "/healthz", 200, "ok"),
            ("GET", "/healthz/ping", 200, "ok"),
            ("GET", "/healthz/nothing", 404, "404 page not found\n"),
            ("GET", "/healthz?timeout=32s&what=ever", 200, "ok"),
            ("GET", "/containerLogs/default/p/other", 404, "container other not found in pod p"),
            ("GET", "/containerLogs/default/other/c", 404, 'pod "other" does not exist'),
            ("GET", "/containerLogs/default/p/u1/c?unknown=1", 200, ""),
            ("GET", "/containerLogs/default/p/u2/c", 404, 'pod "p" does not exist'),
            ("GET", "/containerLogs/default/p%2Fu1/c", 404, 'pod "p/u1" does not exist'),
        ],
    )
    async def test_an_answer(self, node: Kubelet, method: str, path: str, status: int, text: str) -> None:
        url = path.encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", node.server.port, ssl=node.client("root"))
        writer.write(method.encode() + b" " + url + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        assert int(head.split()[1]) == status
        if b"chunked" in head:
            body = body.partition(b"\r\n")[2][:0]  # an empty log
        assert body.decode() == text

    async def test_head_is_no_get(self, node: Kubelet) -> None:
        assert (await node("/pods", method="HEAD"))[0] == 405


class TestHealth:
    async def test_a_check_that_fails(self, tmp_path: Path) -> None:
        trouble = ""
        checks = {"ping": str, "syncloop": lambda: trouble}
        async with kubelet(tmp_path, checks=checks) as node:
            assert await node("/healthz?verbose") == (200, "[+]ping ok\n[+]syncloop ok\nhealthz check passed\n")
            trouble = "it hangs"
            words = "[+]ping ok\n[-]syncloop failed: reason withheld\nhealthz check failed\n"
            assert await node("/healthz") == (500, words)
            assert await node("/healthz/syncloop") == (500, "internal server error: it hangs\n")
            assert await node("/healthz?exclude=syncloop") == (200, "ok")


class TestStats:
    async def test_a_summary(self, node: Kubelet) -> None:
        node.provider.usage["u1", "c"] = Usage(cpu_seconds=2.5, memory_bytes=7 * 2**20)
        status, text = await node("/stats/summary")
        assert status == 200
        summary = orjson.loads(text)
        assert summary["node"]["nodeName"] == NODE
        (pod,) = summary["pods"]
        assert pod["podRef"] == {"name": "p", "namespace": "default", "uid": "u1"}
        (container,) = pod["containers"]
        assert container["cpu"]["usageCoreNanoSeconds"] == 2_500_000_000
        assert container["memory"]["workingSetBytes"] == 7 * 2**20
        for method in ("GET", "POST"):
            status, text = await node("/stats/summary?only_cpu_and_memory=true", method=method)
            assert status == 200
            assert set(orjson.loads(text)["pods"][0]["containers"][0]) == {"name", "startTime", "cpu", "memory"}

    async def test_the_metrics_that_metrics_server_reads(self, node: Kubelet) -> None:
        node.provider.usage["u1", "c"] = Usage(cpu_seconds=2.5, memory_bytes=7 * 2**20)
        status, text = await node("/metrics/resource")
        assert status == 200
        found = samples(text)
        cpu, at = found["container_cpu_usage_seconds_total", "c", "default", "p"]
        assert cpu == 2.5
        assert at is not None
        assert abs(at - datetime.now(UTC).timestamp()) < 60
        assert found["container_memory_working_set_bytes", "c", "default", "p"][0] == 7 * 2**20
        start = (await node.provider.pod_status(POD.key)).containers[0].state.started_at
        assert found["container_start_time_seconds", "c", "default", "p"] == (int(start.timestamp()), None)
        assert found["pod_cpu_usage_seconds_total", "default", "p"][0] == 2.5
        assert found["pod_memory_working_set_bytes", "default", "p"][0] == 7 * 2**20
        assert found["node_cpu_usage_seconds_total",][0] == 2.5
        assert found["node_memory_working_set_bytes",][0] == 7 * 2**20
        assert found["resource_scrape_error",] == found["scrape_error",] == (0, None)
        assert "# TYPE container_cpu_usage_seconds_total counter" in text

    async def test_what_boards_read_of_containers(self, node: Kubelet) -> None:
        """The queries of public boards: of containers they take the series that have an image, of pods the others."""
        node.provider.usage["u1", "c"] = Usage(cpu_seconds=2.5, memory_bytes=7 * 2**20)
        status, text = await node("/metrics/cadvisor")
        assert status == 200
        found = {
            (sample.name, sample.labels.get("container")): sample
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        cpu = found["container_cpu_usage_seconds_total", "c"]
        instance = (await node.provider.pod_status(POD.key)).containers[0].container_id.removeprefix("reference://")
        assert cpu.value == 2.5
        assert cpu.labels == {
            "container": "c",
            "cpu": "total",
            "id": f"/kubepods/podu1/{instance}",
            "image": POD.containers[0].image,
            "name": instance,
            "namespace": "default",
            "pod": "p",
        }
        assert cpu.labels["image"]
        whole = found["container_memory_working_set_bytes", ""]
        assert (whole.value, whole.labels["image"], whole.labels["pod"]) == (7 * 2**20, "", "p")
        assert found["container_spec_memory_limit_bytes", "c"].value == 0
        assert found["container_scrape_error", None].value == 0
        assert found["machine_cpu_cores", None].value == 4

    async def test_a_container_that_ended_has_no_figures(self, node: Kubelet) -> None:
        node.provider.finish(POD.key)
        assert not [name for name in samples((await node("/metrics/resource"))[1]) if name[0].startswith("container")]

    async def test_a_provider_that_does_not_measure(self, tmp_path: Path) -> None:
        class Unmeasured(ReferenceProvider):
            async def stats(self) -> Raw:
                raise Unsupported("provider reference does not measure its pods")

        async with kubelet(tmp_path, provider=Unmeasured()) as node:
            for path in ("/stats/summary", "/metrics/resource", "/metrics/cadvisor"):
                assert await node(path) == (501, "provider reference does not measure its pods")

    @pytest.mark.parametrize("fault", ["raises", "hangs", "talks nonsense"])
    async def test_a_provider_that_fails_to_measure(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
    ) -> None:
        monkeypatch.setattr(stats, "SECONDS", 0.05)

        class Broken(ReferenceProvider):
            async def stats(self) -> Raw:
                if fault == "raises":
                    raise RuntimeError("no figures")
                if fault == "hangs":
                    await asyncio.Event().wait()
                return {"pods": [{"podRef": 1}]}

        async with kubelet(tmp_path, provider=Broken()) as node:
            status, text = await node("/metrics/resource")
            assert status == 200
            assert samples(text)["resource_scrape_error",] == (1, None)
            assert samples((await node("/metrics/cadvisor"))[1])["container_scrape_error",] == (1, None)
            with structlog.testing.capture_logs():
                assert (await node("/stats/summary"))[0] == (200 if fault == "talks nonsense" else 500)

    async def test_probes_have_a_page_of_their_own(self, node: Kubelet) -> None:
        status, text = await node("/metrics/probes")
        assert status == 200
        assert [family.name for family in text_string_to_metric_families(text)] == ["prober_probe"]


_NUMBERS = st.none() | st.integers(0, 2**63) | st.text(max_size=3)
_FIGURES = st.none() | st.fixed_dictionaries(
    {}, optional={"time": st.just("2026-01-01T00:00:00Z") | st.text(max_size=5), "usageCoreNanoSeconds": _NUMBERS}
)
_CONTAINERS = st.lists(st.fixed_dictionaries({}, optional={"name": st.text(max_size=5), "cpu": _FIGURES}), max_size=3)
_PODS = st.fixed_dictionaries(
    {}, optional={"podRef": st.just({"name": "p\n", "namespace": 'd"'}) | st.integers(), "containers": _CONTAINERS}
)


@given(st.fixed_dictionaries({}, optional={"node": st.fixed_dictionaries({"cpu": _FIGURES}), "pods": st.lists(_PODS)}))
def test_any_summary_makes_metrics_that_can_be_read(summary: dict[str, Any]) -> None:
    found = samples(stats.resource_metrics(summary).decode())
    assert found["resource_scrape_error",][0] in (0, 1)
    page = cadvisor_metrics(summary, lambda namespace, name, uid: None, {"cpu": "2"}).decode()
    assert samples(page)["machine_cpu_cores",][0] == 2


class TestBounds:
    async def test_a_body_that_is_too_large_is_refused(self, node: Kubelet) -> None:
        status, text = await node("/stats/summary", method="POST", data=b"x" * (REQUEST_BYTES + 1))
        assert (status, text) == (413, f"expected a body of at most {REQUEST_BYTES} bytes")

    async def test_a_head_that_is_too_large_is_refused(self, node: Kubelet) -> None:
        assert (await node("/healthz", headers={"X-Large": "x" * 100_000}))[0] == 400
        assert (await node("/" + "x" * 100_000))[0] == 400

    @pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: "])
    async def test_a_head_that_stalls_ends_the_connection(self, tmp_path: Path, sent: bytes) -> None:
        async with kubelet(tmp_path, header_seconds=2) as node:
            context = node.client("root")
            reader, writer = await asyncio.open_connection("127.0.0.1", node.server.port, ssl=context)
            writer.write(sent)
            async with asyncio.timeout(30):
                with suppress(ConnectionError, ssl.SSLError):
                    assert await reader.read() == b""
            writer.close()

    async def test_a_handshake_that_stalls_ends_the_connection(self, tmp_path: Path) -> None:
        async with kubelet(tmp_path, header_seconds=0.3) as node:
            reader, writer = await asyncio.open_connection("127.0.0.1", node.server.port)
            async with asyncio.timeout(30):
                with suppress(ConnectionError):
                    assert await reader.read() == b""
            writer.close()

    async def test_one_that_was_quick_may_follow_a_log_for_longer(self, tmp_path: Path) -> None:
        provider = ReferenceProvider()
        await provider.create_pod(POD, Inputs())
        async with kubelet(tmp_path, header_seconds=3, provider=provider) as node:
            node.pods.views.append(View(POD, await provider.pod_status(POD.key)))
            url = f"https://127.0.0.1:{node.server.port}/containerLogs/default/p/c?follow=true"
            async with node.session.get(url, ssl=node.client("root")) as answer:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(3.5):
                        await answer.content.readany()
                provider.log(POD.key, "c", b"still here\n")
                assert await answer.content.readline() == b"still here\n"


async def test_a_new_certificate_is_shown_without_a_restart(node: Kubelet) -> None:
    def serial() -> str:
        return ssl.get_server_certificate(("127.0.0.1", node.server.port))

    before = await asyncio.to_thread(serial)
    connector = aiohttp.TCPConnector(ssl=node.client("root"))
    async with aiohttp.ClientSession(f"https://127.0.0.1:{node.server.port}", connector=connector) as kept:
        assert (await kept.get("/healthz")).status == 200
        node.tls.show(self_signed(NODE, "127.0.0.1", parse("2026-01-01T00:00:00Z")))
        assert (await kept.get("/healthz")).status == 200
    assert await asyncio.to_thread(serial) != before


async def test_no_handshake_fails_while_certificates_change(node: Kubelet) -> None:
    pems = [self_signed(NODE, "127.0.0.1", parse(f"2026-01-0{day}T00:00:00Z")) for day in range(1, 5)]
    over = asyncio.Event()

    async def change() -> None:
        while not over.is_set():
            for pem in pems:
                node.tls.show(pem)
                await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        group.create_task(change())
        for _ in range(50):
            _, writer = await asyncio.open_connection("127.0.0.1", node.server.port, ssl=node.client("root"))
            writer.close()
        over.set()


class Chatty(ReferenceProvider):
    """A provider with a log that has no end, or breaks after its first piece."""

    def __init__(self, *, broken: bool = False) -> None:
        super().__init__()
        self.broken = broken
        self.closed = asyncio.Event()

    async def logs(self, key: PodKey, container: str, options: LogOptions) -> AsyncGenerator[bytes, None]:
        try:
            yield b"x" * 2**16
            if self.broken:
                raise OSError("the disk is gone")
            while True:
                yield b"x" * 2**16
                await asyncio.sleep(0)
        finally:
            self.closed.set()


class TestLogs:
    @pytest.mark.parametrize("query", ["", "?follow=true"])
    async def test_a_reader_who_leaves_is_no_error(
        self, tmp_path: Path, query: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        provider = Chatty()
        await provider.create_pod(POD, Inputs())
        async with kubelet(tmp_path, provider=provider) as node:
            node.pods.views.append(View(POD, await provider.pod_status(POD.key)))
            url = f"https://127.0.0.1:{node.server.port}/containerLogs/default/p/c{query}"
            with structlog.testing.capture_logs() as logs:
                for _ in range(5):
                    provider.closed.clear()
                    async with node.session.get(url, ssl=node.client("root")) as answer:
                        await answer.content.readexactly(2**18)
                        answer.close()
                    async with asyncio.timeout(30):
                        await provider.closed.wait()
        assert not [entry for entry in logs if entry["log_level"] in ("warning", "error")]
        assert not [record for record in caplog.records if record.levelname == "ERROR"]

    @pytest.mark.parametrize(
        ("error", "words"),
        [
            (WasmletError("the agent is away"), "the agent is away"),
            (KeyError("s3cret"), "the node could not answer; its log says why"),
        ],
    )
    async def test_a_log_that_cannot_be_had_says_what_its_provider_says(
        self, tmp_path: Path, error: Exception, words: str
    ) -> None:
        class Broken(ReferenceProvider):
            async def logs(self, key: PodKey, container: str, options: LogOptions) -> AsyncGenerator[bytes, None]:
                raise error
                yield

        provider = Broken()
        await provider.create_pod(POD, Inputs())
        async with kubelet(tmp_path, provider=provider) as node:
            node.pods.views.append(View(POD, await provider.pod_status(POD.key)))
            with structlog.testing.capture_logs():
                assert await node("/containerLogs/default/p/c") == (500, words)
                assert await node("/containerLogs/default/p/c?follow=true") == (500, words)

    async def test_a_log_that_is_followed_has_its_headers_before_its_first_piece(self, tmp_path: Path) -> None:
        class Quiet(ReferenceProvider):
            written = asyncio.Event()

            async def logs(self, key: PodKey, container: str, options: LogOptions) -> AsyncGenerator[bytes, None]:
                await self.written.wait()
                yield b"one\n"

        provider = Quiet()
        await provider.create_pod(POD, Inputs())
        async with asyncio.timeout(30), kubelet(tmp_path, provider=provider) as node:
            node.pods.views.append(View(POD, await provider.pod_status(POD.key)))
            url = f"https://127.0.0.1:{node.server.port}/containerLogs/default/p/c?follow=true"
            async with node.session.get(url, ssl=node.client("root")) as answer:
                assert answer.status == 200
                provider.written.set()
                assert await answer.read() == b"one\n"

    async def test_a_log_that_breaks_does_not_look_whole(self, tmp_path: Path) -> None:
        provider = Chatty(broken=True)
        await provider.create_pod(POD, Inputs())
        async with kubelet(tmp_path, provider=provider) as node:
            node.pods.views.append(View(POD, await provider.pod_status(POD.key)))
            with structlog.testing.capture_logs() as logs, pytest.raises(aiohttp.ClientError):
                await node("/containerLogs/default/p/c")
        assert [entry["event"] for entry in logs] == ["a log breaks off"]
