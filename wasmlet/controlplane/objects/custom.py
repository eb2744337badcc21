"""How writes of custom resources differ from those of built-in kinds: their versions, and their definitions' rules.

For a built-in kind, each function gives what holds for any object, so that callers need not tell them apart.
"""

from __future__ import annotations

from wasmlet.controlplane.extensions.definitions import DEFINITION, Definitions
from wasmlet.controlplane.objects import events
from wasmlet.controlplane.patches import apply as server_side
from wasmlet.controlplane.storage.kinds import Kind
from wasmlet.controlplane.storage.status import ApiError, Cause, Object, bad_request
from wasmlet.controlplane.storage.store import Record


class CustomResources:
    """Converts and checks objects between a request and the store, by the definitions of custom resources."""

    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions

    def read(self, kind: Kind, obj: Object, *, strict: bool) -> tuple[Object, list[str]]:
        """A custom resource, pruned and with defaults by its version; any other object unchanged.

        The second result has a warning for each field that was removed.

        Raises:
            ApiError: 400, it has unknown fields, and `strict` was asked for.
        """
        version = self._definitions.of(kind)
        if version is None:
            return obj, []
        read, unknown = version.read(obj)
        fields = [f'unknown field "{path}"' for path in unknown]
        if fields and strict:
            raise bad_request(
                f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: '
                f"strict decoding error: {', '.join(fields)}"
            )
        return read, fields

    def declared(self, kind: Kind, config: Object, namespace: str) -> None:
        """Refuse a server-side apply with fields that the schema lacks; `namespace` is the applied object's.

        Raises:
            ApiError: 500, as server-side apply answers.
        """
        version = self._definitions.of(kind)
        unknown = version.read(config)[1] if version is not None else []
        if unknown:
            fields = "; ".join(f".{path}: field not declared in schema" for path in unknown)
            what = f"{namespace}/{config['metadata'].get('name', '')}; {kind.api_version}, Kind={kind.kind}"
            raise ApiError(500, "", f"failed to create typed patch object ({what}): {fields}", details={})

    def check(self, kind: Kind, obj: Object, old: Object | None) -> list[Cause]:
        """What is wrong with an object by its definition; `old` is what it replaces."""
        version = self._definitions.of(kind)
        return [] if version is None else version.check(obj, old)

    def final(self, kind: Kind, obj: Object, now: str) -> Object:
        """The form in which an accepted object is stored; `now` is a metav1.Time."""
        if kind.custom and (stored := self._definitions.stored(kind)).kind != kind:
            return {**stored.read(obj)[0], "apiVersion": stored.kind.api_version}
        if kind == DEFINITION:
            return {**obj, "status": self._definitions.accept(obj, now)}
        return obj

    def view(self, kind: Kind, record: Record) -> Object:
        """A stored object as a kind shows it: events in their two forms, custom resources in their versions."""
        if kind.shares:
            return events.newer(record.raw)
        version = self._definitions.of(kind)
        return record.raw if version is None else version.shown(record)

    def fields(self, kind: Kind) -> server_side.Fields:
        """How the fields of a kind are owned and merged."""
        version = self._definitions.of(kind)
        return server_side.BuiltIn(kind.shares or kind.key) if version is None else version.fields

    def counted(self, kind: Kind, obj: Object) -> Object | None:
        """The part of an object whose changes `metadata.generation` counts."""
        if not kind.custom:
            return obj.get("spec")
        return {key: value for key, value in obj.items() if key not in ("metadata", "apiVersion")}
