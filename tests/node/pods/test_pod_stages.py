"""Where a pod stands with the provider and the API: each pair of stage and event."""

from __future__ import annotations

import pytest

from tests.shared.transitions import check_step, pairs
from wasmlet.node.pods.stages import TRANSITIONS, Stage, StageEvent, after

FOLLOWS = {
    ("new", "offer"): "offered",
    ("new", "reject"): "new",
    ("new", "stop"): "kept",
    ("new", "end"): "ended",
    ("new", "restore"): "new",
    ("new", "vanish"): "withdrawn",
    ("offered", "offer"): "offered",
    ("offered", "accept"): "accepted",
    ("offered", "reject"): "new",
    ("offered", "stop"): "kept",
    ("offered", "end"): "ended",
    ("offered", "restore"): "offered",
    ("offered", "vanish"): "withdrawn",
    ("accepted", "reject"): "accepted",
    ("accepted", "lose"): "new",
    ("accepted", "stop"): "kept",
    ("accepted", "end"): "ended",
    ("accepted", "restore"): "accepted",
    ("accepted", "vanish"): "orphaned",
    ("kept", "end"): "ended",
    ("kept", "restore"): "kept",
    ("kept", "vanish"): "left",
    ("ended", "forget"): "forgetting",
    ("ended", "restore"): "ended",
    ("ended", "vanish"): "over",
    ("forgetting", "restore"): "ended",
    ("forgetting", "vanish"): "over",
    ("withdrawn", "offer"): "withdrawn",
    ("withdrawn", "accept"): "orphaned",
    ("withdrawn", "reject"): "withdrawn",
    ("withdrawn", "end"): "over",
    ("withdrawn", "vanish"): "withdrawn",
    ("orphaned", "reject"): "orphaned",
    ("orphaned", "lose"): "withdrawn",
    ("orphaned", "end"): "over",
    ("orphaned", "vanish"): "orphaned",
    ("left", "end"): "over",
    ("left", "vanish"): "left",
    ("over", "forget"): "over",
    ("over", "vanish"): "over",
}


@pytest.mark.parametrize(("stage", "event"), pairs(Stage, StageEvent))
def test_each_event_in_each_stage(stage: Stage, event: StageEvent) -> None:
    check_step(after, stage, event, FOLLOWS)


def test_every_stage_is_left_and_reached() -> None:
    assert {stage for stage, _ in TRANSITIONS} == set(Stage)
    assert set(TRANSITIONS.values()) == set(Stage)
    assert {event for _, event in TRANSITIONS} == set(StageEvent)


def test_what_a_stage_says_of_the_pod_changes_with_the_events_that_say_so() -> None:
    """`gone`, `ended`, `forgotten` and `accepted` agree with the table: no other event changes these."""
    for (before, event), now in TRANSITIONS.items():
        assert now.gone == (before.gone or event is StageEvent.VANISH)
        assert now.ended == (before.ended or event in (StageEvent.STOP, StageEvent.END))
        assert now.forgotten == (before.forgotten or event is StageEvent.END)
        starts, stops = event is StageEvent.ACCEPT, event in (StageEvent.LOSE, StageEvent.STOP, StageEvent.END)
        assert now.accepted == (starts or (before.accepted and not stops))
