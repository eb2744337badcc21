"""PATCH: turns each of the four kinds of patch into a new version of the object, which `registry` checks and stores.

`wasmlet.controlplane.patches` works out the new object.
"""

from __future__ import annotations

from typing import Any

import attrs

from wasmlet.controlplane.objects.registry import Call, Registry
from wasmlet.controlplane.patches import apply as server_side
from wasmlet.controlplane.patches import patch, strategic
from wasmlet.controlplane.storage import status
from wasmlet.controlplane.storage.status import bad_request
from wasmlet.controlplane.storage.store import Record

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
PATCHES = (JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, APPLY_PATCH)


class UnsupportedMedia(status.ApiError):
    """415: the body has a media type that is not read here."""

    def __init__(self, media: str) -> None:
        known = ", ".join(PATCHES)
        hint = ""
        if "protobuf" in media:
            known = "application/json, application/yaml"
            hint = "; this control plane reads no protobuf of that: use kubectl apply, which sends JSON"
        super().__init__(
            415,
            "UnsupportedMediaType",
            f"the body of the request was in an unknown format - {media or 'no Content-Type'} - accepted media types "
            f"include: {known}{hint}",
            details={},
        )


class Patching:
    """Carries out all patches."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def patch(self, call: Call, media: str, body: Any) -> tuple[Record, bool]:
        """Patch an object. Returns it, and whether it was created (server-side apply creates a missing one).

        Raises:
            ApiError: as for updates; 415 for a media type that is no patch.
        """
        kind = call.kind
        if media not in PATCHES:
            raise UnsupportedMedia(media)
        old = self._registry.store.of(kind).get(call.namespace, call.name)
        if media == APPLY_PATCH:
            return self._apply(call, old, body)
        if old is None:
            raise status.not_found(kind, call.name)
        target = self._registry.custom.view(kind, old)
        if media == JSON_PATCH:
            new = patch.json_patch(target, body)
        elif kind.custom and media == STRATEGIC_PATCH:
            raise UnsupportedMedia(media)
        elif media == MERGE_PATCH:
            if not isinstance(body, dict):
                raise bad_request("a merge patch of an object is an object")
            new = patch.merge(target, body)
        else:
            new = strategic.merge(kind.shares or kind.key, target, body)
        return self._registry.replace(call, old, self._registry.incoming(call, new)), False

    def _apply(self, call: Call, old: Record | None, body: Any) -> tuple[Record, bool]:
        kind = call.kind
        if not call.manager:
            raise bad_request("fieldManager is required for apply patch")
        config = self._registry.incoming(call, body)
        if config["metadata"].get("managedFields"):
            raise bad_request("metadata.managedFields must be nil")
        self._registry.custom.declared(kind, config, str((body.get("metadata") or {}).get("namespace", "")))
        config["metadata"].setdefault("name", call.name)
        config.setdefault("apiVersion", kind.api_version)
        writer = server_side.Writer(manager=call.manager, version=kind.api_version, now=self._registry.now())
        fields = self._registry.custom.fields(kind)
        if old is None:
            if call.sub:
                raise status.not_found(kind, call.name)
            made = server_side.apply(fields, None, config, writer, force=call.force)
            return self._registry.create(attrs.evolve(call, applied=True), made), True
        new = server_side.apply(fields, self._registry.custom.view(kind, old), config, writer, force=call.force)
        return self._registry.replace(attrs.evolve(call, applied=True), old, new), False
