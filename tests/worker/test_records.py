"""A container's record fits into one message, whatever its guest writes: else no node loop would hear of any."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.worker.harness import POD, kill, running
from wasmlet.worker import fields, wire
from wasmlet.worker.grants import Grant
from wasmlet.worker.supervisor.processes import Process
from wasmlet.worker.supervisor.records import MAX_RECORD, MAX_REFUSED, MAX_WHAT, Record, fitting
from wasmlet.worker.supervisor.store import RECORDS

SIX = "\x01"
"""A character that is six bytes in JSON."""
TWELVE = "\U0001f600"
"""One that is twelve."""


@pytest.mark.parametrize("letter", ["x", SIX, TWELVE, '"', "\\", "\x7f"])
def test_the_largest_record_fits(letter: str) -> None:
    labels = {"": "x" * (wire.MAX_LABELS - len(wire.pack({"": ""})))}
    record = Record("f" * 32, labels, "logs/" + "x" * (fields.MAX_LOG - 5), created=0.1)
    record.started, record.finished, record.memory = 0.1, 0.1, 2**64
    assert len(wire.pack(labels)) == wire.MAX_LABELS
    record.message, record.group = fitting(SIX * 100_000), "wasmlet-1"
    for number in range(MAX_REFUSED):
        record.refuse(f"{number:02}" + letter * MAX_WHAT, heard=False)
    assert len(record.unheard) == MAX_REFUSED
    assert len(record.message) > 4000
    assert json.loads(record.encoded()) == vars(record)  # nothing had to be left out
    wire.pack_with({"re": 2**53}, "item", record.encoded())


def test_a_refusal_is_told_in_plain_letters() -> None:
    record = Record("f" * 32, {}, "logs/x/0.log")
    assert record.refuse('capability a"b\\c\td\u00e9', heard=True)
    assert record.refused == ["capability a?b?c?d?"]


def test_a_guest_that_controls_its_engine_names_no_fault_of_its_own() -> None:
    assert Process._failed({"failed": "no", "fault": SIX * 4000}) == ("no", "")
    assert Process._failed({"failed": "no", "fault": wire.BAD_ARTIFACT}) == ("no", wire.BAD_ARTIFACT)


def test_a_record_that_is_too_large_leaves_out_what_its_guest_has_said() -> None:
    record = Record("f" * 32, {"name": "x"}, "logs/x/0.log", wire.ENDED, exit_code=3, message="x" * MAX_RECORD)
    record.refused, record.unheard = ["here:1"], ["here:1"]
    assert json.loads(record.encoded()) == {**vars(record), "message": "", "refused": [], "unheard": []}


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


def test_a_guest_that_asks_for_what_takes_much_room_hides_no_container(tmp_path: Path) -> None:
    asked = (json.dumps({"ask": "use", "name": f"{number:02}" + TWELVE * 290}) for number in range(MAX_REFUSED))
    words = [word for request in asked for word in ("ask", request)]
    with running(tmp_path / "state") as shim:
        name = shim.run("start", *words, "exit", "3", network=Grant(addresses=(POD,)))
        record = shim.ended(name)
        assert record["exit_code"] == 3
        assert len(record["refused"]) == MAX_REFUSED
        assert record["refused"][0].startswith("capability 00???")
        other = shim.run("start", "exit", "4")
        assert {item["id"] for item in shim.connection.ask("list")} == {name, other}


def test_a_record_on_file_that_does_not_fit_hides_no_container(tmp_path: Path) -> None:
    """An earlier version has let guests write such."""
    with running(tmp_path / "state") as shim:
        name = shim.run("start", "exit", "5")
        shim.ended(name)
        kill(shim.pid)
        large = Record("f" * 16, {}, "logs/x/0.log", wire.ENDED, exit_code=3, refused=[TWELVE * 300] * MAX_REFUSED)
        with (shim.state / RECORDS).open("ab") as file:
            file.write(b"\n" + wire.encoded(vars(large)))
        shim.restart()
        listed = {item["id"]: item for item in shim.connection.ask("list", watch=True)}
        assert {item["exit_code"] for item in listed.values()} == {3, 5}
        assert listed[large.id]["refused"] == []
