"""Gives each pod a Linux user of its own, if this process may change users (root).

A guest itself knows nothing of users. They matter if a guest has broken out of its engine: its process then owns only
the files of its own pod, and cannot reach the processes of other pods. The user id does not come from `runAsUser`,
because two pods may name the same number, and would not be separated. As for a pod in a user namespace, the files of
hostPath volumes and claims still belong to the user that the manifest names (`idmapped`).

User ids come from a range; by default one that no Linux distribution uses. A node takes blocks of ids from it, and
records them in its state directory and in a directory of the machine (`CLAIMS`), so that no two nodes use the same. A
pod's user is stored in the labels of its containers (`shim.instances`), so it stays the same while the pod exists.
All methods except `at_hand` and `free` may block.
"""

from __future__ import annotations

import fcntl
import os
import random
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from wasmlet.errors import ConfigError, WasmletError
from wasmlet.model.pod import Pod

CLAIMS = Path("/var/lib/wasmlet/pod-users")
"""The directory with one file per block that is taken; the file names the state directory that has it."""

BLOCK = 4096
_MOST_ID = 2**32 - 2
_CAPABILITIES = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_FOWNER": 3,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
}


@attrs.frozen
class User:
    """The user of a guest's process. Its group has the same number as the user; `groups` are additional ones."""

    id: int
    groups: tuple[int, ...] = ()

    def as_spec(self) -> dict[str, Any]:
        """As the spec has it (see `wasmlet.worker.wire`)."""
        return {"uid": self.id, "gid": self.id, "groups": list(self.groups)}


def groups_of(pod: Pod) -> tuple[int, ...]:
    """The groups that the manifest asks for: fsGroup and supplementalGroups."""
    context = pod.spec.get("securityContext") or {}
    wanted = [context.get("fsGroup"), *(context.get("supplementalGroups") or ())]
    return tuple(dict.fromkeys(int(group) for group in wanted if group is not None))


@attrs.frozen
class Range:
    """User ids from `first` to `last`, both included."""

    first: int
    last: int

    @classmethod
    def parse(cls, text: str) -> Range | None:
        """`FIRST-LAST`; None for `none`.

        Raises:
            ConfigError: it is neither.
        """
        if text == "none":
            return None
        first, _, last = text.partition("-")
        if first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last) <= _MOST_ID:
            return cls(int(first), int(last))
        raise ConfigError(
            f"pod users: expected FIRST-LAST of user ids, or none, found {text!r}; set it with --pod-users"
        )

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"

    def overlaps(self, other: Range) -> bool:
        return self.first <= other.last and other.first <= self.last

    def blocks(self) -> Iterator[Range]:
        """The blocks of ids that the range consists of; a node takes whole blocks."""
        for first in range(self.first, self.last + 1, BLOCK):
            yield Range(first, min(first + BLOCK - 1, self.last))


def impossible(wanted: Range) -> str:
    """Why this process cannot run guests as users of that range; "" where it can."""
    if os.geteuid() != 0:
        return "the node does not run as root"
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith("CapEff:"):
            has = int(line.split()[1], 16)
            missing = [name for name, bit in _CAPABILITIES.items() if not has >> bit & 1]
            if missing:
                return f"the node lacks {', '.join(missing)}"
    for name in ("uid_map", "gid_map"):
        lines = Path("/proc/self", name).read_text("ascii").splitlines()
        mapped = [(int(first), int(size)) for first, _, size in map(str.split, lines)]
        if not any(first <= wanted.first and wanted.last < first + size for first, size in mapped):
            return f"the node runs in a user namespace that has no users {wanted}"
    return ""


def started(state_dir: Path, wanted: Range | None) -> tuple[PodUsers | None, str]:
    """Make the users for pods, if wanted and possible. Also returns, in words, whether that is on, or why not."""
    if wanted is None:
        return None, "off: this node does not want it"
    why = impossible(wanted)
    if not why:
        users = PodUsers(state_dir, wanted)
        try:
            users.start()
            return users, f"on ({wanted})"
        except OSError as error:
            why = str(error)
    return None, f"off: {why}"


