"""Agents with the reference provider that join a host, as a process: `python -m tests.remote.joined_agents URL ...`.

With `--agents N` there are N of them, with a number behind the name and a directory of their own below the state
directory.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import attrs
import click
from wasmlet_agent.join.joining import JoinConfig
from wasmlet_agent.serving import join, stay_joined

from wasmlet.cli import execution, log
from wasmlet.cli.options import instance_of, options_of
from wasmlet.provider import Change, PodEvent, StatusChanged
from wasmlet.testing.reference import ReferenceProvider


class Telling(ReferenceProvider):
    """Tells an event of each pod that begins, as providers do that run something."""

    async def changes(self) -> AsyncGenerator[Change, None]:
        begun = set()
        async for change in super().changes():
            yield change
            if isinstance(change, StatusChanged) and change.key.uid not in begun:
                begun.add(change.key.uid)
                yield PodEvent(change.key, "Started", "it has begun")


async def _join(config: JoinConfig, host: str, agents: int) -> None:
    if not agents:
        await join(config, host, Telling)
        return
    assert config.state_dir is not None
    async with asyncio.TaskGroup() as group:
        for number in range(agents):
            name = f"{config.node_name}-{number}"
            one = attrs.evolve(config, node_name=name, state_dir=config.state_dir / name)
            group.create_task(stay_joined(one, host, Telling))


def _run(host: str, agents: int, **values: Any) -> None:
    log.configure("info")
    execution.run_loop(_join(instance_of(JoinConfig, values), host, agents))


if __name__ == "__main__":
    own: list[click.Parameter] = [click.Argument(["host"]), click.Option(["--agents"], type=int, default=0)]
    execution.execute(click.Command("agents", params=[*own, *options_of(JoinConfig)], callback=_run), None, "agents")
