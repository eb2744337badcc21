"""Wasmlet nodes as pods: the chart and the kustomization make the same objects, of the least that is needed.

The chart is rendered by Helm's own code, the kustomization by kubectl's.
"""

from __future__ import annotations

import asyncio
import copy
import subprocess
import sys
import tomllib
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.node.real import RealPlane
from wasmlet.cli.options import options_of
from wasmlet.node import NodeConfig
from wasmlet.runtime import RuntimeConfig
from wasmlet.testing import ControlPlane

helm = pytest.importorskip("helm_python", reason="Helm's library is not to be had for this platform or Python")

ROOT = Path(__file__).parents[2]
WASMLET = Path(sys.executable).parent / "wasmlet"
Objects = dict[str, dict[str, Any]]


def keyed(documents: list[dict[str, Any] | None]) -> Objects:
    return {f"{one['kind']}/{one['metadata']['name']}": one for one in documents if one}


@pytest.fixture(scope="session")
def kustomized(kubectl: Path) -> Objects:
    done = subprocess.run([kubectl, "kustomize", ROOT / "examples/deploy"], check=True, capture_output=True, text=True)
    return keyed(list(yaml.safe_load_all(done.stdout)))


@pytest.fixture(scope="session")
def host(kubectl: Path) -> Objects:
    """What the kustomization of the host makes."""
    done = subprocess.run(
        [kubectl, "kustomize", ROOT / "examples/deploy/host"], check=True, capture_output=True, text=True
    )
    return keyed(list(yaml.safe_load_all(done.stdout)))


def rendered(*, name: str = "wasmlet", **values: Any) -> Objects:
    chart = helm.Chart.load(ROOT / "charts/wasmlet")
    files = chart.render(values, name=name, namespace="wasmlet")
    texts = [text for path, text in files.items() if path.endswith(".yaml")]
    return keyed([one for text in texts for one in yaml.safe_load_all(text)])


