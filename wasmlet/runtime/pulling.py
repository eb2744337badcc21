"""Having a container's image: `imagePullPolicy`, and what is told of it in the kubelet's words.

An image that is a file of the node is present where the file is, and "pulling" it is to read it anew. One of a
registry is present once it was pulled, for the pods that may have it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wasmlet.artifacts.credentials import Keyring, pull_secrets
from wasmlet.artifacts.errors import InvalidReference
from wasmlet.artifacts.references import parse
from wasmlet.model.pod import Container
from wasmlet.runtime.images import ImageError, Module
from wasmlet.runtime.registries import NotYours, is_file

if TYPE_CHECKING:
    from wasmlet.runtime.container import ContainerLife


async def module_of(life: ContainerLife, spec: Container) -> Module:
    """The module of the container's image.

    Raises:
        ImageError: it cannot be had; the reason is ErrImageNeverPull where it is absent and must not be pulled.
    """
    image, clock = spec.image, life.pod.around.clock
    policy = spec.raw.get("imagePullPolicy") or "IfNotPresent"
    if not is_file(image):
        return await _of_registry(life, image, policy)
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
        took = duration(clock.monotonic() - began)
        life.say("Normal", "Pulled", f'Successfully pulled image "{image}" in {took} ({took} including waiting)')
    else:
        life.say("Normal", "Pulled", f'Container image "{image}" already present on machine')
    return module


async def _of_registry(life: ContainerLife, image: str, policy: str) -> Module:
    registries, clock = life.pod.around.registries, life.pod.around.clock
    try:
        reference = parse(image)
    except InvalidReference as error:
        raise ImageError(str(error), error.reason) from error
    keyring = _keyring(life)
    if policy != "Always":
        try:
            module = await registries.present(reference, keyring)
        except NotYours as error:
            if policy == "Never":
                raise _never(
                    life, image, "present", " but does not have the proper credentials to access the image"
                ) from error
            module = None
        if module is not None:
            life.say("Normal", "Pulled", f'Container image "{image}" already present on machine')
            return module
        if policy == "Never":
            raise _never(life, image, "not present", "")
    began = clock.monotonic()
    life.say("Normal", "Pulling", f'Pulling image "{image}"')
    had = await registries.pull(reference, keyring)
    whole = clock.monotonic() - began
    life.say(
        "Normal",
        "Pulled",
        f'Successfully pulled image "{image}" in {duration(whole - had.waited)} ({duration(whole)} including '
        f"waiting). Image size: {had.size} bytes.",
    )
    return had.module


def _never(life: ContainerLife, image: str, how: str, rest: str) -> ImageError:
    message = f'Container image "{image}" is {how} with pull policy of Never{rest}'
    life.say("Warning", "ErrImageNeverPull", message)
    return ImageError(message, "ErrImageNeverPull", absent=True)


def _keyring(life: ContainerLife) -> Keyring:
    """The credentials of the pod's pull secrets; those that cannot be used are a warning, as at a kubelet."""
    pod = life.pod.spec
    names = [str(one.get("name") or "") for one in pod.spec.get("imagePullSecrets") or ()]
    found = pull_secrets(pod.namespace, filter(None, names), life.pod.inputs.secrets)
    warnings = list(found.warnings)
    if found.missing:
        missing = ", ".join(found.missing)
        warnings.append(
            f"Unable to retrieve some image pull secrets ({missing}); attempting to pull the image may not succeed."
        )
    for warning in warnings:
        life.say("Warning", "FailedToRetrieveImagePullSecret", warning)
    return found.keyring


def duration(seconds: float) -> str:
    """As Go writes it, in milliseconds: 345ms, 1.234s, 1m2.5s."""
    thousandths = round(seconds * 1000)
    if thousandths < 1000:
        return f"{thousandths}ms"
    minutes, rest = divmod(thousandths, 60_000)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes or hours else "") + text
