"""Makes the provider of the demo's node: any that is installed, or `remote`, which has the pods run by an agent.

An agent is a process that runs pods for a node elsewhere. The demo starts it on this machine.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import click

from wasmlet.artifacts.hosts import RegistryConfig
from wasmlet.cli import providers
from wasmlet.cli.demo.follow import Earlier, Say
from wasmlet.cli.options import instance_of, options_of
from wasmlet.errors import ConfigError
from wasmlet.model.pod import PodKey
from wasmlet.provider import Provider
from wasmlet.runtime import RuntimeConfig, RuntimeProvider
from wasmlet.runtime.network.config import ADDRESS

LOCAL, REMOTE = "wasmtime", "remote"
STORAGE_CLASS = "demo"
"""Volumes of this class may be mounted wherever they lie; only an administrator of the demo makes volumes."""
START_SECONDS = 60.0
STOP_SECONDS = 10.0


@attrs.frozen
class Place:
    """Where pods run.

    Attributes:
        directory: for the state.
        modules: has the modules that pods name.
        registries: where images are pulled from.
        engines: are offered beside the provider's own.
        own: settings of the provider that the user gave, by their names.
    """

    directory: Path
    modules: Path
    registries: RegistryConfig
    engines: tuple[str, ...] = ()
    own: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen
class Half:
    """The node's provider, and a function that reads the logs of earlier instances of a container from it."""

    provider: Provider
    earlier: Earlier


def no_earlier(pod: PodKey, container: str) -> Sequence[AsyncGenerator[bytes, None]]:
    """No logs of earlier instances: the provider has them in another process, or nowhere."""
    return ()


def runs_wasm(kind: type[Provider]) -> bool:
    """Whether the demo knows pods that a provider runs: those of WebAssembly."""
    return issubclass(kind, RuntimeProvider) or kind.name == REMOTE


def settings_of(kind: type[Provider]) -> list[click.Parameter]:
    """The options of a provider that the demo leaves to the user: all but those of every provider of WebAssembly."""
    known = {field.name for field in attrs.fields(RuntimeConfig)} if issubclass(kind, RuntimeProvider) else set()
    known.discard("engine_python")  # which an engine may need that has a Python of its own
    return [one for one in options_of(kind.Config) if one.name not in known]


@asynccontextmanager
async def half(name: str, place: Place, say: Say) -> AsyncGenerator[Half, None]:
    """The node's provider; with `remote`, the agent that it drives runs while the context is open.

    Its pods have addresses of 127.0.0.0/8, which needs no root.

    Raises:
        BadOption: the provider is not installed, or takes one of its settings not.
        ConfigError: it cannot run here.
    """
    kind: Any = providers.load(name)
    if issubclass(kind, RuntimeProvider):
        settings = {
            "allow_local_modules": True,
            "explain_local_modules": True,
            "module_dir": place.modules,
            "network": ADDRESS,
            "allow_storage_class": (STORAGE_CLASS,),
            "engine": place.engines,
        }
        values = {**settings, **attrs.asdict(place.registries, recurse=False), **place.own}
        provider = kind(instance_of(kind.Config, values))
        yield Half(provider, provider.earlier_logs)
        return
    if name != REMOTE:
        yield Half(kind(instance_of(kind.Config, dict(place.own))), no_earlier)
        return
    token = place.directory / "token"
    token.touch(0o600)
    token.write_text(secrets.token_urlsafe(32))
    async with _agent(place, token) as url:
        say(f"agent          {url}, a process of its own, provider {LOCAL}")
        yield Half(kind(kind.Config(endpoint=url, token_file=token)), no_earlier)


def tolerating(objects: Sequence[dict[str, Any]], name: str) -> None:
    """Add tolerations to the objects: pods that tolerate a wasmtime node tolerate one with provider `name`, too."""
    taint = "wasmlet.dev/provider"
    for body in objects if name != LOCAL else ():
        spec = body.get("spec") or {}
        spec = spec if body["kind"] == "Pod" else (spec.get("template") or {}).get("spec") or {}
        found = spec.get("tolerations") or []
        by_value = [each for each in found if each.get("key") == taint and each.get("operator") != "Exists"]
        spec["tolerations"] = [*found, *({**each, "value": name} for each in by_value)]


@asynccontextmanager
async def _agent(place: Place, token: Path) -> AsyncGenerator[str, None]:
    """An agent with wasmtime, at a free port; its URL."""
    (state := place.directory / "agent").mkdir(0o700)
    options = [
        f"--provider={LOCAL}", "--listen=127.0.0.1:0", f"--token-file={token}", f"--state-dir={state}",
        "--allow-local-modules", "--explain-local-modules", f"--module-dir={place.modules}", f"--network={ADDRESS}",
        f"--allow-storage-class={STORAGE_CLASS}", *flags(place.registries),
        *(f"--engine={name}" for name in place.engines),
    ]  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "wasmlet_agent", *options,
        stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the demo, which ends the pods first
    )  # fmt: skip
    assert process.stderr is not None
    reading: asyncio.Task[None] | None = None
    try:
        async with asyncio.timeout(START_SECONDS):
            url = await _serving(process.stderr)
        reading = asyncio.create_task(_drain(process.stderr))
        yield url
    except TimeoutError:
        raise ConfigError("the agent did not start in time") from None
    finally:
        await end(process)
        if reading is not None:
            await reading


async def _serving(log: asyncio.StreamReader) -> str:
    """The URL of the agent, once its log says that it serves."""
    last = ""
    while line := await log.readline():
        last = line.decode(errors="replace").strip() or last
        with suppress(ValueError, AttributeError):
            if (told := json.loads(line)).get("event") == "the agent serves":
                return str(told["at"])
    raise ConfigError(f"the agent did not start: {last.removeprefix('Error: ')}")


async def _drain(log: asyncio.StreamReader) -> None:
    while await log.read(65536):
        pass


async def end(process: asyncio.subprocess.Process) -> None:
    """SIGTERM, and SIGKILL after `STOP_SECONDS`; return when the process has ended."""
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def flags(registries: RegistryConfig) -> list[str]:
    """The settings as options of a command line."""
    found = []
    for field in attrs.fields(type(registries)):
        value = getattr(registries, field.name)
        values = value if isinstance(value, tuple) else () if value is None else (value,)
        found += [f"--{field.name.replace('_', '-')}={each}" for each in values]
    return found
