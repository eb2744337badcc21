"""Creating and replacing objects: what happens to a write between the request and the store.

The steps are default, admit, restrict, validate, write. `patching` turns a patch into a new object and passes it to
`replace` here; `deletion` removes objects. What the control plane itself writes (the contents of a new namespace, an
event of the scheduler) takes the same steps, as user `system:apiserver`.
"""

from __future__ import annotations

import copy
import random
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any

import attrs

from wasmlet.clock import Clock
from wasmlet.controlplane.access import certificate_requests, escalation, restriction
from wasmlet.controlplane.access.rights import Rights
from wasmlet.controlplane.access.users import MASTERS, User, user
from wasmlet.controlplane.extensions import definition_rules
from wasmlet.controlplane.extensions.definitions import Definitions
from wasmlet.controlplane.objects import defaults, events, job_rules, pod_rules, rules, validation
from wasmlet.controlplane.objects.admission import ROOT_CA, PodAdmission, suffix
from wasmlet.controlplane.objects.custom import CustomResources
from wasmlet.controlplane.objects.services import Services
from wasmlet.controlplane.patches import apply as server_side
from wasmlet.controlplane.storage import status
from wasmlet.controlplane.storage.kinds import Kind, core
from wasmlet.controlplane.storage.status import Cause, Object, bad_request
from wasmlet.controlplane.storage.store import Record, Store

INTERNAL = user("system:apiserver", [MASTERS])
_TRIES = 8
_CREATE_BY_PUT = ("leases", "events")
_CONDITIONAL = ("leases", "runtimeclasses", "csidrivers", definition_rules.PLURAL)
"""The built-in kinds whose PUT must name the resourceVersion that it replaces. Custom resources must do so, too."""


