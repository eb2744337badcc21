"""Lists and watches: replay, resume, 410, bookmarks, pages, selections, and readers that fall behind."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import Any

import pytest

from tests.controlplane.client import MERGE, PODS, STRATEGIC, Api, node, open_api, pod
from wasmlet.controlplane.http.forms import Plain
from wasmlet.controlplane.http.watch import Watcher
from wasmlet.controlplane.storage.kinds import core
from wasmlet.controlplane.storage.selectors import Selector
from wasmlet.controlplane.storage.status import ApiError
from wasmlet.controlplane.storage.store import RING_BYTES, Store
from wasmlet.testing import ControlPlane

MAPS = "/api/v1/namespaces/kube-public/configmaps"


def config(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels}, "data": {"a": "b"}}


async def version(api: Api, path: str = MAPS) -> str:
    return str((await api.ok("GET", path))["metadata"]["resourceVersion"])


@pytest.mark.parametrize("since", [{}, {"resourceVersion": "0"}, {"resourceVersion": ""}])
async def test_a_watch_from_nowhere_begins_with_what_there_is(api: Api, since: dict[str, str]) -> None:
    await api.ok("POST", MAPS, config("x"))
    async with api.watch(MAPS, **since) as lines:
        assert await lines.take(2) == [("ADDED", "kube-root-ca.crt"), ("ADDED", "x")]
        await api.ok("DELETE", f"{MAPS}/x")
        assert await lines.take(1) == [("DELETED", "x")]


async def test_a_watch_resumes_after_a_version(api: Api) -> None:
    start = await version(api)
    created = await api.ok("POST", MAPS, config("x"))
    await api.ok("PATCH", f"{MAPS}/x", {"data": {"a": "c"}}, media=MERGE)
    deleted = await api.ok("DELETE", f"{MAPS}/x")
    assert deleted["status"] == "Success"
    async with api.watch(MAPS, resourceVersion=start) as lines:
        assert await lines.take(3) == [("ADDED", "x"), ("MODIFIED", "x"), ("DELETED", "x")]
    async with api.watch(MAPS, resourceVersion=created["metadata"]["resourceVersion"]) as lines:
        event = await lines.next()
        assert (event["type"], event["object"]["data"]) == ("MODIFIED", {"a": "c"})
        event = await lines.next()
        assert event["type"] == "DELETED"
        assert int(event["object"]["metadata"]["resourceVersion"]) > int(created["metadata"]["resourceVersion"])


async def test_a_change_of_nothing_is_no_change(api: Api) -> None:
    made = await api.ok("POST", MAPS, config("x"))
    same = await api.ok("PATCH", f"{MAPS}/x", {"data": {"a": "b"}}, media=MERGE)
    assert same["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_too_old_a_version_is_gone() -> None:
    async with ControlPlane(ring=5) as plane, open_api(plane, plane.kubeconfig) as api:
        start = await version(api)
        for at in range(7):
            await api.ok("POST", MAPS, config(f"x{at}"))
        async with api.watch(MAPS, resourceVersion=start) as lines:
            event = await lines.next()
            assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
            assert event["object"]["reason"] == "Expired"
            assert await lines.ended()
        recent = await version(api)
        await api.ok("POST", MAPS, config("y"))
        async with api.watch(MAPS, resourceVersion=recent) as lines:
            assert await lines.take(1) == [("ADDED", "y")]


def _pod_of_many(restarts: int) -> dict[str, Any]:
    """A pod of 500 containers as the store has it after so many statuses."""
    statuses = [
        {"name": f"c{at}", "image": "img:1", "restartCount": restarts, "state": {"running": {"startedAt": "x" * 40}}}
        for at in range(500)
    ]
    return {"metadata": {"name": "p", "namespace": "default"}, "status": {"containerStatuses": statuses}}


def test_history_is_bounded_by_bytes_and_takes_no_more_memory_than_these() -> None:
    store = Store()
    store.write(core("pods"), _pod_of_many(0))
    size = len(store["pods"].ring[0].record.json)
    tracemalloc.start()
    try:
        for restarts in range(1, 600):
            store.write(core("pods"), _pod_of_many(restarts))
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    kept = len(store["pods"].ring)
    assert RING_BYTES - 2 * size < sum(len(event.record.json) for event in store["pods"].ring) <= RING_BYTES
    assert taken < RING_BYTES * 1.2 + 40 * size
    with pytest.raises(ApiError, match="too old resource version"):
        store["pods"].since(store.version - kept - 1)
    found = store["pods"].since(store.version - kept)
    assert len(found) == kept
    assert found[0].record.raw["status"]["containerStatuses"][0]["restartCount"] == 600 - kept


def test_a_change_that_is_larger_than_all_of_the_history_is_kept() -> None:
    store = Store()
    store.write(core("pods"), _pod_of_many(0))
    large = {"metadata": {"name": "q", "namespace": "default"}, "status": {"message": "x" * RING_BYTES}}
    store.write(core("pods"), large)
    assert [event.record.name for event in store["pods"].since(store.version - 1)] == ["q"]


async def test_a_reader_is_cut_off_that_leaves_many_bytes_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wasmlet.controlplane.http.watch.PENDING_BYTES", 100_000)
    store = Store()
    watcher = Watcher(store["pods"], Selector(), Plain(core("pods")))
    for at in range(3):
        store.write(core("pods"), {**_pod_of_many(at), "metadata": {"name": f"p{at}", "namespace": "default"}})
    sent: asyncio.Queue[bytes] = asyncio.Queue()

    # What it is told at first does not count: it cannot have been read yet.
    watcher.open(since=None, replay=True, mark_initial=False, version=store.version)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        running = group.create_task(watcher.run(sent.put, seconds=600, bookmarks=None, version=lambda: store.version))
        assert (await sent.get()).count(b"\n") == 3
        for at in range(3):  # changes that are read at once
            store.write(core("pods"), _pod_of_many(at))
            assert (await sent.get()).count(b"\n") == 1
        store.write(core("pods"), _pod_of_many(3))
        store.write(core("pods"), _pod_of_many(4))
        await running
    assert sent.empty()


async def test_bookmarks_say_how_far_the_reader_is() -> None:
    async with ControlPlane(bookmarks=0.05) as plane, open_api(plane, plane.kubeconfig) as api:
        start = await version(api)
        async with api.watch(MAPS, resourceVersion=start, allowWatchBookmarks="true") as lines:
            await api.ok("POST", PODS, pod())
            event = await lines.next()
            while int(event["object"]["metadata"]["resourceVersion"]) <= int(start):
                event = await lines.next()
            assert event["type"] == "BOOKMARK"
            assert event["object"]["kind"] == "ConfigMap"


async def test_initial_events_end_with_a_bookmark(api: Api) -> None:
    parameters = {
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
        "allowWatchBookmarks": "true",
    }
    async with api.watch(MAPS, **parameters) as lines:
        assert await lines.take(1) == [("ADDED", "kube-root-ca.crt")]
        event = await lines.next()
        assert event["type"] == "BOOKMARK"
        assert event["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        await api.ok("POST", MAPS, config("x"))
        assert await lines.take(1) == [("ADDED", "x")]
    status, answer = await api("GET", f"{MAPS}?watch=1&sendInitialEvents=true")
    assert (status, answer["reason"]) == (400, "BadRequest")


async def test_a_selection_sees_objects_come_and_go(api: Api) -> None:
    start = await version(api)
    async with api.watch(MAPS, resourceVersion=start, labelSelector="tier=front") as lines:
        await api.ok("POST", MAPS, config("x", tier="back"))
        await api.ok("POST", MAPS, config("y", tier="front"))
        assert await lines.take(1) == [("ADDED", "y")]
        changed = await api.ok("PATCH", f"{MAPS}/x", {"metadata": {"labels": {"tier": "front"}}}, media=MERGE)
        assert changed["metadata"]["labels"] == {"tier": "front"}
        assert await lines.take(1) == [("ADDED", "x")]
        left = await api.ok("PATCH", f"{MAPS}/x", {"metadata": {"labels": {"tier": "back"}}}, media=MERGE)
        event = await lines.next()
        assert (event["type"], event["object"]["metadata"]["labels"]) == ("DELETED", {"tier": "front"})
        assert event["object"]["metadata"]["resourceVersion"] == left["metadata"]["resourceVersion"]


async def test_a_watch_ends_after_its_time(api: Api) -> None:
    async with api.watch(MAPS, timeoutSeconds="1", resourceVersion=await version(api)) as lines:
        assert await lines.ended()


async def test_a_watch_ends_with_the_control_plane() -> None:
    async with ControlPlane() as plane, open_api(plane, plane.kubeconfig) as api, api.watch(MAPS) as lines:
        await lines.take(1)
        begin = asyncio.get_running_loop().time()
        await plane.__aexit__(None, None, None)
        assert await lines.ended()
        assert asyncio.get_running_loop().time() - begin < 20


def test_a_reader_that_falls_behind_is_cut_off() -> None:
    store = Store()
    kind = core("configmaps")
    watcher = Watcher(store.of(kind), Selector(), Plain(kind), pending=3)

    async def run() -> list[bytes]:
        sent: list[bytes] = []
        started, release = asyncio.Event(), asyncio.Event()

        async def slow(data: bytes) -> None:
            sent.append(data)
            started.set()
            await release.wait()

        watcher.open(since=None, replay=True, mark_initial=False, version=store.version)
        task = asyncio.create_task(watcher.run(slow, seconds=60, bookmarks=None, version=lambda: store.version))
        store.write(kind, {"metadata": {"name": "first", "namespace": "default"}})
        await started.wait()
        for at in range(5):
            store.write(kind, {"metadata": {"name": f"x{at}", "namespace": "default"}})
        release.set()
        await asyncio.wait_for(task, 30)
        return sent

    sent = asyncio.run(run())
    assert len(sent) == 1
    assert b"first" in sent[0]
    assert not store.of(kind).followers


async def test_pages_show_what_the_first_one_saw(api: Api) -> None:
    for at in range(5):
        await api.ok("POST", MAPS, config(f"x{at}"))
    first = await api.ok("GET", f"{MAPS}?limit=2")
    assert [item["metadata"]["name"] for item in first["items"]] == ["kube-root-ca.crt", "x0"]
    assert first["metadata"]["remainingItemCount"] == 4
    await api.ok("DELETE", f"{MAPS}/x3")
    await api.ok("POST", MAPS, config("x9"))
    seen, token = [], first["metadata"]["continue"]
    while token:
        page = await api.ok("GET", f"{MAPS}?limit=3&continue={token}")
        assert page["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
        seen += [item["metadata"]["name"] for item in page["items"]]
        token = page["metadata"].get("continue")
    assert seen == ["x1", "x2", "x3", "x4"]
    status, answer = await api("GET", f"{MAPS}?limit=3&continue=bm9uZQ==")
    assert (status, answer["reason"]) == (400, "BadRequest")


async def test_pages_of_a_list_that_is_no_longer_kept(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wasmlet.controlplane.storage.store.SNAPSHOTS", 1)
    for at in range(5):
        await api.ok("POST", MAPS, config(f"x{at}"))
    first = await api.ok("GET", f"{MAPS}?limit=2")
    await api.ok("GET", f"{MAPS}?limit=2")
    status, answer = await api("GET", f"{MAPS}?limit=2&continue={first['metadata']['continue']}")
    assert (status, answer["reason"]) == (410, "Expired")


async def test_versions_of_lists(api: Api) -> None:
    now = int(await version(api))
    status, answer = await api("GET", f"{MAPS}?resourceVersion={now + 100}")
    assert (status, answer["reason"], answer["details"]["retryAfterSeconds"]) == (504, "Timeout", 1)
    assert (await api("GET", f"{MAPS}?resourceVersion={now}&resourceVersionMatch=Exact"))[0] == 200
    await api.ok("POST", MAPS, config("x"))
    assert (await api("GET", f"{MAPS}?resourceVersion={now}&resourceVersionMatch=Exact"))[0] == 410
    assert (await api("GET", f"{MAPS}?resourceVersion={now}"))[0] == 200
    assert (await api("GET", f"{MAPS}?resourceVersion=x"))[0] == 400


async def test_items_of_a_list_name_no_kind(api: Api) -> None:
    listed = await api.ok("GET", MAPS)
    assert (listed["kind"], listed["apiVersion"]) == ("ConfigMapList", "v1")
    assert "kind" not in listed["items"][0]
    assert (await api.ok("GET", f"{MAPS}/kube-root-ca.crt"))["kind"] == "ConfigMap"


async def test_field_selectors(api: Api) -> None:
    for name in ("n1", "n2"):
        await api.ok("POST", "/api/v1/nodes", node(name))
        await api.ok("POST", PODS, pod(f"on-{name}", nodeName=name))
    await api.ok("PATCH", f"{PODS}/on-n2/status", {"status": {"phase": "Running"}}, media=STRATEGIC)

    async def names(fields: str) -> list[str]:
        return [
            item["metadata"]["name"] for item in (await api.ok("GET", f"/api/v1/pods?fieldSelector={fields}"))["items"]
        ]

    assert await names("spec.nodeName=n1") == ["on-n1"]
    assert await names("spec.nodeName!=n1") == ["on-n2"]
    assert await names("spec.nodeName%3D%3Dn2,status.phase%3DRunning") == ["on-n2"]
    assert await names("spec.nodeName=n2,status.phase=Pending") == []
    assert await names("metadata.name=on-n1,metadata.namespace=default") == ["on-n1"]
    assert await names("spec.nodeName=nowhere") == []
    status, answer = await api("GET", "/api/v1/pods?fieldSelector=spec.hostname=x")
    assert (status, answer["message"]) == (400, "field label not supported: spec.hostname")
    assert (await api("GET", "/api/v1/pods?labelSelector=a%20b"))[0] == 400


async def test_a_watch_of_one_node_sees_its_pods_only(api: Api) -> None:
    start = await version(api, PODS)
    async with api.watch("/api/v1/pods", resourceVersion=start, fieldSelector="spec.nodeName=n1") as lines:
        await api.ok("POST", PODS, pod("other", nodeName="n2"))
        await api.ok("POST", PODS, pod("waits"))
        await api.ok("POST", PODS, pod("mine", nodeName="n1"))
        assert await lines.take(1) == [("ADDED", "mine")]
        binding = {"metadata": {"name": "waits"}, "target": {"kind": "Node", "name": "n1"}}
        await api.ok("POST", f"{PODS}/waits/binding", binding)
        assert await lines.take(1) == [("ADDED", "waits")]


async def test_tables_in_lists_and_watches(api: Api) -> None:
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
    await api.ok("POST", MAPS, config("x"))
    table = await api.ok("GET", MAPS, Accept=accept)
    assert table["kind"] == "Table"
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Data", "Age"]
    assert table["rows"][1]["cells"][:2] == ["x", 1]
    assert table["rows"][1]["object"]["kind"] == "PartialObjectMetadata"
    async with api.watch(f"{MAPS}", accept=accept, fieldSelector="metadata.name=x") as lines:
        event = await lines.next()
        assert event["object"]["rows"][0]["cells"][:2] == ["x", 1]
    partial = await api.ok("GET", MAPS, Accept="application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io")
    assert partial["kind"] == "PartialObjectMetadataList"
    assert "data" not in partial["items"][1]
    assert (await api("GET", MAPS, Accept="application/vnd.kubernetes.protobuf"))[0] == 406
    mixed = await api.ok("GET", MAPS, Accept="application/vnd.kubernetes.protobuf,application/json")
    assert mixed["kind"] == "ConfigMapList"


async def test_many_watches_get_the_same(api: Api) -> None:
    start = await version(api)

    async def read() -> list[tuple[str, str]]:
        async with api.watch(MAPS, resourceVersion=start) as lines:
            return await lines.take(50)

    readers = [asyncio.create_task(read()) for _ in range(20)]
    await asyncio.gather(*(api.ok("POST", MAPS, config(f"x{at:02}")) for at in range(50)))
    results = await asyncio.gather(*readers)
    assert sorted(results[0]) == [("ADDED", f"x{at:02}") for at in range(50)]
    assert all(result == results[0] for result in results)
