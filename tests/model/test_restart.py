"""Whether a container runs again: the pod's policy, the container's own, its rules (KEP-753, KEP-5307)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmlet.model.pod import Container, Pod
from wasmlet.model.restart import is_sidecar, restarts

POLICIES = ("Always", "OnFailure", "Never")


def made(policy: str, kind: str = "containers", **container: Any) -> tuple[Pod, Container]:
    raw = {"name": "c", **container}
    pod = Pod({"metadata": {"namespace": "n", "name": "p", "uid": "u"}, "spec": {"restartPolicy": policy, kind: [raw]}})
    found = pod.container("c")
    assert found is not None
    return pod, found


@pytest.mark.parametrize(
    ("policy", "zero", "other"), [("Always", True, True), ("OnFailure", False, True), ("Never", False, False)]
)
def test_policies(policy: str, zero: bool, other: bool) -> None:
    assert restarts(*made(policy), 0) is zero
    assert restarts(*made(policy), 3) is other
    assert restarts(*made(policy, "initContainers"), 0) is False
    assert restarts(*made(policy, "initContainers"), 3) is other
    assert restarts(*made(policy, "ephemeralContainers"), 3) is False
    for pods in POLICIES:
        assert restarts(*made(pods, restartPolicy=policy), 0) is zero
        assert restarts(*made(pods, restartPolicy=policy), 3) is other


@pytest.mark.parametrize("policy", POLICIES)
def test_a_sidecar_always_runs_again(policy: str) -> None:
    pod, sidecar = made(policy, "initContainers", restartPolicy="Always")
    assert is_sidecar(sidecar)
    assert restarts(pod, sidecar, 0)
    assert restarts(pod, sidecar, 1)
    assert not is_sidecar(made(policy, "initContainers", restartPolicy="OnFailure")[1])
    assert not is_sidecar(made(policy, restartPolicy="Always")[1])


@given(st.integers(0, 255), st.lists(st.integers(0, 255), max_size=5), st.sampled_from(("In", "NotIn")))
def test_rules_go_before_the_policy(code: int, values: list[int], operator: str) -> None:
    rules = [{"action": "Restart", "exitCodes": {"operator": operator, "values": values}}]
    pod, container = made("Never", restartPolicy="Never", restartPolicyRules=rules)
    assert restarts(pod, container, code) is ((code in values) == (operator == "In"))
    pod, container = made("Never", restartPolicy="Always", restartPolicyRules=rules)
    assert restarts(pod, container, code)


def test_a_rule_of_an_init_container_does_not_repeat_what_has_succeeded() -> None:
    rules = [{"action": "Restart", "exitCodes": {"operator": "In", "values": [0, 7]}}]
    pod, container = made("Never", "initContainers", restartPolicy="Never", restartPolicyRules=rules)
    assert [restarts(pod, container, code) for code in (0, 7, 8)] == [False, True, False]