class PodUsers:
    """Gives out the user ids of one node, each to one pod at a time.

    Args:
        state_dir: of the provider; the file `pod-users` in it says which blocks are its own.
        wanted: where blocks are taken from.
        claims: see `CLAIMS`.
    """

    def __init__(self, state_dir: Path, wanted: Range, claims: Path = CLAIMS) -> None:
        self._file = state_dir.resolve() / "pod-users"
        self._wanted = wanted
        self._claims = claims
        self._given: dict[str, int] = {}
        self._used: set[int] = set()
        self._blocks: list[Range] = []
        self._next = 0
        self._busy = threading.Lock()

    def start(self) -> None:
        """Take the blocks that were this node's before.

        Raises:
            OSError: there is no writing down what is taken.
        """
        self._claims.mkdir(mode=0o755, parents=True, exist_ok=True)
        before = _ranges(_read(self._file).split())
        with self._locked():
            taken = self._taken()
            for block in before:
                if not any(block.overlaps(other) for other in taken):
                    self._write(block)
                    self._blocks.append(block)
            self._save()

    def take(self, pod: str, user: int) -> None:
        """Note the user of a pod that runs already."""
        self._given[pod] = user
        self._used.add(user)

    def of(self, pod: str) -> int:
        """The user of a pod, by the pod's UID; no other pod gets it until `free`.

        Raises:
            WasmletError: all are taken.
            OSError: there is no writing down what is taken.
        """
        with self._busy:  # pods ask from threads of their own
            if pod not in self._given:
                self.take(pod, self._free_one() or self._free_one(more=True))
            return self._given[pod]

    def at_hand(self, pod: str) -> int:
        """As `of`, but without using the disk, so that it does not block; 0 if that is not possible."""
        if not self._busy.acquire(blocking=False):
            return 0
        try:
            if pod not in self._given and (user := self._free_one()):
                self.take(pod, user)
            return self._given.get(pod, 0)
        finally:
            self._busy.release()

    def free(self, pod: str) -> None:
        """Free the user of a pod whose processes and files are gone."""
        self._used.discard(self._given.pop(pod, 0))

    def close(self) -> None:
        """Called when the node stops. If no pod is left, other nodes may take its blocks."""
        if self._given:
            return
        with self._locked():
            for block in self._blocks:
                (self._claims / str(block)).unlink(missing_ok=True)
            self._file.unlink(missing_ok=True)
        self._blocks = []

    def _free_one(self, *, more: bool = False) -> int:
        """A user id that no pod has, 0 if there is none. Ids are taken in turn, so one is used again late."""
        if more:
            self._blocks.append(self._another())
        for block in self._blocks:
            if not block.overlaps(self._wanted):  # of a range that the node had before
                continue
            size = block.last - block.first + 1
            start = self._next or random.randrange(size)
            for step in range(size):
                user = block.first + (start + step) % size
                if user not in self._used:
                    self._next = (start + step + 1) % size or size
                    return user
        return 0

    def _another(self) -> Range:
        """Take a block that no node has."""
        with self._locked():
            taken = [*self._taken(), *self._blocks]
            for block in self._wanted.blocks():
                if not any(block.overlaps(other) for other in taken):
                    self._save(block)
                    self._write(block)
                    return block
        raise WasmletError(
            f"no user is left for the pod: all of {self._wanted} are taken, by this node's pods and those of others on "
            f"this machine ({self._claims}); give it more with --pod-users"
        )

    def _taken(self) -> list[Range]:
        """The blocks of other nodes; a block that its node does not list (any more) is free."""
        found = []
        for block in _ranges(os.listdir(self._claims)):
            owner = Path(_read(self._claims / str(block)).strip())
            if owner == self._file:
                continue
            if owner.is_absolute() and str(block) in _read(owner).split():
                found.append(block)
            else:
                (self._claims / str(block)).unlink(missing_ok=True)
        return found

    def _write(self, block: Range) -> None:
        (self._claims / str(block)).write_text(f"{self._file}\n")

    def _save(self, *more: Range) -> None:
        """Record this node's blocks in the state directory. A claim is valid only while this file lists it, too."""
        self._file.write_text("".join(f"{block}\n" for block in (*self._blocks, *more)))

    def _locked(self) -> _Lock:
        return _Lock(self._claims)


class _Lock:
    """A lock on a directory, while the context is open."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __enter__(self) -> None:
        self._descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def __exit__(self, *failure: object) -> None:
        os.close(self._descriptor)


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8", "surrogateescape")
    except (FileNotFoundError, NotADirectoryError):
        return ""


def _ranges(names: Sequence[str]) -> list[Range]:
    found = []
    for name in names:
        try:
            found.append(Range.parse(name))
        except ConfigError:
            continue
    return [block for block in found if block is not None]
