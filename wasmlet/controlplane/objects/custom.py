"""What is special about custom resources where objects are written: their forms, and the rules of their definitions.

For built-in kinds each of these functions does what is done with any object.
"""

from __future__ import annotations

from wasmlet.controlplane.extensions.definitions import DEFINITION, Definitions
from wasmlet.controlplane.objects import events
from wasmlet.controlplane.patches import apply as server_side
from wasmlet.controlplane.storage.kinds import Kind
from wasmlet.controlplane.storage.status import ApiError, Cause, Object, bad_request
from wasmlet.controlplane.storage.store import Record


class CustomResources:
    """Objects between a request and the store, by what is known of custom resources."""

    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions

    def read(self, kind: Kind, obj: Object, *, strict: bool) -> tuple[Object, list[str]]:
        """A custom resource as its version has it, pruned and with defaults; any other object as it is.

        Returns warnings of the fields that were taken out, too.

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
        """Refuse what is applied where a field of it is not in the schema; `namespace` is the one that it names.

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
        """An object that may be stored, in the form in which it is; `now` is a metav1.Time."""
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
        """What of an object `metadata.generation` counts the changes of."""
        if not kind.custom:
            return obj.get("spec")
        return {key: value for key, value in obj.items() if key not in ("metadata", "apiVersion")}
