"""Claims as the API has them: bound to directories of the node, which its owner allows by path or by class."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from wasmlet_wasmtime import WasmtimeProvider

from tests.runtime.files.test_volumes import with_volume
from tests.runtime.harness import Runtime, pod_of
from wasmlet.errors import WasmletError
from wasmlet.model.inputs import Inputs
from wasmlet.runtime import RuntimeConfig
from wasmlet.runtime.files import claims as module
from wasmlet.runtime.files.claims import Claims
from wasmlet.runtime.files.hostpath import HostPaths

SOURCE = {"persistentVolumeClaim": {"claimName": "data"}}
POD = pod_of("x", image="file://x")


def inputs(source: dict[str, Any] | None, *, owner: str = "", name: str = "data", **spec: Any) -> Inputs:
    """A claim, bound to a volume of this source where there is one."""
    metadata: dict[str, Any] = {"name": name, "uid": "1"} | ({"ownerReferences": [{"uid": owner}]} if owner else {})
    claim = {"metadata": metadata, "spec": {"storageClassName": "standard", "accessModes": ["ReadWriteOnce"]} | spec}
    bound = {"metadata": {"name": "pv"}, "spec": {"storageClassName": "standard"} | (source or {})}
    return Inputs(claims={name: claim}, persistent_volumes={name: bound} if source else {})


def host(path: Path, kind: str = "") -> dict[str, Any]:
    return {"hostPath": {"path": str(path), "type": kind}}


@pytest.fixture
def allowed(tmp_path: Path) -> Path:
    """A directory that pods may mount; `elsewhere` beside it is none."""
    for name in ("allowed", "elsewhere"):
        (tmp_path / name / "d").mkdir(parents=True)
    return tmp_path / "allowed"


@pytest.mark.parametrize("source", ["hostPath", "local"])
async def test_what_a_provisioner_makes_is_mounted(image: str, allowed: Path, tmp_path: Path, source: str) -> None:
    config = RuntimeConfig(allow_local_modules=True, allow_storage_class=("standard",))
    async with Runtime(WasmtimeProvider, tmp_path / "state", config) as runtime:
        pod = with_volume("put", "/v/a", "kept", image=image, source=SOURCE)
        key = await runtime.create(pod, inputs(None))
        await runtime.event(key, "FailedMount", 'persistentvolumeclaim "data" is not bound to a volume yet')
        await runtime.provider.update_pod(pod, inputs({source: {"path": str(allowed / "d")}}))
        assert await runtime.output(key) == b"put /v/a: ok\n"
        assert (allowed / "d/a").read_text() == "kept"


async def test_a_claim_that_can_only_be_read(image: str, allowed: Path, tmp_path: Path) -> None:
    config = RuntimeConfig(allow_local_modules=True, allow_host_path=(str(allowed),))
    async with Runtime(WasmtimeProvider, tmp_path / "state", config) as runtime:
        pod = with_volume("put", "/v/a", "x", image=image, source=SOURCE)
        key = await runtime.create(pod, inputs(host(allowed / "d"), accessModes=["ReadOnlyMany"]))
        assert await runtime.output(key) == b"put /v/a: Operation not permitted\n"
    assert os.listdir(allowed / "d") == []


async def test_a_node_that_allows_nothing_says_how_it_can(image: str, tmp_path: Path) -> None:
    async with Runtime(WasmtimeProvider, tmp_path / "state", RuntimeConfig(allow_local_modules=True)) as runtime:
        with pytest.raises(WasmletError, match="--allow-storage-class NAME or --allow-host-path DIRECTORY"):
            await runtime.provider.create_pod(with_volume("x", image=image, source=SOURCE), inputs(None))


def test_a_volume_lies_below_what_is_allowed_or_is_of_a_class_that_is(allowed: Path, tmp_path: Path) -> None:
    elsewhere = host(tmp_path / "elsewhere/d")
    by_path = Claims(None, HostPaths([allowed]))
    assert by_path.bound(POD, "data", inputs(host(allowed / "d"))).path == allowed / "d"
    with pytest.raises(WasmletError, match=r"does not lead below a path that this node allows.*--allow-storage-class"):
        by_path.bound(POD, "data", inputs(elsewhere))
    by_class = Claims(None, HostPaths([]), ("standard",))
    assert by_class.bound(POD, "data", inputs(elsewhere)).path == tmp_path / "elsewhere/d"
    with pytest.raises(WasmletError, match="does not lead below"):
        by_class.bound(POD, "data", inputs(elsewhere, storageClassName="other"))
    with pytest.raises(
        WasmletError, match="does not lead below"
    ):  # a claim names its volume, and its class as it likes
        by_class.bound(POD, "data", inputs(elsewhere | {"storageClassName": "manual"}))
    assert by_path.bound(POD, "data", inputs(host(allowed / "d") | {"accessModes": ["ReadOnlyMany"]})).read_only
    (allowed / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(WasmletError, match="does not lead below"):
        by_path.bound(POD, "data", inputs(host(allowed / "out/d")))
    with pytest.raises(WasmletError, match="does not lead below"):
        by_class.bound(POD, "data", inputs(host(allowed / "out")))


@pytest.mark.parametrize("kind", ["", "DirectoryOrCreate"])
def test_a_directory_that_is_not_there_is_made_with_all_above_it(tmp_path: Path, kind: str) -> None:
    """As a kubelet makes it, whatever the umask of the node is."""
    before = os.umask(0o077)
    try:
        for claims, path in (
            (Claims(None, HostPaths([]), ("standard",)), tmp_path / "by-class/pvc-1/data"),
            (Claims(None, HostPaths([tmp_path / "by-path/here"])), tmp_path / "by-path/here/pvc-1/data"),
        ):
            assert claims.bound(POD, "data", inputs(host(path, kind))).path == path
            assert [one.stat().st_mode & 0o777 for one in (path, *path.parents[:2])] == [0o755] * 3
    finally:
        os.umask(before)


def test_a_directory_that_has_to_be_there_is_not_made(tmp_path: Path) -> None:
    claims = Claims(None, HostPaths([]), ("standard",))
    for source, words in (
        (host(tmp_path / "a/b", "Directory"), "is not a directory"),
        ({"local": {"path": str(tmp_path / "a/b")}}, "is not a directory"),
    ):
        with pytest.raises(WasmletError, match=words):
            claims.bound(POD, "data", inputs(source))
    assert list(tmp_path.iterdir()) == []


def test_a_link_that_is_turned_later_gains_nothing(allowed: Path, tmp_path: Path) -> None:
    found = Claims(None, HostPaths([allowed])).bound(POD, "data", inputs(host(allowed / "d")))
    (allowed / "d").rmdir()
    (allowed / "d").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(WasmletError, match="does not lead below"):
        found.open()


@pytest.mark.parametrize(
    ("source", "spec", "words"),
    [
        ({"csi": {"driver": "ebs.csi.aws.com"}}, {}, "needs the storage driver 'ebs.csi.aws.com'"),
        ({"fc": {"lun": 1}}, {}, "of a type that this node does not have; expected one of type hostPath, local or nfs"),
        (host(Path("/x")), {"volumeMode": "Block"}, "volumeMode Block, a device"),
        (host(Path("/x"), "Socket"), {}, "expected a hostPath that is a directory, found type Socket"),
        ({"local": {"path": "/x/../y"}}, {}, "an absolute path without '..'"),
        ({"nfs": {"server": "nas", "path": "/export"}}, {}, "nfs nas:/export is not mounted on this machine"),
    ],
)
def test_what_cannot_be_had_is_said(source: dict[str, Any], spec: dict[str, Any], words: str) -> None:
    with pytest.raises(WasmletError, match=words):
        Claims(None, HostPaths([Path("/")])).bound(POD, "data", inputs(source, **spec))


def test_an_export_that_the_machine_has_mounted(allowed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As an owner of the machine mounts it; there is no server of NFS here, so the table of mounts is written."""
    (allowed / "with space/team").mkdir(parents=True)
    mounts = tmp_path / "mountinfo"
    at = str(allowed / "with space").replace(" ", "\\040")
    mounts.write_text(
        "22 1 0:21 / / rw - ext4 /dev/vda rw\n"
        f"40 22 0:44 / {allowed}/d rw,relatime - nfs4 other:/export rw\n"
        f"41 22 0:45 / {at} rw,relatime shared:5 - nfs4 nas:/export rw,vers=4.2\n"
    )
    monkeypatch.setattr(module, "MOUNTS", mounts)
    claims = Claims(None, HostPaths([allowed]))
    nfs = {"server": "nas", "path": "/export/team", "readOnly": True}
    found = claims.bound(POD, "data", inputs({"nfs": nfs}))
    assert (found.path, found.read_only) == (allowed / "with space/team", True)
    with pytest.raises(WasmletError, match="nfs nas:/exports is not mounted"):
        claims.bound(POD, "data", inputs({"nfs": {"server": "nas", "path": "/exports"}}))


async def test_the_claim_of_an_ephemeral_volume_is_the_pods_own(allowed: Path) -> None:
    claims, volume = Claims(None, HostPaths([allowed])), {"name": "v", "ephemeral": {}}
    mine = inputs(host(allowed / "d"), name="web-v", owner=POD.uid)
    assert (await claims.find(POD, volume, mine)).path == allowed / "d"
    with pytest.raises(WasmletError, match='"web-v" was not made for this pod'):
        await claims.find(POD, volume, inputs(host(allowed / "d"), name="web-v", owner="another"))
    with pytest.raises(WasmletError, match='persistentvolumeclaim "web-v" not found'):
        await claims.find(POD, volume, Inputs())


def test_files_of_a_local_volume_are_given_to_the_group_and_those_of_hostpath_are_not(allowed: Path) -> None:
    """As with a kubelet, whose hostPath plugin does not manage what is in there."""
    claims = Claims(None, HostPaths([allowed]))
    assert claims.bound(POD, "data", inputs({"local": {"path": str(allowed)}})).gives_group
    assert not claims.bound(POD, "data", inputs(host(allowed))).gives_group
