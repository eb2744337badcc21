"""Wasmlet nodes as pods: the chart and the kustomization make the same objects, of the least that is needed.

The chart is rendered by Helm's own code, the kustomization by kubectl's.
"""

from __future__ import annotations

import copy
import json
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from wasmlet.cli.options import options_of
from wasmlet.node import NodeConfig
from wasmlet.runtime import RuntimeConfig

helm = pytest.importorskip("helm_python", reason="Helm's library is not to be had for this platform or Python")

ROOT = Path(__file__).parents[1]
Objects = dict[str, dict[str, Any]]


def keyed(documents: list[dict[str, Any] | None]) -> Objects:
    return {f"{one['kind']}/{one['metadata']['name']}": one for one in documents if one}


@pytest.fixture(scope="session")
def kustomized(kubectl: Path) -> Objects:
    done = subprocess.run([kubectl, "kustomize", ROOT / "examples/deploy"], check=True, capture_output=True, text=True)
    return keyed(list(yaml.safe_load_all(done.stdout)))


def rendered(**values: Any) -> Objects:
    chart = helm.Chart.load(ROOT / "charts/wasmlet")
    files = chart.render(values, name="wasmlet", namespace="wasmlet")
    texts = [text for path, text in files.items() if path.endswith(".yaml")]
    return keyed([one for text in texts for one in yaml.safe_load_all(text)])


def test_the_chart_makes_what_the_kustomization_makes(kustomized: Objects) -> None:
    """But for the namespace, which Helm wants to be there before."""
    wanted, found = copy.deepcopy(kustomized), rendered()
    assert wanted.pop("Namespace/wasmlet")["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}
    assert sorted(found) == sorted(wanted)
    for objects in (wanted, found):
        data = objects["ConfigMap/wasmlet"]["data"]
        data["config.toml"] = json.dumps(tomllib.loads(data["config.toml"]), sort_keys=True)
    for name, one in wanted.items():
        assert found[name] == one, name


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


def test_the_pod_needs_no_more_than_restricted_allows(kustomized: Objects) -> None:
    """Pod Security Standards, "restricted"."""
    spec = kustomized["StatefulSet/wasmlet"]["spec"]["template"]["spec"]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = spec["containers"]
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert all({"configMap", "emptyDir"} & set(volume) for volume in spec["volumes"])


@pytest.mark.parametrize("nodes", [1, 3])
def test_the_account_may_act_as_its_nodes_and_as_nobody_else(nodes: int) -> None:
    objects = rendered(nodes=nodes)
    rules = objects["ClusterRole/wasmlet-impersonates-its-nodes"]["rules"]
    users, groups = rules
    assert users["resourceNames"] == [f"system:node:wasmlet-{index}" for index in range(nodes)]
    assert groups["resourceNames"] == ["system:nodes"]
    assert {verb for rule in rules for verb in rule["verbs"]} == {"impersonate"}
    assert objects["StatefulSet/wasmlet"]["spec"]["replicas"] == nodes


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
