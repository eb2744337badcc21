"""Events of dials and capabilities that were refused: each once, and nothing is kept without bound."""

from __future__ import annotations

import attrs
import pytest

from wasmlet.runtime.pods.denials import MOST_TOLD, Denials
from wasmlet.runtime.shim.records import ContainerRecord


def test_each_is_told_once_and_the_last_ones_are_remembered() -> None:
    told: list[str] = []
    denials = Denials()

    def say(_type: str, _reason: str, message: str) -> None:
        told.append(message.split()[5].rstrip(":"))

    def instance(number: int, *refused: str) -> None:
        for known in ((), refused[:1], refused):  # as the shim says it, one after the other
            denials.saw(ContainerRecord(f"id-{number}", {}, "", "running", refused=known), say, ours=False)

    instance(0, "a.example", "b.example")
    instance(1, "b.example", "c.example")
    assert told == ["a.example", "b.example", "c.example"]
    for number in range(2, MOST_TOLD):  # a guest that makes up two names each time that it is started
        instance(number, f"{number}.example", f"other-{number}.example")
    assert len(set(told)) == len(told)
    instance(MOST_TOLD, "a.example")
    assert told[-1] == "a.example"


def test_a_capability_has_an_event_of_its_own() -> None:
    told: list[tuple[str, str, str]] = []
    denials = Denials()

    def say(type: str, reason: str, message: str) -> None:  # noqa: A002 - as `Say` has it
        told.append((type, reason, message))

    denials.saw(ContainerRecord("id", {}, "", "running"), say, ours=False)
    denials.saw(ContainerRecord("id", {}, "", "running", refused=("capability acme:none",)), say, ours=False)
    assert told == [
        ("Warning", "CapabilityDenied", "The container has asked its host for acme:none, which it is not granted")
    ]


EARLY = ContainerRecord("01234567", {}, "logs/00/u,c.0.log", "running", refused=("10.0.0.1:80",))


@pytest.mark.parametrize(
    ("record", "ours", "told"),
    [
        (EARLY, True, 1),  # refused before the shim has told that the guest runs
        (EARLY, False, 0),  # an earlier node loop has told of it
        (attrs.evolve(EARLY, unheard=("10.0.0.1:80",)), False, 1),  # while no node loop ran
    ],
)
def test_each_refusal_is_told_once(record: ContainerRecord, ours: bool, told: int) -> None:
    events: list[str] = []
    denials = Denials()

    def say(type: str, reason: str, message: str) -> None:  # noqa: A002
        events.append(f"{type} {reason} {message}")

    denials.saw(record, say, ours=ours)
    assert len(events) == told
    denials.saw(record, say, ours=False)
    assert len(events) == told
    denials.saw(attrs.evolve(record, refused=("10.0.0.1:80", "later:1")), say, ours=False)
    assert len(events) == told + 1
    assert events[-1].startswith("Warning EgressDenied The container may not dial later:1")
