"""Carries out the plan of a container's start: gets the compiled module, opens the mounts, and has the shim run the
guest.

`plan` decides what an instance gets; `starting` tries again if a start fails.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator
from typing import Any

import attrs

from wasmlet.concurrency import in_thread
from wasmlet.model.environment import Files
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Container, Pod
from wasmlet.runtime.files import env_files
from wasmlet.runtime.files.mounts import Mounts, mounted
from wasmlet.runtime.files.volumes import PodVolumes
from wasmlet.runtime.handlers import Handler
from wasmlet.runtime.images.images import Module
from wasmlet.runtime.network.granting import as_spec
from wasmlet.runtime.pods.announce_compile import announce_compile
from wasmlet.runtime.pods.image_volumes import ensure_volumes
from wasmlet.runtime.pods.plan import Limits, StartPlan
from wasmlet.runtime.pods.pulling import ImageSources, module_of
from wasmlet.runtime.services import RuntimeServices
from wasmlet.runtime.shim.instances import Say, Shown
from wasmlet.runtime.shim.records import ContainerRecord, spec_of
from wasmlet.worker import messages
from wasmlet.worker.fields import Resources


@attrs.frozen
class Launch:
    """A start that is ready to be carried out: what is open for it is open until it is over."""

    plan: StartPlan
    handler: Handler
    artifact: int
    mounts: Mounts


@attrs.frozen
class ImageNeeds:
    """Whose images are wanted: a container as the manifest has it, with its pod, and who is told of pulls.

    Attributes:
        say: tells an event about the container.
        say_of_pod: tells an event about the pod as a whole.
    """

    manifest: Pod
    container: Container
    inputs: Inputs
    say: Say
    say_of_pod: Say


async def ensure_images(needs: ImageNeeds, volumes: PodVolumes, services: RuntimeServices) -> Module:
    """Get the images of a container's volumes, and its own.

    Returns:
        The module of its own image.

    Raises:
        ImageError: one of them cannot be had.
    """
    sources = ImageSources(services.images, services.registries, services.clock)
    pod, container, inputs = needs.manifest, needs.container, needs.inputs
    for found in await ensure_volumes(pod, container, inputs, sources, say=needs.say, say_of_pod=needs.say_of_pod):
        await in_thread(volumes.use_image, found.volume, found.digest, found.path)
    return await module_of(pod, container, inputs, sources, needs.say)


async def env_files_of(manifest: Pod, container: Container, volumes: PodVolumes) -> Files:
    """What `env[].valueFrom.fileKeyRef` of the container names, read from the pod's volumes.

    Raises:
        Refused: a file or key is not there; names the field.
    """
    if not env_files.asked(container):
        return {}
    return await in_thread(env_files.read, manifest, container, volumes)


@contextlib.asynccontextmanager
async def prepared(
    plan: StartPlan, module: Module, handler: Handler, volumes: PodVolumes, services: RuntimeServices, shown: Shown
) -> AsyncIterator[Launch]:
    """Have everything at hand that a start needs; it waits for the compiler, and for its turn among other starts.

    Raises:
        CompileError: the module cannot be compiled.
        Refused: a mount that cannot be had; names the field.
        OSError: the node's files are in trouble.
    """
    async with (
        handler.compiler.artifact(module, announce_compile(shown, module, handler.engine)) as artifact,
        services.starts,
        mounted(plan.mounts, volumes, shim_makes=services.client.makes_directories) as mounts,
    ):
        yield Launch(plan, handler, artifact, mounts)


async def carry_out(launch: Launch, limits: Limits, log_path: str, services: RuntimeServices) -> ContainerRecord:
    """Have the shim start the instance; return once its guest has begun or has ended, or earlier where that takes long.

    Args:
        limits: those of the plan, or newer ones.
        log_path: of its log, relative to the state directory.

    Raises:
        ShimError: the shim refuses.
    """
    plan, mounts = launch.plan, launch.mounts
    user = plan.user.as_spec() if plan.user is not None else None
    network = as_spec(plan.grant, plan.http) if plan.grant is not None else None
    spec = spec_of(plan.argv, plan.variables, limits.memory, mounts.as_spec(), user, network, plan.engine)
    request = _run_request(launch, limits, log_path, services)
    return await services.client.run(request, spec, launch.artifact, mounts.descriptors)


def _run_request(launch: Launch, limits: Limits, log_path: str, services: RuntimeServices) -> messages.Run:
    """What the shim is asked to run, with an id of its own for this instance."""
    plan, handler = launch.plan, launch.handler
    more: dict[str, Any] = {
        **services.log_limits,
        **plan.streams,
        **handler.sharing(plan.labels.pod.namespace, services.storage.state_dir),
    }
    return messages.Run(
        id=secrets.token_hex(16),
        labels=plan.labels.as_message(),
        log=log_path,
        zygote=handler.plain_zygote if plan.plain else handler.zygote,
        message=launch.mounts.message,
        resources=Resources.of(limits.message),
        network=plan.grant,
        wait=True,
        **more,
    )


def left_out(launch: Launch, module: Module) -> str:
    """What of its image's files the guest does not see, as a message; "" for nothing."""
    if not launch.mounts.left_out:
        return ""
    paths = ", ".join(launch.mounts.left_out)
    return (
        f'The container does not see all files of image "{module.image}", as {paths}: single '
        "files are mounted in the same directory, and these are too many or too large to be put beside them. Mount "
        "whole directories instead."
    )
