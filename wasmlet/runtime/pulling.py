"""Having a container's image: `imagePullPolicy`, and what is told of it in the kubelet's words.

An image that is a file of the node is present where the file is, and "pulling" it is to read it anew. One of a
registry is present once it was pulled, for the pods that may have it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

import attrs

from wasmlet.artifacts.credentials import Keyring, pull_secrets
from wasmlet.artifacts.errors import InvalidReference
from wasmlet.artifacts.references import Reference, parse
from wasmlet.clock import Clock
from wasmlet.model.pod import Container
from wasmlet.runtime.images import ImageError, Module
from wasmlet.runtime.registries import Had, NotYours, is_file

if TYPE_CHECKING:
    from wasmlet.runtime.container import ContainerLife

T = TypeVar("T")
Kind = Literal["Normal", "Warning"]


async def module_of(life: ContainerLife, spec: Container) -> Module:
    """The module of the container's image.

    Raises:
        ImageError: it cannot be had; the reason is ErrImageNeverPull where it is absent and must not be pulled.
    """
    image, clock = spec.image, life.pod.around.clock
    policy = spec.raw.get("imagePullPolicy") or "IfNotPresent"
    if not is_file(image):
        registries = life.pod.around.registries
        return await have(Wanted(image, policy, life.say, registries.present, registries.pull), keyring_of(life), clock)
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


@attrs.frozen
class Wanted(Generic[T]):
    """An image that something of a pod's wants, and how it is had.

    Attributes:
        say: tells an event: type, reason, message.
        present: has it if it is here.
        pull: has it from the registry.
    """

    image: str
    policy: str
    say: Callable[[Kind, str, str], None]
    present: Callable[[Reference, Keyring], Awaitable[T | None]]
    pull: Callable[[Reference, Keyring], Awaitable[Had[T]]]


async def have(wanted: Wanted[T], keyring: Keyring, clock: Clock) -> T:
    """Have an image as its policy says.

    Raises:
        ImageError: it cannot be had; the reason is ErrImageNeverPull where it is absent and must not be pulled.
    """
    image, say = wanted.image, wanted.say
    try:
        reference = parse(image)
    except InvalidReference as error:
        raise ImageError(str(error), error.reason) from error
    if wanted.policy != "Always":
        try:
            there = await wanted.present(reference, keyring)
        except NotYours as error:
            if wanted.policy == "Never":
                raise _never(
                    wanted, "present", " but does not have the proper credentials to access the image"
                ) from error
            there = None
        if there is not None:
            say("Normal", "Pulled", f'Container image "{image}" already present on machine')
            return there
        if wanted.policy == "Never":
            raise _never(wanted, "not present", "")
    began = clock.monotonic()
    say("Normal", "Pulling", f'Pulling image "{image}"')
    had = await wanted.pull(reference, keyring)
    whole = clock.monotonic() - began
    say(
        "Normal",
        "Pulled",
        f'Successfully pulled image "{image}" in {duration(whole - had.waited)} ({duration(whole)} including '
        f"waiting). Image size: {had.size} bytes.",
    )
    return had.what


def _never(wanted: Wanted[T], how: str, rest: str) -> ImageError:
    message = f'Container image "{wanted.image}" is {how} with pull policy of Never{rest}'
    wanted.say("Warning", "ErrImageNeverPull", message)
    return ImageError(message, "ErrImageNeverPull", absent=True)


def keyring_of(life: ContainerLife) -> Keyring:
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
