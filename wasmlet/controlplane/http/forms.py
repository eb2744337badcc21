"""The forms in which objects are answered: plain, a Table for kubectl, metadata only, or as events.k8s.io has them.

A form is chosen by the Accept header; `server` and `watch` hand it records and get bytes. The plain form costs nothing
beyond the one serialisation that a record has. The columns of tables are in `tables`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

import attrs
import orjson

from wasmlet.controlplane.extensions.version import Version
from wasmlet.controlplane.http import custom_tables, tables
from wasmlet.controlplane.objects import events
from wasmlet.controlplane.storage.kinds import Kind
from wasmlet.controlplane.storage.status import ApiError, Object
from wasmlet.controlplane.storage.store import Record

_SUPPORTED = ("application/json", "application/*", "*/*", "")


class Form(Protocol):
    """Turns records into bytes. `meta` is the metadata of a list: resourceVersion, continue, remainingItemCount."""

    def one(self, record: Record) -> bytes: ...

    def many(self, records: Sequence[Record], meta: Object) -> bytes: ...

    def bookmark(self, meta: Object) -> bytes: ...


@attrs.frozen
class Plain:
    """Objects as they are."""

    kind: Kind

    def one(self, record: Record) -> bytes:
        return record.json

    def many(self, records: Sequence[Record], meta: Object) -> bytes:
        return _listed(self.kind, meta, [record.bare for record in records])

    def bookmark(self, meta: Object) -> bytes:
        return orjson.dumps({"kind": self.kind.kind, "apiVersion": self.kind.api_version, "metadata": meta})


@attrs.frozen
class Custom:
    """Custom resources, in one of their versions."""

    version: Version

    def one(self, record: Record) -> bytes:
        return record.json if self.version.fits(record) else orjson.dumps(self.version.shown(record))

    def many(self, records: Sequence[Record], meta: Object) -> bytes:
        return _listed(self.version.kind, meta, [self.one(record) for record in records])

    def bookmark(self, meta: Object) -> bytes:
        return Plain(self.version.kind).bookmark(meta)


@attrs.frozen
class Newer:
    """Events as events.k8s.io/v1 has them."""

    kind: Kind

    def one(self, record: Record) -> bytes:
        return orjson.dumps(events.newer(record.raw))

    def many(self, records: Sequence[Record], meta: Object) -> bytes:
        items = [events.newer(record.raw) for record in records]
        head = {"kind": "EventList", "apiVersion": self.kind.api_version, "metadata": meta, "items": items}
        return orjson.dumps(head)

    def bookmark(self, meta: Object) -> bytes:
        return orjson.dumps({"kind": self.kind.kind, "apiVersion": self.kind.api_version, "metadata": meta})


@attrs.frozen
class Partial:
    """Metadata only (PartialObjectMetadata)."""

    kind: Kind

    def one(self, record: Record) -> bytes:
        return orjson.dumps(_metadata(record.raw["metadata"]))

    def many(self, records: Sequence[Record], meta: Object) -> bytes:
        return orjson.dumps(
            {
                "kind": "PartialObjectMetadataList",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": meta,
                "items": [_metadata(record.raw["metadata"]) for record in records],
            }
        )

    def bookmark(self, meta: Object) -> bytes:
        return orjson.dumps(_metadata(meta))


@attrs.frozen
class Table:
    """Rows and columns, as `kubectl get` asks for. `include` is Metadata, Object or None."""

    kind: Kind
    include: str
    now: Callable[[], datetime]
    version: Version | None

    def _row(self, record: Record) -> Object:
        raw, version = record.raw, self.version
        if version is None:
            row: Object = {"cells": tables.cells(self.kind.key, raw, self.now())}
        else:
            raw = version.shown(record)
            row = {"cells": custom_tables.cells(version, raw, self.now())}
        if self.include == "Object":
            row["object"] = raw
        elif self.include != "None":
            row["object"] = _metadata(record.raw["metadata"])
        return row

    def _columns(self) -> list[Object]:
        return tables.columns(self.kind.key) if self.version is None else custom_tables.columns(self.version)

    def _table(self, rows: list[Object], meta: Object) -> bytes:
        return orjson.dumps(
            {
                "kind": "Table",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": meta,
                "columnDefinitions": self._columns(),
                "rows": rows,
            }
        )

    def one(self, record: Record) -> bytes:
        return self._table([self._row(record)], {"resourceVersion": str(record.version)})

    def many(self, records: Sequence[Record], meta: Object) -> bytes:
        return self._table([self._row(record) for record in records], meta)

    def bookmark(self, meta: Object) -> bytes:
        return self._table([], meta)


def _listed(kind: Kind, meta: Object, items: Sequence[bytes]) -> bytes:
    """A list of objects that are serialised already."""
    head = {"kind": kind.list_kind, "apiVersion": kind.api_version, "metadata": meta}
    return orjson.dumps(head)[:-1] + b',"items":[' + b",".join(items) + b"]}"


def _metadata(meta: Object) -> Object:
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta}


def choose(kind: Kind, version: Version | None, accept: str, include: str, now: Callable[[], datetime]) -> Form:
    """The first form in an Accept header that is known here. `version` is that of a custom resource.

    Raises:
        ApiError: 406, nothing that is asked for can be had (protobuf alone, for one).
    """
    plain: Form = Newer(kind) if kind.shares else Plain(kind) if version is None else Custom(version)
    if accept in ("application/json", "*/*", ""):
        return plain
    for choice in accept.split(","):
        media, *parameters = (part.strip() for part in choice.split(";"))
        if media not in _SUPPORTED:
            continue
        wanted = dict(part.split("=", 1) for part in parameters if "=" in part)
        match wanted.get("as"):
            case None:
                return plain
            case "Table" if wanted.get("v") == "v1" and wanted.get("g") == "meta.k8s.io":
                return Table(kind, include or "Metadata", now, version)
            case "PartialObjectMetadata" | "PartialObjectMetadataList" if wanted.get("v") == "v1":
                return Partial(kind)
    raise ApiError(
        406,
        "NotAcceptable",
        f"only the following media types are accepted: application/json (asked for: {accept})",
        details={},
    )