def test_the_chart_makes_what_the_kustomization_makes(kustomized: Objects) -> None:
    """But for the namespace, which Helm wants to be there before."""
    wanted = copy.deepcopy(kustomized)
    assert wanted.pop("Namespace/wasmlet")["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}
    assert same(rendered()) == same(wanted)


def test_the_chart_makes_the_host_that_the_kustomization_makes(host: Objects) -> None:
    wanted = copy.deepcopy(host)
    del wanted["Namespace/wasmlet"]
    with_host, without = rendered(host={"enabled": True}), rendered()
    assert same({name: one for name, one in with_host.items() if name not in without}) == same(wanted)
    assert {name: with_host[name] for name in without} == without


def test_the_host_may_do_what_its_command_says(host: Objects) -> None:
    agents = ["edge-1", "edge-2"]
    said = subprocess.run([WASMLET, "host", "rbac", *agents], check=True, capture_output=True, text=True)
    wanted = keyed(list(yaml.safe_load_all(said.stdout)))
    objects = rendered(host={"enabled": True, "agents": agents})
    assert same({name: objects[name] for name in wanted if name in objects}) == same(
        {name: one for name, one in wanted.items() if name != "Namespace/wasmlet"}
    )
    assert set(wanted) - set(objects) == {"Namespace/wasmlet"}


def test_the_settings_of_the_host_are_its_options(host: Objects) -> None:
    told = subprocess.run([WASMLET, "host", "--help"], check=True, capture_output=True, text=True).stdout
    for name in tomllib.loads(host["ConfigMap/wasmlet-host"]["data"]["config.toml"]):
        assert f"--{name} " in told, name


def same(objects: Objects) -> Objects:
    """The objects, with settings as values, however they are written."""
    out = copy.deepcopy(objects)
    for one in out.values():
        if one["kind"] == "ConfigMap":
            one["data"]["config.toml"] = tomllib.loads(one["data"]["config.toml"])
    return out


def test_helm_finds_nothing_wrong_with_the_chart() -> None:
    report = helm.lint(ROOT / "charts/wasmlet", strict=True)
    assert report["errors"] == []
    assert [message for message in report["messages"] if message["severity"] > 1] == []


def test_each_setting_is_an_option(kustomized: Objects) -> None:
    known = {parameter.name for settings in (NodeConfig, RuntimeConfig) for parameter in options_of(settings)}
    settings = tomllib.loads(kustomized["ConfigMap/wasmlet"]["data"]["config.toml"])
    assert {name.replace("-", "_") for name in settings} <= known
    stateful = kustomized["StatefulSet/wasmlet"]["spec"]["template"]["spec"]
    assert settings["drain-seconds"] < stateful["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("name", ["StatefulSet/wasmlet", "Deployment/wasmlet-host"])
def test_the_pods_need_no_more_than_restricted_allows(name: str, kustomized: Objects, host: Objects) -> None:
    """Pod Security Standards, "restricted"."""
    spec = (kustomized | host)[name]["spec"]["template"]["spec"]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = spec["containers"]
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert all({"configMap", "emptyDir", "secret"} & set(volume) for volume in spec["volumes"])


@pytest.mark.parametrize("nodes", [1, 3])
def test_the_account_may_act_as_its_nodes_and_as_nobody_else(nodes: int) -> None:
    objects = rendered(nodes=nodes)
    rules = objects["ClusterRole/wasmlet-impersonates-its-nodes"]["rules"]
    users, groups = rules
    assert users["resourceNames"] == [f"system:node:wasmlet-{index}" for index in range(nodes)]
    assert groups["resourceNames"] == ["system:nodes"]
    assert {verb for rule in rules for verb in rule["verbs"]} == {"impersonate"}
    assert objects["StatefulSet/wasmlet"]["spec"]["replicas"] == nodes


def test_the_chart_runs_actors() -> None:
    issuers = ["A", "B"]
    objects = rendered(provider="wascc", config={"wascc-issuers": issuers})
    (settings,) = [one["data"]["config.toml"] for name, one in objects.items() if name == "ConfigMap/wasmlet"]
    assert tomllib.loads(settings)["wascc-issuers"] == issuers
    (container,) = objects["StatefulSet/wasmlet"]["spec"]["template"]["spec"]["containers"]
    assert "--provider=wascc" in container["args"]
    assert objects["RuntimeClass/wasmlet-wascc"]["handler"] == "wasmlet-wascc"


def test_two_releases_have_nothing_in_common_but_their_namespace() -> None:
    """Neither objects nor nodes, nor pods that one would take for its own."""
    both = [rendered(name=name, runtimeClasses=False, host={"enabled": True}) for name in ("wasmlet", "blue")]
    assert not set(both[0]) & set(both[1])
    assert {name.replace("blue-wasmlet", "wasmlet") for name in both[1]} == set(both[0])
    for kind, part in (("StatefulSet", ""), ("Deployment", "-host")):
        ours, theirs = (
            one[f"{kind}/{name}{part}"]["spec"] for one, name in zip(both, ("wasmlet", "blue-wasmlet"), strict=True)
        )
        assert ours["template"]["metadata"]["labels"].items() >= ours["selector"]["matchLabels"].items()
        assert not ours["template"]["metadata"]["labels"].items() >= theirs["selector"]["matchLabels"].items()
        assert theirs["template"]["spec"]["serviceAccountName"] == f"blue-wasmlet{part}"
        service = both[1][f"Service/blue-wasmlet{part}"]["spec"]["selector"]
        assert not ours["template"]["metadata"]["labels"].items() >= service.items()
    (users, _) = both[1]["ClusterRole/blue-wasmlet-impersonates-its-nodes"]["rules"]
    assert users["resourceNames"] == ["system:node:blue-wasmlet-0"]


def test_the_hosts_secrets_may_have_a_namespace_of_their_own() -> None:
    objects = rendered(host={"enabled": True, "secretsNamespace": "agents"})
    for kind in ("Role", "RoleBinding"):
        assert objects[f"{kind}/wasmlet-host-keys"]["metadata"]["namespace"] == "agents"
    assert objects["RoleBinding/wasmlet-host-keys"]["subjects"][0]["namespace"] == "wasmlet"
    settings = tomllib.loads(objects["ConfigMap/wasmlet-host"]["data"]["config.toml"])
    assert settings["namespace"] == "agents"
    in_release = {one["metadata"].get("namespace", "wasmlet") for name, one in objects.items() if "Role" not in name}
    assert in_release == {"wasmlet"}


def test_whatever_grows_has_a_limit(kustomized: Objects, host: Objects) -> None:
    for objects in (kustomized | host, rendered(host={"enabled": True})):
        for name in ("StatefulSet/wasmlet", "Deployment/wasmlet-host"):
            for volume in objects[name]["spec"]["template"]["spec"]["volumes"]:
                assert "emptyDir" not in volume or volume["emptyDir"]["sizeLimit"]


def test_values_change_what_they_say() -> None:
    values = {
        "config": {"max-pods": 7, "node-labels": ["zone=a"], "serving-csr": True},
        "image": {"repository": "registry.example/wasmlet", "tag": "2", "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "pull"}],
        "runtimeClasses": False,
        "tolerations": [{"operator": "Exists"}],
    }
    objects = rendered(**values)
    settings = tomllib.loads(objects["ConfigMap/wasmlet"]["data"]["config.toml"])
    assert (settings["max-pods"], settings["node-labels"], settings["serving-csr"]) == (7, ["zone=a"], True)
    assert settings["impersonate-node"] is True
    spec = objects["StatefulSet/wasmlet"]["spec"]["template"]["spec"]
    assert (spec["containers"][0]["image"], spec["containers"][0]["imagePullPolicy"]) == (
        "registry.example/wasmlet:2",
        "Always",
    )
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert objects["ServiceAccount/wasmlet"]["imagePullSecrets"] == [{"name": "pull"}]
    assert not [name for name in objects if name.startswith("RuntimeClass")]


@pytest.mark.parametrize("values", [{}, {"host": {"enabled": True}}], ids=["nodes", "nodes and host"])
async def test_an_api_server_takes_all_of_it(
    values: dict[str, Any], request: pytest.FixtureRequest, kubectl: Path, tmp_path: Path
) -> None:
    """Applied by the server, and not kept; the embedded one, or one that is named (`tests.node.real`)."""
    async with AsyncExitStack() as stack:
        plane = RealPlane.of(request.config) or await stack.enter_async_context(ControlPlane())
        file = tmp_path / "objects.yaml"
        objects = rendered(**values)
        for one in objects.values():
            if "namespace" in one["metadata"]:
                one["metadata"]["namespace"] = "default"
        file.write_text(yaml.safe_dump_all(objects.values()))
        apply = await asyncio.create_subprocess_exec(
            kubectl, "--kubeconfig", plane.kubeconfig, "apply", "--server-side", "--dry-run=server", "-f", file,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said = (await apply.communicate())[0].decode()
        assert apply.returncode == 0, said
        assert said.count("serverside-applied (server dry run)") == len(objects)
        warnings = [line for line in said.splitlines() if line.startswith("Warning")]
        assert not [line for line in warnings if "this Service gets no address from outside" not in line]
