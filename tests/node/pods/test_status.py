"""What becomes of a provider's status in the API: conditions, times, patches that say no more than they must."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.node.cluster import Cluster, condition, running
from wasmlet.controlplane.patches.strategic import merge
from wasmlet.kube.client import STRATEGIC_PATCH
from wasmlet.model.pod import Pod
from wasmlet.model.status import (
    Condition,
    ContainerState,
    ContainerStatus,
    PodStatus,
    Running,
    Terminated,
    Waiting,
)
from wasmlet.node.pods import losses
from wasmlet.node.pods.status import api_status, patch_of
from wasmlet.testing.reference import ReferenceProvider

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def pod(*, init: int = 0, main: int = 1, **spec: Any) -> Pod:
    body = {
        "containers": [{"name": f"c{i}", "image": f"image-{i}"} for i in range(main)],
        "initContainers": [{"name": f"i{i}", "image": "x"} for i in range(init)],
    }
    metadata = {"name": "p", "namespace": "d", "uid": "u", "generation": 3}
    return Pod({"metadata": metadata, "spec": body | spec, "status": {"phase": "Pending"}})


def status(*states: ContainerState, **more: Any) -> PodStatus:
    return PodStatus(containers=tuple(ContainerStatus(f"c{i}", s) for i, s in enumerate(states)), **more)


def written(subject: Pod, current: Any, provided: PodStatus, now: datetime = NOW, final: bool = False) -> Any:
    """The API's status after one write."""
    wanted = api_status(subject, current, provided, node_ips=["10.0.0.1"], now=now, final=final)
    patch = patch_of(subject, current, wanted)
    return current if patch is None else merge("pods", {"status": current}, {"status": patch["status"]})["status"]


def test_no_text_is_longer_than_an_api_server_takes() -> None:
    """Nor one that it does not take at all: a lone surrogate, as a file's name may have."""
    long = "\udc80" + "ü" * 3_000_000
    found = written(
        pod(), {}, status(Waiting("Odd", long), message=long, conditions=(Condition("X", "True", "", long),))
    )
    (container,) = found["containerStatuses"]
    texts = [container["state"]["waiting"]["message"], found["message"], condition({"status": found}, "X")["message"]]
    assert all(text.startswith("?üü") and len(text.encode()) <= 12 * 1024 for text in texts)


def test_the_whole_of_a_running_pod() -> None:
    found = written(pod(), {"phase": "Pending"}, status(Running(NOW)))
    assert found["phase"] == "Running"
    assert found["hostIP"] == "10.0.0.1"
    assert found["hostIPs"] == [{"ip": "10.0.0.1"}]
    assert found["startTime"] == "2026-01-02T03:04:05Z"
    assert found["observedGeneration"] == 3
    assert "podIP" not in found
    (container,) = found["containerStatuses"]
    assert container["state"] == {"running": {"startedAt": "2026-01-02T03:04:05Z"}}
    assert (container["ready"], container["started"], container["restartCount"]) == (True, True, 0)
    assert {c["type"]: c["status"] for c in found["conditions"]} == {
        "PodScheduled": "True",
        "PodReadyToStartContainers": "True",
        "Initialized": "True",
        "ContainersReady": "True",
        "Ready": "True",
    }
    assert all(c["observedGeneration"] == 3 for c in found["conditions"])


def test_a_transition_time_moves_only_when_the_status_does() -> None:
    first = written(pod(), {}, status(Waiting()))
    second = written(pod(), first, status(Running(NOW)), NOW + timedelta(minutes=1))
    times = {c["type"]: c["lastTransitionTime"] for c in second["conditions"]}
    assert times["Initialized"] == "2026-01-02T03:04:05Z"
    assert times["Ready"] == "2026-01-02T03:05:05Z"
    assert second["startTime"] == "2026-01-02T03:04:05Z"


def test_a_reason_that_no_longer_holds_is_taken_away() -> None:
    first = written(pod(), {}, status(Waiting(), reason="Odd", message="very"))
    assert condition({"status": first}, "Ready")["reason"] == "ContainersNotReady"
    second = written(pod(), first, status(Running(NOW)))
    assert not condition({"status": second}, "Ready").get("reason")
    assert not second.get("reason")
    assert not second.get("message")


def test_containers_that_wait_for_init_containers_say_so() -> None:
    found = written(pod(init=1), {}, PodStatus(init_containers=(ContainerStatus("i0", Running(NOW)),)))
    assert found["phase"] == "Pending"
    assert found["containerStatuses"][0]["state"]["waiting"]["reason"] == "PodInitializing"
    assert condition({"status": found}, "Initialized")["reason"] == "ContainersNotInitialized"
    done = PodStatus(init_containers=(ContainerStatus("i0", Terminated(0)),))
    after = written(pod(init=1), found, done)
    assert after["containerStatuses"][0]["state"]["waiting"]["reason"] == "ContainerCreating"
    assert condition({"status": after}, "Initialized")["status"] == "True"


