"""Mounts and volumes that a pod is refused for, each by its name."""

from __future__ import annotations

from typing import Any

import pytest

from tests.runtime.files.test_volumes import CONFIG, mounts, settings, with_volume
from tests.runtime.harness import Runtime, pod_of
from wasmlet.errors import Refused
from wasmlet.model.pod import Container
from wasmlet.runtime.files import volume_rules

EMPTY: dict[str, Any] = {"emptyDir": {}}


def refusal(mount: int, field: str, text: str) -> str:
    return f"spec.containers[0].volumeMounts[{mount}].{field}: {text}"


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        ({"subPath": "../x"}, refusal(0, "subPath", "unable to provision SubPath `../x`: must not contain '..'")),
        ({"subPath": "/tmp"}, refusal(0, "subPath", "error SubPath `/tmp` must not be an absolute path")),
        ({"subPathExpr": "$(P)"}, refusal(0, "subPathExpr", "unable to provision SubPath `..`: must not contain '..'")),
        ({"subPathExpr": "$(A)"}, refusal(0, "subPathExpr", "error SubPath `/etc` must not be an absolute path")),
        ({"subPathExpr": "$(NONE)"}, refusal(0, "subPathExpr", "missing value for 'NONE'")),
        ({"subPathExpr": "$(EMPTY)"}, refusal(0, "subPathExpr", "$(EMPTY) comes to nothing")),
    ],
)
async def test_sub_paths_that_are_refused(runtime: Runtime, image: str, mount: dict[str, Any], message: str) -> None:
    env = [{"name": "P", "value": ".."}, {"name": "A", "value": "/etc"}, {"name": "EMPTY", "value": ""}]
    pod = with_volume("print", "x", image=image, source=EMPTY, volumeMounts=mounts(**mount), env=env)
    key = await runtime.create(pod)
    assert (await runtime.waiting(key, "CreateContainerConfigError")).message == message
    await runtime.event(key, "Failed", f"Error: {message}")


async def test_backticks_are_only_characters(runtime: Runtime, image: str) -> None:
    pod = with_volume("ls", "/all", image=image, source=EMPTY,
                      volumeMounts=[*mounts(subPathExpr="`$(X)`"), *mounts("/all")],
                      env=[{"name": "X", "value": "id"}])  # fmt: skip
    key = await runtime.create(pod)
    assert await runtime.output(key) == b"`id`\n"


async def test_a_key_that_is_not_there(runtime: Runtime, image: str) -> None:
    pod = with_volume("cat", "/c", image=image, source=CONFIG, volumeMounts=mounts("/c", subPath="none"))
    key = await runtime.create(pod, settings(a="one\n"))
    assert (await runtime.waiting(key, "CreateContainerConfigError")).message == refusal(
        0,
        "subPath",
        'failed to prepare subPath for volumeMount "v" of container "main": none: No such file or directory',
    )


@pytest.mark.parametrize(
    ("volume_mounts", "message"),
    [
        (
            [*mounts("/data"), *mounts("/data/conf", "c", subPath="a")],
            refusal(1, "mountPath", "a single file cannot be mounted within the mount at /data: a guest is handed"),
        ),
        (
            [*mounts("/opt/a", "c", subPath="a"), *mounts("/opt/f", subPath="f")],
            refusal(1, "readOnly", "single files in one directory (/opt) must all be readOnly or none"),
        ),
        ([*mounts("/data"), *mounts("/data/", "c")], refusal(1, "mountPath", "/data is mounted by spec.containers[0]")),
        (
            [*mounts("/dev/a", "c", subPath="a")],
            "spec.containers[0].terminationMessagePath: cannot be beside a single file that is readOnly (/dev)",
        ),
    ],
)
async def test_what_a_directory_cannot_give(
    runtime: Runtime, image: str, volume_mounts: list[dict[str, Any]], message: str
) -> None:
    init = [{"name": "init", "image": image, "args": ["put", "/v/f", ""], "volumeMounts": mounts()}]
    spec = {"volumes": [{"name": "v", **EMPTY}, {"name": "c", **CONFIG}], "initContainers": init}
    pod = pod_of("print", "x", image=image, spec=spec, volumeMounts=volume_mounts)
    key = await runtime.create(pod, settings(a="one\n"))
    assert (await runtime.waiting(key, "CreateContainerConfigError")).message.startswith(message)


