"""Finds out, once when the shim starts, where it may make control groups, for each controller.

Version 1 has a hierarchy ("tree") per controller or per few controllers; version 2 has one for all. A machine may have
both. Below the group in which the shim was started, it makes one group for all containers; each container's group is
made in that (`groups`). Its name comes from the state directory, so that several nodes on one machine do not conflict.

Beside it, the shim makes a group for itself. (Inside the containers' group, the shim's own weight would take CPU from
containers, because of how the kernel spreads a group's weight over CPUs.) Nothing else in these trees is touched.

- Version 1: this needs root. Processes may be in any group, so the place is the shim's own group.
- Version 2: a group that contains processes cannot enable controllers for groups below it, except the root group. So
  the place is the nearest group, at or above the shim's own, that systemd has delegated to it (a unit with
  `Delegate=yes`, and `DelegateSubgroup=`, so that the unit's processes are in a group below).

A controller that is not available is left out, and `description` says why. `/proc` is read as this process sees it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
from typing import NamedTuple

CONTROLLERS = ("memory", "pids", "cpu", "cpuacct")
"""The controllers that are wanted. `cpuacct` only measures; in version 2 it is part of `cpu`."""

LEAF = ".shim"
"""The suffix: with it, the name of our group is the name of the group for the shim itself and its zygotes."""

_MARKS = ("user.delegate", "trusted.delegate")
"""Extended attributes by which systemd says that a group is handed over to the processes in it."""


class Tree(NamedTuple):
    """A mounted hierarchy of control groups.

    Attributes:
        version: 1 or 2.
        top: where it is mounted.
        own: directory of the group that this process is in.
        controllers: in version 1; version 2 says it in each group.
    """

    version: int
    top: str
    own: str
    controllers: frozenset[str]


class Place(NamedTuple):
    """Where our groups are in one tree.

    Attributes:
        directory: our own group, below which each container has one.
        started_in: directory of the group that the shim was started in.
        controllers: those of `CONTROLLERS` that can be had here.
    """

    version: int
    directory: str
    started_in: str
    controllers: frozenset[str]

    @property
    def join_file(self) -> str:
        """The file of a group to which a process of one thread writes "0" to join.

        In version 1 this is `tasks` and not `cgroup.procs`. To move a whole process, the kernel stops all forks on the
        machine, which takes 14 ms; to move one thread takes 0.02 ms.
        """
        return "tasks" if self.version == 1 else "cgroup.procs"


class Unavailable(Exception):
    """No groups can be made in a tree; the message says why."""


def name_of(state_dir: str) -> str:
    """The name of the group of the shim of this state directory."""
    return "wasmlet-" + hashlib.sha256(os.path.realpath(state_dir).encode()).hexdigest()[:16]


def trees(proc: str = "/proc") -> list[Tree]:
    """The hierarchies that are mounted here and that this process can see its own group in."""
    groups: dict[str, str] = {}
    path: str | None
    with open(f"{proc}/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            groups.update(dict.fromkeys(controllers.split(","), path))
    found = []
    with open(f"{proc}/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            before, _, after = line.rstrip("\n").partition(" - ")
            root, top = map(_plain, before.split(" ")[3:5])
            kind, _, options = after.split(" ")[:3]
            if kind == "cgroup":
                here = frozenset(options.split(",")) & frozenset(CONTROLLERS)
                path = groups.get(next(iter(here), "?"))
            elif kind == "cgroup2":
                here, path = frozenset(), groups.get("")
            else:
                continue
            own = _below(root, path)
            if own is not None and (here or kind == "cgroup2"):
                found.append(Tree(1 if kind == "cgroup" else 2, top, os.path.normpath(f"{top}/{own}"), here))
    return found


def _plain(text: str) -> str:
    """Decode the escapes in a path from mountinfo."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _below(root: str, path: str | None) -> str | None:
    """The path of a group relative to the mounted part of the tree; None if it is outside of that."""
    if path is None or path.startswith("/.."):
        return None
    relative = os.path.relpath(path, root)
    return None if relative.startswith("..") else relative


def open_places(name: str, proc: str = "/proc") -> tuple[list[Place], dict[str, str]]:
    """Make our groups wherever possible, and move this process into its own. The process must have one thread.

    Args:
        name: see `name_of`.

    Returns:
        The places (each controller is in at most one), and the reason for each controller that is not available.
    """
    places: list[Place] = []
    missing = dict.fromkeys(CONTROLLERS, "not mounted")
    try:
        found = sorted(trees(proc), key=lambda tree: tree.version)
    except (OSError, ValueError) as error:
        return [], dict.fromkeys(CONTROLLERS, f"{proc}/self cannot be read: {error}")
    for tree in found:
        wanted = tree.controllers & missing.keys() if tree.version == 1 else frozenset(missing)
        if not wanted:
            continue
        try:
            place = _place_v1(tree, name, wanted) if tree.version == 1 else _place_v2(tree, name, wanted)
        except Unavailable as error:
            for controller in tree.controllers & missing.keys() if tree.version == 1 else _offered(tree.own) & wanted:
                missing[controller] = str(error)
            continue
        places.append(place)
        for controller in wanted & place.controllers:
            del missing[controller]
        for controller in missing.keys() & _offered(os.path.dirname(place.directory)):
            missing[controller] = f"cannot be enabled below {os.path.dirname(place.directory)}"
    if any(place.version == 2 and "cpu" in place.controllers for place in places):
        missing.pop("cpuacct", None)
    return places, missing


