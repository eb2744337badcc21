"""What is made of a pool: its objects, the command line of its nodes, what its Nodes have, and its status."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.operator.pools import NEW, OLD, member, node, pool, seen
from wasmlet.cli.options import options_of
from wasmlet.model.quantity import Quantity
from wasmlet.node import NodeConfig
from wasmlet.operator.classes import classes_of
from wasmlet.operator.dressing import dressed
from wasmlet.operator.node_pod import check_config, options, template
from wasmlet.operator.objects import Place, keys_namespace, of_nodes
from wasmlet.operator.plan import planned
from wasmlet.operator.pool import Unusable, ordinal_of, seconds
from wasmlet.operator.remote import of_agents
from wasmlet.operator.seen import DRESS, NodeSeen, PodSeen
from wasmlet.operator.status import Emptying, stamped, status_of
from wasmlet.runtime import RuntimeConfig

PLACE = Place("fleet", "wasmlet:1", "https://api")
ROOT = Path(__file__).parents[2]
NOW, LATER = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)


def made(count: int = 2, **spec: Any) -> dict[str, dict[str, Any]]:
    """The objects of the pool `edge` by kind."""
    found = pool(**spec)
    objects = of_nodes(found, PLACE, count, [found.node(n) for n in range(count)])
    return {one.body["kind"]: one.body for one in objects}


def test_a_pool_is_a_statefulset_that_only_the_operator_rolls() -> None:
    spec = made(3)["StatefulSet"]["spec"]
    assert (spec["replicas"], spec["podManagementPolicy"]) == (3, "Parallel")
    assert spec["updateStrategy"] == {"type": "OnDelete"}


def test_all_objects_are_the_pools_and_nobody_but_the_operator_ends_them() -> None:
    for body in made().values():
        assert "ownerReferences" not in body["metadata"]
        assert body["metadata"]["labels"]["wasmlet.dev/pool"] == "edge"
    assert not [kind for kind in made() if kind == "RuntimeClass"]


def test_the_nodes_may_act_as_themselves_and_as_nobody_else() -> None:
    users, groups = made(2)["ClusterRole"]["rules"]
    assert users["resourceNames"] == ["system:node:edge-0", "system:node:edge-1"]
    assert groups["resourceNames"] == ["system:nodes"]
    assert users["verbs"] == groups["verbs"] == ["impersonate"]
    assert made(0)["ClusterRole"]["rules"] == []  # a rule without names would be about all users


def test_the_pod_needs_no_more_than_restricted_allows() -> None:
    spec = template(pool(), "wasmlet:1", "account", "https://api")["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    privileged = template(pool(nodePod={"privileged": True}), "wasmlet:1", "account", "https://api")["spec"]
    assert privileged["containers"][0]["securityContext"]["privileged"] is True
    assert "securityContext" not in privileged


def test_what_a_pool_says_of_the_pod_is_in_it() -> None:
    given = {
        "image": "mine:2",
        "imagePullPolicy": "Always",
        "command": ["/bin/node"],
        "resources": {"limits": {"memory": "2Gi"}},
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"operator": "Exists"}],
        "priorityClassName": "high",
    }
    spec = template(pool(provider="custom", nodePod=given), "wasmlet:1", "account", "https://api")["spec"]
    (container,) = spec["containers"]
    assert {key: container[key] for key in ("image", "imagePullPolicy", "command", "resources")} == {
        key: given[key] for key in ("image", "imagePullPolicy", "command", "resources")
    }
    assert {key: spec[key] for key in ("nodeSelector", "tolerations", "priorityClassName")} == {
        key: given[key] for key in ("nodeSelector", "tolerations", "priorityClassName")
    }
    assert not [argument for argument in container["args"] if argument.startswith("--provider")]


@pytest.mark.parametrize(
    "spec", [{}, {"config": {"serving-csr": "true"}}, {"engines": ["wasmer", "wascc"]}, {"provider": "wascc"}]
)
def test_each_option_of_a_node_is_one(spec: dict[str, Any]) -> None:
    known = {
        flag.removeprefix("no-")
        for settings in (NodeConfig, RuntimeConfig)
        for parameter in options_of(settings)
        for flag in (parameter.name or "").replace("_", "-").split()
    }
    for argument in options(pool(**spec)):
        name = argument.removeprefix("--").partition("=")[0].removeprefix("no-")
        assert name in known | {"provider"}, argument


@pytest.mark.parametrize(
    ("key", "word"),
    [("node-name", "leave it out"), ("node_name", "leave it out"), ("no-such", "has no option 'no-such'")],
)
def test_settings_that_cannot_be_are_refused_by_name(key: str, word: str) -> None:
    with pytest.raises(Unusable, match=key) as raised:
        check_config(pool(config={key: "x"}))
    assert word in str(raised.value)
    assert raised.value.reason == "InvalidConfig"


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("max-module-bytes", "many", "max-module-bytes: expected a whole number, found 'many'"),
        ("max-module-bytes", "-1", "max module bytes: expected"),
        ("allow_local_modules", "perhaps", "allow-local-modules: expected true or false, found 'perhaps'"),
        ("provider-id", "x", ""),
        ("allow-local-modules", " Yes ", ""),
        ("max-module-bytes", "1024", ""),
        ("insecure-registries", "a:1 b:2", ""),
        ("registry-ca-file", "/nowhere", ""),
        ("cluster-dns", "", ""),
    ],
)
def test_settings_have_values_that_a_node_takes(key: str, value: str, word: str) -> None:
    """What a node refuses would be found when the first node has ended for it."""
    found = pool(config={key: value})
    if not word:
        check_config(found)
        return
    with pytest.raises(Unusable, match=word) as raised:
        check_config(found)
    assert raised.value.reason == "InvalidConfig"


def test_what_is_kept_for_a_node_is_an_amount() -> None:
    with pytest.raises(Unusable, match=r"spec\.reserved: .* found 'cpu=lots'"):
        check_config(pool(reserved={"cpu": "lots"}))


def test_settings_become_variables() -> None:
    found = pool(config={"cluster-dns": "10.96.0.10"})
    check_config(found)
    (container,) = template(found, "wasmlet:1", "account", "https://api")["spec"]["containers"]
    assert {"name": "WASMLET_CLUSTER_DNS", "value": "10.96.0.10"} in container["env"]


def test_a_pool_of_actors_names_whom_it_trusts() -> None:
    found = pool(provider="wascc", config={"wascc-issuers": "A"})
    check_config(found)
    assert {"--provider=wascc", "--network=address"} <= set(options(found))
    assert "--network=address" not in options(pool(provider="wascc", config={"network": "none"}))
    assert "--network=address" not in options(pool())
    (container,) = template(found, "wasmlet:1", "account", "https://api")["spec"]["containers"]
    assert {"name": "WASMLET_WASCC_ISSUERS", "value": "A"} in container["env"]


def test_an_image_of_ones_own_has_options_of_its_own() -> None:
    check_config(pool(provider="custom", nodePod={"image": "x"}, config={"of-my-own": "1"}))


def test_classes_are_those_of_the_examples() -> None:
    with (ROOT / "examples/runtimeclasses.yaml").open() as file:
        wanted = {one["metadata"]["name"]: one for one in yaml.safe_load_all(file) if one}
    for one in classes_of(["wasmtime", "wasmer", "wascc"]):
        assert one == wanted.pop(one["metadata"]["name"])
    assert not wanted


def test_a_node_has_what_the_template_says_and_keeps_what_is_anothers() -> None:
    other, taint = {"key": "other", "effect": "NoSchedule"}, {"key": "gpu", "effect": "NoExecute", "value": "x"}
    template = {"metadata": {"labels": {"zone": "a"}, "annotations": {"note": "n"}}, "taints": [taint]}
    bare = node(0, labels={"own": "1"}, taints=[{"key": "wasmlet.dev/unprepared", "effect": "NoSchedule"}, other])
    patch = dressed(pool(template=template), bare)
    assert patch is not None
    assert patch["metadata"]["labels"] == {"zone": "a"}
    assert patch["spec"]["taints"] == [other, taint]
    done = node(
        0,
        labels={"own": "1", "zone": "a"},
        annotations=patch["metadata"]["annotations"],
        taints=patch["spec"]["taints"],
    )
    assert dressed(pool(template=template), done) is None
    undressed = dressed(pool(), done)
    assert undressed is not None
    assert undressed["metadata"]["labels"] == {"zone": None}
    assert undressed["metadata"]["annotations"] == {"note": None, DRESS: None}
    assert undressed["spec"]["taints"] == [other]


def test_a_node_without_a_template_loses_only_its_first_taint() -> None:
    fresh = node(0, taints=[{"key": "wasmlet.dev/unprepared", "effect": "NoSchedule"}])
    patch = dressed(pool(), fresh)
    assert patch is not None
    assert patch["spec"] == {"taints": None}
    assert dressed(pool(), node(0)) is None


@pytest.mark.parametrize(
    "text",
    ["not json", "[]", "7", '{"labels": 3}', '{"taints": [null]}', '{"labels": [["a"]]}', '{"taints": ' + "[" * 9999],
)
def test_what_somebody_wrote_by_hand_does_no_harm(text: str) -> None:
    dressed(pool(), node(0, annotations={DRESS: text}))


@pytest.mark.parametrize(
    ("text", "wanted"), [("90s", 90), ("10m", 600), ("1h30m", 5400), ("1.5h", 5400), ("250ms", 0.25), ("0s", 0)]
)
def test_durations(text: str, wanted: float) -> None:
    assert seconds(text) == wanted


@pytest.mark.parametrize("text", ["99999999h", "9" * 400 + "h"])
def test_a_duration_has_an_end(text: str) -> None:
    assert seconds(text) == 1e9


@pytest.mark.parametrize("text", ["", "10", "m", "-1s", "1d", "1s x"])
def test_no_durations(text: str) -> None:
    with pytest.raises(Unusable, match="expected a duration"):
        seconds(text)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("edge-0", 0), ("edge-12", 12), ("edge-01", None), ("edge", None), ("edge-x", None), ("other-0", None)],
)
def test_ordinals(name: str, wanted: int | None) -> None:
    assert ordinal_of(name, "edge") == wanted


def conditions(status: dict[str, Any]) -> dict[str, tuple[str, str, str]]:
    return {c["type"]: (c["status"], c["reason"], c["message"]) for c in status["conditions"]}


def test_the_status_of_a_pool_that_is_as_it_is_to_be() -> None:
    found = seen([member(0), member(1)], 2)
    status = status_of(pool(replicas=2), found, planned(2, found, (), 1), [], trouble=None, removing=False)
    assert (status["replicas"], status["readyReplicas"], status["updatedReplicas"]) == (2, 2, 2)
    assert status["capacity"] == {"pods": "500"}
    assert conditions(status) == {
        "Ready": ("True", "NodesReady", "2 of 2 nodes ready"),
        "Progressing": ("False", "UpToDate", "nothing is to be done"),
        "Draining": ("False", "NoneToEmpty", "no node is being emptied"),
        "Degraded": ("False", "AsSpecified", "the pool can be as it says"),
    }


def test_the_status_says_what_is_waited_for() -> None:
    found = seen([member(0), member(1, OLD), member(2, draining=NOW)], 3)
    emptying = [Emptying("edge-2", 1, "web/web-1: Cannot evict pod as it would violate the pod's disruption budget.")]
    status = status_of(pool(replicas=2), found, planned(2, found, (), 1), emptying, trouble=None, removing=False)
    said = conditions(status)
    assert said["Progressing"] == ("True", "ScalingDown", "from 3 to 2 nodes: edge-2 to end")
    assert said["Draining"][:2] == ("True", "Held")
    assert said["Draining"][2].startswith("edge-2: 1 pod left, held: web/web-1: Cannot evict pod")
    assert [(one["name"], one["state"]) for one in status["nodes"]] == [
        ("edge-0", "Ready"),
        ("edge-1", "Draining"),
        ("edge-2", "Draining"),
    ]


def test_a_change_that_its_controller_has_not_seen_is_still_under_way() -> None:
    found = seen([member(0)], 1, revision="")
    status = status_of(pool(), found, planned(1, found, (), 1), [], trouble=None, removing=False)
    assert conditions(status)["Progressing"][:2] == ("True", "Observing")


def test_the_status_says_why_a_node_is_not_ready() -> None:
    waiting = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}
    raw = {"metadata": {"name": "edge-0", "uid": "u"}, "status": {"containerStatuses": [waiting]}}
    one = member(0, ready=False, has_node=False)
    found = seen([type(one)(0, "edge-0", PodSeen.of(raw), None)], 1, NEW)
    status = status_of(pool(), found, planned(1, found, (), 1), [], trouble=None, removing=False)
    assert conditions(status)["Ready"][2] == "0 of 1 nodes ready; edge-0: ImagePullBackOff: no such image"


def test_a_status_is_written_only_where_it_says_something_new() -> None:
    found = seen([member(0)], 1)
    status = status_of(pool(), found, planned(1, found, (), 1), [], trouble=None, removing=False)
    first = stamped(status, {}, NOW)
    assert first is not None
    assert stamped(status, json.loads(json.dumps(first)), LATER) is None
    gone = seen([member(0, ready=False)], 1)
    status = status_of(pool(), gone, planned(1, gone, (), 1), [], trouble=None, removing=False)
    second = stamped(status, first, LATER)
    assert second is not None
    since = {c["type"]: c["lastTransitionTime"] for c in second["conditions"]}
    assert since == {
        "Ready": "2026-01-02T00:00:00Z",
        "Progressing": "2026-01-02T00:00:00Z",
        "Draining": "2026-01-01T00:00:00Z",
        "Degraded": "2026-01-01T00:00:00Z",
    }


@pytest.mark.parametrize("text", ["x", "2026-01-01T00:00:00", "0001-01-01T00:00:00+23:59"])
def test_a_time_that_somebody_wrote_by_hand_is_long_past(text: str) -> None:
    raw = {"metadata": {"name": "n", "uid": "u", "resourceVersion": "1", "annotations": {"wasmlet.dev/draining": text}}}
    found = NodeSeen.of(raw).draining
    assert found is not None
    assert found < NOW


def test_a_node_that_says_nonsense_of_itself_takes_no_pods() -> None:
    raw = {"metadata": {"name": "n", "uid": "u", "resourceVersion": "1"}, "status": {"allocatable": {"pods": "1e1000"}}}
    assert NodeSeen.of(raw).pods == Quantity.parse("0")


def test_the_host_of_agents_may_act_as_them_and_needs_no_more_than_restricted_allows() -> None:
    agents = [{"name": "till-1"}, {"name": "till-2"}]
    found = pool(provider="remote", replicas=None, remote={"agents": agents, "tlsSecret": "tls"})
    assert found.remote is not None
    objects = {one.body["kind"]: one.body for one in of_agents(found, found.remote, PLACE, ["till-1"])}
    assert objects["ClusterRole"]["rules"][0]["resourceNames"] == ["system:node:till-1"]
    assert objects["RoleBinding"]["roleRef"]["name"] == "wasmlet-pool-keys"
    assert objects["RoleBinding"]["metadata"]["namespace"] == keys_namespace(PLACE.namespace) != PLACE.namespace
    spec = objects["Deployment"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert {"--pool=edge", f"--namespace={keys_namespace(PLACE.namespace)}"} <= set(container["args"])
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    with pytest.raises(Unusable, match="is the operator's to set"):
        check_config(pool(provider="remote", remote={"tlsSecret": "tls"}, config={"listen": "x"}))