REFUSED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("spec.volumes[0].nfs", {"volumes": [{"name": "v", "nfs": {"server": "x"}}]}, {}),
    ("spec.volumes[0].csi", {"volumes": [{"name": "v", "csi": {"driver": "x"}}]}, {}),
    ("spec.volumes[0].persistentVolumeClaim", {"volumes": [{"name": "v", "persistentVolumeClaim": {}}]}, {}),
    ("spec.volumes[0].ephemeral", {"volumes": [{"name": "v", "ephemeral": {}}]}, {}),
    ("spec.volumes[0].hostPath", {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, {}),
    ("spec.volumes[0].emptyDir.medium", {"volumes": [{"name": "v", "emptyDir": {"medium": "HugePages"}}]}, {}),
    ("spec.volumes[0].emptyDir.sizeLimit", {"volumes": [{"name": "v", "emptyDir": {"sizeLimit": "much"}}]}, {}),
    ("spec.volumes[0].name", {"volumes": [{"name": "../v", "emptyDir": {}}]}, {}),
    ("spec.volumes[0]", {"volumes": [{"name": "v"}]}, {}),
    ("spec.containers[0].volumeMounts[0].name", {}, {"volumeMounts": mounts(name="none")}),
    ("spec.containers[0].volumeMounts[0].mountPath", {}, {"volumeMounts": mounts("")}),
    ("spec.containers[0].volumeMounts[0].mountPropagation", {}, {"volumeMounts": mounts(mountPropagation="Other")}),
    ("spec.containers[0].volumeMounts[0].recursiveReadOnly", {}, {"volumeMounts": mounts(recursiveReadOnly="Enabled")}),
    ("spec.containers[0].volumeMounts[0].subPathExpr", {}, {"volumeMounts": mounts(subPath="a", subPathExpr="b")}),
    ("spec.containers[0].volumeMounts[0].unheardOf", {}, {"volumeMounts": mounts(unheardOf=True)}),
]  # fmt: skip


@pytest.mark.parametrize(("field", "spec", "container"), REFUSED)
def test_refused_by_name(field: str, spec: dict[str, Any], container: dict[str, Any]) -> None:
    pod = pod_of(spec={"volumes": [{"name": "v", **EMPTY}], **spec}, **container)
    with pytest.raises(Refused) as refused:
        volume_rules.check(pod, host_paths=False, claims=False)
    assert refused.value.field == field


@pytest.mark.parametrize("kind", ["csi", "flexVolume"])
def test_a_driver_that_is_not_here_is_named(kind: str) -> None:
    pod = pod_of(spec={"volumes": [{"name": "v", kind: {"driver": "secrets-store.csi.k8s.io"}}]})
    with pytest.raises(Refused, match=rf"volumes\[0\].{kind}: it needs the storage driver 'secrets-store.csi.k8s.io'"):
        volume_rules.check(pod, host_paths=False, claims=False)


@pytest.mark.parametrize(("kind", "path"), [("Socket", "/x"), ("CharDevice", "/x"), ("", "x"), ("", "/x/../y")])
def test_host_paths_refused_by_name(kind: str, path: str) -> None:
    pod = pod_of(spec={"volumes": [{"name": "v", "hostPath": {"path": path, "type": kind}}]})
    with pytest.raises(Refused) as refused:
        volume_rules.check(pod, host_paths=True, claims=False)
    assert refused.value.field == f"spec.volumes[0].hostPath.{'type' if kind else 'path'}"


def test_container_field_is_that_of_its_kind() -> None:
    with pytest.raises(Refused, match=r"spec.ephemeralContainers\[0\].volumeMounts\[0\].name"):
        volume_rules.check_mounts(
            Container({"name": "d", "volumeMounts": mounts()}, "spec.ephemeralContainers[0]"), set()
        )
