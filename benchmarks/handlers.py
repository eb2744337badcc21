"""The RuntimeClass handlers of an engine, which `--handler` names.

The provider of the engine is loaded when it is asked for: what needs no engine can be measured without one.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import click

from wasmlet.cli import providers
from wasmlet.errors import ConfigError


def handlers(engine: str) -> tuple[str, ...]:
    """Those that the engine has, the default first.

    Raises:
        ConfigError: the engine is not installed.
    """
    kind = providers.load(engine)
    from wasmlet.runtime import RuntimeProvider

    settings: Any = kind.Config
    provider = kind(settings())
    assert isinstance(provider, RuntimeProvider)
    return tuple(name for one in provider.engines for name in one.handlers)


def check(handler: str, engine: str) -> None:
    """See that the engine has this handler; nothing where the engine is not installed, so that it is left out.

    Raises:
        UsageError: it has not.
    """
    with suppress(ConfigError):
        if handler not in (known := handlers(engine)):
            raise click.UsageError(f"--handler: {engine} has no handler {handler!r}; it has {', '.join(known)}")
