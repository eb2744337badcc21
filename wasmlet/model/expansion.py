"""`$(VAR)` in values, commands and arguments, as the Kubernetes API documents it.

`wasmlet.model.environment` expands the values of variables with this, and what starts a container expands its command
and arguments with the variables that came out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from wasmlet.model.pod import Container

_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")


def expand(text: str, *variables: Mapping[str, str]) -> str:
    """Replace each `$(NAME)` by the value that the first of `variables` to know NAME has for it.

    A reference to a name that nobody knows stays as it is, and so does an opening `$(` that nothing closes. `$$` is
    one `$`, and what follows it is not a reference. Values are not expanded again.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            return "$"
        return next((known[name] for known in variables if name in known), match[0])

    return _REFERENCE.sub(value, text)


def command_and_args(container: Container, variables: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """The container's command and arguments with references expanded; both empty where the image's own are meant."""
    return (
        [expand(word, variables) for word in container.command],
        [expand(word, variables) for word in container.args],
    )
