"""The custom resources of one control plane, as the CustomResourceDefinitions in the store define them.

A definition is served as soon as it is Established. It is that from its first write on, if its names are free.
"""

from __future__ import annotations

import re

from wasmlet.controlplane.extensions import names
from wasmlet.controlplane.extensions.definition_rules import PLURAL
from wasmlet.controlplane.extensions.version import Version
from wasmlet.controlplane.storage.kinds import KINDS, Kind, core
from wasmlet.controlplane.storage.status import Object
from wasmlet.controlplane.storage.store import Event, Store

_VERSION = re.compile(r"v([1-9]\d*)(?:(alpha|beta)([1-9]\d*))?")


def priority(version: str) -> tuple[int, int, int, str]:
    """The sort key of versions, the preferred one first: v2, v1, v1beta1, v1alpha1, then any other by its name."""
    match = _VERSION.fullmatch(version)
    if match is None:
        return (3, 0, 0, version)
    return ({None: 0, "beta": 1, "alpha": 2}[match[2]], -int(match[1]), -int(match[3] or 0), version)


class Definitions:
    """The versions of all custom resources. It follows the store from its construction, as the first listener."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._versions: dict[tuple[str, str], Version] = {}
        self._stored: dict[str, Version] = {}
        self._leaving: set[str] = set()
        store.listeners.append(self._on_change)

    def of(self, kind: Kind) -> Version | None:
        """The version of a custom resource that this kind is; None for a built-in kind."""
        return self._versions[kind.key, kind.version] if kind.custom else None

    def stored(self, kind: Kind) -> Version:
        """The version in which a custom resource is stored."""
        return self._stored[kind.key]

    def leaving(self, kind: Kind) -> bool:
        """Whether the definition of a custom resource is being deleted."""
        return kind.key in self._leaving

    def versions(self) -> list[Version]:
        """Every version that is served."""
        return [version for kind in self._store.catalog if (version := self.of(kind)) is not None]

    def accept(self, definition: Object, now: str) -> Object:
        """The status of a definition, by its spec and by the names that others have. `now` is a metav1.Time."""
        others = [record.raw for record in self._store[PLURAL] if record.name != definition["metadata"]["name"]]
        group = definition["spec"]["group"]
        status = names.accept(definition, [*others, *_built_in(group)], now)
        stored = next(version["name"] for version in definition["spec"]["versions"] if version["storage"])
        before = status.get("storedVersions") or []
        return {**status, "storedVersions": before if stored in before else [*before, stored]}

    def _on_change(self, kind: Kind, event: Event) -> None:
        if kind.key != PLURAL:
            return
        raw, name = event.record.raw, event.record.name
        if event.change == "DELETED":
            self._drop(name)
        elif names.established(raw.get("status") or {}):
            if "deletionTimestamp" in raw["metadata"]:
                self._leaving.add(name)
            else:
                self._leaving.discard(name)
            old = event.old.raw if event.old is not None else None
            if name not in self._stored or old is None or _served(old) != _served(raw):
                self._define(name, raw)

    def _define(self, name: str, raw: Object) -> None:
        spec = {**raw["spec"], "names": raw["status"]["acceptedNames"]}
        made = [Version(spec, version, self._store.version) for version in spec["versions"]]
        for key in [key for key in self._versions if key[0] == name]:
            del self._versions[key]
        for version in made:
            self._versions[name, version.kind.version] = version
        flags = {version["name"]: version for version in spec["versions"]}
        self._stored[name] = next(version for version in made if flags[version.kind.version]["storage"])
        served = [version.kind for version in made if flags[version.kind.version]["served"]]
        served.sort(key=lambda kind: priority(kind.version))
        self._store.define(self._stored[name].kind, served)

    def _drop(self, name: str) -> None:
        self._store.undefine(name)
        self._leaving.discard(name)
        self._stored.pop(name, None)
        for key in [key for key in self._versions if key[0] == name]:
            del self._versions[key]


def _served(definition: Object) -> tuple[Object, Object]:
    """The parts of a definition that decide how its objects are served."""
    return definition["spec"], (definition.get("status") or {}).get("acceptedNames") or {}


def _built_in(group: str) -> list[Object]:
    """The built-in kinds of a group, as if they were definitions."""
    out = []
    for kind in KINDS:
        if kind.group == group:
            accepted = {
                "plural": kind.plural,
                "singular": kind.singular,
                "shortNames": list(kind.short),
                "kind": kind.kind,
                "listKind": kind.list_kind,
            }
            out.append({"spec": {"group": group}, "status": {"acceptedNames": accepted}})
    return out


DEFINITION = core(PLURAL)
"""The kind of the definitions themselves."""
FINALIZER = "customresourcecleanup.apiextensions.k8s.io"
"""The finalizer that keeps a definition until the last of its objects is gone."""


def doomed(definition: Object, now: str) -> Object:
    """A definition that is being deleted: with the finalizer, and with the condition that says so."""
    metadata, status = definition["metadata"], definition.get("status") or {}
    conditions = list(status.get("conditions") or ())
    message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon"
    names.put(conditions, "Terminating", True, "InstanceDeletionPending", message, now)
    finalizers = list(dict.fromkeys([*(metadata.get("finalizers") or ()), FINALIZER]))
    return {
        **definition,
        "metadata": {**metadata, "finalizers": finalizers},
        "status": {**status, "conditions": conditions},
    }
