"""Claims are bound to volumes that somebody made, as kubectl shows it."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from wasmlet.kube import Client, load_identity
from wasmlet.testing import ControlPlane

VOLUMES = "/api/v1/persistentvolumes"
CLAIMS = "/api/v1/namespaces/default/persistentvolumeclaims"
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
PODS = "/api/v1/namespaces/default/pods"


@pytest.fixture
async def plane() -> AsyncIterator[ControlPlane]:
    async with ControlPlane() as plane:
        yield plane


@pytest.fixture
async def admin(plane: ControlPlane) -> AsyncIterator[Client]:
    async with Client(await load_identity(plane.kubeconfig)) as admin:
        yield admin


def volume(name: str, size: str = "1Gi", *, modes: tuple[str, ...] = ("ReadWriteOnce",), **spec: Any) -> dict[str, Any]:
    labels = spec.pop("labels", {})
    given = {"capacity": {"storage": size}, "accessModes": list(modes), "hostPath": {"path": f"/data/{name}"}, **spec}
    return {"metadata": {"name": name, "labels": labels}, "spec": given}


def claim(
    name: str = "c", size: str = "1Gi", *, modes: tuple[str, ...] = ("ReadWriteOnce",), **spec: Any
) -> dict[str, Any]:
    given = {"resources": {"requests": {"storage": size}}, "accessModes": list(modes), **spec}
    return {"metadata": {"name": name}, "spec": given}


async def until(admin: Client, path: str, wanted: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while not wanted(found := await admin.get(path)):  # noqa: ASYNC110 - of any kind, by any path
            await asyncio.sleep(0.02)
    return found


def phase(word: str) -> Callable[[dict[str, Any]], bool]:
    return lambda obj: obj["status"]["phase"] == word


async def reasons(admin: Client, name: str) -> list[str]:
    events = (await admin.get("/api/v1/events"))["items"]
    return [event["reason"] for event in events if event["involvedObject"]["name"] == name]


async def test_the_smallest_that_fits_is_taken_and_each_names_the_other(
    plane: ControlPlane, admin: Client, kubectl: Path
) -> None:
    for one in (
        volume("large", "9Gi"),
        volume("small", "1Gi"),
        volume("fits", "3Gi", modes=("ReadWriteOnce", "ReadOnlyMany")),
    ):
        await admin.create(VOLUMES, one)
    await until(admin, f"{VOLUMES}/fits", phase("Available"))
    await admin.create(CLAIMS, claim(size="2Gi"))
    bound = await until(admin, f"{CLAIMS}/c", phase("Bound"))
    assert bound["spec"]["volumeName"] == "fits"
    assert bound["status"]["capacity"] == {"storage": "3Gi"}
    assert bound["status"]["accessModes"] == ["ReadWriteOnce", "ReadOnlyMany"]
    assert bound["metadata"]["annotations"] == {
        "pv.kubernetes.io/bind-completed": "yes",
        "pv.kubernetes.io/bound-by-controller": "yes",
    }
    taken = await until(admin, f"{VOLUMES}/fits", phase("Bound"))
    assert taken["spec"]["claimRef"]["uid"] == bound["metadata"]["uid"]
    shown = await asyncio.to_thread(
        subprocess.run,
        [kubectl, "--kubeconfig", plane.kubeconfig, "get", "pv,pvc"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    rows = [line.split() for line in shown.stdout.splitlines()]
    assert ["persistentvolume/fits", "3Gi", "RWO,ROX", "Retain", "Bound", "default/c"] in [row[:6] for row in rows]
    assert ["persistentvolumeclaim/c", "Bound", "fits", "3Gi", "RWO,ROX"] in [row[:5] for row in rows]


@pytest.mark.parametrize(
    ("offered", "wanted"),
    [
        (volume("v", "1Gi"), claim(size="2Gi")),
        (volume("v"), claim(modes=("ReadWriteMany",))),
        (volume("v", storageClassName="a"), claim(storageClassName="b")),
        (volume("v", storageClassName="a"), claim()),
        (volume("v", labels={"x": "1"}), claim(selector={"matchLabels": {"x": "2"}})),
        (volume("v", volumeMode="Block"), claim()),
        (volume("v", claimRef={"namespace": "default", "name": "other"}), claim()),
    ],
    ids=["size", "access modes", "class", "no class", "selector", "mode", "kept for another"],
)
async def test_what_does_not_fit_is_not_bound(admin: Client, offered: dict[str, Any], wanted: dict[str, Any]) -> None:
    await admin.create(VOLUMES, offered)
    await admin.create(CLAIMS, wanted)
    await admin.create(VOLUMES, volume("after", "5Gi", modes=("ReadWriteOnce", "ReadWriteMany")))
    await until(admin, f"{VOLUMES}/after", lambda obj: obj["status"]["phase"] in ("Available", "Bound"))
    assert (await admin.get(f"{VOLUMES}/v"))["status"]["phase"] in ("Available", "Pending")
    assert (await admin.get(f"{CLAIMS}/c"))["spec"].get("volumeName") in (None, "after")


async def test_a_volume_that_comes_later_is_taken(admin: Client) -> None:
    await admin.create(CLAIMS, claim())
    await until(admin, "/api/v1/events", lambda found: any(e["reason"] == "FailedBinding" for e in found["items"]))
    await admin.create(VOLUMES, volume("v"))
    await until(admin, f"{CLAIMS}/c", phase("Bound"))
    assert (await reasons(admin, "c")).count("FailedBinding") == 1


async def test_by_name_on_either_side(admin: Client) -> None:
    await admin.create(VOLUMES, volume("mine", claimRef={"namespace": "default", "name": "kept"}))
    await admin.create(VOLUMES, volume("named", "5Gi"))
    await admin.create(CLAIMS, claim("asks", volumeName="named"))
    await admin.create(CLAIMS, claim("kept"))
    for name, wanted in (("asks", "named"), ("kept", "mine")):
        assert (await until(admin, f"{CLAIMS}/{name}", phase("Bound")))["spec"]["volumeName"] == wanted
    await admin.create(CLAIMS, claim("late", volumeName="named"))
    await until(admin, "/api/v1/events", lambda found: "already bound to a different claim" in str(found))


@pytest.mark.parametrize(
    ("offered", "words"),
    [
        ({"size": "1Gi"}, "requested PV is too small"),
        ({"storageClassName": "other"}, "storageClassName does not match"),
        ({"volumeMode": "Block"}, "incompatible volumeMode"),
        ({"modes": ("ReadOnlyMany",)}, "incompatible accessMode"),
    ],
)
async def test_a_volume_asked_for_by_name_has_to_fit(admin: Client, offered: dict[str, Any], words: str) -> None:
    await admin.create(VOLUMES, volume("v", **{"size": "5Gi"} | offered))
    await admin.create(CLAIMS, claim(size="2Gi", volumeName="v"))
    message = f'Cannot bind to requested volume "v": {words}'
    await until(admin, "/api/v1/events", lambda found: message in {event["message"] for event in found["items"]})
    assert await reasons(admin, "c") == ["VolumeMismatch"]
    assert (await admin.get(f"{CLAIMS}/c"))["status"]["phase"] == "Pending"
    assert "claimRef" not in (await admin.get(f"{VOLUMES}/v"))["spec"]


async def test_a_volume_that_is_kept_for_a_claim_may_be_of_any_class(admin: Client) -> None:
    """It waits for no consumer either: an administrator has said which volume it is."""
    waits = {"provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer"}
    await admin.create(CLASSES, {"metadata": {"name": "local"}, **waits})
    await admin.create(VOLUMES, volume("v", storageClassName="", claimRef={"namespace": "default", "name": "c"}))
    await admin.create(CLAIMS, claim(storageClassName="local"))
    assert (await until(admin, f"{CLAIMS}/c", phase("Bound")))["spec"]["volumeName"] == "v"


@pytest.mark.parametrize(("policy", "left"), [("Retain", "Released"), ("Delete", "Failed")])
async def test_what_a_claim_leaves_behind(admin: Client, policy: str, left: str) -> None:
    await admin.create(VOLUMES, volume("v", persistentVolumeReclaimPolicy=policy))
    await admin.create(CLAIMS, claim())
    await until(admin, f"{CLAIMS}/c", phase("Bound"))
    await admin.delete(f"{CLAIMS}/c")
    await until(admin, f"{VOLUMES}/v", phase(left))
    await admin.create(CLAIMS, claim())  # of the same name, and another claim
    await until(admin, "/api/v1/events", lambda found: "no persistent volumes available" in str(found))
    assert (await admin.get(f"{VOLUMES}/v"))["status"]["phase"] == left


async def test_a_claim_whose_volume_is_gone_is_lost(admin: Client) -> None:
    await admin.create(VOLUMES, volume("v"))
    await admin.create(CLAIMS, claim())
    await until(admin, f"{CLAIMS}/c", phase("Bound"))
    await admin.delete(f"{VOLUMES}/v")
    await until(admin, f"{CLAIMS}/c", phase("Lost"))


async def test_the_first_consumer_says_which_node(admin: Client) -> None:
    await admin.create(CLASSES, {
        "metadata": {"name": "local"},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    })  # fmt: skip
    for node in ("n1", "n2"):
        await admin.create("/api/v1/nodes", {"metadata": {"name": node, "labels": {"kubernetes.io/hostname": node}}})
        term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}
        affinity = {"required": {"nodeSelectorTerms": [term]}}
        await admin.create(VOLUMES, volume(f"on-{node}", storageClassName="local", nodeAffinity=affinity))
    await admin.create(CLAIMS, claim(storageClassName="local"))
    await until(admin, "/api/v1/events", lambda found: "waiting for first consumer" in str(found))
    assert (await admin.get(f"{CLAIMS}/c"))["status"]["phase"] == "Pending"
    await admin.create(PODS, {"metadata": {"name": "p"}, "spec": {
        "nodeName": "n2",
        "containers": [{"name": "c", "image": "x"}],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}],
    }})  # fmt: skip
    assert (await until(admin, f"{CLAIMS}/c", phase("Bound")))["spec"]["volumeName"] == "on-n2"
