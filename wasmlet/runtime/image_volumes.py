"""Volumes that are images (KEP-4639): each container that mounts one waits for it as for its own image.

So it goes in the kubelet: pulling is told in the same words, and what fails shows as the container's ErrImagePull and
ImagePullBackOff. Every start of a container looks again, as its policy says; containers that run keep what they have.
All pods of a node share one copy of an image's files, and none can write to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wasmlet.artifacts.credentials import Keyring
from wasmlet.artifacts.threads import in_thread
from wasmlet.model.pod import Container
from wasmlet.runtime.images import ImageError
from wasmlet.runtime.pulling import Kind, Wanted, have, keyring_of
from wasmlet.runtime.volume_rules import kind_of

if TYPE_CHECKING:
    from wasmlet.runtime.container import ContainerLife


async def pull(life: ContainerLife, spec: Container) -> None:
    """Have all that this container mounts.

    Raises:
        ImageError: one of them cannot be had.
    """
    pod, registries = life.pod, life.pod.around.registries
    mounted = {mount.get("name") for mount in spec.raw.get("volumeMounts") or ()}

    def say(kind: Kind, reason: str, message: str) -> None:
        pod.event(kind, reason, message, "")  # about the pod, as the kubelet tells it

    volumes = [one for one in pod.spec.spec.get("volumes") or () if one["name"] in mounted and kind_of(one) == "image"]
    keyring = keyring_of(life) if volumes else Keyring()
    for volume in volumes:
        source = volume["image"]
        image, policy = str(source["reference"]), source.get("pullPolicy") or "IfNotPresent"
        wanted = Wanted(image, policy, say, registries.present_tree, registries.pull_tree)
        try:
            found = await have(wanted, keyring, pod.around.clock)
        except ImageError as error:
            error.image = image
            raise
        await in_thread(pod.volumes.use_image, volume, found.digest, found.path)
