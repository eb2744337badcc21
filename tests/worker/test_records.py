"""A container's record fits into one message, whatever its guest writes: else no node loop would hear of any."""

from __future__ import annotations

from pathlib import Path

from tests.worker.harness import running
from wasmlet.worker import wire
from wasmlet.worker.supervisor.records import MAX_REFUSED, MAX_WHAT, Record, fitting

SIX = "\x01"
"""A character that is six bytes in JSON."""


def test_the_largest_record_fits() -> None:
    labels = {"": "x" * (wire.MAX_LABELS - len(wire.pack({"": ""})))}
    record = Record("f" * 32, labels, "logs/" + "x" * 200, created=0.1, started=0.1, finished=0.1, memory=2**64)
    assert len(wire.pack(labels)) == wire.MAX_LABELS
    record.message, record.group = fitting(SIX * 100_000), "wasmlet-1"
    for number in range(MAX_REFUSED):
        record.refuse(f"{number:0{MAX_WHAT}}", heard=False)
    assert len(record.unheard) == MAX_REFUSED
    assert len(record.message) > 4000
    wire.pack({"re": 2**53, "item": record.as_message()})


def test_what_is_usual_is_not_cut() -> None:
    text = "trapped: " + "x" * 4000 + "\n" + "\u00e9" * 2000
    assert fitting(text) == text


def test_a_guest_that_writes_what_takes_much_room(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        said = {"mount": None, "path": "", "logs": True}
        name = shim.run("start", "write", "01" * 2048, "trap", SIX * 4000, message=said)
        record = shim.ended(name)
        assert record["message"].startswith(SIX * 100)
        assert len(wire.pack({"": record["message"]})) < 25_000
