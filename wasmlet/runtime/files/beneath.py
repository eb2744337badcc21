"""Safe file operations in directories that a guest may change at any moment: open, make, measure and remove.

A guest can replace any part of a path by a symbolic link, or by a directory moved from elsewhere, between a check of
the path and its use. So nothing here checks a path first. The kernel itself refuses to leave the directory while it
resolves the path (openat2 with RESOLVE_BENEATH, Linux 5.6), and the result is a descriptor. All functions block, but
for `open_known`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import re
import secrets
import stat
import struct
from collections.abc import Sequence
from pathlib import Path

_OPENAT2 = 437
"""The number of the call, the same on every machine."""
_HOW = struct.Struct("QQQ")
_NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH, _IN_ROOT, _CACHED = 0x02, 0x04, 0x08, 0x10, 0x20
_HERE = -100
"""As a directory: the one of the process, where a relative path begins."""
_TRIES = 100

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LONG_PATH = 512
_MOST_ANCHORS = 32
_MOST_OPEN = 32

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

_libc = ctypes.CDLL(None, use_errno=True)


class TooDeep(OSError):
    """Directories are nested too deep to be measured."""


def open_beneath(root: int, path: str, flags: int = os.O_PATH, *, links: bool = True) -> int:
    """Open a path relative to the directory `root`. Links are followed only if they stay below `root`.

    Args:
        links: False refuses every symbolic link on the way.

    Returns:
        A descriptor, the caller's to close.

    Raises:
        OSError: EXDEV where the path would leave `root`, ELOOP where it has a link that is not wanted, and the usual.
    """
    return _openat2(root, path, flags, _BENEATH | _NO_MAGICLINKS | (0 if links else _NO_SYMLINKS))


def open_in_root(root: int, path: str, flags: int = os.O_PATH) -> int:
    """Open a path as if the directory `root` were `/`: absolute links and `..` stay in it.

    Returns:
        A descriptor, the caller's to close.

    Raises:
        OSError: the usual.
    """
    return _openat2(root, path, flags, _IN_ROOT | _NO_MAGICLINKS)


def open_known(path: str, flags: int = os.O_PATH) -> int:
    """Open a path without links of which the kernel knows all parts just now: this waits for no disk and no network.

    Returns:
        A descriptor, the caller's to close.

    Raises:
        OSError: ELOOP for a link, EAGAIN where the kernel would have to look, EINVAL before Linux 5.12, and the usual.
    """
    return _openat2(_HERE, path, flags, _CACHED | _NO_SYMLINKS)


def _openat2(root: int, path: str, flags: int, resolve: int) -> int:
    how = _HOW.pack(flags | os.O_CLOEXEC, 0, resolve)
    for _ in range(_TRIES):
        result = _libc.syscall(
            ctypes.c_long(_OPENAT2), ctypes.c_int(root), ctypes.c_char_p(os.fsencode(path)), how, ctypes.c_size_t(24)
        )
        if result >= 0:
            return int(result)
        number = ctypes.get_errno()
        if number == errno.ENOSYS:
            raise OSError(number, "opening a path below a volume needs Linux 5.6 or newer")
        if number != errno.EAGAIN or resolve & _CACHED:  # else something was renamed while the path was resolved
            break
    raise OSError(number, os.strerror(number), path)


def make_beneath(root: int, path: str, mode: int) -> int:
    """Open a directory below `root`, as `open_beneath`; make the missing directories on the way with this mode."""
    current = os.dup(root)
    done: list[str] = []
    try:
        for part in path.split("/"):
            done.append(part)
            try:
                below = open_beneath(root, "/".join(done), os.O_PATH | os.O_DIRECTORY)
            except FileNotFoundError:
                # Where it exists, it was made meanwhile, or is a link to nowhere, which the next line refuses.
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, mode, dir_fd=current)
                below = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=current)
                os.chmod(f"/proc/self/fd/{below}", mode)  # whatever this process's umask is
            os.close(current)
            current = below
        return current
    except BaseException:
        os.close(current)
        raise


def usage(path: Path) -> int:
    """The disk space, in bytes, of everything below a directory. A file with several names counts once.

    Raises:
        TooDeep: see there.
        OSError: the directory itself cannot be read.
    """
    total, seen = 0, set()
    anchors = [os.open(path, DIRECTORY)]
    pending = [(anchors[0], ".")]
    try:
        while pending:
            anchor, relative = pending.pop()
            try:
                directory = open_beneath(anchor, relative, DIRECTORY, links=False)
            except OSError:  # gone meanwhile
                continue
            if len(relative) > _LONG_PATH:  # longer ones do not fit a call: go on from here
                if len(anchors) == _MOST_ANCHORS:
                    os.close(directory)
                    raise TooDeep(errno.ENAMETOOLONG, "directories are nested too deep to be measured", str(path))
                anchors.append(directory)
                anchor, relative = directory, "."
                directory = os.dup(directory)
            try:
                with os.scandir(directory) as entries:
                    for entry in entries:
                        try:
                            found = entry.stat(follow_symlinks=False)
                        except FileNotFoundError:
                            continue
                        if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
                            if (found.st_dev, found.st_ino) in seen:
                                continue
                            seen.add((found.st_dev, found.st_ino))
                        total += found.st_blocks * 512
                        if stat.S_ISDIR(found.st_mode):
                            pending.append((anchor, f"{relative}/{entry.name}"))
            finally:
                os.close(directory)
    finally:
        for anchor in anchors:
            os.close(anchor)
    return total


def remove(path: Path) -> None:
    """Remove a directory and everything in it, however deep it is nested; nothing where there is no such directory.

    Deeply nested directories are first moved to the top, so that no long paths and few descriptors are needed.
    """
    try:
        top = os.open(path, DIRECTORY)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        path.unlink(missing_ok=True)
        return
    try:
        while True:
            _empty(top, top, 0)
            try:
                os.rmdir(path)
                return
            except FileNotFoundError:  # somebody else has removed it meanwhile
                return
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise
    finally:
        os.close(top)


def remove_known(path: Path, names: Sequence[str], *, more_leaves: bool) -> bool:
    """Remove a directory in which are these names and no others, without looking into it.

    Args:
        names: relative to the directory, in the order in which they were made, directories with a slash at the end. No
            guest may replace any but the last part of one.
        more_leaves: what else is in it is about to be removed, and the directory with it.

    Returns:
        Whether it is gone, or goes as `more_leaves` says; False where there is more in it.
    """
    try:
        for name in reversed(names):
            with contextlib.suppress(FileNotFoundError):
                (os.rmdir if name.endswith("/") else os.unlink)(f"{path}/{name}")
    except OSError:
        return False
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError as error:
        return more_leaves and error.errno == errno.ENOTEMPTY
    return True


def _empty(directory: int, top: int, depth: int) -> None:
    """Remove what is in a directory; directories that are too deep are moved to the top instead.

    Where a guest replaces something meanwhile, a part of it is left. What somebody else has removed is no error.
    """
    with os.scandir(directory) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        try:
            if not is_directory:
                os.unlink(name, dir_fd=directory)
                continue
            below = os.open(name, DIRECTORY, dir_fd=directory)
            try:
                if depth == _MOST_OPEN:
                    os.rename(name, secrets.token_hex(16), src_dir_fd=directory, dst_dir_fd=top)
                    continue
                _empty(below, top, depth + 1)
            finally:
                os.close(below)
            os.rmdir(name, dir_fd=directory)
        except OSError as error:
            if error.errno not in (errno.EISDIR, errno.ELOOP, errno.ENOENT, errno.ENOTDIR, errno.ENOTEMPTY):
                raise


def file_name(text: str) -> str:
    """A file name for a UID or another name: the text itself if it is safe as a file name, otherwise its digest."""
    return text if _SAFE.fullmatch(text) else hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
