"""`wasmlet completion`: prints the code with which a shell completes the commands and options of all programs."""

from __future__ import annotations

from importlib.metadata import entry_points

import click
from click.shell_completion import get_completion_class

from wasmlet.cli.execution import completing

SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print what has a shell complete `wasmlet`, and the programs of the providers that are installed.

    \b
    bash: eval "$(wasmlet completion bash)"    in ~/.bashrc
    zsh:  eval "$(wasmlet completion zsh)"     in ~/.zshrc, after compinit
    fish: wasmlet completion fish | source     in ~/.config/fish/config.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    for program in programs():
        click.echo(kind(click.Command(program), {}, program, completing(program)).source())


def programs() -> list[str]:
    """The programs of wasmlet, and of the distributions that have a provider; these can be completed."""
    providers = {point.dist.name for point in entry_points(group="wasmlet.providers") if point.dist is not None}
    return sorted(
        point.name
        for point in entry_points(group="console_scripts")
        if point.dist is not None and point.dist.name in {"wasmlet", *providers}
    )
