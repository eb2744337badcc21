"""What mkdocs does here beside reading `docs/`: pages from elsewhere in the checkout, and links between all of them.

- The READMEs of `providers/` and `examples/`, CONTRIBUTING.md and CHANGELOG.md become pages.
- The manifests in `examples/` are files of the site, so that a page may link to one.
- Pages of the reference are made from the sources (`docs.tools.reference`).
- A link in any of these is written for somebody who reads it in the checkout. Where its target is part of the site it
  leads there; where it is another file of the checkout, its text stays; where it is nothing, the build fails. A path of
  a page in backquotes becomes a link, too.
"""

from __future__ import annotations

import logging
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from docs.tools import reference

ROOT = Path(__file__).parents[2]
LOG = logging.getLogger("mkdocs.plugins.wasmlet")
"""Warnings of mkdocs' loggers fail a strict build."""
ELSEWHERE = {
    **{f"providers/{path.parent.name}/README.md": f"providers/{path.parent.name}.md"
       for path in sorted((ROOT / "providers").glob("*/README.md"))},
    **{f"examples/{path.parent.name}/README.md": f"examples/{path.parent.name}.md"
       for path in sorted((ROOT / "examples").glob("*/README.md"))},
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "README.md": "index.md",
}  # fmt: skip
"""Pages that are not below docs/, by their path in the checkout."""
SHOWN = {path.relative_to(ROOT).as_posix() for path in (ROOT / "examples").rglob("*.yaml")}
"""Files of the checkout that the site has as they are."""
LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])+)\]\(([^)\s]+)\)")
PATH = re.compile(r"(?<!\[)`((?:docs|examples|providers)/[\w./-]+\.(?:md|yaml))`(?!\])")
"""A page or a manifest that a text names in backquotes, as those do that a package index shows."""
FENCE = re.compile(r"(^```.*?^```[^\n]*\n)", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """Add what is not below docs/."""
    for path, uri in ELSEWHERE.items():
        if path != "README.md":
            files.append(File.generated(config, uri, content=(ROOT / path).read_text("utf-8")))
    for path in sorted(SHOWN):
        files.append(File.generated(config, path, content=(ROOT / path).read_bytes()))
    for uri, text in reference.pages().items():
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turn links of the checkout into links of the site."""
    if page.file.src_uri in reference.NAMES:
        return markdown  # written for the site
    there = {uri: path for path, uri in ELSEWHERE.items() if path != "README.md"}
    source = there.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    parts = FENCE.split(markdown)
    return "".join(part if index % 2 else rewritten(part, source) for index, part in enumerate(parts))


def rewritten(markdown: str, source: str) -> str:
    """A text whose links to files of the checkout lead to the site.

    Args:
        source: the text's own path in the checkout.
    """
    own = uri_of(source) or ""

    def link(match: re.Match[str]) -> str:
        text, (path, hash_, anchor) = match[1], match[2].partition("#")
        if not path or "://" in path or path.startswith("mailto:"):
            return match[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if (uri := uri_of(target)) is not None:
            return f"[{text}]({posixpath.relpath(uri, posixpath.dirname(own) or '.')}{hash_}{anchor})"
        if target.startswith("../") or not (ROOT / target).exists():
            LOG.warning("%s: a link leads to %r, which is not there", source, target)
        return text

    def named(match: re.Match[str]) -> str:
        if (uri := uri_of(match[1])) is None:
            return match[0]
        return f"[`{match[1]}`]({posixpath.relpath(uri, posixpath.dirname(own) or '.')})"

    return PATH.sub(named, LINK.sub(link, markdown))


def uri_of(path: str) -> str | None:
    """Where the site has a file of the checkout; None where it does not."""
    if path in ELSEWHERE:
        return ELSEWHERE[path]
    if path in SHOWN:
        return path
    below = path.removeprefix("docs/")
    if below != path and ((ROOT / path).is_file() or below in reference.NAMES):
        return below
    return None
