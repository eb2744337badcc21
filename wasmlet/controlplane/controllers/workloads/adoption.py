"""Adoption: a controller becomes the owner of the objects that its selector matches and that have no controller.

It gives up objects that the selector no longer matches.

The rules are those of kubernetes/pkg/controller/controller_ref_manager.go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from wasmlet.controlplane.controllers.workloads.ownership import Ownership, controller_reference, owners, uid_of
from wasmlet.controlplane.controllers.workloads.pods import leaving
from wasmlet.controlplane.storage.kinds import Kind
from wasmlet.controlplane.storage.status import Object
from wasmlet.controlplane.storage.store import Record, Store
from wasmlet.model.placement import Requirement


def adopt(
    store: Store,
    ownership: Ownership,
    owner: Record,
    kind: Kind,
    wanted: Sequence[Requirement],
    fit: Callable[[Object], bool],
) -> None:
    """Adopt the orphans of a kind that match `wanted`, and give up the controlled objects that do not match.

    Args:
        owner: the controller; it must not be one that is being deleted.
        fit: whether to adopt an orphan that matches.
    """

    def chosen(record: Record) -> bool:
        labels = record.raw["metadata"].get("labels") or {}
        return all(requirement.matches(labels) for requirement in wanted)

    for record in ownership.controlled(owner, kind.key):
        if not chosen(record) and not leaving(record.raw):
            rest = [item for item in owners(record.raw) if item.get("uid") != uid_of(owner.raw)]
            _set_owners(store, kind, record, rest)
    for record in ownership.orphans(kind.key, owner.namespace):
        if chosen(record) and not leaving(record.raw) and fit(record.raw):
            _set_owners(store, kind, record, [*owners(record.raw), controller_reference(owner)])


def _set_owners(store: Store, kind: Kind, record: Record, references: list[Object]) -> None:
    metadata = {key: value for key, value in record.raw["metadata"].items() if key != "ownerReferences"}
    if references:
        metadata["ownerReferences"] = references
    store.write(kind, {**record.raw, "metadata": metadata})
