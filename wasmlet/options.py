"""Options: how a class of settings says what each of its fields is for.

A node's own settings and a provider's `Config` are attrs classes whose fields are made with `option`. The command line
derives from each field a flag (`--max-pods`), a variable (`WASMLET_MAX_PODS`) and a TOML key (`max-pods`).
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import attrs

from wasmlet.errors import ConfigError

HELP, UNIT = "wasmlet.help", "wasmlet.unit"
MOST_FILE = 1024 * 1024
"""Bytes of a file that an option names: a key, certificates, a token."""


def option(
    default: Any = attrs.NOTHING,
    *,
    help: str,  # noqa: A002 - what it is called everywhere
    factory: Any = None,
    least: float = 0,
    most: float = math.inf,
    unit: str = "",
    **rest: Any,
) -> Any:
    """An attrs field with a help text. The command line makes an option of it.

    The field's annotation decides how the option is read: `bool` becomes `--x/--no-x`, `tuple[str, ...]` may be given
    more than once, and `Path`, `int`, `float` and `str` are themselves. Each may also be `| None`.

    Args:
        default: the value where nobody sets one; a field without one must be set.
        help: one line, shown by `--help`.
        least: the smallest number that is taken. A number has to be finite.
        most: the largest number that is taken.
        unit: of a number, in capitals, as `--help` shows it; that of a `float` is SECONDS without it.

    Raises:
        ConfigError: the number is out of range or not finite; raised when the class is instantiated.
    """

    def within(settings: Any, field: attrs.Attribute[Any], value: Any) -> None:
        if isinstance(value, int | float) and not (math.isfinite(value) and least <= value <= most):
            expected = f"at least {least:g}" if most == math.inf else f"{least:g} to {most:g}"
            flag = field.name.replace("_", "-")
            raise ConfigError(f"{flag.replace('-', ' ')}: expected {expected}, found {value}; set it with --{flag}")

    rest["validator"] = [within, *rest.get("validator", ())]
    metadata = {HELP: help, UNIT: unit}
    if factory is not None:
        return attrs.field(factory=factory, metadata=metadata, **rest)
    return attrs.field(default=default, metadata=metadata, **rest)


def check_state_directory(path: Path, *, closed: int) -> bool:
    """True if the directory that `--state-dir` names is there, False if it can be made. Changes nothing. Blocks.

    Args:
        closed: as for `state_directory`.

    Raises:
        ConfigError: as `state_directory` would.
    """
    if path.exists():
        state_directory(path, closed=closed)
        return True
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not above.is_dir():
        raise ConfigError(f"state directory {path}: {above} is not a directory; choose another with --state-dir")
    if not os.access(above, os.W_OK | os.X_OK):
        raise ConfigError(
            f"state directory {path}: it is not there, and this user may make nothing in {above}; "
            "make it, or choose another with --state-dir"
        )
    return False


def state_directory(path: Path, *, closed: int) -> Path:
    """The directory that `--state-dir` names, as an absolute path. It is made if it is not there. Blocks.

    Args:
        closed: permission bits that the directory's mode must not have.

    Raises:
        ConfigError: it cannot be made, belongs to somebody else, or is open to others.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
    except FileExistsError:
        raise ConfigError(f"state directory {path}: it is a file; choose another with --state-dir") from None
    except OSError as error:
        raise ConfigError(f"state directory {path}: {error.strerror}; choose another with --state-dir") from None
    if found.st_uid != os.geteuid() or found.st_mode & closed:
        what = "write" if not closed & 0o055 else "enter or read"
        raise ConfigError(
            f"state directory {path}: expected one that belongs to this user and that nobody else may {what}; "
            "choose another with --state-dir"
        )
    return path.absolute()


def content_of(file: Path, flag: str) -> bytes:
    """What is in the file that an option names. Blocks.

    Args:
        flag: that option, as `--token-file`.

    Raises:
        ConfigError: it cannot be read, or has more than a mebibyte.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(MOST_FILE + 1)
    except OSError as error:
        raise ConfigError(f"{flag} {file}: {error.strerror}") from None
    if len(content) > MOST_FILE:
        raise ConfigError(f"{flag} {file}: expected at most {MOST_FILE} bytes, found more")
    return content
