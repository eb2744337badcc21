"""Agents with the reference provider that join a host, as a process: `python -m tests.remote.joined_agents URL ...`.

With `--agents N` there are N of them, with a number behind the name and a directory of their own below the state
directory.
"""

from __future__ import annotations

import asyncio
from typing import Any

import attrs
import click
from wasmlet_agent.join.joining import JoinConfig
from wasmlet_agent.serving import join, stay_joined

from wasmlet.cli import execution, log
from wasmlet.cli.options import instance_of, options_of
from wasmlet.testing.reference import ReferenceProvider


async def _join(config: JoinConfig, host: str, agents: int) -> None:
    if not agents:
        await join(config, host, ReferenceProvider)
        return
    assert config.state_dir is not None
    async with asyncio.TaskGroup() as group:
        for number in range(agents):
            name = f"{config.node_name}-{number}"
            one = attrs.evolve(config, node_name=name, state_dir=config.state_dir / name)
            group.create_task(stay_joined(one, host, ReferenceProvider))


def _run(host: str, agents: int, **values: Any) -> None:
    log.configure("info")
    execution.run_loop(_join(instance_of(JoinConfig, values), host, agents))


if __name__ == "__main__":
    own: list[click.Parameter] = [click.Argument(["host"]), click.Option(["--agents"], type=int, default=0)]
    execution.execute(click.Command("agents", params=[*own, *options_of(JoinConfig)], callback=_run), None, "agents")
