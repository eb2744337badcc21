"""Where a process for a guest stands: each pair of stage and event."""

from __future__ import annotations

import pytest

from tests.shared.transitions import check_step, pairs
from wasmlet.worker import wire
from wasmlet.worker.supervisor.stages import TRANSITIONS, Event, Stage, after

FOLLOWS = {
    ("new", "prepare"): "waiting",
    ("new", "give-up"): "given-up",
    ("waiting", "hand-over"): "starting",
    ("waiting", "start-over"): "new",
    ("waiting", "give-up"): "given-up",
    ("starting", "start-over"): "new",
    ("starting", "begin"): "running",
    ("starting", "reap"): "reaped-unbegun",
    ("starting", "give-up"): "given-up",
    ("running", "reap"): "reaped",
    ("reaped-unbegun", "begin"): "reaped",
    ("reaped-unbegun", "complete"): "ended",
    ("reaped", "complete"): "ended",
    ("given-up", "complete"): "ended",
}


@pytest.mark.parametrize(("stage", "event"), pairs(Stage, Event))
def test_each_event_in_each_stage(stage: Stage, event: Event) -> None:
    check_step(after, stage, event, FOLLOWS)


def test_every_stage_is_left_and_reached_but_for_the_first_and_the_last() -> None:
    assert {stage for stage, _ in TRANSITIONS} == set(Stage) - {Stage.ENDED}
    assert set(TRANSITIONS.values()) == set(Stage)
    assert {event for _, event in TRANSITIONS} == set(Event)


@pytest.mark.parametrize("stage", Stage)
def test_what_a_record_shows(stage: Stage) -> None:
    begun = {Stage.RUNNING, Stage.REAPED}
    assert stage.shown == (wire.ENDED if stage is Stage.ENDED else wire.RUNNING if stage in begun else wire.STARTING)
    assert stage.over == (stage not in {Stage.NEW, Stage.WAITING, Stage.STARTING, Stage.RUNNING})
    for event in (event for other, event in TRANSITIONS if other is stage):
        assert not stage.over or after(stage, event).over, "what is over does not come back"
