"""Where a container stands: each pair of phase and event."""

from __future__ import annotations

import pytest

from tests.shared.transitions import check_step, pairs
from wasmlet.runtime.pods.phases import TRANSITIONS, Phase, PhaseEvent, after

FOLLOWS = {
    ("waiting", "start"): "starting",
    ("waiting", "begin"): "starting",
    ("starting", "start"): "starting",
    ("starting", "begin"): "starting",
    ("starting", "run"): "running",
    ("starting", "hook"): "post-start",
    ("starting", "replace"): "replacing",
    ("starting", "end"): "ended",
    ("post-start", "hook-over"): "running",
    ("post-start", "end"): "ended",
    ("running", "replace"): "replacing",
    ("running", "end"): "ended",
    ("replacing", "run"): "replacing",
    ("replacing", "end"): "replacing",
    ("replacing", "start"): "replacing",
    ("replacing", "begin"): "starting",
    ("replacing", "give-up"): "running",
    ("ended", "hook-over"): "ended",
    ("ended", "back-off"): "backing-off",
    ("ended", "start"): "starting",
    ("ended", "begin"): "starting",
    ("backing-off", "start"): "starting",
    ("backing-off", "begin"): "starting",
}


@pytest.mark.parametrize(("phase", "event"), pairs(Phase, PhaseEvent))
def test_each_event_in_each_phase(phase: Phase, event: PhaseEvent) -> None:
    check_step(after, phase, event, FOLLOWS)


def test_every_phase_is_left_and_reached() -> None:
    assert {phase for phase, _ in TRANSITIONS} == set(Phase)
    assert set(TRANSITIONS.values()) == set(Phase) - {Phase.WAITING}
    assert {event for _, event in TRANSITIONS} == set(PhaseEvent)
