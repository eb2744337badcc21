"""What pods are started from: the files of an image that was built, or those of this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

CHECKOUT = Path(__file__).parents[3]
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SYSTEM = ("bin", "sbin", "lib", "lib64", "usr")
SETTINGS = ("alternatives", "group", "ld.so.cache", "nsswitch.conf", "passwd", "ssl")
"""Of /etc, what programs need."""


@attrs.frozen
class Image:
    """An image.

    Attributes:
        root: the directory of its files; None for those of this machine: programs, this Python and this checkout, all
            of them read-only.
        entrypoint, command: what a container runs that says nothing else.
        user, group: that it runs as.
        extra: more files, by the paths where they are in it.
    """

    root: Path | None = None
    entrypoint: Sequence[str] = ()
    command: Sequence[str] = ()
    variables: Mapping[str, str] = attrs.field(factory=lambda: {"PATH": PATH})
    user: int = 0
    group: int = 0
    extra: Mapping[str, Path] = attrs.field(factory=dict)

    @classmethod
    def of_config(cls, root: Path, config: Mapping[str, Any]) -> Image:
        """The image whose files are at `root`, with the `config` of the OCI image specification (numeric users)."""
        user, _, group = str(config.get("User") or "0").partition(":")
        variables = dict(line.split("=", 1) for line in config.get("Env") or ())
        return cls(
            root,
            tuple(config.get("Entrypoint") or ()),
            tuple(config.get("Cmd") or ()),
            {"PATH": PATH} | variables,
            int(user),
            int(group or 0),
        )

    @classmethod
    def wasmlet(cls) -> Image:
        """The image of the Containerfile, made of this machine's files: quick, where the image itself is not tested."""
        return cls(entrypoint=(str(Path(sys.prefix, "bin", "wasmlet")), "run"), command=("--provider=wasmtime",))

    def words(self, command: Sequence[str], args: Sequence[str]) -> list[str]:
        """The command line, where the manifest has these."""
        return [*(command or self.entrypoint), *(args or (() if command else self.command))]

    def mounts(self) -> Iterator[dict[str, Any]]:
        """What the container's root needs beside `root`, as the launcher has it."""
        yield from (bound(source, target) for target, source in self.extra.items())
        if self.root is not None:
            return
        for name in SYSTEM:
            path = Path("/", name)
            if path.is_symlink():
                yield {"link": os.readlink(path), "target": str(path)}
            elif path.is_dir():
                yield bound(path)
        yield from (bound(path) for name in SETTINGS if (path := Path("/etc", name)).exists())
        for path in {CHECKOUT, Path(sys.prefix), Path(sys.base_prefix)}:
            if not path.is_relative_to("/usr"):
                yield bound(path)


def bound(source: Path, target: str | Path | None = None, *, read_only: bool = True) -> dict[str, Any]:
    """A path of the machine in the container's root, at the same place unless `target` is another."""
    return {"source": str(source), "target": str(target or source), "read_only": read_only}
