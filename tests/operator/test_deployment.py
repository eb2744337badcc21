"""The operator in a cluster: chart and kustomization make the same objects, of the least that is needed."""

from __future__ import annotations

import copy
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

helm = pytest.importorskip("helm_python", reason="Helm's library is not to be had for this platform or Python")

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts/wasmlet-operator"
Objects = dict[str, dict[str, Any]]


def keyed(documents: list[dict[str, Any] | None]) -> Objects:
    return {f"{one['kind']}/{one['metadata']['name']}": one for one in documents if one}


@pytest.fixture(scope="session")
def kustomized(kubectl: Path) -> Objects:
    command = [kubectl, "kustomize", ROOT / "examples/operator"]
    return keyed(list(yaml.safe_load_all(subprocess.run(command, check=True, capture_output=True, text=True).stdout)))


def rendered(**values: Any) -> Objects:
    files = helm.Chart.load(CHART).render(values, name="wasmlet-operator", namespace="wasmlet")
    texts = [text for path, text in files.items() if path.endswith(".yaml")]
    return keyed([one for text in texts for one in yaml.safe_load_all(text)])


def test_the_chart_makes_what_the_kustomization_makes(kustomized: Objects) -> None:
    """But for the namespace, which Helm wants to be there before, and for Helm's hook."""
    wanted, found = copy.deepcopy(kustomized), rendered()
    assert wanted.pop("Namespace/wasmlet")["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}
    hook = found.pop("Job/wasmlet-operator-cleanup")
    assert hook["metadata"]["annotations"]["helm.sh/hook"] == "pre-delete"
    assert found == wanted


def test_helm_finds_nothing_wrong_with_the_chart() -> None:
    report = helm.lint(CHART, strict=True)
    assert report["errors"] == []
    assert [message for message in report["messages"] if message["severity"] > 1] == []


def test_the_definition_of_pools_is_no_template() -> None:
    """Helm neither upgrades nor removes what is in crds/: pools outlive the operator."""
    (file,) = (CHART / "crds").iterdir()
    assert yaml.safe_load(file.read_text())["metadata"]["name"] == "wasmnodepools.wasmlet.dev"
    assert "CustomResourceDefinition" not in {name.partition("/")[0] for name in rendered()}


@pytest.mark.parametrize("kind", ["Deployment/wasmlet-operator", "Job/wasmlet-operator-cleanup"])
def test_the_pods_need_no_more_than_restricted_allows(kind: str) -> None:
    spec = rendered()[kind]["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = spec["containers"]
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert "volumes" not in spec


def test_the_right_to_give_away_rights_can_be_narrowed() -> None:
    def about(verb: str, objects: Objects) -> dict[str, Any]:
        rules = objects["ClusterRole/wasmlet-operator"]["rules"]
        (found,) = [rule for rule in rules if verb in rule["verbs"] and "clusterroles" in rule["resources"]]
        return dict(found)

    for verb in ("escalate", "bind", "patch", "delete"):
        assert "resourceNames" not in about(verb, rendered())
        assert about(verb, rendered(pools=["a", "b"]))["resourceNames"] == ["wasmlet-pool-a", "wasmlet-pool-b"]


def test_without_agents_pods_of_others_are_not_deleted() -> None:
    def verbs(name: str, objects: Objects) -> set[str]:
        return {verb for rule in objects[name]["rules"] if "pods" in rule["resources"] for verb in rule["verbs"]}

    assert verbs("ClusterRole/wasmlet-operator", rendered()) == {"get", "list", "watch", "delete"}
    assert verbs("ClusterRole/wasmlet-operator", rendered(agents=False)) == {"get", "list", "watch"}
    assert verbs("Role/wasmlet-operator", rendered(agents=False)) == {"delete"}


def test_no_right_is_for_everything() -> None:
    for name in ("ClusterRole/wasmlet-operator", "Role/wasmlet-operator", "Role/wasmlet-operator-keys"):
        objects = rendered()[name]
        for rule in objects["rules"]:
            assert "*" not in {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
            assert "secrets" not in rule["resources"] or rule["verbs"] == ["list", "delete"]


def test_no_account_is_where_hosts_may_make_secrets() -> None:
    """A Secret can ask for a token of any service account of its namespace."""
    objects = rendered()
    namespaces = {name: one["metadata"].get("namespace") for name, one in objects.items()}
    rules = {name: one["rules"] for name, one in objects.items() if name.startswith(("Role/", "ClusterRole/"))}
    makers = [
        name
        for name, given in rules.items()
        if any("secrets" in rule["resources"] and "create" in rule["verbs"] for rule in given)
    ]
    assert makers == ["Role/wasmlet-pool-keys"]
    accounts = [name for name in objects if name.startswith("ServiceAccount/")]
    assert accounts
    assert namespaces["Role/wasmlet-pool-keys"] not in {namespaces[name] for name in accounts}


def test_values_change_what_they_say() -> None:
    objects = rendered(
        image={"repository": "r.example/wasmlet", "tag": "2"}, nodeImage="r.example/node:3", cleanup=False
    )
    (container,) = objects["Deployment/wasmlet-operator"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "r.example/wasmlet:2"
    assert "--node-image=r.example/node:3" in container["args"]
    assert not [name for name in objects if name.startswith("Job/")]
