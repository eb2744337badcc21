"""Records: what the shim knows of each container. `store` keeps them in a file, so that the next shim knows it, too.

This module also checks the state directory itself (owner, format, boot).
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import stat
from typing import Any

from .. import linux, wire

FORMAT = 2
"""Grows when the files in a state directory change in a way that an older or newer wasmlet cannot read."""

_READABLE = (1, FORMAT)
"""In format 1 each container has a file of its own for its record, see `store`."""

MAX_ENCODED = 24 * 1024
"""The most bytes of a record's `message` as JSON (where one character may take six bytes). A record must fit into a
message of `wire`, whatever its guest writes."""
MAX_REFUSED, MAX_WHAT = 32, 300
"""How many refused destinations and capabilities a record keeps, and how many bytes of each, in JSON, too."""
MAX_RECORD = wire.MAX_MESSAGE - 256
"""The most bytes of a record as JSON, so that a message has room for it. The limits above keep to it. This one holds
where they fail: a record that does not fit would hide all others from node loops."""
_SAID = {"message": "", "refused": [], "unheard": []}
"""What guests decide about a record."""


def fitting(text: str) -> str:
    """Cut a text to the length that a record's `message` may have."""
    while (size := len(json.dumps(text))) > MAX_ENCODED:
        text = text[: len(text) * MAX_ENCODED // size]
    return text


def plain(text: str) -> str:
    """A text as characters that have one byte each in JSON; any other becomes a question mark."""
    return "".join(letter if " " <= letter <= "~" and letter not in '"\\' else "?" for letter in text)


class StateError(Exception):
    """The state directory cannot be used; the message says why and what to do."""


@dataclasses.dataclass
class Record:
    """One container, from the moment it was asked for until it is forgotten.

    Attributes:
        id: given by the node loop, 8 to 64 characters of `0-9a-f`.
        labels: what the node loop wants to find again; the shim does not look at it. No secrets.
        log: path of the log file, relative to the state directory.
        state: `wire.STARTING`, `wire.RUNNING` or `wire.ENDED`.
        pid: of the process, 0 before there is one; of a dense container that of its worker.
        thread: of a dense container, by the number that the system gives it; else 0.
        memory: the address in its worker where a dense container's memory begins; 0 where that is not known.
        group: name of its control group (`groups`); "" where it has none of its own.
        created, started, finished: seconds since the epoch; 0 where it has not happened.
        exit_code: as Kubernetes shows it: the guest's own, 128 + the signal, 143 when it was interrupted on request.
        signal: what ended it; 0 where it ended by itself or on request.
        reason: "" or `wire.START_ERROR`, `wire.OOM_KILLED` or `wire.LOST`.
        message: what the child said of its end (a trap and the guest's backtrace).
        fault: "" or `wire.BAD_ARTIFACT`.
        made: the directory that the shim has made for the termination message; "" for none, and at the end where the
            shim removes it.
        leaving: once it has ended, the file of the termination message, if the shim removes it with its directory a
            moment later (`removals`). It may be gone already.
        requested: "" or "interrupt" or "kill", what the node loop has asked for.
        refused: destinations that it wanted to dial and was not granted (`name:port`, or a name), and refused
            capabilities (`packets.CAPABILITY`); the first `MAX_REFUSED`.
        unheard: the entries of `refused` that no node loop has been told of, because none was connected.
    """

    id: str
    labels: dict[str, Any]
    log: str
    state: str = wire.STARTING
    pid: int = 0
    thread: int = 0
    memory: int = 0
    group: str = ""
    created: float = 0.0
    started: float = 0.0
    finished: float = 0.0
    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""
    fault: str = ""
    made: str = ""
    leaving: str = ""
    requested: str = ""
    refused: list[str] = dataclasses.field(default_factory=list)
    unheard: list[str] = dataclasses.field(default_factory=list)

    def refuse(self, what: str, *, heard: bool) -> bool:
        """Note a dial that was refused; whether that is new. `heard`: a node loop is there."""
        what = plain(what[:MAX_WHAT])
        if what in self.refused or len(self.refused) >= MAX_REFUSED:
            return False
        self.refused.append(what)
        if not heard:
            self.unheard.append(what)
        return True

    def encoded(self) -> bytes:
        """As JSON: for the file and, in a message, for node loops. What its guest has said is left out where it is too
        much, as in a record of an earlier version."""
        data = wire.encoded(vars(self))
        return data if len(data) <= MAX_RECORD else wire.encoded({**vars(self), **_SAID})


def lock_state_dir(state_dir: str) -> tuple[int, bool]:
    """Make the state directory this process's own and its current directory.

    Returns:
        The locked descriptor, to be kept open, and whether the machine was restarted since it was last used.

    Raises:
        StateError: it belongs to somebody else, others may write it, its format is unknown, or another shim holds it.
    """
    try:
        os.makedirs(state_dir, mode=0o700, exist_ok=True)
        found = os.stat(state_dir)
        os.chdir(state_dir)
    except OSError as error:
        raise StateError(f"cannot use the state directory {state_dir}: {error.strerror}") from error
    if found.st_uid != os.getuid():
        raise StateError(f"the state directory {state_dir} belongs to uid {found.st_uid}, expected {os.getuid()}")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise StateError(
            f"the state directory {state_dir} has mode {stat.S_IMODE(found.st_mode):04o}; compiled code in it is "
            f"trusted, so nobody else may reach it: chmod 0700 {state_dir}"
        )
    lock = os.open("shim.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise StateError(f"another shim uses the state directory {state_dir}") from error
    boot, before = linux.boot_id(), None
    try:
        with open("state.json", encoding="utf-8") as file:
            before = json.load(file)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        raise StateError(f"cannot read {state_dir}/state.json: {error}") from error
    if before is not None and before.get("format") not in _READABLE:
        raise StateError(
            f"the state directory {state_dir} has format {before.get('format')}, expected {FORMAT}: "
            "use the wasmlet that wrote it, or another state directory"
        )
    now = {"format": FORMAT, "boot_id": boot}
    if now != before:
        with open("state.json.new", "w", encoding="utf-8") as file:
            json.dump(now, file)
            file.flush()
            os.fsync(file.fileno())  # an empty file would keep every later shim from starting
        os.rename("state.json.new", "state.json")
    return lock, before is not None and before.get("boot_id") != boot
