"""Scenarios of files, from the text files beside this one: what a guest does, and what it is answered in each world.

## what it is about
before: file name content                   what is there (`run_world`)
mount: name read-only                       what the guest has; without such a line, all that is there
system: small files                         what the machine is like (`run_world`)
world: ours                                 where wasmtime's own world would wait for ever, or have no answer
f open-at 0 L name - r => ok                a line of the guest's (tests/guests/files/files.c), and the answer
. get-type f => ok fifo | ok unknown (why)  where wasmtime's own world answers otherwise: `WANTED` says why
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
FILES = sorted(path.stem for path in HERE.glob("*.txt"))
NEEDS_ROOT = "file systems"

WANTED = {
    "asked": "a file that is made is open for what was asked for; wasmtime's can also be written to",
    "codes": "wasmtime knows fewer errors of the system's, and calls the others io",
    "mutate": "a directory says by its flags whether what is in it may be changed; in wasmtime it may, unsaid",
    "nanoseconds": "a time has fewer than 1 000 000 000 nanoseconds; wasmtime takes more for seconds",
    "now": "a file is read at once; in wasmtime the first read only begins to, and gives nothing",
    "place": "advice is for a place that a file can have",
    "slash": "a directory may be named with a slash at its end when it is removed, as POSIX has it",
    "types": "a pipe and a socket are said to be one; in wasmtime they are unknown",
    "zero": "reading nothing is no end of a file",
}
"""Where our world differs from wasmtime's own, and is to."""


class Line(NamedTuple):
    """What the guest does, and the answers; `why`: of `WANTED`, where they differ."""

    does: str
    ours: str
    native: str
    why: str


class Scenario(NamedTuple):
    """See above."""

    name: str
    before: list[list[str]]
    mounts: list[tuple[str, bool]]
    system: list[str]
    only_ours: bool
    lines: list[Line]

    def asked(self) -> dict[str, Any]:
        """What `run_world` is told."""
        found = {"before": self.before, "mounts": self.mounts, "system": self.system}
        return {**found, "lines": [line.does for line in self.lines]}


_LINE = re.compile(r"(?P<does>\S+ \S+ \S.*?) => (?P<ours>.*?)(?: \| (?P<native>.*) \((?P<why>\w+)\))?")


def scenarios(file: str) -> list[Scenario]:
    """Those of a file of this name."""
    found: list[Scenario] = []
    for text in (HERE / f"{file}.txt").read_text().splitlines():
        kind, _, rest = text.partition(": ")
        if text.startswith("## "):
            found.append(Scenario(text[3:], [], [], [], False, []))
        elif kind == "before":
            found[-1].before.append(rest.split(" ", 3))
        elif kind == "mount":
            name, *read_only = rest.split()
            found[-1].mounts.append((name, bool(read_only)))
        elif kind == "system":
            found[-1].system.append(rest)
        elif kind == "world":
            found[-1] = found[-1]._replace(only_ours=True)
        elif text:
            line = _LINE.fullmatch(text)
            assert line, text
            does, ours, native, why = line.groups()
            found[-1].lines.append(Line(does, ours, native if why else ours, why or ""))
    return found
