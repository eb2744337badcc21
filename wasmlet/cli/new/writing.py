"""Writes a package from templates: the files below `templates`, in which @NAME@ and the like stand for names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import attrs

from wasmlet.errors import ConfigError
from wasmlet.names import OWN

TEMPLATES = Path(__file__).with_name("templates")
_SUFFIX, _PACKAGE = ".txt", "package"
_TAKEN = ("agent", "dense", "interlink", "runtime")
"""What would collide with a package or program, a RuntimeClass, a provider, and a class of wasmlet's."""


@attrs.frozen
class Names:
    """What a package and what is in it are called.

    Attributes:
        name: of the provider or engine, as `fast-lamps`.
    """

    name: str

    @property
    def distribution(self) -> str:
        """As `wasmlet-fast-lamps`."""
        return f"wasmlet-{self.name}"

    @property
    def package(self) -> str:
        """As `wasmlet_fast_lamps`."""
        return self.distribution.replace("-", "_")

    @property
    def words(self) -> dict[str, str]:
        """What stands in a template for each of its names."""
        title = "".join(part.capitalize() for part in self.name.split("-"))
        return {"NAME": self.name, "DISTRIBUTION": self.distribution, "PACKAGE": self.package, "CLASS": title}


def write(kind: str, names: Names, directory: Path) -> Iterator[Path]:
    """Write a package, and give the path of each file.

    Args:
        kind: `provider` or `engine`.

    Raises:
        ConfigError: the name is one of wasmlet's own, the directory holds something, or cannot be written to.
    """
    if names.name in {*OWN["provider"], *OWN["engine"], *_TAKEN}:
        raise ConfigError(f"{names.name!r} is a name of wasmlet's own; choose another name")
    templates = sorted((TEMPLATES / kind).rglob(f"*{_SUFFIX}"))
    try:
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise ConfigError(f"{directory}: expected nothing there, found something; choose another --directory")
        for template in templates:
            inside = template.relative_to(TEMPLATES / kind).with_suffix("")
            parts = (names.package if part == _PACKAGE else part for part in inside.parts)
            file = directory.joinpath(*parts)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(_filled(template.read_text("utf-8"), names), "utf-8")
            yield file
    except OSError as error:
        raise ConfigError(f"{error.filename or directory}: {error.strerror}") from None


def _filled(text: str, names: Names) -> str:
    words = names.words
    return re.sub(r"@([A-Z]+)@", lambda found: words[found[1]], text)
