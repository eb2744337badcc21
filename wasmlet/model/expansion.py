"""`$(VAR)` in values, commands and arguments, as the Kubernetes API documents it.

`wasmlet.model.environment` expands the values of variables with this, and what starts a container expands its command
and arguments with the variables that came out. A few lines of a manifest can double their text over and over, so what
comes out is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from wasmlet.errors import Refused
from wasmlet.model.pod import Container

MOST_BYTES = 2 * 2**20
"""How much text a container may be started with, in variables or in words: Linux gives a process as much by default."""

_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")


class TooLong(ValueError):
    """What a text expands to is longer than `MOST_BYTES`."""


def expand(text: str, *variables: Mapping[str, str]) -> str:
    """Replace each `$(NAME)` by the value that the first of `variables` to know NAME has for it.

    A reference to a name that nobody knows stays as it is, and so does an opening `$(` that nothing closes. `$$` is
    one `$`, and what follows it is not a reference. Values are not expanded again.

    Raises:
        TooLong: the outcome is.
    """
    size = len(text)

    def value(match: re.Match[str]) -> str:
        nonlocal size
        name = match[1]
        if name is None:
            return "$"
        found = next((known[name] for known in variables if name in known), match[0])
        size += len(found) - len(match[0])
        if size > MOST_BYTES:
            raise TooLong
        return found

    return _REFERENCE.sub(value, text)


def command_and_args(container: Container, variables: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """The container's command and arguments, with references to variables replaced.

    Both are empty if the manifest leaves them to the image.

    Raises:
        Refused: together they are too long.
    """
    left = MOST_BYTES
    found: dict[str, list[str]] = {"command": [], "args": []}
    for field, words in (("command", container.command), ("args", container.args)):
        for word in words:
            try:
                text = expand(word, variables)
            except TooLong:
                left = -1
            else:
                left -= len(text)
            if left < 0:
                message = f"expands to more than the {MOST_BYTES} bytes that a container is started with"
                raise Refused(f"{container.field}.{field}", message, container=container.name)
            found[field].append(text)
    return found["command"], found["args"]
