"""Volumes that are images (KEP-4639). A container that mounts one waits for it as for its own image.

This is as in the kubelet: the events of pulls are the same, and failures show as ErrImagePull and ImagePullBackOff of
the container. Each start of a container checks again, by the pull policy; running containers keep the files that they
have. All pods of a node share one copy of an image's files, and none can write to it.
"""

from __future__ import annotations

from pathlib import Path

import attrs

from wasmlet.artifacts.credentials import Keyring
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Container, Pod, Raw
from wasmlet.runtime.files.volume_rules import kind_of
from wasmlet.runtime.images.images import ImageError
from wasmlet.runtime.pods.pulling import ImageRequest, ImageSources, ensure_image, pull_keyring, say_present
from wasmlet.runtime.shim.instances import Say


@attrs.frozen
class ImageVolume:
    """A volume of the manifest, and the files of its image: their directory on this node and the image's digest."""

    volume: Raw
    digest: str
    path: Path


async def ensure_volumes(
    pod: Pod, container: Container, inputs: Inputs, sources: ImageSources, *, say: Say, say_of_pod: Say
) -> list[ImageVolume]:
    """Get the images of all image volumes that this container mounts.

    Args:
        say: tells an event about the container: of pull secrets.
        say_of_pod: tells an event about the pod: of pulls, as the kubelet tells them.

    Raises:
        ImageError: one of them cannot be had.
    """
    registries = sources.registries
    mounted = {mount.get("name") for mount in container.raw.get("volumeMounts") or ()}
    volumes = [one for one in pod.spec.get("volumes") or () if one["name"] in mounted and kind_of(one) == "image"]
    keyring = pull_keyring(pod, inputs, say) if volumes else Keyring()
    found = []
    for volume in volumes:
        source = volume["image"]
        image, policy = str(source["reference"]), source.get("pullPolicy") or "IfNotPresent"
        request = ImageRequest(image, policy, say_of_pod, registries.present_tree, registries.pull_tree)
        try:
            if (brought := inputs.images.get(image)) is not None:
                tree = await registries.brought_tree(image, brought.digest)
                say_present(say_of_pod, image)
            else:
                tree = await ensure_image(request, keyring, sources.clock)
        except ImageError as error:
            error.image = image
            raise
        found.append(ImageVolume(volume, tree.digest, tree.path))
    return found
