"""Reading what a client sends: JSON, YAML, and protobuf where kubectl sends nothing else."""

from __future__ import annotations

from typing import Any

import orjson
import yaml

from wasmlet.controlplane.http import protobuf
from wasmlet.controlplane.objects.patching import PATCHES, UnsupportedMedia
from wasmlet.controlplane.storage.status import ApiError, bad_request

JSON = "application/json"
YAML = "application/yaml"
_NO_DEBUGGER = (
    "kubectl debug node/NAME makes a pod that has the file system and the processes of the host, and nodes that run "
    "WebAssembly have no such pods. Look at a node with kubectl describe node, kubectl top node, kubectl get events. "
    "If this was to be another pod, make it with kubectl run or kubectl apply, which send JSON"
)
"""The answer to a Pod in protobuf, which is what `kubectl debug node/NAME` sends."""


def parse_body(data: bytes, media: str) -> Any:
    """The object in a body; YAML where the media type says so (JSON is YAML, and quicker).

    Raises:
        ApiError: 400, it cannot be read; 415, it is protobuf of a kind that is not read, or something else altogether.
    """
    if media == protobuf.MEDIA:
        try:
            return protobuf.decode(data)
        except protobuf.UnknownKind as error:
            if str(error) == "Pod":
                raise ApiError(415, "UnsupportedMediaType", _NO_DEBUGGER, details={}) from None
            raise UnsupportedMedia(media) from None
    if media not in ("", JSON, YAML, *PATCHES):
        raise UnsupportedMedia(media)
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        if not media.endswith("yaml"):
            raise bad_request(f"the body of the request is not JSON: {error}") from None
    try:
        text = data.decode()
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            raise bad_request("the body of the request uses YAML aliases, which are not read here")
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise bad_request(f"the body of the request is not YAML: {error}") from None
