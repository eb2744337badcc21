"""How long a pod has to end, and what its last status is when the node ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from wasmlet.model.pod import MOST_GRACE_SECONDS, Pod
from wasmlet.model.status import ContainerStatus, PodStatus, Running, Terminated
from wasmlet.node.pods.ending import LEAST_GRACE_SECONDS, grace_seconds, shut_down_status
from wasmlet.testing import FakeClock

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
FAR = "31709-12-31T00:00:00Z"
"""What an API server makes of a grace period that is very long."""


def pod(**metadata: Any) -> Pod:
    spec = {"containers": [{"name": "c"}], "restartPolicy": "Never", "terminationGracePeriodSeconds": 30}
    return Pod({"metadata": {"namespace": "default", "name": "p", "uid": "1", **metadata}, "spec": spec, "status": {}})


def deleted(grace: int, left: float) -> Pod:
    """A pod that is being deleted with that grace period, of which so many seconds are left."""
    end = (NOW + timedelta(seconds=left)).isoformat().replace("+00:00", "Z")
    return pod(deletionTimestamp=end, deletionGracePeriodSeconds=grace)


@pytest.mark.parametrize(
    ("manifest", "began_before", "drain_by", "expected"),
    [
        (pod(), False, None, 30),
        (pod(), False, 12.0, 12),
        (pod(), False, 100.0, 30),
        (pod(), False, -1.0, 0),
        (deleted(10, 4), False, None, 10),
        (deleted(10, 4), False, 3.0, 3),
        (deleted(10, 4), True, None, 4),
        (deleted(10, -60), True, None, LEAST_GRACE_SECONDS),
        (deleted(10, 60), True, None, 10),
        (deleted(1, -60), True, None, 1),
        (deleted(0, -60), True, None, 0),
        (pod(deletionTimestamp=FAR, deletionGracePeriodSeconds=2**53), True, None, MOST_GRACE_SECONDS),
        (pod(deletionTimestamp=FAR, deletionGracePeriodSeconds=2**53), False, 12.0, 12),
    ],
)
def test_how_long_a_pod_has_to_end(manifest: Pod, began_before: bool, drain_by: float | None, expected: float) -> None:
    found = grace_seconds(manifest, FakeClock(NOW), began_before=began_before, drain_by=drain_by)
    assert found == expected


@pytest.mark.parametrize(
    ("state", "exit_code", "phase"),
    [
        (Terminated(0, finished_at=NOW), 0, "Succeeded"),
        (Terminated(3, finished_at=NOW), 3, "Failed"),
        (Running(NOW), 137, "Failed"),
    ],
)
def test_the_last_status_at_the_end_of_the_node(state: Any, exit_code: int, phase: str) -> None:
    last = shut_down_status(pod(), PodStatus((ContainerStatus("c", state),)), NOW)
    (container,) = last.containers
    assert isinstance(container.state, Terminated)
    assert container.state.exit_code == exit_code
    if phase == "Succeeded":
        assert (last.phase, last.conditions) == (None, ())
    else:
        assert (last.phase, last.reason) == ("Failed", "Terminated")
        assert [condition.type for condition in last.conditions] == ["DisruptionTarget"]
