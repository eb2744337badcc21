"""Options: how a class of settings says what each of its fields is for.

A node's own settings and a provider's `Config` are attrs classes whose fields are made with `option`. The command line
derives from each field a flag (`--max-pods`), a variable (`WASMLET_MAX_PODS`) and a TOML key (`max-pods`).
"""

from __future__ import annotations

from typing import Any

import attrs

HELP = "wasmlet.help"


def option(default: Any = attrs.NOTHING, *, help: str, factory: Any = None, **rest: Any) -> Any:  # noqa: A002
    """An attrs field with a help text.

    The field's annotation decides how it is read: `bool` becomes `--x/--no-x`, `tuple[str, ...]` may be given again,
    `Path`, `int`, `float` and `str` are what they are, each also with `| None`.

    Args:
        default: the value where nobody sets one; a field without one must be set.
        help: one line, shown by `--help`.
    """
    if factory is not None:
        return attrs.field(factory=factory, metadata={HELP: help}, **rest)
    return attrs.field(default=default, metadata={HELP: help}, **rest)
