"""README as a package index shows it, where there is no checkout beside it: a metadata hook of hatchling.

A link to a file of the checkout leads nowhere there, so its text and the file's path stay; a picture is left out. Links
to elsewhere are kept.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_PICTURE = re.compile(r"^!\[[^\]]*\]\((?!https?:)[^)]*\)\n+", re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])+)\]\((?!https?:|#)([^)\s]+)\)")


def published(text: str) -> str:
    """The text without links to files beside it."""

    def plain(link: re.Match[str]) -> str:
        shown, path = link[1], link[2].partition("#")[0]
        return shown if path in shown else f"{shown} (`{path}`)"

    return _LINK.sub(plain, _PICTURE.sub("", text))


class Readme(MetadataHookInterface):
    """Sets `readme`, which pyproject.toml calls dynamic."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        text = (Path(self.root) / "README.md").read_text("utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": published(text)}
