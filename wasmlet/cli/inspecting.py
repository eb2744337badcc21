"""`wasmlet inspect`: shows what a module is: one in a file or a registry, or all modules in a directory."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from wasmlet.artifacts.hosts import RegistryConfig
from wasmlet.artifacts.references import parse
from wasmlet.cli.artifacts import pulled_image, registry_options, with_config
from wasmlet.cli.execution import run_loop
from wasmlet.cli.needs import manifest_of, needs_of, pod_name
from wasmlet.cli.output import format_option
from wasmlet.errors import ConfigError, WasmletError
from wasmlet.sizes import size

if TYPE_CHECKING:
    from wasmlet.artifacts.push import Module
    from wasmlet.artifacts.wasm import Binary
    from wasmlet.cli.facts import Facts

MOST_FILES = 10_000
"""How many modules of a directory are looked at."""


@attrs.frozen
class _Found:
    """What there is to show of a module.

    Attributes:
        source: where it was found: names and values, the first of which is the file or reference.
        facts: what the engines that are installed find out about it, such as who has signed it.
    """

    source: Mapping[str, str]
    binary: Binary
    facts: Facts

    def as_json(self) -> dict[str, Any]:
        """All of it, for `-o json`."""
        binary = self.binary
        return {
            **self.source,
            "kind": binary.kind,
            "size": binary.size,
            "facts": dict(self.facts.shown),
            "needs": [{"what": need, "how": how} for need, how in needs_of(binary, self.facts)],
            "imports": [{"kind": e.kind, "module": e.module, "name": e.name} for e in binary.imports],
            "exports": [{"kind": e.kind, "name": e.name} for e in binary.exports],
            "sections": [{"name": name, "size": count} for name, count in binary.sections],
        }


def inspect_command() -> click.Command:
    """`wasmlet inspect`."""

    def inspect(**values: Any) -> None:
        what = values["what"]
        if values["manifest"] and values["output"] == "json":
            raise click.UsageError("--manifest writes YAML: give it without -o json")
        local = _is_local(what)
        given = with_config(values, None if local else what)
        if not Path(what).is_dir():
            run_loop(_inspect(**given, file=Path(what).absolute() if local else None))
        elif values["manifest"]:
            raise ConfigError(f"{what} is a directory; --manifest takes one module")
        else:
            run_loop(_inspect_directory(Path(what), values["output"]))

    return click.Command(
        "inspect",
        callback=inspect,
        help="Show what a module is: kind, needs, imports, exports, sizes.\n\n"
        "WHAT is a file, a reference in a registry, or a directory. Of a directory there is a line for each .wasm "
        "file in it.",
        params=[
            click.Argument(["what"], type=click.Path(readable=False)),  # may be a reference, too; shells complete files
            click.Option(["--manifest"], is_flag=True, help="Write a pod that runs it instead, as YAML."),
            format_option(),
            *registry_options(),
        ],
    )


def _is_local(what: str) -> bool:
    """Whether that names a file or a directory, or could name nothing else."""
    path = Path(what)
    return what.startswith(("/", "./", "../")) or path.exists() or ("/" not in what and what.endswith(".wasm"))


async def _inspect(what: str, manifest: bool, output: str, config: RegistryConfig, *, file: Path | None) -> None:
    found = await (_of_reference(what, config) if file is None else _of_file(Path(what), what))
    if manifest:
        import yaml

        if file is None:
            image = found.source["reference"]
            name = pod_name(parse(image).repository.rpartition("/")[2])
        else:
            image, name = f"file://{file}", pod_name(file.stem)
        click.echo(yaml.safe_dump(manifest_of(found.binary, image, name, found.facts), sort_keys=False), nl=False)
    elif output == "json":
        click.echo(json.dumps(found.as_json(), indent=2))
    else:
        _show(found)


async def _of_file(file: Path, name: str) -> _Found:
    from wasmlet.artifacts.push import load

    module = await asyncio.to_thread(load, file)
    return _Found({"file": name, "digest": module.digest}, module.binary, await _facts(module))


async def _of_reference(what: str, config: RegistryConfig) -> _Found:
    from wasmlet.artifacts.push import load

    try:
        wanted = parse(what)
    except WasmletError as error:
        raise ConfigError(f"{what!r} is neither a file that is there nor a reference: {error}") from None
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="wasmlet-inspect-"))
        try:
            pulled = await pulled_image(stack, Path(directory), wanted, config)
        except WasmletError as error:
            raise ConfigError(
                f"{error}\n  (there is no file {what!r} here, so it was looked for in a registry)"
            ) from None
        image = pulled.lease.image
        module = await asyncio.to_thread(load, pulled.lease.path)
        source = {"reference": str(wanted), "manifest": image.digest, "digest": image.module}
        if image.command:
            source["command"] = " ".join((*image.command, *image.arguments))
        return _Found(source, module.binary, await _facts(module))


async def _inspect_directory(directory: Path, output: str) -> None:
    files = await asyncio.to_thread(_modules, directory)
    if not files:
        raise ConfigError(f"{directory}: expected modules, found no file that ends in .wasm")
    told, bad = [], 0
    width = max(len(_printable(str(file.relative_to(directory)))) for file in files)
    for file in files:
        name = str(file.relative_to(directory))
        try:
            found = await _of_file(file, str(file))
        except WasmletError as error:
            bad += 1
            told.append({"file": str(file), "problem": str(error)})
            line = _printable(str(error).removeprefix(f"{file}: "))
        else:
            told.append(found.as_json())
            needs = "".join(f", needs {need}" for need, _ in needs_of(found.binary, found.facts))
            line = f"{size(found.binary.size):>11}  {found.binary.kind}{needs}"
        if output == "text":
            click.echo(f"{_printable(name):<{width}}  {line}")
    if output == "json":
        click.echo(json.dumps(told, indent=2))
    if bad:
        raise ConfigError(f"{directory}: {bad} of {len(files)} files cannot be run")


def _modules(directory: Path) -> list[Path]:
    """The modules below a directory, links to directories left out."""

    def found() -> Iterator[Path]:
        for file in directory.rglob("*.wasm"):
            if file.is_file():
                yield file

    files = []
    try:
        os.scandir(directory).close()  # rglob says nothing of a directory that cannot be read
        for file in found():
            files.append(file)
            if len(files) > MOST_FILES:
                raise ConfigError(f"{directory}: expected at most {MOST_FILES} modules, found more")
    except OSError as error:
        raise ConfigError(f"{directory}: {error.strerror}") from None
    return sorted(files)


async def _facts(module: Module) -> Facts:
    """What the engines that are installed find out about it."""
    from wasmlet.cli.facts import facts_of

    return await asyncio.to_thread(lambda: facts_of(module.path.read_bytes(), module.binary))


def _show(found: _Found) -> None:
    binary = found.binary
    lines = {**found.source, "kind": binary.kind, "size": size(binary.size), **found.facts.shown}
    for name, text in lines.items():
        click.echo(f"{name:<10} {_printable(text)}")
    for need, how in needs_of(binary, found.facts):
        click.echo(f"{'needs':<10} {need}: {how}")
    for title, externs in (("imports", binary.imports), ("exports", binary.exports)):
        click.echo(f"{title:<10} {len(externs)}")
        for extern in externs:
            click.echo(f"  {extern.kind:<13} {_printable(f'{extern.module} {extern.name}'.strip())}")
    click.echo(f"{'sections':<10} {len(binary.sections)}")
    for name, count in binary.sections:
        click.echo(f"  {size(count):>13} {_printable(name)}")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
