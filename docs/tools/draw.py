"""Draws the pictures of the documentation: each `docs/pictures/NAME.toml` becomes `NAME.svg` beside it.

    python -m docs.tools.draw            # as `make pictures` does; writes every picture again

A text has boxes, each with a place in pixels, and arrows between sides of boxes. One text gives the same bytes
everywhere: nothing is measured and no font is looked up. Colours follow the reader's light or dark setting.
"""

from __future__ import annotations

import sys
import tomllib
from html import escape
from pathlib import Path
from typing import Any

PICTURES = Path(__file__).parents[1] / "pictures"
LINE = 17
"""Pixels from one line of text to the next."""
STYLE = """
  text { font: 14px system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; fill: #1f2933 }
  .head { font-weight: 600 }
  .small { font-size: 12px; fill: #52606d }
  .label { font-size: 12px; fill: #52606d; paint-order: stroke; stroke: #ffffff; stroke-width: 5px }
  rect { stroke-width: 1.5px }
  .area { fill: #f5f7fa; stroke: #cbd2d9; stroke-dasharray: 5 4 }
  .plain { fill: #ffffff; stroke: #9aa5b1 }
  .node { fill: #e0ecff; stroke: #2f6fde }
  .guest { fill: #e3f8ee; stroke: #199473 }
  line { stroke: #52606d; stroke-width: 1.5px }
  marker path { fill: #52606d }
  .ground { fill: #ffffff }
  @media (prefers-color-scheme: dark) {
    text { fill: #e4e7eb } .small, .label { fill: #aab4bf } .label { stroke: #12181f }
    .ground { fill: #12181f } .area { fill: #1a222b; stroke: #3e4c59 } .plain { fill: #232d38; stroke: #616e7c }
    .node { fill: #16305c; stroke: #5b92ee } .guest { fill: #0c3a2d; stroke: #3ebd93 }
    line { stroke: #aab4bf } marker path { fill: #aab4bf }
  }
""".strip("\n")


def picture(text: str) -> str:
    """The SVG of a picture's text.

    Raises:
        ValueError: an arrow names a box or a side that is not there; the message says which.
    """
    said = tomllib.loads(text)
    width, height = said["size"]
    boxes = {box["name"]: box for box in said["box"]}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        f' role="img" aria-label="{escape(said["title"])}">',
        f"<title>{escape(said['title'])}</title>",
        f"<style>\n{STYLE}\n</style>",
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7"'
        ' orient="auto-start-reverse"><path d="M0 0 L10 5 L0 10 z"/></marker></defs>',
        f'<rect class="ground" x="0" y="0" width="{width}" height="{height}" rx="8"/>',
        *(line for box in said["box"] for line in _box(box)),
        *(line for arrow in said.get("arrow", ()) for line in _arrow(arrow, boxes)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _box(box: dict[str, Any]) -> list[str]:
    """An area has its text at its top, any other box in its middle; the first line is a heading."""
    x, y, width, height = box["at"]
    kind, lines = box.get("kind", "plain"), box.get("text", [])
    parts = [f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>']
    if kind == "area":
        left, first, anchor = x + 12, y + 21, "start"
    else:
        left, first, anchor = x + width / 2, y + height / 2 - (len(lines) - 1) * LINE / 2 + 5, "middle"
    for index, line in enumerate(lines):
        style = "small" if index else "head"
        parts.append(
            f'<text class="{style}" x="{left:g}" y="{first + index * LINE:g}" text-anchor="{anchor}">'
            f"{escape(line)}</text>"
        )
    return parts


def _arrow(arrow: dict[str, Any], boxes: dict[str, dict[str, Any]]) -> list[str]:
    (x1, y1), (x2, y2) = _point(arrow["from"], boxes), _point(arrow["to"], boxes)
    if arrow.get("straight") == "across":
        y2 = y1
    elif arrow.get("straight") == "down":
        x2 = x1
    start = ' marker-start="url(#tip)"' if arrow.get("both") else ""
    parts = [f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" marker-end="url(#tip)"{start}/>']
    lines = arrow.get("text", [])
    dx, dy = arrow.get("shift", [0, 0])
    for index, line in enumerate(lines):
        x, y = (x1 + x2) / 2 + dx, (y1 + y2) / 2 - 7 - (len(lines) - 1 - index) * 15 + dy
        parts.append(f'<text class="label" x="{x:g}" y="{y:g}" text-anchor="middle">{escape(line)}</text>')
    return parts


def _point(end: str, boxes: dict[str, dict[str, Any]]) -> tuple[float, float]:
    """A point on a side of a box: `NAME.SIDE`, or `NAME.SIDE@0.25` for a quarter of the way along it."""
    name, _, rest = end.partition(".")
    side, _, along = rest.partition("@")
    if name not in boxes or side not in ("left", "right", "top", "bottom"):
        raise ValueError(f"arrow: expected BOX.SIDE, found {end!r}; boxes are {', '.join(boxes)}")
    x, y, width, height = boxes[name]["at"]
    share = float(along or 0.5)
    if side in ("left", "right"):
        return x + (width if side == "right" else 0), y + height * share
    return x + width * share, y + (height if side == "bottom" else 0)


def main() -> None:
    """Draw every picture again."""
    for source in sorted(PICTURES.glob("*.toml")):
        source.with_suffix(".svg").write_text(picture(source.read_text("utf-8")), "utf-8")
        sys.stdout.write(f"{source.with_suffix('.svg').relative_to(PICTURES.parents[1])}\n")


if __name__ == "__main__":
    main()
