"""Pages of the reference that are made from the sources while the site is built, so that they are never out of date.

The command line comes from its options, the settings from the classes that hold them, the conformance table from the
checks themselves.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from wasmlet.cli.commands import cli
from wasmlet.cli.execution import EXIT_CODES
from wasmlet.cli.options import options_of
from wasmlet.cli.providers import load
from wasmlet.node import NodeConfig

ROOT = Path(__file__).parents[2]
NAMES = (
    "reference/command-line.md",
    "reference/configuration.md",
    "reference/conformance.md",
    "examples/index.md",
)
PROVIDERS = ("wasmtime", "wasmer", "wascc", "remote", "interlink")


def pages() -> dict[str, str]:
    """The generated pages, by their paths below docs/."""
    return dict(zip(NAMES, (command_line(), configuration(), conformance(), examples()), strict=True))


def command_line() -> str:
    """A section for each command, with its help and its options."""
    parts = [
        "# Command line",
        "",
        "This page is made from the commands themselves; `--help` says the same. The settings of a node and of its",
        "provider are on the page [configuration](configuration.md). A command that fails says why in a line or two on",
        "standard error.",
        "",
        _prose(EXIT_CODES),
        "",
        "Sizes are in bytes, KiB, MiB and GiB, each 1024 times the one before; 1 MiB is the `1Mi` of a manifest.",
        "`wasmlet top` writes `Mi`, as `kubectl top` does.",
        "",
    ]
    for name, command in _commands("wasmlet", cli):
        parts += _section(name, command)
    for provider in PROVIDERS[:4]:
        parts += [
            f"## `wasmlet-{provider}`",
            "",
            f"The same as `wasmlet run --provider {provider}`. Its options are in [configuration](configuration.md):",
            f"those of every node, and those of the provider `{provider}`.",
            "",
        ]
    agent = importlib.import_module("wasmlet_agent.cli")
    found = [one for one in vars(agent).values() if isinstance(one, click.Group)]
    for group in found:
        for name, command in _commands("wasmlet-agent", group):
            parts += _section(name, command)
    return "\n".join(parts)


def _commands(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=name)
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            if found is not None and not found.hidden:
                yield from _commands(f"{name} {below}", found)


def _section(name: str, command: click.Command) -> list[str]:
    context = click.Context(command, info_name=name)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    parts = [f"## `{name}`", "", "```text", usage, "```", "", _prose(command.help or ""), ""]
    options = [one for one in command.get_params(context) if isinstance(one, click.Option) and not one.hidden]
    shown = [one for one in options if not {"--help", "--version"} & {*one.opts}]
    return parts + (_table(shown) if shown else [])


def _table(options: Sequence[click.Option]) -> list[str]:
    return ["| option | meaning | default |", "|---|---|---|", *(_row(one) for one in options), ""]


def _row(option: click.Option) -> str:
    flags = ", ".join(f"`{flag}`" for flag in [*option.opts, *option.secondary_opts])
    value = "" if option.is_flag else f" `{option.metavar or option.type.name.upper()}`"
    if isinstance(option.type, click.Choice):
        value = " " + ", ".join(f"`{one}`" for one in option.type.choices)
    shown = option.default if isinstance(option.default, str | int | float | Path) and not option.is_flag else ""
    default = f"`{shown:g}`" if isinstance(shown, float) else f"`{shown}`" if shown not in ("", None) else ""
    meaning = _cell(option.help or "")
    if isinstance(option.envvar, str) and option.name and option.envvar != f"WASMLET_{option.name.upper()}":
        meaning += f" Variable: `{option.envvar}`."
    return f"| {flags}{value} | {meaning} | {default} |"


def configuration() -> str:
    """A table of settings for each class that has some."""
    parts = [
        "# Configuration",
        "",
        "A node has settings of its own, and its provider has settings of its own. Each setting can be given in three",
        "ways. The first that is there counts:",
        "",
        "1. a flag: `--max-pods 500`",
        "2. a variable: `WASMLET_MAX_PODS=500`. A setting that may be repeated takes words with spaces between them.",
        "3. a key of the TOML file that `--config FILE` names: `max-pods = 500`. A setting that may be repeated takes",
        "   a list, and a switch takes `true` or `false`.",
        "",
        "```toml",
        'node-labels = ["zone=a"]',
        "max-pods = 500",
        "allow-local-modules = true",
        "```",
        "",
        "A key that no option has is an error, and a `WASMLET_*` variable that no option reads is a warning.",
        "",
        "## Every node",
        "",
        *_settings(options_of(NodeConfig)),
    ]
    common = {one.name for one in options_of(load(PROVIDERS[0]).Config)}
    for name in PROVIDERS:
        options = options_of(load(name).Config)
        parts += [f"## Provider `{name}`", ""]
        own = [one for one in options if one.name not in common] if name in ("wasmer", "wascc") else options
        if len(own) < len(options):
            parts += [f"All settings of [`wasmtime`](#provider-wasmtime){'' if not own else ', and these'}.", ""]
        if own:
            parts += _settings(own)
    return "\n".join(parts)


def _settings(options: Sequence[click.Parameter]) -> list[str]:
    return _table([one for one in options if isinstance(one, click.Option)])


def conformance() -> str:
    """What `make conformance` checks, number by number."""
    rows = []
    for path in sorted((ROOT / "tests/conformance").rglob("test_[0-9][0-9]_*.py"), key=lambda one: one.name):
        tree = ast.parse(path.read_text("utf-8"))
        said = (ast.get_docstring(tree) or "").split("\n")[0]
        tests = sum(isinstance(one, ast.AsyncFunctionDef | ast.FunctionDef) and one.name.startswith("test_")
                    for one in tree.body)  # fmt: skip
        rows.append(f"| {int(path.name[5:7])} | {_cell(said)} | {tests} |")
    return "\n".join([
        "# Conformance",
        "",
        "`make conformance` holds a node to the behaviour of a kubelet, number by number: real kubectl and a real API",
        "over HTTP, with guests in each class. This table is made from the checks, which are in `tests/conformance`.",
        "",
        "```console",
        "$ make conformance                                # with wasmtime",
        "$ make conformance ARGS='--handler wasmlet-dense'  # another class",
        "$ make conformance ARGS='--engine wasmer'         # another engine",
        "$ make conformance ARGS='--runtime remote'        # pods behind an agent",
        "```",
        "",
        "It can also run on a cluster of yours: see [contributing](../contributing.md). Checks that differ between",
        "classes are named in [classes](../explanation/classes.md).",
        "",
        "| number | what is checked | tests |",
        "|---|---|---|",
        *rows,
        "",
    ])  # fmt: skip


def examples() -> str:
    """The manifests in examples/, each with the first sentences of its comment."""
    parts = [
        "# Examples",
        "",
        "Each manifest is small and says in its comment what to type and what to expect. A test does what the comments",
        "say. They run as they are while `wasmlet demo --keep` is up. Links lead to the files.",
        "",
        "| manifest | what it shows |",
        "|---|---|",
    ]
    for path in sorted((ROOT / "examples").glob("*.yaml")):
        comment = re.match(r"((?:#.*\n)+)", path.read_text("utf-8"))
        said = comment[1].replace("#\n", "\n").replace("# ", "") if comment else ""
        first = " ".join(said.split("\n\n")[0].split())
        parts.append(f"| [{path.name}]({path.name}) | {_cell(first.rstrip(':'))} |")
    return "\n".join([*parts, ""])


def _prose(text: str) -> str:
    """A help text as paragraphs; one that begins with a backspace is shown line by line, as click does."""
    paragraphs = []
    for paragraph in text.replace("\f", "").split("\n\n"):
        own = paragraph.strip("\n ")
        if own.startswith("\b"):
            paragraphs.append("\n".join(["```text", own.removeprefix("\b").strip("\n"), "```"]))
        else:
            paragraphs.append(_cell(" ".join(own.split())))
    return "\n\n".join(paragraphs)


def _cell(text: str) -> str:
    """Text that Markdown takes for nothing else."""
    return re.sub(r"(?<!`)([<|*])", r"\\\1", text.replace("\n", " "))
