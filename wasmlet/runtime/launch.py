"""Starting one instance of a container: its module, what the guest is given, and the shim that runs it.

`starting` tries this until it works; what a guest is given is made anew for each instance, so that a restart sees what
has changed of the pod's inputs.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING

from wasmlet.artifacts.threads import in_thread
from wasmlet.errors import Refused
from wasmlet.model.environment import Files, environment
from wasmlet.model.expansion import command_and_args
from wasmlet.model.pod import Container
from wasmlet.runtime import env_files, limits, manifest, volume_rules
from wasmlet.runtime.announce_compile import announce_compile
from wasmlet.runtime.handlers import Handler
from wasmlet.runtime.image_volumes import ensure_volumes
from wasmlet.runtime.images import Module
from wasmlet.runtime.instances import Labels
from wasmlet.runtime.mounts import Mounts, mounted
from wasmlet.runtime.pulling import ImageSources, module_of
from wasmlet.runtime.worker import spec_of
from wasmlet.worker import wire

if TYPE_CHECKING:
    from wasmlet.runtime.container import ContainerLife


async def launch(life: ContainerLife, spec: Container) -> None:
    """Start the next instance; return once its guest runs or has ended.

    Raises:
        ImageError: the module cannot be had.
        Refused: the manifest asks for what this node cannot give.
        CompileError: the module cannot be compiled.
        WasmletError, OSError: the shim cannot run it.
    """
    around, handler = life.pod.around, life.pod.handler
    attempt = life.attempt + 1 if life.record else 0
    sources = ImageSources(around.images, around.registries, around.clock)
    for found in await ensure_volumes(
        life.pod.spec, spec, life.pod.inputs, sources, say=life.say, say_of_pod=life.pod.say
    ):
        await in_thread(life.pod.volumes.use_image, found.volume, found.digest, found.path)
    module = await module_of(life.pod.spec, spec, life.pod.inputs, sources, life.say)
    asks = env_files.asked(spec)
    files = await in_thread(env_files.read, life.pod.spec, spec, life.pod.volumes) if asks else {}
    variables = _of_image(module) | _variables(life, spec, files)
    _use_files(life, module)
    argv, memory = _argv(life, spec, module, variables), limits.memory(life.resources)
    user = life.pod.volumes.user
    labels = Labels(
        life.pod.key,
        life.name,
        life.kind,
        attempt,
        spec.image,
        module.image_id,
        life.backoff,
        handler.name,
        user.id if user is not None else 0,
    )
    await life.pod.volumes.refresh(life.pod.spec, life.pod.inputs)
    async with (
        handler.compiler.artifact(module, announce_compile(life, module, handler.engine)) as artifact,
        around.starts,
        mounted(life.pod.spec, spec, life.pod.inputs, life.pod.volumes, variables, attempt) as mounts,
    ):
        await _forget_before(life, attempt - 1)
        life.given = life.allocated = life.resources
        record = await around.client.run(
            secrets.token_hex(16),
            labels=labels.as_message(),
            log_path=f"{life.pod.log_directory}/{life.name}/{attempt}.log",
            zygote=handler.zygote,
            spec=spec_of(argv, variables, memory, mounts.as_spec(), user.as_spec() if user is not None else None),
            module=artifact,
            settings={
                **around.log_limits,
                **_streams(handler, spec),
                **handler.sharing(life.pod.key.namespace, around.storage.state_dir),
                "resources": limits.as_message(life.resources),
            },
            mounts=mounts.descriptors,
            message=mounts.message,
        )
        _tell_of_image(life, module, mounts)
        life.say("Normal", "Created", f"Created container: {life.name}")
        record = await around.client.wait(record.id, wire.RUNNING, wire.ENDED)
    if record.reason == wire.START_ERROR:
        life.say("Warning", "Failed", f"Error: {record.message}")
    else:
        life.say("Normal", "Started", f"Started container {life.name}")


def _streams(handler: Handler, spec: Container) -> dict[str, bool]:
    """Its streams, as `wasmlet.worker.wire` has them for `run`."""
    for field in ("stdin", "tty"):
        if handler.dense and spec.raw.get(field):
            raise Refused(
                f"{spec.field}.{field}",
                f"handler {handler.name!r} cannot end a guest that waits for input; use one that gives each container "
                "a process of its own",
                container=spec.name,
            )
    names = {"stdin": "stdin", "stdin_once": "stdinOnce", "tty": "tty"}
    return {name: bool(spec.raw.get(field)) for name, field in names.items()}


def _variables(life: ContainerLife, spec: Container, files: Files) -> dict[str, str]:
    """The guest's environment. This is where secrets are, and they go nowhere else."""
    pod = life.pod.spec
    manifest.check_container(spec)
    volume_rules.check_mounts(spec, {volume["name"] for volume in pod.spec.get("volumes") or ()})
    result = environment(pod, spec, life.pod.inputs, files=files)
    if result.binary:
        names = ", ".join(result.binary)
        raise Refused(
            f"{spec.field}.env", f"the value of {names} is not UTF-8, which a guest needs", container=life.name
        )
    for message in result.skipped:
        life.say("Warning", "InvalidEnvironmentVariableNames", message)
    return result.variables


def _of_image(module: Module) -> dict[str, str]:
    """The variables that its image gives a guest. Its working directory is one of them, for WASI has none."""
    folder = {"PWD": module.folder} if module.folder not in ("", "/") else {}
    return folder | dict(text.split("=", 1) for text in module.environment if "=" in text)


def _use_files(life: ContainerLife, module: Module) -> None:
    """Have the next instance mount the files of this image."""
    if module.files is not None:
        life.pod.volumes.image_files[life.name] = module.files
    else:
        life.pod.volumes.image_files.pop(life.name, None)


def _tell_of_image(life: ContainerLife, module: Module, mounts: Mounts) -> None:
    """Tell what of its image a guest does not get."""
    if module.folder not in ("", "/"):
        life.say(
            "Warning",
            "WorkingDirNotApplied",
            f'Image "{module.image}" has the working directory {module.folder[:200]}, and WASI has none: relative '
            "paths begin at /. The variable PWD is set to it, which programs in Go follow; others need absolute paths.",
        )
    if mounts.left_out:
        life.say(
            "Warning",
            "ImageFilesLeftOut",
            f'The container does not see all files of image "{module.image}", as {", ".join(mounts.left_out)}: single '
            "files are mounted in the same directory, and these are too many or too large to be put beside them. Mount "
            "whole directories instead.",
        )


def _argv(life: ContainerLife, spec: Container, module: Module, variables: Mapping[str, str]) -> list[str]:
    command, args = command_and_args(spec, variables)
    # Without a command the module is the entry point and its name is argv[0]; with one the command is all of argv, as
    # in an image without an entry point: there is no other program that it could name.
    argv = [*command, *args] if command else [*(module.command or [module.path.name]), *(args or module.arguments)]
    if any("\0" in word for word in argv):
        raise Refused(f"{spec.field}.args", "an argument has a NUL byte, which ends an argument", container=life.name)
    return argv


async def _forget_before(life: ContainerLife, attempt: int) -> None:
    """Keep the last two instances, as the kubelet does; the log and record of older ones go."""
    old = {number: record for number, record in life.earlier.items() if number < attempt}
    if old:
        await life.pod.around.client.forget([record.id for record in old.values()])
        await asyncio.to_thread(life.pod.around.remove_logs, [record.log for record in old.values()])
        for number in old:
            life.earlier.pop(number, None)
