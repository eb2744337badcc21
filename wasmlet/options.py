"""Options: how a class of settings says what each of its fields is for.

A node's own settings and a provider's `Config` are attrs classes whose fields are made with `option`. The command line
derives from each field a flag (`--max-pods`), a variable (`WASMLET_MAX_PODS`) and a TOML key (`max-pods`).
"""

from __future__ import annotations

import math
from typing import Any

import attrs

from wasmlet.errors import ConfigError

HELP = "wasmlet.help"


def option(
    default: Any = attrs.NOTHING,
    *,
    help: str,  # noqa: A002 - what it is called everywhere
    factory: Any = None,
    least: float = 0,
    most: float = math.inf,
    **rest: Any,
) -> Any:
    """An attrs field with a help text.

    The field's annotation decides how it is read: `bool` becomes `--x/--no-x`, `tuple[str, ...]` may be given again,
    `Path`, `int`, `float` and `str` are what they are, each also with `| None`.

    Args:
        default: the value where nobody sets one; a field without one must be set.
        help: one line, shown by `--help`.
        least, most: between these, both included, a number has to be; one that is not finite is none.

    Raises (when the class is instantiated):
        ConfigError: the number is another one.
    """

    def within(settings: Any, field: attrs.Attribute[Any], value: Any) -> None:
        if isinstance(value, int | float) and not (math.isfinite(value) and least <= value <= most):
            expected = f"at least {least:g}" if most == math.inf else f"{least:g} to {most:g}"
            flag = field.name.replace("_", "-")
            raise ConfigError(f"{flag.replace('-', ' ')}: expected {expected}, found {value}; set it with --{flag}")

    rest["validator"] = [within, *rest.get("validator", ())]
    if factory is not None:
        return attrs.field(factory=factory, metadata={HELP: help}, **rest)
    return attrs.field(default=default, metadata={HELP: help}, **rest)
