"""Gets the image of a container, by its `imagePullPolicy`, and sends the kubelet's events about that.

An image that is a file of the node counts as present if the file exists, and "pulling" it means reading it again. An
image from a registry is present after it was pulled, for those pods that may use it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import attrs

from wasmlet.artifacts.credentials import Keyring, pull_secrets
from wasmlet.artifacts.errors import InvalidReference
from wasmlet.artifacts.references import Reference, is_file, parse
from wasmlet.clock import Clock
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Container, Pod
from wasmlet.runtime.images.images import ImageError, Images, Module
from wasmlet.runtime.images.registries import NotYours, PullResult, Registries
from wasmlet.runtime.shim.instances import Say

T = TypeVar("T")


@attrs.frozen
class ImageSources:
    """Where the images of a node's pods come from: its files and registries."""

    images: Images
    registries: Registries
    clock: Clock


async def module_of(pod: Pod, container: Container, inputs: Inputs, sources: ImageSources, say: Say) -> Module:
    """The module of the container's image.

    Raises:
        ImageError: it cannot be had; the reason is ErrImageNeverPull where it is absent and must not be pulled.
    """
    image, clock = container.image, sources.clock
    policy = container.raw.get("imagePullPolicy") or "IfNotPresent"
    registries = sources.registries
    if (brought := inputs.images.get(image)) is not None:
        module = await registries.brought(image, brought.digest)
        say_present(say, image)
        return module
    if not is_file(image):
        request = ImageRequest(image, policy, say, registries.present, registries.pull)
        return await ensure_image(request, pull_keyring(pod, inputs, say), clock)
    sources.images.check(image)
    began = clock.monotonic()
    if policy == "Always":
        say("Normal", "Pulling", f'Pulling image "{image}"')
    try:
        module = await sources.images.find(image)
    except ImageError as error:
        if error.absent and policy == "Never":
            message = f'Container image "{image}" is not present with pull policy of Never'
            say("Warning", "ErrImageNeverPull", message)
            raise ImageError(message, "ErrImageNeverPull", absent=True) from error
        if error.absent and policy != "Always":
            say("Normal", "Pulling", f'Pulling image "{image}"')
        raise
    if policy == "Always":
        took = duration(clock.monotonic() - began)
        say("Normal", "Pulled", f'Successfully pulled image "{image}" in {took} ({took} including waiting)')
    else:
        say_present(say, image)
    return module


@attrs.frozen
class ImageRequest(Generic[T]):
    """An image that a container or a volume of a pod needs, and how to get it.

    Attributes:
        policy: `imagePullPolicy`.
        say: tells an event: type, reason, message.
        present: returns it if it is on this node.
        pull: gets it from the registry.
    """

    image: str
    policy: str
    say: Say
    present: Callable[[Reference, Keyring], Awaitable[T | None]]
    pull: Callable[[Reference, Keyring], Awaitable[PullResult[T]]]


async def ensure_image(request: ImageRequest[T], keyring: Keyring, clock: Clock) -> T:
    """Get an image as its policy says.

    Raises:
        ImageError: it cannot be had; the reason is ErrImageNeverPull where it is absent and must not be pulled.
    """
    image, say = request.image, request.say
    try:
        reference = parse(image)
    except InvalidReference as error:
        raise ImageError(str(error), error.reason) from error
    if request.policy != "Always":
        try:
            there = await request.present(reference, keyring)
        except NotYours as error:
            if request.policy == "Never":
                raise _never(
                    request, "present", " but does not have the proper credentials to access the image"
                ) from error
            there = None
        if there is not None:
            say_present(say, image)
            return there
        if request.policy == "Never":
            raise _never(request, "not present", "")
    began = clock.monotonic()
    say("Normal", "Pulling", f'Pulling image "{image}"')
    result = await request.pull(reference, keyring)
    whole = clock.monotonic() - began
    say(
        "Normal",
        "Pulled",
        f'Successfully pulled image "{image}" in {duration(whole - result.waited)} ({duration(whole)} including '
        f"waiting). Image size: {result.size} bytes.",
    )
    return result.image


def say_present(say: Say, image: str) -> None:
    """Tell that an image is here."""
    say("Normal", "Pulled", f'Container image "{image}" already present on machine')


def _never(request: ImageRequest[T], how: str, rest: str) -> ImageError:
    message = f'Container image "{request.image}" is {how} with pull policy of Never{rest}'
    request.say("Warning", "ErrImageNeverPull", message)
    return ImageError(message, "ErrImageNeverPull", absent=True)


def pull_keyring(pod: Pod, inputs: Inputs, say: Say) -> Keyring:
    """The credentials of the pod's pull secrets; those that cannot be used are a warning, as at a kubelet."""
    names = [str(one.get("name") or "") for one in pod.spec.get("imagePullSecrets") or ()]
    found = pull_secrets(pod.namespace, filter(None, names), inputs.secrets)
    warnings = list(found.warnings)
    if found.missing:
        missing = ", ".join(found.missing)
        warnings.append(
            f"Unable to retrieve some image pull secrets ({missing}); attempting to pull the image may not succeed."
        )
    for warning in warnings:
        say("Warning", "FailedToRetrieveImagePullSecret", warning)
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
