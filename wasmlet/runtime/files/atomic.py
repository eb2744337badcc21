"""Updates the files of a volume atomically: a guest sees either all old files or all new ones.

This works as in the kubelet. The files are in a directory with a unique name, `..data` is a symbolic link to that
directory, and each name that the guest sees is a link through `..data`. An update writes a new directory and replaces
the link `..data` with one rename. Only the node writes here, because guests mount such volumes read-only. All functions
block.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path, PurePath

from wasmlet.model.volumes import VolumeFile
from wasmlet.runtime.files.beneath import remove

DATA = "..data"
_NEW = "..data_tmp"


def write(
    directory: Path,
    files: Sequence[VolumeFile],
    now: datetime,
    group: int | None,
    user: int | None = None,
    *,
    new: bool = False,
) -> bool:
    """Make the directory contain exactly these files. Returns whether anything had to change.

    Args:
        directory: the volume; it must exist.
        now: the time for the name of the new directory.
        group: the pod's fsGroup, which gets the files and may read them; None for none.
        user: the pod's own user (`pod_users`), which owns the files, as root does in a container; None for none.
        new: the volume was made just now, and nothing is in it.
    """
    wanted = {file.path: (file.data, _mode(file.mode, group)) for file in files}
    link = f"{directory}/{DATA}"
    before = os.readlink(link) if not new and os.path.islink(link) else None
    if before is not None and _owned(directory / before, user) and dict(_content(directory / before)) == wanted:
        return False
    name = f"..{now:%Y_%m_%d_%H_%M_%S}.{secrets.token_hex(5)}"
    whole = f"{directory}/{name}"
    _make(whole, group, user)
    made = {""}
    for path, (data, mode) in wanted.items():
        for parent in reversed(PurePath(path).parents[:-1]) if "/" in path else ():
            if str(parent) not in made:
                _make(f"{whole}/{parent}", group, user)
                made.add(str(parent))
        _write_file(f"{whole}/{path}", data, mode, group, user)
    names = {path.split("/", 1)[0] for path in wanted}
    for visible in names:
        if new or not os.path.islink(f"{directory}/{visible}"):
            os.symlink(f"{DATA}/{visible}", f"{directory}/{visible}")
    if new:
        os.symlink(name, link)
        return True
    replaced = f"{directory}/{_NEW}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(replaced)
    os.symlink(name, replaced)
    os.rename(replaced, link)
    for entry in os.scandir(directory):
        if entry.is_dir(follow_symlinks=False):
            if entry.name != name:
                remove(directory / entry.name)
        elif entry.name not in names and entry.name != DATA:
            os.unlink(entry)
    return True


def _make(directory: str, group: int | None, user: int | None) -> None:
    os.mkdir(directory)
    give(directory, group, user)
    os.chmod(directory, 0o755 if group is None else 0o2755)


def _write_file(path: str, data: bytes, mode: int, group: int | None, user: int | None) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        write_all(descriptor, data)
        give(descriptor, group, user)
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it to an open file."""
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def _mode(mode: int, group: int | None) -> int:
    return mode if group is None else mode | 0o440


def _content(directory: Path) -> Iterator[tuple[str, tuple[bytes, int]]]:
    """Path, data and mode of each file of a directory that was written here."""
    for base, _, names in os.walk(directory):
        for name in names:
            file = Path(base, name)
            yield str(file.relative_to(directory)), (file.read_bytes(), file.stat().st_mode & 0o7777)


def _owned(directory: Path, user: int | None) -> bool:
    return user is None or directory.stat().st_uid == user


def give(file: int | str | Path, group: int | None, user: int | None) -> None:
    """Change the owner and group of a file, if this process may do that. Without a group, the user's own is set.

    Without root, guests run as the user who owns the file.
    """
    if group is None:
        group = user
    if group is None:
        return
    try:
        os.chown(file, -1 if user is None else user, group)
    except PermissionError:
        if os.geteuid() == 0:
            raise
