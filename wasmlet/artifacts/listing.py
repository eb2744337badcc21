"""The images of a store with their names and sizes, in the form that a node reports them (`status.images`)."""

from __future__ import annotations

from collections import defaultdict

import attrs

from wasmlet.artifacts.files import entries
from wasmlet.artifacts.store import Store, read_image, read_object, read_tree


@attrs.frozen
class Listed:
    """One image of the list.

    Attributes:
        names: its references: those with a digest first, then those with a tag.
        size: bytes of its module, and of its files if it was unpacked.
    """

    names: tuple[str, ...]
    size: int


def listed(store: Store) -> list[Listed]:
    """All images, the largest first; blocks.

    Raises:
        OSError: the disk fails.
    """
    sizes: dict[str, int] = defaultdict(int)
    for path, _ in entries(store.images):
        if (image := read_image(path)) is not None:
            sizes[image.digest] += image.size
    for path, _ in entries(store.trees):
        if (tree := read_tree(path)) is not None:
            sizes[tree.digest] += tree.size
    names: dict[str, set[str]] = defaultdict(set)
    for path, _ in entries(store.references):
        raw = read_object(path) or {}
        name, digest = str(raw.get("reference") or ""), str(raw.get("image") or "")
        both = "@" in name and ":" in name.partition("@")[0].rpartition("/")[2]
        if name and not both:  # a name with tag and digest: its digest has an entry of its own
            names[digest].add(name)
    found = [Listed(tuple(sorted(names[digest], key=_digests_first)), size) for digest, size in sizes.items()]
    return sorted((one for one in found if one.names), key=lambda one: (-one.size, one.names))


def _digests_first(name: str) -> tuple[bool, str]:
    return "@" not in name, name
