"""Events of dials and capabilities that were refused: each once, and nothing is kept without bound."""

from __future__ import annotations

from wasmlet.runtime.pods.denials import MOST_TOLD, Denials
from wasmlet.runtime.shim.records import ContainerRecord


def test_each_is_told_once_and_the_last_ones_are_remembered() -> None:
    told: list[str] = []
    denials = Denials()

    def say(_type: str, _reason: str, message: str) -> None:
        told.append(message.split()[5].rstrip(":"))

    def instance(number: int, *refused: str) -> None:
        for known in ((), refused[:1], refused):  # as the shim says it, one after the other
            denials.saw(ContainerRecord(f"id-{number}", {}, "", "running", refused=known), say)

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

    denials.saw(ContainerRecord("id", {}, "", "running"), say)
    denials.saw(ContainerRecord("id", {}, "", "running", refused=("capability acme:none",)), say)
    assert told == [
        ("Warning", "CapabilityDenied", "The container has asked its host for acme:none, which it is not granted")
    ]