DEADLINE = {"phase": "Failed", "reason": "DeadlineExceeded"}
UNKNOWN = {"exitCode": 137, "reason": "ContainerStatusUnknown"}


def states(found: Any, kind: str = "containerStatuses") -> list[Any]:
    """What kubectl makes its STATUS column of: the reason that a container waits for, or how it ended."""
    return [
        entry["state"]["waiting"]["reason"]
        if "waiting" in entry["state"]
        else {key: entry["state"]["terminated"][key] for key in ("exitCode", "reason")}
        for entry in found[kind]
    ]


def test_a_rejected_pod_has_no_container_that_waits() -> None:
    rejected = PodStatus(phase="Failed", reason="OutOfcpu", message="too much")
    before = written(pod(init=1), {}, PodStatus())
    assert states(before) == ["PodInitializing"]
    for current in ({"phase": "Pending"}, before):
        found = written(pod(init=1), current, rejected)
        assert (found["phase"], found["reason"]) == ("Failed", "OutOfcpu")
        assert not found.get("containerStatuses")
        assert not found.get("initContainerStatuses")
        assert (
            patch_of(pod(init=1), found, api_status(pod(init=1), found, rejected, node_ips=["10.0.0.1"], now=NOW))
            is None
        )


def test_a_pod_that_ran_and_is_rejected_when_it_is_to_start_again_keeps_its_containers() -> None:
    before = written(pod(), {}, status(Running(NOW)))
    found = written(pod(), before, PodStatus(phase="Failed", reason="OutOfcpu"))
    assert states(found) == [UNKNOWN]


