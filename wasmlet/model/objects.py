"""The data of config maps and secrets, found by name in a pod's inputs.

What is not there and may be missing is None; what must be there raises in the kubelet's own words. Variables
(`wasmlet.model.environment`) and volumes (`wasmlet.model.volumes`) both look here.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Literal

import attrs

from wasmlet.errors import MissingReference, Refused
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Raw

Kind = Literal["ConfigMap", "Secret"]


@attrs.frozen
class Lookup:
    """Finds objects for one asker: a container's variables, or a volume.

    Attributes:
        container: the container that an error about a missing object names; None for every container of the pod.
        reason: the `waiting.reason` of such an error.
        prefix: begins the message of such an error.
    """

    inputs: Inputs
    container: str | None = None
    reason: str = "CreateContainerConfigError"
    prefix: str = ""

    def data(self, kind: Kind, reference: Raw, field: str, *, binary: bool) -> Mapping[str, bytes] | None:
        """The keys of the object that `reference` names, sorted; None where it is missing and optional.

        Args:
            reference: has `name` (`secretName` in a secret volume) and perhaps `optional`.
            field: path of the reference in the manifest.
            binary: whether a config map's `binaryData` counts too, as it does in volumes.

        Raises:
            MissingReference: there is no such object.
        """
        name = str(reference.get("name") or reference.get("secretName") or "")
        found = (self.inputs.config_maps if kind == "ConfigMap" else self.inputs.secrets).get(name)
        if found is None:
            if reference.get("optional"):
                return None
            raise self.missing(field, f'{kind.lower()} "{name}" not found')
        text: Mapping[str, str] = found.get("data") or {}
        if kind == "Secret":
            return {key: self._decode(value, key, name, field) for key, value in sorted(text.items())}
        plain = {key: value.encode() for key, value in text.items()}
        encoded: Mapping[str, str] = (found.get("binaryData") or {}) if binary else {}
        return dict(sorted((plain | {key: self._decode(encoded[key], key, name, field) for key in encoded}).items()))

    def missing(self, field: str, message: str) -> MissingReference:
        """The error for something that is not there."""
        return MissingReference(field, self.prefix + message, container=self.container, reason=self.reason)

    def _decode(self, value: str, key: str, name: str, field: str) -> bytes:
        try:
            return base64.b64decode(value, validate=True)
        except binascii.Error:
            message = f"key {key} of {name!r} is not base64; mend the object"
            raise Refused(field, message, container=self.container, reason=self.reason) from None
