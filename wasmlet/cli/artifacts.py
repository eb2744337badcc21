"""`wasmlet push`, `pull` and `inspect`: modules, and registries that hold them.

Credentials are those of `docker login`. What is said goes to standard error, with a bar on a terminal; standard output
has the digest alone, or what `inspect` found.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import attrs
import click

from wasmlet.artifacts.hosts import RegistryConfig
from wasmlet.artifacts.references import Reference, parse
from wasmlet.cli.needs import manifest_of, needs_of
from wasmlet.cli.options import instance_of, options_of
from wasmlet.clock import SystemClock
from wasmlet.errors import ConfigError, WasmletError

if TYPE_CHECKING:
    from wasmlet.artifacts.pull import Pulled
    from wasmlet.artifacts.push import Module
    from wasmlet.artifacts.store import Image
    from wasmlet.artifacts.wasm import Binary

Run = Callable[[Any], None]


def commands(run: Run) -> list[click.Command]:
    """The three commands.

    Args:
        run: runs a coroutine.
    """
    insecure = click.Option(
        ["--insecure"], is_flag=True, help="The registry may have no valid certificate, or speak plain HTTP."
    )
    registries = [insecure, *options_of(RegistryConfig)]

    return [_push_command(run, registries), _pull_command(run, registries), _inspect_command(run, registries)]


def _push_command(run: Run, registries: Sequence[click.Parameter]) -> click.Command:
    return click.Command(
        "push",
        callback=lambda **values: run(_push(**_with_config(values, "reference"))),
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
            *registries,
        ],
    )


def _pull_command(run: Run, registries: Sequence[click.Parameter]) -> click.Command:
    return click.Command(
        "pull",
        callback=lambda **values: run(_pull(**_with_config(values, "reference"))),
        help="Pull the module REFERENCE from a registry into a file.",
        params=[
            click.Argument(["reference"]),
            click.Option(
                ["-o", "--output"],
                type=click.Path(path_type=Path),
                help="The file; without it a new one, named after the repository.",
            ),
            *registries,
        ],
    )


def _inspect_command(run: Run, registries: Sequence[click.Parameter]) -> click.Command:
    def inspect(**values: Any) -> None:
        run(_inspect(**_with_config(values, "what"), local=_is_local(values["what"])))

    return click.Command(
        "inspect",
        callback=inspect,
        help="Show what a module is: kind, needs, imports, exports, sizes. WHAT is a file or a reference.",
        params=[
            click.Argument(["what"]),
            click.Option(["--manifest"], is_flag=True, help="Write a pod that runs it instead, as YAML."),
            *registries,
        ],
    )


def _with_config(values: dict[str, Any], name: str) -> dict[str, Any]:
    """The options of registries as one, with that of `name` among the insecure ones where --insecure says so."""
    config = instance_of(RegistryConfig, values)
    if values["insecure"] and not (name == "what" and _is_local(values[name])):
        registry = parse(values[name]).registry
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
    with _Bar(f"pushing {file.name}") as bar:
        pusher = push.Pusher(keychain=docker_config(), config=config, clock=SystemClock(), watch=bar.show)
        digest = await pusher.push(module, what, target)
    _say(f"pushed {file} ({module.binary.kind}, {_bytes(module.size)}) as {target}")
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
        pulled = await _pulled(stack, Path(stack.enter_context(beside)), wanted, config)
        image = pulled.lease.image
        mask = os.umask(0)
        os.umask(mask)
        pulled.lease.path.chmod(0o666 & ~mask)
        try:
            pulled.lease.path.replace(target)
        except OSError as error:
            raise ConfigError(f"cannot write {target}: {error.strerror}") from None
    _say(f"pulled {wanted} ({_bytes(image.size)}) into {target}")
    click.echo(image.digest)


async def _pulled(stack: ExitStack, directory: Path, wanted: Reference, config: RegistryConfig) -> Pulled[Image]:
    """Pull into a store of its own in that directory, in use until the stack is closed."""
    from wasmlet.artifacts.helpers import docker_config
    from wasmlet.artifacts.pull import Puller
    from wasmlet.artifacts.store import Store

    store = Store(directory, SystemClock())
    store.prepare()
    async with Puller(store, config, SystemClock()) as puller:
        with _Bar(f"pulling {wanted.repository.rpartition('/')[2]}") as bar:
            pulled = await puller.pull(wanted, docker_config(), bar.show)
    stack.callback(pulled.lease.close)
    return pulled


def _is_local(what: str) -> bool:
    """Whether that names a file, or could name nothing else."""
    return what.startswith(("/", "./", "../")) or Path(what).is_file() or ("/" not in what and what.endswith(".wasm"))


async def _inspect(what: str, manifest: bool, config: RegistryConfig, *, local: bool) -> None:
    from wasmlet.artifacts.push import load

    if local:
        module = await asyncio.to_thread(load, Path(what))
        if manifest:
            _write_manifest(module.binary, _as_image(what))
            return
        _show([("file", what), ("digest", module.digest)], module.binary, await _facts(module))
        return
    try:
        wanted = parse(what)
    except WasmletError as error:
        raise ConfigError(f"{what!r} is neither a file that is there nor a reference: {error}") from None
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="wasmlet-inspect-"))
        pulled = await _pulled(stack, Path(directory), wanted, config)
        image = pulled.lease.image
        module = await asyncio.to_thread(load, pulled.lease.path)
        facts = await _facts(module)
    if manifest:
        _write_manifest(module.binary, str(wanted))
        return
    lines = [("reference", str(wanted)), ("manifest", image.digest), ("digest", image.module)]
    if image.command:
        lines.append(("command", " ".join((*image.command, *image.arguments))))
    _show(lines, module.binary, facts)


async def _facts(module: Module) -> Sequence[tuple[str, str]]:
    """What the engines that are installed find out about it."""
    from wasmlet.cli.facts import facts_of

    return await asyncio.to_thread(lambda: list(facts_of(module.path.read_bytes(), module.binary)))


def _show(lines: Iterable[tuple[str, str]], binary: Binary, facts: Iterable[tuple[str, str]]) -> None:
    for name, text in (*lines, ("kind", binary.kind), ("size", f"{binary.size} bytes"), *facts):
        click.echo(f"{name:<10} {_printable(text)}")
    for need, how in needs_of(binary):
        click.echo(f"{'needs':<10} {need}: {how}")
    for title, externs in (("imports", binary.imports), ("exports", binary.exports)):
        click.echo(f"{title:<10} {len(externs)}")
        for extern in externs:
            click.echo(f"  {extern.kind:<13} {_printable(f'{extern.module} {extern.name}'.strip())}")
    click.echo(f"{'sections':<10} {len(binary.sections)}")
    for name, size in binary.sections:
        click.echo(f"  {size:>9} {_printable(name)}")


def _as_image(file: str) -> str:
    """A file of this machine as the image of a container."""
    return f"file://{Path(file).absolute()}"


def _write_manifest(binary: Binary, image: str) -> None:
    import yaml

    click.echo(yaml.safe_dump(manifest_of(binary, image), sort_keys=False), nl=False)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _bytes(count: int) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024  # type: ignore[assignment]
    return f"{count:.4g} GiB"


def _say(text: str) -> None:
    click.echo(text, err=True)


class _Bar:
    """Progress on a terminal, and nothing elsewhere."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._bar: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.__exit__(kind, error, trace)

    def show(self, there: int, whole: int) -> None:
        """So many bytes of so many."""
        if not sys.stderr.isatty():
            return
        if self._bar is None:
            self._bar = click.progressbar(length=whole, label=self._label, file=sys.stderr)
            self._bar.__enter__()
        self._bar.update(max(0, there - self._bar.pos))
