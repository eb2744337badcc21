"""The file of a state directory that has the records of its containers, so that the next shim knows them, too.

It gets a line whenever a record changes, and one for records that are dropped; the last line about a container counts.
So a record is never half written. One file for all costs a container no files of its own. The file is written anew
where most of it is out of date. It is also written anew where a full disk has refused a line, once there is room again.
Only the shim writes it, and no guest can reach it, so it can be trusted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .. import wire
from ..fields import check_id
from ..log import log_problem
from .records import Record
from .removals import Removals

RECORDS = "records.jsonl"
"""The file's name."""

_BEFORE = "containers"
"""The directory in which earlier versions had a file for each container."""
_GONE, _LEAVING = "gone", "leaving"
_LEAST, _RATIO = 256 * 1024, 4
"""The file is written anew when it has this many bytes, and so many times the bytes that it had when it was new."""
RETRY_SECONDS = 1.0
"""How long after a write that has failed the file is written anew."""
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


class Store:
    """The records of the state directory, which must be the current directory.

    Args:
        later: calls a function after so many seconds.
        removals: gets what an earlier shim had still to remove; what is still to be removed stays on file, even if the
            record of its container is dropped.
    """

    def __init__(self, later: Callable[[float, Callable[[], None]], object], removals: Removals) -> None:
        self._later = later
        self._removals = removals
        self._known: dict[str, tuple[Record, bytes]] = {}
        """The records that are on file, and the JSON that was written of each."""
        self._file = os.open(RECORDS, _FLAGS, 0o600)
        self._size = self._new_size = os.fstat(self._file).st_size
        self._stale = False
        """A write has failed, so the file lacks something, or is too large; it is to be written anew."""

    def save(self, record: Record, data: bytes) -> None:
        """Write the record, whose JSON is `data`. A full disk loses the line, not the container: memory has it."""
        self._known[record.id] = record, data
        self._append(data)

    def remove(self, names: Sequence[str]) -> None:
        """Drop the records of these containers."""
        known = [found[0] for name in names if (found := self._known.pop(name, None)) is not None]
        if known:
            leaving = [record.leaving for record in known if self._removals.waits(record.leaving)]
            self._append(_gone([record.id for record in known], leaving))

    def finish(self) -> None:
        """The shim leaves: write now what could not be written before, if there is room."""
        if self._stale and self._write_anew():
            _remove_earlier()

    def _append(self, data: bytes) -> None:
        # The line begins with the end of the one before, of which a full disk may have taken only a part.
        line = b"\n" + data
        try:
            if os.write(self._file, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._failed(error)
        self._size += len(line)
        if self._size > max(_LEAST, _RATIO * self._new_size) and not self._stale:
            self._write_anew()

    def _failed(self, error: OSError) -> None:
        if not self._stale:
            self._stale = True
            log_problem(f"cannot write {RECORDS}, tried again every {RETRY_SECONDS:g} s: {error}")
            self._later(RETRY_SECONDS, self._try_again)

    def _try_again(self) -> None:
        if self._write_anew():
            _remove_earlier()
        else:
            self._later(RETRY_SECONDS, self._try_again)

    def _write_anew(self) -> bool:
        """Replace the file by one that has only what is in force; False where that is not possible now."""
        lines = [data for _, data in self._known.values()]
        if leaving := list(self._removals.waiting):
            lines.append(_gone([], leaving))
        data, new = b"".join(b"\n" + line for line in lines), -1
        try:
            new = os.open(RECORDS + ".new", _FLAGS | os.O_TRUNC, 0o600)
            _write_all(new, data)
            os.fsync(new)  # else a machine that fails may keep the name and not the bytes
            os.rename(RECORDS + ".new", RECORDS)
        except OSError as error:
            if new >= 0:
                os.close(new)
            with contextlib.suppress(OSError):
                os.unlink(RECORDS + ".new")  # it takes room
            self._failed(error)
            return False
        self._file, old = new, self._file
        os.close(old)
        self._size = self._new_size = len(data)
        self._stale = False
        return True

    def load(self, rebooted: bool) -> list[Record]:
        """Every record on file. One that had not ended belonged to a shim that died: it is marked as lost.

        Lines that cannot be read are kept in another file and reported.
        """
        found = {record.id: record for record in _earlier()}
        with open(RECORDS, "rb") as file:
            lines = [line for line in file.read().split(b"\n") if line]
        unread = _read(lines, found, self._removals.add)
        if unread:
            log_problem(f"cannot read {unread} of {len(lines)} lines of {RECORDS}, kept in {RECORDS}.bad")
            with contextlib.suppress(OSError):
                shutil.copyfile(RECORDS, f"{RECORDS}.bad")
        for record in found.values():
            if record.state != wire.ENDED:
                record.state, record.reason, record.exit_code = wire.ENDED, wire.LOST, wire.LOST_CODE
                what = "the machine was restarted" if rebooted else "the shim that ran it has died"
                record.message = f"The container could not be located: {what}"
                record.finished = time.time()
            if record.leaving:
                self._removals.add(record.leaving)
        self._known = {name: (record, record.encoded()) for name, record in found.items()}
        if self._write_anew():
            _remove_earlier()
        return list(found.values())


def _write_all(file: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def _gone(names: Sequence[str], leaving: Sequence[str]) -> bytes:
    """The line for records that are dropped, and for what is still to be removed of such containers."""
    return wire.encoded({_GONE: names, _LEAVING: leaving} if leaving else {_GONE: names})


def _read(lines: Iterable[bytes], found: dict[str, Record], leaves: Callable[[str], None]) -> int:
    """Put what these lines say into `found`; return how many cannot be read. One that was cut short is none of them.

    Args:
        leaves: told of what is still to be removed of containers that have no record any more.
    """
    unread = 0
    for line in lines:
        try:
            fields = json.loads(line)
            if isinstance(fields, dict) and _GONE in fields:
                for name in fields[_GONE]:
                    found.pop(name, None)
                for file in fields.get(_LEAVING, ()):
                    leaves(file)
            else:
                record = _record(fields)
                found[record.id] = record
        except (ValueError, TypeError, AttributeError, wire.WireError):
            unread += line.endswith(b"}")
    return unread


def _record(fields: Any) -> Record:
    """Raises one of several errors where it is none."""
    known = {field.name for field in dataclasses.fields(Record)}
    record = Record(**{key: value for key, value in fields.items() if key in known})
    check_id(record.id)
    return record


def _earlier() -> list[Record]:
    """The records that a shim of an earlier version has left: of each file the last line that can be read.

    A file that has no such line is put aside and reported.
    """
    records: list[Record] = []
    for path in _files_of_earlier():
        try:
            with open(path, "rb") as file:
                lines = [line for line in file.read().split(b"\n") if line]
            found: dict[str, Record] = {}
            unread = _read(lines, found, lambda _: None)  # they had nothing to remove later
            if lines and not found:
                raise ValueError("expected records")
            if unread:
                log_problem(f"cannot read {unread} of {len(lines)} lines of {path}")
            records += found.values()
        except (OSError, ValueError) as error:
            log_problem(f"cannot read {path}, put aside: {error}")
            os.rename(path, path + ".bad")
    return records


def _files_of_earlier() -> list[str]:
    try:
        names = sorted(os.listdir(_BEFORE))
    except FileNotFoundError:
        return []
    return [f"{_BEFORE}/{name}" for name in names if name.endswith(".json")]


def _remove_earlier() -> None:
    """Remove the files of an earlier version, whose records are in the new file by now."""
    for path in _files_of_earlier():
        with contextlib.suppress(OSError):
            os.unlink(path)
    with contextlib.suppress(OSError):
        os.rmdir(_BEFORE)