def _place_v1(tree: Tree, name: str, wanted: frozenset[str]) -> Place:
    before = tree.own
    if os.path.basename(before) == name + LEAF:
        before = os.path.dirname(before)
    directory = f"{before}/{name}"
    _make_and_join(directory, "tasks")
    return Place(1, directory, before, wanted)


def _place_v2(tree: Tree, name: str, wanted: frozenset[str]) -> Place:
    base, delegated = _delegated(tree)
    wanted &= _offered(base)
    if not wanted:
        raise Unavailable(f"{base} has none of these controllers")
    if delegated and base == tree.own:
        # They could be moved, but then systemd could not start the unit again while pods run.
        raise Unavailable(
            f"the unit's processes are in {base} itself; expected DelegateSubgroup= in the unit beside Delegate="
        )
    if not delegated and os.path.exists(f"{base}/cgroup.type"):
        others = _processes(base) - {os.getpid()}
        if others:
            raise Unavailable(
                f"{base} is not delegated to this node; expected a unit with Delegate= and DelegateSubgroup="
            )
    directory = f"{base}/{name}"
    _make_and_join(directory, "cgroup.procs")
    enabled: set[str] = set()
    why = ""
    for controller in sorted(wanted):
        try:
            for group in (base, directory):
                write(f"{group}/cgroup.subtree_control", f"+{controller}")
            enabled.add(controller)
        except OSError as error:
            why = f"cannot be enabled in {base}: {error.strerror}"
    place = Place(2, directory, tree.own, frozenset(enabled))
    if not enabled:
        leave(place)
        raise Unavailable(why)
    return place


def _make_and_join(directory: str, join_file: str) -> None:
    """Make our groups, and move this process into the leaf."""
    try:
        for path in (directory, directory + LEAF):
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, 0o755)
        write(f"{directory}{LEAF}/{join_file}", "0")
    except OSError as error:
        for path in (directory + LEAF, directory):
            with contextlib.suppress(OSError):
                os.rmdir(path)
        where = os.path.dirname(directory)
        if error.errno in (errno.EACCES, errno.EPERM):
            raise Unavailable(f"uid {os.geteuid()} may not write {where}") from error
        raise Unavailable(f"{where}: {os.strerror(error.errno or 0)}") from error


def leave(place: Place) -> bool:
    """Go back to where this process was, and remove our group; False where something is left in it."""
    join_file = f"{place.started_in}/{place.join_file}"
    try:
        write(join_file, "0")
        os.rmdir(place.directory + LEAF)
        os.rmdir(place.directory)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _delegated(tree: Tree) -> tuple[str, bool]:
    """The nearest group at or above our own that was handed over to us; else our own, and False."""
    directory = tree.own
    while True:
        for mark in _MARKS:
            with contextlib.suppress(OSError):
                if os.getxattr(directory, mark) == b"1":
                    return directory, True
        if directory == tree.top:
            return tree.own, False
        directory = os.path.dirname(directory)


def _offered(directory: str) -> frozenset[str]:
    try:
        return frozenset(read(f"{directory}/cgroup.controllers").split())
    except OSError:
        return frozenset()


def _processes(directory: str) -> set[int]:
    return set(map(int, read(f"{directory}/cgroup.procs").split()))


def description(places: list[Place], missing: dict[str, str]) -> str:
    """What is on, and what is off and why, for people: "v1: memory, pids, cpu", "off: uid 1000 may not write ..."."""
    named = [controller for controller in CONTROLLERS if controller != "cpuacct"]
    parts = []
    for version in (1, 2):
        here = {controller for place in places if place.version == version for controller in place.controllers}
        if here & set(named):
            parts.append(f"v{version}: " + ", ".join(controller for controller in named if controller in here))
    why: dict[str, list[str]] = {}
    for controller in named:
        if controller in missing:
            why.setdefault(missing[controller], []).append(controller)
    if not parts:
        return "off: " + "; ".join(why)
    off = "; ".join(f"{', '.join(controllers)}: {reason}" for reason, controllers in why.items())
    return " + ".join(parts) + (f" (off: {off})" if off else "")


def read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()


def write(path: str, text: str) -> None:
    """Write one of the kernel's files, in one go and without making it.

    Raises:
        OSError: it is not there, or the kernel refuses.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
