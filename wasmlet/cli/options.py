"""From an attrs class to command-line options, and back to an instance of it.

A field `max_pods: int = option(110, help=...)` becomes `--max-pods`, `WASMLET_MAX_PODS` and the TOML key `max-pods`.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import attrs
import click

from wasmlet.cli.execution import BadOption
from wasmlet.errors import ConfigError
from wasmlet.names import did_you_mean
from wasmlet.options import HELP, UNIT

T = TypeVar("T")

LEVELS = ("debug", "info", "warning", "error")
"""How much is logged."""

_OF_A_SERVICE = re.compile(
    r"WASMLET_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_[A-Z]+)?)?)"
)
"""Variables that Kubernetes sets in a pod for a Service whose name is `wasmlet`, or begins so (see `envvars.go`)."""
_LINK = re.compile(r"(tcp|udp|sctp)://.+:[0-9]+")
"""The value of such a variable that may have the name of an option: `WASMLET_PORT`."""


def options_of(settings: type[Any]) -> list[click.Parameter]:
    """A click option for each field of an attrs class.

    Raises:
        TypeError: a field has a type that has no form on a command line.
    """
    hints = typing.get_type_hints(settings)
    return [_option(field, hints[field.name]) for field in attrs.fields(settings) if field.init]


def common() -> list[click.Parameter]:
    """The options of all commands that run for long: --config and --log-level."""
    return [
        click.Option(
            ["--config"],
            type=click.Path(path_type=Path),
            is_eager=True,
            callback=read_toml,
            metavar="FILE",
            envvar="WASMLET_CONFIG",
            show_envvar=True,
            help='TOML file with options, as log-level = "debug".',
        ),
        click.Option(
            ["--log-level"],
            type=click.Choice(LEVELS),
            default="info",
            show_default=True,
            envvar="WASMLET_LOG_LEVEL",
            show_envvar=True,
            help="How much is logged.",
        ),
    ]


def instance_of(settings: type[T], values: dict[str, Any]) -> T:
    """An instance from parsed values; those that are not set keep their defaults.

    Raises:
        BadOption: one of them is not taken.
    """
    names = [field.name for field in attrs.fields(settings) if field.init]  # type: ignore[arg-type]
    given = {name: values[name] for name in names if values.get(name) is not None and values[name] != ()}
    try:
        return settings(**given)
    except ConfigError as error:
        raise BadOption(str(error)) from None


def read_toml(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """Callback of `--config`: the file's keys become defaults, after flags and variables."""
    if path is None:
        return None
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadOption(f"--config {path}: not TOML: {error}") from None
    known = {p.name: p for p in context.command.params if p.name and p is not parameter}
    for key, value in values.items():
        option = known.get(key.replace("-", "_"))
        if option is None:
            near = _nearest(key, sorted(name.replace("_", "-") for name in known))
            raise BadOption(f"--config {path}: there is no option {key!r}{near}")
        if (expected := _unlike(option, value)) is not None:
            raise BadOption(f"--config {path}: {key}: expected {expected}, found {value!r}")
    context.default_map = {key.replace("-", "_"): value for key, value in values.items()}
    return path


def warn_of_variables(options: Sequence[click.Parameter]) -> None:
    """Say on standard error which `WASMLET_*` variables no option reads: most likely they are misspelt.

    They are no error, since another provider may read them; nor are those that Kubernetes sets for a Service of that
    name worth a word.
    """
    known = {str(option.envvar) for option in options}
    for name in sorted(os.environ):
        if name.startswith("WASMLET_") and name not in known and not _OF_A_SERVICE.fullmatch(name):
            click.echo(f"Warning: no option reads {name}{did_you_mean(name, known)}", err=True)


def _unlike(option: click.Parameter, value: Any) -> str | None:
    """What the option takes, where a value of a TOML file is something else."""
    if option.multiple and isinstance(value, list):
        return next((f"a list, each {found}" for item in value if (found := _unlike_one(option, item))), None)
    return "a list" if option.multiple else _unlike_one(option, value)


def _unlike_one(option: click.Parameter, value: Any) -> str | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    match option.type:
        case click.types.BoolParamType():
            return None if isinstance(value, bool) else "true or false"
        case click.types.IntParamType():
            return None if number and isinstance(value, int) else "a whole number"
        case click.types.FloatParamType():
            return None if number and math.isfinite(value) else "a number"
        case _:
            return None if isinstance(value, str) else "text in quotes"


class _Option(click.Option):
    """An option that ignores its variable if Kubernetes has set it, as it does for a Service of that name."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        found = super().resolve_envvar_value(ctx)
        return None if found is not None and _LINK.fullmatch(found) else found


def _option(field: attrs.Attribute[Any], hint: Any) -> click.Option:
    flag = "--" + field.name.replace("_", "-")
    multiple = typing.get_origin(hint) is tuple
    kind = _plain(typing.get_args(hint)[0] if multiple else hint)
    # Whether it can be read is for whoever reads it, and says what for: a default that nobody uses may be root's alone.
    path = click.Path(path_type=Path, readable=False)
    parsed: click.ParamType[Any] | type = path if kind is Path else kind
    if kind not in (str, int, float, bool, Path):
        raise TypeError(f"{field.name}: an option cannot be a {kind}")
    default = field.default
    computed = isinstance(default, attrs.Factory)  # type: ignore[arg-type]
    shown = None if default is attrs.NOTHING or computed else default
    return _Option(
        [f"{flag}/--no-{flag[2:]}" if kind is bool else flag],
        type=None if kind is bool else parsed,
        multiple=multiple,
        # To click 8.3, None is a default as any other, and whoever is to give a value would not be asked for it.
        **({"required": True} if default is attrs.NOTHING else {"default": shown}),
        help=field.metadata.get(HELP, ""),
        show_default=shown not in (None, (), "", False),
        metavar=None if kind is bool else field.metadata.get(UNIT) or _metavar(field.name, kind),
        show_envvar=True,
        envvar=f"WASMLET_{field.name.upper()}",
    )


def _plain(hint: Any) -> Any:
    """`X` of `X | None`."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return next(part for part in typing.get_args(hint) if part is not types.NoneType)
    return hint


def _metavar(name: str, kind: Any) -> str:
    if kind is Path:
        return "DIR" if name.endswith("_dir") else "FILE"
    return {int: "N", float: "SECONDS"}.get(kind, name.rpartition("_")[2].upper())


def _nearest(word: str, known: list[str]) -> str:
    return did_you_mean(word, known) or f"; there are: {', '.join(known)}"
