"""`wasmlet push` and `pull`: copy a WebAssembly module into a registry, or from a registry into a file.

Credentials are those of `docker login`. Messages go to standard error, with a progress bar on a terminal; standard
output has only the digest.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs
import click

from wasmlet.artifacts.hosts import RegistryConfig
from wasmlet.artifacts.references import DEFAULT_REGISTRY, Reference, parse
from wasmlet.cli.execution import run_loop
from wasmlet.cli.options import instance_of, options_of
from wasmlet.cli.progress import Bar
from wasmlet.clock import SystemClock
from wasmlet.errors import ConfigError
from wasmlet.sizes import size

if TYPE_CHECKING:
    from wasmlet.artifacts.credentials import Keychain
    from wasmlet.artifacts.pull import Pulled
    from wasmlet.artifacts.store import Image


def registry_options() -> list[click.Parameter]:
    """The options of every command that speaks to a registry."""
    insecure = click.Option(
        ["--insecure"], is_flag=True, help="The registry may have no valid certificate, or speak plain HTTP."
    )
    return [insecure, *options_of(RegistryConfig)]


def push_command() -> click.Command:
    """`wasmlet push`."""
    return click.Command(
        "push",
        callback=lambda **values: run_loop(_push(**with_config(values, values["reference"]))),
        help="Push the module FILE to a registry as REFERENCE, [REGISTRY/]REPOSITORY:TAG.",
        params=[
            click.Argument(["file"], type=click.Path(path_type=Path)),
            click.Argument(["reference"]),
            click.Option(["--annotation"], multiple=True, metavar="KEY=VALUE", help="Annotate the manifest."),
            click.Option(
                ["--format", "form"],
                type=click.Choice(("v0", "wasm-to-oci")),
                default="v0",
                show_default=True,
                help="The CNCF's artifact, or wasm-to-oci's for registries that know no other.",
            ),
            *registry_options(),
        ],
    )


def pull_command() -> click.Command:
    """`wasmlet pull`."""
    return click.Command(
        "pull",
        callback=lambda **values: run_loop(_pull(**with_config(values, values["reference"]))),
        help="Pull the module REFERENCE from a registry into a file.",
        params=[
            click.Argument(["reference"]),
            click.Option(
                ["-o", "--output"],
                type=click.Path(path_type=Path),
                help="The file; without it a new one, named after the repository.",
            ),
            *registry_options(),
        ],
    )


def with_config(values: dict[str, Any], reference: str | None) -> dict[str, Any]:
    """The values with those of all options about registries put together as one, `config`.

    Args:
        values: of all options and arguments.
        reference: with --insecure, the registry of this reference counts as insecure; None if no registry is used.
    """
    config = instance_of(RegistryConfig, values)
    if values["insecure"] and reference is not None:
        registry = parse(reference).registry
        config = attrs.evolve(config, insecure_registries=(*config.insecure_registries, registry))
    known = {"insecure", *(field.name for field in attrs.fields(RegistryConfig))}
    return {key: value for key, value in values.items() if key not in known} | {"config": config}


async def _push(
    file: Path, reference: str, annotation: tuple[str, ...], form: Literal["v0", "wasm-to-oci"], config: RegistryConfig
) -> None:
    from wasmlet.artifacts import push
    from wasmlet.artifacts.helpers import docker_config

    target = parse(reference)
    annotations = dict(_annotation(text) for text in annotation)
    module = await asyncio.to_thread(push.load, file)
    what = push.artifact(module, annotations, form)
    keychain = docker_config()
    with Bar(f"pushing {file.name}") as bar:
        pusher = push.Pusher(keychain=keychain, config=config, clock=SystemClock(), watch=bar.show)
        async with _logins(keychain, target):
            digest = await pusher.push(module, what, target)
    _say(f"pushed {file} ({module.binary.kind}, {size(module.size)}) as {target}")
    click.echo(digest)


def _annotation(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise ConfigError(f"--annotation: expected KEY=VALUE, found {text!r}")
    return key, value


async def _pull(reference: str, output: Path | None, config: RegistryConfig) -> None:
    wanted = parse(reference)
    target = output or Path(f"{wanted.repository.rpartition('/')[2]}.wasm")
    if output is None and target.exists():
        raise ConfigError(f"{target} is there already; name a file to write to with -o")
    with ExitStack() as stack:
        try:
            beside = tempfile.TemporaryDirectory(dir=target.absolute().parent, prefix=".wasmlet-pull-")
        except OSError as error:
            raise ConfigError(f"cannot write to {target.absolute().parent}: {error.strerror}") from None
        pulled = await pulled_image(stack, Path(stack.enter_context(beside)), wanted, config)
        image = pulled.lease.image
        mask = os.umask(0)
        os.umask(mask)
        pulled.lease.path.chmod(0o666 & ~mask)
        try:
            pulled.lease.path.replace(target)
        except OSError as error:
            raise ConfigError(f"cannot write {target}: {error.strerror}") from None
    _say(f"pulled {wanted} ({size(image.size)}) into {target}")
    click.echo(image.digest)


async def pulled_image(stack: ExitStack, directory: Path, wanted: Reference, config: RegistryConfig) -> Pulled[Image]:
    """Pull into a store of its own in that directory, in use until the stack is closed."""
    from wasmlet.artifacts.helpers import docker_config
    from wasmlet.artifacts.pull import Puller
    from wasmlet.artifacts.store import Store

    store = Store(directory, SystemClock())
    store.prepare()
    keychain = docker_config()
    async with Puller(store, config, SystemClock()) as puller:
        with Bar(f"pulling {wanted.repository.rpartition('/')[2]}") as bar:
            async with _logins(keychain, wanted):
                pulled = await puller.pull(wanted, keychain, bar.show)
    stack.callback(pulled.lease.close)
    return pulled


@asynccontextmanager
async def _logins(keychain: Keychain, reference: Reference) -> AsyncGenerator[None, None]:
    """Where a registry refuses, say which one, whether the password is wrong, and what to do."""
    from wasmlet.artifacts.errors import Denied

    try:
        yield
    except Denied as error:
        registry = reference.registry
        login = "docker login" if registry == DEFAULT_REGISTRY else f"docker login {registry}"
        known = await keychain.credentials(reference.name)
        user = f"user {known[0].username!r}" if known and known[0].username else "these credentials"
        if error.forbidden:
            said = f"{registry} does not let {user if known else 'everybody'} do this"
        elif known:
            said = f"{registry} does not accept {user}: the password is wrong, or no longer valid"
        else:
            said = f"{registry} wants a user and a password for {reference.repository}, or has no such repository"
        raise ConfigError(f"{said}; try: {login}\n  ({error})") from None


def _say(text: str) -> None:
    click.echo(text, err=True)
