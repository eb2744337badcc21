"""Variables from config maps and secrets: keys, whole objects with a prefix, optional ones."""

from __future__ import annotations

from tests.conformance.harness import Kube


async def test_variables(kube: Kube) -> None:
    await kube.config_map("m", a="map a", b="map b")
    await kube.secret("s", a="secret a", c="secret c")
    env = [
        {"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "a"}}},
        {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "c"}}},
        {"name": "NO_KEY", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "z", "optional": True}}},
        {"name": "NO_MAP", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "z", "optional": True}}},
        {"name": "b", "value": "own b"},
    ]
    sources = [
        {"configMapRef": {"name": "m"}},
        {"secretRef": {"name": "s"}},
        {"prefix": "P_", "secretRef": {"name": "s"}},
        {"configMapRef": {"name": "none", "optional": True}},
    ]
    names = ("KEY", "SECRET", "NO_KEY", "NO_MAP", "a", "b", "c", "P_a")
    script = [word for name in names for word in ("env", name)]
    await kube.create(*script, env=env, envFrom=sources, spec={"enableServiceLinks": False})
    lines = (await kube.output()).splitlines()
    assert lines == [
        *("KEY=map a", "SECRET=secret c", "NO_KEY is not set", "NO_MAP is not set"),
        *("a=secret a", "b=own b", "c=secret c", "P_a=secret a"),
    ]
    await kube.phase("Succeeded")


async def test_a_restart_sees_new_values(kube: Kube) -> None:
    await kube.config_map("m", key="one")
    env = [{"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "key"}}}]
    await kube.create("env", "KEY", "unless", "KEY", "two", env=env, spec={"restartPolicy": "OnFailure"})
    await kube.logged("KEY=one")
    await kube.patch({"data": {"key": "two"}}, "m", "configmaps")
    await kube.phase("Succeeded")
    assert await kube.log() == "KEY=two\n"