@pytest.mark.parametrize(
    "waiting", [Waiting(), Waiting("CrashLoopBackOff"), Waiting("ErrImagePull"), Waiting("CreateContainerConfigError")]
)
def test_no_container_waits_in_a_pod_that_has_ended(waiting: Waiting) -> None:
    last = Terminated(3, "Error", finished_at=NOW)
    crashing = ContainerStatus("c0", waiting, last_state=last, restart_count=2)
    provided = PodStatus(containers=(crashing, ContainerStatus("c1", Terminated(0))), **DEADLINE)
    found = written(pod(main=3), {}, provided)
    assert states(found) == [UNKNOWN, {"exitCode": 0, "reason": "Completed"}, UNKNOWN]
    assert found["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 3
    assert found["containerStatuses"][0]["restartCount"] == 2
    later = api_status(pod(main=3), found, provided, node_ips=["10.0.0.1"], now=NOW + timedelta(hours=1))
    assert patch_of(pod(main=3), found, later) is None


def test_of_a_pod_that_was_not_initialized_the_main_containers_wait_on() -> None:
    inits = (ContainerStatus("i0", Waiting("CrashLoopBackOff"), last_state=Terminated(1)), ContainerStatus("i1"))
    found = written(pod(init=3), {}, PodStatus(init_containers=inits, **DEADLINE))
    assert states(found) == ["PodInitializing"]
    assert states(found, "initContainerStatuses") == [UNKNOWN, "ContainerCreating", "ContainerCreating"]


@pytest.mark.parametrize(
    ("gate", "ready", "part"),
    [(None, "False", "nobody has set"), ("False", "False", "is False"), ("True", "True", "")],
)
def test_readiness_gates(gate: str | None, ready: str, part: str) -> None:
    current = {"conditions": [{"type": "example.com/gate", "status": gate}]} if gate else {}
    gated = pod(readinessGates=[{"conditionType": "example.com/gate"}])
    found = written(gated, current, status(Running(NOW)))
    assert condition({"status": found}, "ContainersReady")["status"] == "True"
    assert condition({"status": found}, "Ready")["status"] == ready
    assert part in (condition({"status": found}, "Ready").get("message") or "")


def test_conditions_of_others_survive_and_those_of_the_provider_are_added() -> None:
    current = {"conditions": [{"type": "Theirs", "status": "True", "reason": "Because"}]}
    found = written(pod(), current, status(Running(NOW), conditions=(Condition("Mine", "True"),)))
    assert condition({"status": found}, "Theirs") == {"type": "Theirs", "status": "True", "reason": "Because"}
    assert condition({"status": found}, "Mine")["lastTransitionTime"]


def test_what_is_final_has_a_terminal_phase_and_no_container_without_an_end() -> None:
    provided = losses.with_losses(pod(main=2), status(Terminated(0)), NOW)
    found = written(pod(main=2), {}, provided, final=True)
    assert found["phase"] == "Failed"
    codes = [c["state"]["terminated"]["exitCode"] for c in found["containerStatuses"]]
    assert codes == [0, 137]
    assert found["containerStatuses"][1]["state"]["terminated"]["reason"] == "ContainerStatusUnknown"


STATES: st.SearchStrategy[ContainerState] = st.one_of(
    st.builds(Waiting, st.sampled_from(["ContainerCreating", "ErrImagePull"]), st.sampled_from(["", "why"])),
    st.just(Running(NOW)),
    st.builds(Terminated, st.integers(0, 255), st.sampled_from(["", "Error"]), st.just(""), st.sampled_from([None, 9])),
)
CONTAINERS = st.builds(
    ContainerStatus,
    st.just("c0"),
    STATES,
    st.none() | st.just(Terminated(1)),
    st.none() | st.booleans(),
    st.none() | st.booleans(),
    st.integers(0, 3),
)
STATUSES = st.builds(
    PodStatus,
    containers=st.tuples(CONTAINERS),
    reason=st.sampled_from(["", "Evicted"]),
    message=st.sampled_from(["", "long"]),
    pod_ips=st.sampled_from([(), ("10.1.1.1",)]),
)


@given(st.lists(STATUSES, min_size=1, max_size=4))
def test_what_was_written_is_not_written_again(history: list[PodStatus]) -> None:
    current: Any = {"phase": "Pending", "qosClass": "BestEffort"}
    for provided in history:
        current = written(pod(), current, provided)
        wanted = api_status(pod(), current, provided, node_ips=["10.0.0.1"], now=NOW + timedelta(hours=1))
        assert patch_of(pod(), current, wanted) is None
    assert current["qosClass"] == "BestEffort"


@given(STATUSES)
def test_ends_are_read_back_from_the_api(provided: PodStatus) -> None:
    found = losses.ends_in_api(written(pod(), {}, provided))
    ended = [c for c in provided.containers if isinstance(c.state, Terminated)]
    assert [c.name for c in found.containers] == [c.name for c in ended]
    for read, given_ in zip(found.containers, ended, strict=True):
        assert isinstance(read.state, Terminated)
        assert isinstance(given_.state, Terminated)
        assert (read.state.exit_code, read.state.signal) == (given_.state.exit_code, given_.state.signal)
        assert read.restart_count == given_.restart_count


async def test_a_gate_that_opens_makes_a_running_pod_ready(cluster: Cluster, provider: ReferenceProvider) -> None:
    async with cluster.node(provider):
        await cluster.create(readinessGates=[{"conditionType": "example.com/gate"}])
        made = await cluster.until(running)
        assert condition(made.raw, "Ready")["status"] == "False"
        gate = {"type": "example.com/gate", "status": "True"}
        path = f"{cluster.pods}/p/status"
        await cluster.admin.patch(path, {"status": {"conditions": [gate]}}, STRATEGIC_PATCH)
        ready = await cluster.until(lambda pod: condition(pod.raw, "Ready")["status"] == "True")
        assert condition(ready.raw, "example.com/gate")["status"] == "True"


async def test_what_somebody_else_wrote_over_is_put_right(cluster: Cluster, provider: ReferenceProvider) -> None:
    async with cluster.node(provider):
        await cluster.create()
        before = await cluster.until(running)
        path = f"{cluster.pods}/p/status"
        wrong = {"hostIP": "9.9.9.9", "hostIPs": [{"ip": "9.9.9.9"}, {"$patch": "replace"}]}
        await cluster.admin.patch(path, {"status": wrong}, STRATEGIC_PATCH)
        after = await cluster.until(
            lambda pod: pod.resource_version != before.resource_version and pod.status["hostIP"] == "127.0.0.1"
        )
        assert condition(after.raw, "Ready")["status"] == "True"


def test_no_restart_count_goes_down_while_a_lost_pod_starts_again() -> None:
    subject = pod(main=2)
    current = {
        "containerStatuses": [
            {"name": "c0", "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}, "restartCount": 3},
            {"name": "gone", "state": {"waiting": {}}, "restartCount": 5},
        ]
    }
    started = ContainerStatus("c1", Running(NOW), restart_count=1)
    wanted = api_status(subject, current, PodStatus(containers=(started,)), node_ips=[], now=NOW, final=False)
    losses.never_fewer(wanted, current)
    assert [(c["name"], c["restartCount"]) for c in wanted["containerStatuses"]] == [("c0", 3), ("c1", 1)]


@pytest.mark.parametrize(
    ("current", "wanted", "same"),
    [
        ({"imageID": ""}, {}, True),
        ({}, {"imageID": "", "ready": False, "resources": {}}, True),
        ({"state": {"running": {"startedAt": None}}}, {"state": {"running": {}}}, True),
        ({"resources": {"limits": {}}}, {"resources": {}}, True),
        ({"lastState": {"terminated": {"exitCode": 1}}}, {}, False),
        ({}, {"ready": True}, False),
        ({"state": {"running": {}}}, {"state": {"terminated": {"exitCode": 0}}}, False),
    ],
)
def test_what_the_api_leaves_out_because_it_is_empty_is_no_change(
    current: dict[str, Any], wanted: dict[str, Any], same: bool
) -> None:
    pod = Pod({"metadata": {"namespace": "default", "name": "p", "uid": "u"}, "spec": {"containers": [{"name": "c"}]}})
    before, now = ({"containerStatuses": [{"name": "c", **entry}]} for entry in (current, wanted))
    assert (patch_of(pod, before, now) is None) == same
