"""Volumes of config maps and secrets: items, modes, optional ones, swapped whole when they change, immutable ones."""

from __future__ import annotations

from typing import Any

from tests.conformance.harness import Kube


def at_v(**source: Any) -> dict[str, Any]:
    return {
        "volumeMounts": [{"name": "v", "mountPath": "/v"}],
        "spec": {"volumes": [{"name": "v", **source}]},
    }


async def test_files(kube: Kube) -> None:
    await kube.config_map("m", a="map a\n", b="map b\n")
    await kube.secret("s", a="secret a\n")
    items = [{"key": "b", "path": "deep/er/b", "mode": 0o400}]
    await kube.create("cat", "/v/a", "cat", "/v/b", name="all", **at_v(configMap={"name": "m"}))
    await kube.create("cat", "/v/a", name="secret", **at_v(secret={"secretName": "s", "defaultMode": 0o400}))
    await kube.create(
        "cat", "/v/deep/er/b", "has", "/v/a", name="some", **at_v(configMap={"name": "m", "items": items})
    )
    assert await kube.output("all") == "map a\nmap b\n"
    assert await kube.output("secret") == "secret a\n"
    assert await kube.output("some") == "map b\n"
    await kube.phase("Failed", "some")


async def test_nothing_in_them_can_be_written(kube: Kube) -> None:
    await kube.config_map("m", a="x")
    script = ("put", "/v/a", "y", "put", "/v/new", "y", "unlink", "/v/a", "mkdir", "/v/d")
    await kube.create(*script, **at_v(configMap={"name": "m"}))
    lines = (await kube.output()).splitlines()
    assert len(lines) == 4
    assert not [line for line in lines if line.endswith("ok")]


async def test_a_change_reaches_a_running_guest_whole(kube: Kube) -> None:
    """The names are asked for when the change is over: wasmtime lists no directory while something in it vanishes."""
    await kube.config_map("m", a="old", b="old", c="old")
    volumes, gate = at_v(configMap={"name": "m"}), kube.gate()
    script = ("print", "up", "await", "/v/a", "new", "cat", "/v/b", "print", "", "await", "/go/on", "now", "ls", "/v")
    mounts, sources = (
        volumes["volumeMounts"] + gate["volumeMounts"],
        volumes["spec"]["volumes"] + gate["spec"]["volumes"],
    )
    await kube.create(*script, volumeMounts=mounts, spec={"volumes": sources})
    await kube.logged("up")
    await kube.patch({"data": {"a": "new", "b": "new", "c": None, "d": "x"}}, "m", "configmaps")
    assert await kube.logged("new") == "up\nnew\n"
    await kube.open_gate()
    names = (await kube.output()).splitlines()[-1].split()
    assert [name for name in names if not name.startswith("..")] == ["a", "b", "d"]


async def test_an_optional_one_that_comes_later(kube: Kube) -> None:
    source = {"name": "m", "optional": True}
    await kube.create("stat", "/v", "await", "/v/a", "late", "print", "seen", **at_v(configMap=source))
    await kube.logged("directory")
    await kube.config_map("m", a="late")
    assert (await kube.output()).endswith("seen\n")


async def test_a_missing_key_or_object_is_waited_for(kube: Kube) -> None:
    items = [{"key": "z", "path": "z"}]
    await kube.config_map("m", a="x")
    await kube.create("cat", "/v/z", **at_v(configMap={"name": "m", "items": items}))
    await kube.event("FailedMount", part="non-existent config key: z")
    await kube.patch({"data": {"z": "there\n"}}, "m", "configmaps")
    assert await kube.output() == "there\n"


async def test_an_immutable_one(kube: Kube) -> None:
    await kube.make("configmaps", {"metadata": {"name": "m"}, "immutable": True, "data": {"a": "fixed\n"}})
    await kube.create("cat", "/v/a", **at_v(configMap={"name": "m"}))
    assert await kube.output() == "fixed\n"