def rfc3339(moment: datetime) -> str:
    """A time in the format of metav1.Time: UTC, whole seconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


@attrs.frozen
class Call:
    """A write: what it is about, who makes it, and its options. `manager` names the writer for managedFields."""

    kind: Kind
    namespace: str = ""
    name: str = ""
    sub: str = ""
    user: User = INTERNAL
    manager: str = "wasmlet"
    dry_run: bool = False
    force: bool = False
    applied: bool = False
    """Whether the managedFields of the object are final, as after server-side apply."""
    strict: bool = False
    """Whether a custom resource with unknown fields is refused. Otherwise they are taken out, with a warning."""
    warnings: list[str] = attrs.field(factory=list, eq=False)
    """The warnings for the answer."""


class Registry:
    """Carries out all writes except deletes."""

    def __init__(self, store: Store, clock: Clock, rng: random.Random, *, root_ca: str, rights: Rights) -> None:
        self.store = store
        self.clock = clock
        self.rng = rng
        self.definitions = Definitions(store)
        self.custom = CustomResources(self.definitions)
        self.restriction = restriction.NodeRestriction(store)
        self._admission = PodAdmission(store, rng)
        self._root_ca = root_ca
        self._rights = rights
        self._services = Services(store)
        self.finish: Callable[[Kind, Record, Object], bool] = lambda kind, old, new: False
        """Removes an object that is being deleted and has no finalizer left; `deletion` sets it."""

    def now(self) -> str:
        return rfc3339(self.clock.now())

    def find(self, kind: Kind, namespace: str, name: str) -> Record:
        """Find an object.

        Raises:
            ApiError: 404.
        """
        record = self.store.of(kind).get(namespace, name)
        if record is None:
            raise status.not_found(kind, name)
        return record

    def incoming(self, call: Call, obj: Any) -> Object:
        """Check that a body is an object of the call's kind, namespace and name. Returns a shallow copy."""
        kind = call.kind
        if not isinstance(obj, dict):
            raise bad_request(f"the body is not an object of kind {kind.kind}")
        given, version = obj.get("kind", kind.kind), obj.get("apiVersion", kind.api_version)
        if given != kind.kind or version != kind.api_version:
            raise bad_request(
                f"the object provided is a {version}, Kind={given}; "
                f"the path is for {kind.api_version}, Kind={kind.kind}"
            )
        meta = obj.get("metadata")
        if meta is not None and not isinstance(meta, dict):
            raise bad_request("metadata is not an object")
        for part in ("spec", "status"):
            if not kind.custom and not isinstance(obj.get(part), dict | None):
                raise bad_request(f"{part} of a {kind.kind} is an object, found {obj[part]!r}")
        out = {**obj, "metadata": dict(meta or {})}
        if kind.shares:
            out = events.core(out)
        meta = out["metadata"]
        if kind.namespaced:
            if meta.get("namespace", "") not in ("", call.namespace):
                raise bad_request(
                    f"the namespace of the provided object does not match the namespace sent on the request: "
                    f"{meta['namespace']!r} is not {call.namespace!r}"
                )
            meta["namespace"] = call.namespace
        else:
            meta.pop("namespace", None)
        if call.name and meta.get("name", call.name) != call.name:
            raise bad_request(
                f"the name of the object ({meta['name']}) does not match the name on the URL ({call.name})"
            )
        return out

    def _commit(self, call: Call, obj: Object) -> Record:
        if call.dry_run:
            return self._unwritten(call.kind, obj, self.store.version + 1)
        return self.store.write(call.kind, obj)

    def _unwritten(self, kind: Kind, obj: Object, version: int) -> Record:
        """The answer to a write after which no such object is stored."""
        collection = self.store.of(kind)
        ordered = {"apiVersion": collection.kind.api_version, "kind": kind.kind}
        ordered |= {key: value for key, value in obj.items() if key not in ordered}
        return Record(ordered, version, len(collection.head))

    # -- create

    def create(self, call: Call, body: Any) -> Record:
        """Create an object.

        Raises:
            ApiError: what the API server would answer: 400, 403, 404, 409, 422.
        """
        kind = call.kind
        obj = copy.deepcopy(self.incoming(call, body))
        meta = obj["metadata"]
        for key in ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"):
            meta.pop(key, None)
        if meta.pop("resourceVersion", ""):
            raise bad_request("resourceVersion should not be set on objects to be created")
        if not call.applied:
            meta.pop("managedFields", None)
        _tidy(meta)
        if call.name:
            meta["name"] = call.name
        self._check_place(call, meta.get("name", ""))
        generated = not meta.get("name") and bool(meta.get("generateName"))
        if generated:
            meta["name"] = str(meta["generateName"])[:58] + suffix(self.rng)
        obj, warnings = self.custom.read(kind, obj, strict=call.strict)
        call.warnings.extend(warnings)
        meta = obj["metadata"]
        if kind.has_status and kind.key not in ("nodes",):
            obj.pop("status", None)
        defaults.fill(kind.key, obj)
        meta["uid"] = str(uuid.uuid4())
        meta["creationTimestamp"] = self.now()
        if kind.generation:
            meta["generation"] = 1
        self.restriction.write(call.user, kind, call.sub, obj, None)
        self._admit(call, obj)
        causes = rules.check(kind, obj, None)
        if kind.key == "pods":
            causes += pod_rules.check(obj)
        causes += self.custom.check(kind, obj, None)
        if causes:
            raise status.invalid(kind, str(meta.get("name", "")), causes)
        escalation.check(self._rights, call.user, kind, obj, None)
        obj = self.custom.final(kind, obj, self.now())
        meta = obj["metadata"]
        space, collection = meta.get("namespace", ""), self.store.of(kind)
        for _ in range(_TRIES):
            if collection.get(space, meta["name"]) is None:
                break
            if not generated:
                raise status.already_exists(kind, meta["name"])
            meta["name"] = str(meta["generateName"])[:58] + suffix(self.rng)
        else:
            raise status.already_exists(kind, meta["name"])
        record = self._commit(call, obj)
        if kind.key == "namespaces" and not call.dry_run:
            self.furnish(record.name)
        return record

    def _check_place(self, call: Call, name: str) -> None:
        """Refuse what is created where all is about to go: with its definition, or with its namespace."""
        if self.definitions.leaving(call.kind):
            why = "create not allowed while custom resource definition is terminating"
            raise status.forbidden(call.kind, name, why)
        if not call.kind.namespaced:
            return
        space = self.store["namespaces"].get("", call.namespace)
        if space is None:
            raise status.not_found(core("namespaces"), call.namespace)
        if "deletionTimestamp" in space.raw["metadata"]:
            why = f"namespace {call.namespace} is being terminated"
            cause = Cause("metadata.namespace", why, "NamespaceTerminating")
            why = f"unable to create new content in namespace {call.namespace} because it is being terminated"
            raise status.forbidden(call.kind, name, why, [cause])

    def _admit(self, call: Call, obj: Object) -> None:
        match call.kind.key:
            case "pods":
                self._admission.admit(obj)
            case "services":
                call.warnings.extend(self._services.admit(obj))
            case job_rules.PLURAL:
                job_rules.select(obj)
            case certificate_requests.PLURAL:
                certificate_requests.prepare(obj, call.user)
            case "secrets":
                defaults.encode_string_data(obj)

    def furnish(self, namespace: str) -> None:
        """Create in a new namespace what every namespace has: its service account and the root certificate."""
        self.create(Call(core("serviceaccounts"), namespace), {"metadata": {"name": "default"}})
        self.create(
            Call(core("configmaps"), namespace),
            {"metadata": {"name": ROOT_CA}, "data": {"ca.crt": self._root_ca}},
        )

    # -- update

    def update(self, call: Call, body: Any) -> tuple[Record, bool]:
        """Carry out a PUT. Returns the object, and whether it was created."""
        obj = self.incoming(call, body)
        old = self.store.of(call.kind).get(call.namespace, call.name)
        if old is None:
            if call.kind.key in _CREATE_BY_PUT and not call.sub:
                return self.create(call, body), True
            raise status.not_found(call.kind, call.name)
        if (call.kind.custom or call.kind.key in _CONDITIONAL) and not obj["metadata"].get("resourceVersion"):
            raise status.invalid(
                call.kind,
                call.name,
                [Cause.invalid("metadata.resourceVersion", 0, "must be specified for an update")],
            )
        return self.replace(call, old, obj), False

    def replace(self, call: Call, old: Record, new: Object) -> Record:
        """Replace an object by a new version, if that is allowed; where nothing changes, nothing is written.

        `new` and its metadata must be copies; deeper parts may be shared with the old object.
        """
        kind = call.kind
        before = old.raw["metadata"]
        meta = dict(new["metadata"])
        if meta.get("uid", before["uid"]) != before["uid"]:
            why = f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {before['uid']}"
            raise status.conflict(kind, call.name, why)
        if meta.get("resourceVersion") and meta["resourceVersion"] != before["resourceVersion"]:
            raise status.modified(kind, call.name)
        for key in (
            "name",
            "namespace",
            "uid",
            "creationTimestamp",
            "generateName",
            "generation",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "resourceVersion",
            "selfLink",
        ):
            if key in before:
                meta[key] = before[key]
            else:
                meta.pop(key, None)
        _tidy(meta)
        new = {"apiVersion": old.raw["apiVersion"], "kind": old.raw["kind"], **new, "metadata": meta}
        new["apiVersion"], new["kind"] = old.raw["apiVersion"], old.raw["kind"]
        new, warnings = self.custom.read(kind, new, strict=call.strict)
        call.warnings.extend(warnings)
        written = self._status if call.sub in ("status", "approval") else self._main
        new = written(call, self.custom.view(kind, old) if kind.custom else old.raw, new)
        new = self.custom.final(kind, new, self.now())
        if "deletionTimestamp" in before:
            had = before.get("finalizers") or []
            added = [name for name in new["metadata"].get("finalizers") or () if name not in had]
            if added:
                why = f"no new finalizers can be added if the object is being deleted, found new finalizers {added}"
                raise status.invalid(kind, call.name, [Cause.forbidden("metadata.finalizers", why)])
        if new == old.raw:
            return old
        self.restriction.write(call.user, kind, call.sub, new, old.raw)
        escalation.check(self._rights, call.user, kind, new, old.raw)
        if not call.dry_run and self.finish(kind, old, new):
            return self._unwritten(kind, new, old.version)
        return self._commit(call, new)

    def _status(self, call: Call, old: Object, new: Object) -> Object:
        """The new object for a write to the status subresource: spec and owners are kept."""
        kind = call.kind
        out = {**old, "metadata": new["metadata"]}
        for key in ("ownerReferences", "managedFields"):
            if key in old["metadata"]:
                out["metadata"][key] = old["metadata"][key]
            else:
                out["metadata"].pop(key, None)
        if "status" in new:
            out["status"] = new["status"]
        if kind.custom:
            kept = {key: value for key, value in new["metadata"].items() if key == "managedFields"}
            out["metadata"] = {**old["metadata"], **kept}
            causes = self.custom.check(kind, out, old)
        else:
            causes = validation.metadata(kind, out) if out["metadata"] != old["metadata"] else []
        if kind.key == certificate_requests.PLURAL:
            causes += certificate_requests.update(call.sub, out, old, self.now())
        if kind.key == "pods":
            given = out.get("status")
            fresh = dict(given) if isinstance(given, dict) else {}
            fresh.setdefault("phase", "Pending")
            before = old.get("status") or {}
            if "qosClass" in before:
                fresh["qosClass"] = before["qosClass"]
            pod_rules.keep_observed(fresh, before)
            out["status"] = fresh
            causes += pod_rules.check_status(out, old)
        elif kind.key == "nodes":
            causes += validation.check(kind, out, old)
        if causes:
            raise status.invalid(kind, call.name, causes)
        return out

    def _main(self, call: Call, old: Object, new: Object) -> Object:
        """The new object for a write to the object itself: its status is kept."""
        kind = call.kind
        if kind.has_status:
            if "status" in old:
                new["status"] = old["status"]
            else:
                new.pop("status", None)
        if kind.key == "secrets" and "stringData" in new:
            defaults.encode_string_data(new)
        if kind.key in ("namespaces", certificate_requests.PLURAL):
            new["spec"] = old["spec"]
        if kind.key == "pods":
            if new.get("spec") != old["spec"]:
                new["spec"] = copy.deepcopy(new.get("spec") or {})
                filled = {**new, "status": {}}
                defaults.fill("pods", filled)
                for key in ("nodeName", "serviceAccountName", "serviceAccount", "priority", "preemptionPolicy"):
                    if key in old["spec"]:
                        new["spec"].setdefault(key, old["spec"][key])
                new["spec"].setdefault("tolerations", old["spec"].get("tolerations", []))
                self._admission.tolerate_for_a_while(new["spec"])
            if call.sub in ("", "ephemeralcontainers", "resize"):
                causes = pod_rules.check_write(call.sub, new, old)
                if causes:
                    raise status.invalid(kind, call.name, causes)
        elif kind.key in defaults.ON_UPDATE:
            new = copy.deepcopy(new)
            defaults.fill(kind.key, new)
            if kind.key == "services":
                call.warnings.extend(self._services.update(new, old))
        causes = rules.check(kind, new, old)
        causes += self.custom.check(kind, new, old)
        if causes:
            raise status.invalid(kind, call.name, causes)
        if kind.generation and self.custom.counted(kind, new) != self.custom.counted(kind, old):
            new["metadata"]["generation"] = old["metadata"].get("generation", 1) + 1
        if not call.applied:
            writer = server_side.Writer(manager=call.manager, version=kind.api_version, now=self.now())
            new = server_side.note_update(self.custom.fields(kind), old, new, writer)
        return new


def _tidy(meta: Object) -> None:
    """Remove empty maps and lists from metadata, as the API does not keep them."""
    for key in ("labels", "annotations", "finalizers", "ownerReferences", "managedFields"):
        if key in meta and not meta[key]:
            del meta[key]
