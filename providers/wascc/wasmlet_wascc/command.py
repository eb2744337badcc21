"""`wasmlet wascc`: what an author of actors needs: keys, and signatures."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from typing import Any

import click

from wasmlet import ConfigError, files
from wasmlet.artifacts.wasm_reader import NotWasm
from wasmlet_wascc import claims
from wasmlet_wascc.claims import Claims
from wasmlet_wascc.grants import OWN
from wasmlet_wascc.nkeys import BadKey, Seed

_DAY_SECONDS = 86400


@click.group("wascc")
def command() -> None:
    """Make keys, and sign actors."""


@command.command("keys", short_help="Make the keys of an account and of a module.")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
def _keys(directory: Path) -> None:
    """Make the keys of an account and of a module in DIRECTORY: account.nk and module.nk.

    The account's key signs, and its public key is what `--wascc-issuers` of a node names. The module's key names one
    actor over all its versions. Both files are secret.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("account", "module"):
        seed = Seed.new("account" if name == "account" else "module")
        path = directory / f"{name}.nk"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except FileExistsError:
            raise ConfigError(f"{path} is there already; expected a directory without keys") from None
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from error
        try:
            with open(descriptor, "w", encoding="ascii") as file:
                file.write(seed.text + "\n")
        except OSError as error:
            path.unlink(missing_ok=True)
            raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
        click.echo(f"{path}  {seed.public.text}")


@command.command("sign", short_help="Sign an actor.")
@click.argument("module", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--account-key", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True,
              help="File with the account's seed, as `wasmlet wascc keys` makes it.")  # fmt: skip
@click.option("--module-key", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True,
              help="File with the module's seed.")  # fmt: skip
@click.option("-c", "--capability", "capabilities", multiple=True,
              help=f"What the actor may use: {', '.join(OWN)}, or another; may be repeated.")  # fmt: skip
@click.option("--name", default="", help="A name for people; the file's name without it.")
@click.option("--tag", "tags", multiple=True, help="A word for people; may be repeated.")
@click.option("--version", default="", help="The version, as a text.")
@click.option("--revision", type=int, help="The version, as a number that goes up.")
@click.option("--days", type=click.FloatRange(0.01, 36500), help="How long the signature holds; for ever without it.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Where to; MODULE without it.")
def _sign(module: Path, account_key: Path, module_key: Path, output: Path | None, **values: Any) -> None:
    """Sign the actor in the file MODULE, in place of a signature that it has."""
    now = int(time.time())
    account, subject = _seed(account_key, "account"), _seed(module_key, "module")
    found = Claims(
        account.public.text,
        subject.public.text,
        name=values["name"] or module.stem,
        capabilities=tuple(name if ":" in name else f"wascc:{name}" for name in values["capabilities"]),
        tags=values["tags"],
        expires=now + int(values["days"] * _DAY_SECONDS) if values["days"] else None,
        issued=now,
        revision=values["revision"],
        version=values["version"],
    )
    try:
        signed = claims.signed(module.read_bytes(), found, account)
        claims.read(signed)
    except (NotWasm, claims.BadClaims) as error:
        raise ConfigError(f"{module}: {error}") from None
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}") from error
    _write(output or module, signed)
    click.echo(f"{output or module}: {found.name}, signed by {found.issuer}")
    click.echo(f"capabilities: {', '.join(found.capabilities) or 'none'}")


def _write(path: Path, signed: bytes) -> None:
    """Write what is signed. A file that is there is not lost where that fails, as it may be the only one of a module.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        if path.is_file():
            whole = path.resolve()
            files.replace(whole, signed, whole.stat())
        else:
            path.write_bytes(signed)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def _seed(path: Path, kind: Any) -> Seed:
    try:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            click.echo(f"{path} can be read by others; try: chmod 600 {path}", err=True)
        text = path.read_text("ascii").strip() if path.stat().st_size < 4096 else ""
        return Seed.of(text, kind)
    except (BadKey, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error if isinstance(error, BadKey) else 'this is no nkey'}") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
