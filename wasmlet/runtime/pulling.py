"""Having a container's image: `imagePullPolicy`, and what is told of it in the kubelet's words.

An image that is a file of the node is present where the file is, and "pulling" it is to read it anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wasmlet.model.pod import Container
from wasmlet.runtime.images import ImageError, Module

if TYPE_CHECKING:
    from wasmlet.runtime.container import ContainerLife


async def module_of(life: ContainerLife, spec: Container) -> Module:
    """The module of the container's image.

    Raises:
        ImageError: it cannot be had; the reason is ErrImageNeverPull where it is absent and must not be pulled.
    """
    image, clock = spec.image, life.pod.around.clock
    policy = spec.raw.get("imagePullPolicy") or "IfNotPresent"
    began = clock.monotonic()
    if policy == "Always":
        life.say("Normal", "Pulling", f'Pulling image "{image}"')
    try:
        module = await life.pod.around.images.find(image)
    except ImageError as error:
        if error.absent and policy == "Never":
            message = f'Container image "{image}" is not present with pull policy of Never'
            life.say("Warning", "ErrImageNeverPull", message)
            raise ImageError(message, "ErrImageNeverPull", absent=True) from error
        if error.absent and policy != "Always":
            life.say("Normal", "Pulling", f'Pulling image "{image}"')
        raise
    if policy == "Always":
        took = f"{(clock.monotonic() - began) * 1000:.0f}ms"
        life.say("Normal", "Pulled", f'Successfully pulled image "{image}" in {took} ({took} including waiting)')
    else:
        life.say("Normal", "Pulled", f'Container image "{image}" already present on machine')
    return module
