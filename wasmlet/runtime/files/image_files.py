"""The files of a container's own image: the guest sees them read-only, at their own paths.

The image is one more mount, at `/`. Every other mount has a longer path, so it hides what the image has there. A
staging directory (`staging`) contains single files, such as /etc/hosts in /etc, and would hide the whole directory of
the image. So the image's files of that directory are put into the staging directory, too, and each of its
subdirectories gets a mount of its own. All functions block.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Self

import attrs

from wasmlet.runtime.files import beneath

MAX_COPY = 16 * 1024 * 1024
"""Bytes of a container's staging directories that are copies of its image's files."""
MAX_FILES = 4096
"""Files of one directory of an image that are put into a staging directory."""
MAX_LEFT_OUT = 5


@attrs.define(eq=False)
class ImageFiles:
    """The files of an image, with their directory open until `close`.

    Attributes:
        root: descriptor of the directory.
        left_out: the first few paths that the guest cannot see.
    """

    root: int
    left_out: list[str] = attrs.field(factory=list)
    _copied: int = 0

    @classmethod
    def of(cls, directory: Path | None) -> Self | None:
        """Those in this directory of the image store; None where there are none.

        Raises:
            OSError: they are gone.
        """
        return None if directory is None else cls(os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))

    def close(self) -> None:
        os.close(self.root)

    def top(self) -> int:
        """The root, as a descriptor of the caller's."""
        return os.dup(self.root)

    def has(self, path: str) -> bool:
        """Whether the image has a directory of this path."""
        try:
            os.close(beneath.open_in_root(self.root, path, beneath.DIRECTORY & ~os.O_NOFOLLOW))
        except OSError:
            return False
        return True

    def directories(self, path: str, covered: Collection[str], most: int) -> list[tuple[str, int]]:
        """The directories in a directory of the image: paths, and descriptors (O_PATH) of the caller's.

        Args:
            covered: paths that something else is mounted at.
            most: how many are wanted; the others are left out.
        """
        found: list[tuple[str, int]] = []
        for name, descriptor in self._in(path):
            below = posixpath.join(path, name)
            if below in covered or not stat.S_ISDIR(os.fstat(descriptor).st_mode):
                continue
            if len(found) < most:
                found.append((below, os.dup(descriptor)))
            else:
                self._leave_out(below)
        return found

    def add_to(self, directory: str, path: str, *, link: bool) -> set[str]:
        """Put the image's files of this path into a staging directory, but for names that are there.

        Args:
            link: that they may be the image's own files, because no guest can write there. Others are copies.

        Returns:
            The names of those that are links.
        """
        linked: set[str] = set()
        count = 0
        for name, descriptor in self._in(path):
            found = os.fstat(descriptor)
            target = f"{directory}/{name}"
            if not stat.S_ISREG(found.st_mode) or os.path.lexists(target):
                continue
            count += 1
            if count > MAX_FILES:
                self._leave_out(posixpath.join(path, name))
            elif link and _link(descriptor, target):
                linked.add(name)
            elif self._copied + found.st_size > MAX_COPY:
                self._leave_out(posixpath.join(path, name))
            else:
                self._copied += found.st_size
                _copy(descriptor, target, stat.S_IMODE(found.st_mode))
        return linked

    def _in(self, path: str) -> Iterator[tuple[str, int]]:
        """What is in a directory of the image, links followed: names, and descriptors that are open for one step."""
        folder = beneath.open_in_root(self.root, path, beneath.DIRECTORY & ~os.O_NOFOLLOW)
        try:
            names = sorted(os.listdir(folder))
        finally:
            os.close(folder)
        for name in names:
            try:
                descriptor = beneath.open_in_root(self.root, posixpath.join(path, name))
            except OSError:  # a link to nowhere
                continue
            try:
                yield name, descriptor
            finally:
                os.close(descriptor)

    def _leave_out(self, path: str) -> None:
        if len(self.left_out) < MAX_LEFT_OUT:
            self.left_out.append(path)


def _link(descriptor: int, target: str) -> bool:
    try:
        # With a descriptor, even an unused one, Python makes the call that follows the link in /proc.
        os.link(f"/proc/self/fd/{descriptor}", target, src_dir_fd=descriptor, follow_symlinks=True)
    except OSError:  # another file system
        return False
    return True


def _copy(descriptor: int, target: str, mode: int) -> None:
    with open(f"/proc/self/fd/{descriptor}", "rb") as source, open(target, "xb") as copy:
        os.fchmod(copy.fileno(), mode)
        while chunk := source.read(1024 * 1024):
            copy.write(chunk)
