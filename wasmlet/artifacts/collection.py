"""Garbage collection of the store, by the kubelet's rules for images.

- An image that was not used for longer than `max_age` is removed.
- If the file system is fuller than the high mark, the least recently used images are removed until the usage is below
  the low mark.
- Nothing is removed that is in use or was used within `min_age`.

Compiled modules follow the same rules. They can be made again, so a compiled module that was not used for a week is
removed in any case; those of earlier engine versions go away in this way. The files that say why a module cannot be
compiled (`compiled`) are removed after a week, too.

Blobs that no image names are left over from interrupted pulls. They are removed once they are older than a minute.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import attrs

from wasmlet.artifacts.files import entries, lock
from wasmlet.artifacts.store import STALE, Store, read_image, read_reference
from wasmlet.clock import Clock

Usage = Callable[[Path], float]
"""Measures how full the file system of a directory is, in percent."""

COMPILED_AGE = 7 * 86400.0
"""Seconds after its last use at which a compiled module goes."""


@attrs.frozen
class Limits:
    """When images are removed.

    Attributes:
        high, low: percent of the file system, as `imageGCHighThresholdPercent` and `imageGCLowThresholdPercent`;
            100 turns the marks off.
        min_age: seconds since the last use, as `imageMinimumGCAge`.
        max_age: likewise, as `imageMaximumGCAge`; 0 means without limit.
    """

    high: float = 85.0
    low: float = 80.0
    min_age: float = 120.0
    max_age: float = 0.0


@attrs.frozen
class Collected:
    """What a collection did.

    Attributes:
        images: digests of the images that were removed.
        compiled: names of the compiled modules that were removed.
        full: whether the file system is still above the high mark, because everything left is in use or too young.
    """

    images: tuple[str, ...]
    compiled: tuple[str, ...]
    full: bool


@attrs.frozen
class _Idle:
    """An image or a compiled module that may be removed.

    Attributes:
        used: when it was used last, in seconds since the epoch.
        most: seconds without use after which it is removed in any case; 0 means never.
        remove: removes it unless it is in use or was used since; returns whether it was removed.
    """

    path: Path
    used: float
    most: float
    remove: Callable[[], bool]


def percent_used(directory: Path) -> float:
    """How full the file system of a directory is, in percent, as `df` counts it."""
    found = shutil.disk_usage(directory)
    return 100.0 * found.used / max(1, found.used + found.free)


def collect(store: Store, limits: Limits, clock: Clock, usage: Usage = percent_used) -> Collected:
    """Run one collection of the store; blocks.

    Raises:
        OSError: the disk fails.
    """
    store.clear_up()
    now, removed = clock.now().timestamp(), []
    over = usage(store.directory) > limits.high
    for idle in sorted(_idle(store, limits), key=lambda one: (one.used, one.path)):
        age = now - idle.used
        if age < limits.min_age:
            continue
        old = bool(idle.most) and age > idle.most
        full = over and usage(store.directory) > limits.low
        if (old or full) and idle.remove():
            removed.append(idle.path)
            _sweep(store, now)
    _sweep(store, now)
    return Collected(
        tuple(path.name.replace("-", ":", 1) for path in removed if path.parent in (store.images, store.trees)),
        tuple(path.name for path in removed if path.parent == store.compiled),
        usage(store.directory) > limits.high,
    )


def _idle(store: Store, limits: Limits) -> Iterable[_Idle]:
    for path, found in entries(store.images):
        yield _Idle(path, found.st_mtime, limits.max_age, partial(_remove, store, path, found.st_mtime))
    for path, found in entries(store.trees):
        yield _Idle(path, found.st_mtime, limits.max_age, partial(_remove_tree, store, path, found.st_mtime))
    ages = [age for age in (limits.max_age, COMPILED_AGE) if age]
    for path, found in entries(store.compiled):
        yield _Idle(path, found.st_atime, min(ages), partial(_remove_compiled, path, found.st_atime))
    for path, found in entries(store.refused):
        yield _Idle(path, found.st_mtime, min(ages), partial(_remove_refusal, path))


@contextlib.contextmanager
def _unused(path: Path, same: Callable[[os.stat_result], bool]) -> Iterator[bool]:
    """Yield whether the file is unused: not locked, and unchanged (`same`). Nobody can lock it in the context."""
    descriptor = lock(path, create=False)
    try:
        yield descriptor is not None and same(os.fstat(descriptor))
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _remove(store: Store, path: Path, used: float) -> bool:
    """Remove an image, its references first; return False if it is in use, or was used since `used`."""
    with _unused(path, lambda found: found.st_mtime == used) as unused:
        if unused:
            _forget(store, path, (store.trees / path.name).exists())
            path.unlink(missing_ok=True)
        return unused


def _remove_tree(store: Store, path: Path, used: float) -> bool:
    """As `_remove`, for an image that is unpacked as a directory (`trees`)."""
    with _unused(path, lambda found: found.st_mtime == used) as unused:
        if unused:
            _forget(store, path, (store.images / path.name).exists())
            gone = store.ingest / f"{secrets.token_hex(16)}.part"  # `clear_up` removes it from there if we die now
            path.rename(gone)
            shutil.rmtree(gone)
        return unused


def _forget(store: Store, path: Path, otherwise: bool) -> None:
    """Remove the references to an image, unless the store still has it in its other form (a module, or a directory)."""
    digest = path.name.replace("-", ":", 1)
    if otherwise:
        return
    for reference, _ in entries(store.references):
        if read_reference(reference)[0] == digest:
            reference.unlink(missing_ok=True)
    store.access_path(digest).unlink(missing_ok=True)


def _remove_compiled(path: Path, used: float) -> bool:
    """As `_remove`, for a compiled module."""
    with _unused(path, lambda found: found.st_atime == used) as unused:
        if unused:
            path.unlink(missing_ok=True)
        return unused


def _remove_refusal(path: Path) -> bool:
    path.unlink(missing_ok=True)
    return True


def discard(store: Store, digests: Iterable[str]) -> None:
    """Remove those blobs of `digests` that no image names; blocks."""
    named = _named(store)
    for digest in digests:
        if (path := store.blob(digest)) not in named:
            _remove_blob(store, path, lambda found: True)


def _sweep(store: Store, now: float) -> None:
    """Remove the blobs that no image names, except those that a pull may name soon."""
    aged = [path for directory in store.blob_paths() for path, found in entries(directory) if _old(found, now)]
    named = _named(store)
    for path in aged:
        if path not in named:
            _remove_blob(store, path, lambda found: _old(found, now))


def _named(store: Store) -> set[Path]:
    images = [read_image(path) for path, _ in entries(store.images)]
    return {store.blob(blob) for image in images if image is not None for blob in (*image.blobs, image.module)}


def _remove_blob(store: Store, path: Path, may_go: Callable[[os.stat_result], bool]) -> None:
    """Remove a blob, unless a pull uses it."""
    name = store.lock_path(f"{path.parent.name}-{path.name}")
    if (descriptor := lock(name, create=True)) is None:
        return
    try:
        with contextlib.suppress(FileNotFoundError):
            if may_go(path.stat()):
                path.unlink()
    finally:
        name.unlink(missing_ok=True)
        os.close(descriptor)


def _old(found: os.stat_result, now: float) -> bool:
    return now - found.st_mtime > STALE
