"""The phase that container states and restart policy give, by the kubelet's rules."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.model.manifests import pod
from wasmlet.model.pod import Pod
from wasmlet.model.status import (
    LOST_EXIT_CODE,
    ContainerState,
    ContainerStatus,
    PodStatus,
    Running,
    Terminated,
    Waiting,
    lost,
    phase_of,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)

STATES: dict[str, tuple[ContainerState, Terminated | None]] = {
    "waits": (Waiting(), None),
    "runs": (Running(NOW), None),
    "ended": (Terminated(0), None),
    "failed": (Terminated(1), None),
    "backs off": (Waiting("CrashLoopBackOff"), Terminated(1)),
    "pauses": (Waiting("CrashLoopBackOff"), Terminated(0)),
}


def statuses(names: list[str], words: list[str]) -> tuple[ContainerStatus, ...]:
    return tuple(ContainerStatus(name, *STATES[word]) for name, word in zip(names, words, strict=False))


def manifest(policy: str, main: int, init: int = 0, sidecars: int = 0) -> Pod:
    inits = [{"name": f"i{n}"} for n in range(init)]
    inits += [{"name": f"s{n}", "restartPolicy": "Always"} for n in range(sidecars)]
    return pod(*({"name": f"m{n}"} for n in range(main)), initContainers=inits, restartPolicy=policy)


def phase(policy: str, *main: str, init: tuple[str, ...] = (), sidecars: tuple[str, ...] = (), **rest: Any) -> str:
    made = manifest(policy, len(main), len(init), len(sidecars))
    inits = statuses([c.name for c in made.init_containers], [*init, *sidecars])
    return phase_of(made, PodStatus(statuses([c.name for c in made.containers], list(main)), inits), **rest)


@pytest.mark.parametrize(
    ("main", "always", "on_failure", "never"),
    [
        (["waits"], "Pending", "Pending", "Pending"),
        (["runs"], "Running", "Running", "Running"),
        (["ended"], "Running", "Succeeded", "Succeeded"),
        (["failed"], "Running", "Running", "Failed"),
        (["ended", "ended"], "Running", "Succeeded", "Succeeded"),
        (["ended", "failed"], "Running", "Running", "Failed"),
        (["runs", "failed"], "Running", "Running", "Running"),
        (["runs", "ended"], "Running", "Running", "Running"),
        (["runs", "waits"], "Pending", "Pending", "Pending"),
        (["ended", "waits"], "Pending", "Pending", "Pending"),
    ],
)
def test_by_states_and_policy(main: list[str], always: str, on_failure: str, never: str) -> None:
    assert phase("Always", *main) == always
    assert phase("OnFailure", *main) == on_failure
    assert phase("Never", *main) == never


@pytest.mark.parametrize("policy", ["Always", "OnFailure"])
@pytest.mark.parametrize("others", [[], ["runs"], ["ended"], ["backs off"]])
def test_a_container_that_backs_off_is_one_that_was_started(policy: str, others: list[str]) -> None:
    assert phase(policy, "backs off", *others) == "Running"


def test_a_container_that_ended_well_and_waits_to_start_again() -> None:
    assert phase("Always", "pauses") == "Running"


@pytest.mark.parametrize("policy", ["Always", "OnFailure", "Never"])
@pytest.mark.parametrize("init", ["waits", "runs"])
def test_pending_until_the_init_containers_are_done(policy: str, init: str) -> None:
    assert phase(policy, "waits", init=(init,)) == "Pending"
    assert phase(policy, "waits", init=("ended", init)) == "Pending"


def test_an_init_container_that_failed() -> None:
    assert phase("Never", "waits", init=("failed",)) == "Failed"
    assert phase("Never", "waits", init=("ended", "failed", "waits")) == "Failed"
    assert phase("Always", "waits", init=("failed",)) == "Pending"
    assert phase("OnFailure", "waits", init=("backs off",)) == "Pending"


def test_running_once_the_init_containers_are_done() -> None:
    assert phase("Always", "waits", init=("ended",)) == "Pending"
    assert phase("Always", "runs", init=("ended", "ended")) == "Running"


@pytest.mark.parametrize("sidecar", ["waits", "runs", "ended", "failed", "backs off"])
def test_a_sidecar_does_not_hold_up_a_pod_that_runs_or_is_done(sidecar: str) -> None:
    assert phase("Never", "runs", sidecars=(sidecar,)) == "Running"
    # One that still runs is about to be ended, and then the pod is done.
    assert phase("Never", "ended", sidecars=(sidecar,)) == ("Running" if sidecar == "runs" else "Succeeded")
    assert phase("Never", "failed", sidecars=(sidecar,)) == ("Running" if sidecar == "runs" else "Failed")


@pytest.mark.parametrize(
    ("started", "main", "expected"),
    [(False, "waits", "Pending"), (True, "waits", "Pending"), (False, "runs", "Running"), (True, "runs", "Running")],
)
def test_a_sidecar_has_to_start_before_the_main_containers(started: bool, main: str, expected: str) -> None:
    made = manifest("Always", 1, sidecars=1)
    sidecar = ContainerStatus("s0", Running(NOW), started=started)
    assert phase_of(made, PodStatus(statuses(["m0"], [main]), (sidecar,))) == expected


def test_a_containers_own_restart_policy() -> None:
    again = {"name": "m0", "restartPolicy": "Always"}
    once = {"name": "m1", "restartPolicy": "Never"}
    for first, second, expected in (
        ("ended", "ended", "Running"),
        ("failed", "failed", "Running"),
        ("runs", "failed", "Running"),
    ):
        made = pod(again, once, restartPolicy="OnFailure")
        assert phase_of(made, PodStatus(statuses(["m0", "m1"], [first, second]))) == expected
    assert phase_of(pod(once, restartPolicy="Always"), PodStatus(statuses(["m1"], ["failed"]))) == "Failed"
    assert phase_of(pod(once, restartPolicy="Always"), PodStatus(statuses(["m1"], ["ended"]))) == "Succeeded"
    init = [{"name": "i0", "restartPolicy": "Never"}]
    made = pod({"name": "m0"}, initContainers=init, restartPolicy="Always")
    assert phase_of(made, PodStatus(statuses(["m0"], ["waits"]), statuses(["i0"], ["failed"]))) == "Failed"


def test_a_container_of_which_nothing_is_known() -> None:
    made = manifest("Never", 2)
    assert phase_of(made, PodStatus()) == "Pending"
    assert phase_of(made, PodStatus(statuses(["m0"], ["runs"]))) == "Pending"
    assert phase_of(made, PodStatus(statuses(["m0"], ["ended"]))) == "Pending"


def test_the_providers_own_word_goes_first() -> None:
    made = manifest("Never", 1)
    assert phase_of(made, PodStatus(statuses(["m0"], ["runs"]), phase="Failed")) == "Failed"
    assert phase_of(made, PodStatus(phase="Unknown"), final=True) == "Unknown"


words = st.lists(st.sampled_from(sorted(STATES)), min_size=1, max_size=4)
policies = st.sampled_from(["Always", "OnFailure", "Never"])


@given(policies, words, st.lists(st.sampled_from(sorted(STATES)), max_size=2))
def test_final_is_always_terminal(policy: str, main: list[str], init: list[str]) -> None:
    expected = "Succeeded" if all(word == "ended" for word in main) else "Failed"
    assert phase(policy, *main, init=tuple(init), final=True) == expected


@given(policies, words)
def test_the_order_of_containers_does_not_matter(policy: str, main: list[str]) -> None:
    assert phase(policy, *main) == phase(policy, *reversed(main)) == phase(policy, *sorted(main))


@given(policies, words)
def test_a_phase_that_a_pod_never_leaves_needs_every_container_ended(policy: str, main: list[str]) -> None:
    if phase(policy, *main) in ("Succeeded", "Failed"):
        assert set(main) <= {"ended", "failed"}
        assert policy != "Always"


def test_lost_containers_are_reported_as_the_kubelet_does() -> None:
    made = pod({"name": "a", "image": "file:///a.wasm"}, {"name": "b"})
    found = lost(made, NOW, ["a"])
    assert [status.name for status in found] == ["a"]
    (status,) = found
    assert status.image == "file:///a.wasm"
    assert isinstance(status.state, Terminated)
    assert status.state.reason == "ContainerStatusUnknown"
    assert status.state.exit_code == LOST_EXIT_CODE == 137
    assert status.state.finished_at == NOW


def test_words_for_an_end() -> None:
    assert Terminated(0).cause == "Completed"
    assert Terminated(3).cause == "Error"
    assert Terminated(137, "OOMKilled").cause == "OOMKilled"


def test_ready_and_started_follow_the_state_unless_said() -> None:
    assert ContainerStatus("a", Running(NOW)).is_ready
    assert not ContainerStatus("a", Running(NOW), ready=False).is_ready
    assert not ContainerStatus("a").is_started
    assert ContainerStatus("a", Running(NOW)).is_started
    status = PodStatus((ContainerStatus("a"),), ephemeral_containers=(ContainerStatus("d", Running(NOW)),))
    assert status.running
    assert status.container("d") is not None
    assert status.container("x") is None
