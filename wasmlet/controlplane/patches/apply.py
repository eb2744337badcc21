"""Server-side apply: which manager owns which field, what an apply removes, and when two managers conflict.

Ownership is kept in `metadata.managedFields` (FieldsV1) from the first apply on. An object that was never applied has
none, and its writes need no extra work. At the first apply, the existing fields get the owner `before-first-apply`, as
in the API for objects whose managed fields were cleared. Fields of `status` have no owners here, since status is never
applied.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import attrs
import orjson

from wasmlet.controlplane.patches.patch import same
from wasmlet.controlplane.patches.strategic import ListRule, rules
from wasmlet.controlplane.storage.status import ApiError, Object, bad_request

Path = tuple[str, ...]
"""The path of a field: "f:name" for a key, 'k:{...}' for an element of a list, 'v:...' for a member of a set."""

Place = tuple[str, ...]
"""The names in the path of a field; elements of lists add none."""


class Fields(Protocol):
    """How lists and objects of a kind are merged and owned."""

    def rule(self, at: Place) -> ListRule | None:
        """How the list at a place is merged."""
        ...

    def atomic(self, at: Place) -> bool:
        """Whether the object at a place is owned as a whole."""
        ...


@attrs.frozen
class BuiltIn:
    """The fields of a built-in kind, by its plural name."""

    plural: str

    def rule(self, at: Place) -> ListRule | None:
        return rules(self.plural).get(".".join(at))

    def atomic(self, at: Place) -> bool:
        return bool(at) and at[-1] in _ATOMIC


_ATOMIC = {
    "nodeSelector",
    "selector",
    "configMapKeyRef",
    "secretKeyRef",
    "fieldRef",
    "resourceFieldRef",
    "fileKeyRef",
    "secretRef",
    "configMapRef",
    "localObjectReference",
    "overhead",
    "labelSelector",
}
_METADATA = ("metadata",)
_UNOWNED = {("apiVersion",), ("kind",), ("status",)}
_SYSTEM = {
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
    "generateName",
}


def _key(rule: ListRule, item: Any, at: Place) -> str:
    if rule.is_set:
        return "v:" + orjson.dumps(item).decode()
    if not isinstance(item, dict):
        raise bad_request(f"{'.'.join(at)}: every element is an object, found {item!r}")
    keys = {key: item[key] for key in rule.map_keys if key in item}
    if "protocol" in rule.map_keys:
        keys.setdefault("protocol", "TCP")
    if not keys:
        raise bad_request(f"{'.'.join(at)}: an element lacks its key {rule.map_keys[0]}")
    return "k:" + orjson.dumps(keys, option=orjson.OPT_SORT_KEYS).decode()


def leaves(fields: Fields, obj: Object) -> dict[Path, Any]:
    """Every field that can be owned, with its value: plain values, lists and maps owned whole, and list elements."""
    out: dict[Path, Any] = {}

    def walk(value: Any, at: Place, path: Path) -> None:
        rule = fields.rule(at)
        if isinstance(value, dict) and value and not fields.atomic(at):
            for key, item in value.items():
                below = (*at, key)
                if below in _UNOWNED or (at == _METADATA and key in _SYSTEM):
                    continue
                walk(item, below, (*path, f"f:{key}"))
        elif isinstance(value, list) and value and rule is not None and (rule.map_keys or rule.is_set):
            for item in value:
                here = (*path, _key(rule, item, at))
                if rule.is_set:
                    out[here] = item
                else:
                    out[(*here, ".")] = None
                    walk(item, at, here)
        elif path:
            out[path] = value

    walk(obj, (), ())
    return out


def _nest(paths: set[Path]) -> Object:
    tree: Object = {}
    for path in sorted(paths):
        node = tree
        for part in path:
            node = node.setdefault(part, {})
    return tree


def _flat(tree: Object, at: Path = ()) -> Iterator[Path]:
    for part, below in tree.items():
        if isinstance(below, dict) and below:
            yield from _flat(below, (*at, part))
        else:
            yield (*at, part)


@attrs.define
class Owner:
    """One entry of managedFields."""

    manager: str
    operation: str
    fields: set[Path]
    version: str
    time: str

    def entry(self) -> Object:
        return {
            "manager": self.manager,
            "operation": self.operation,
            "apiVersion": self.version,
            "time": self.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": _nest(self.fields),
        }


@attrs.frozen
class Writer:
    """Who writes an object, as managedFields name it.

    Attributes:
        manager: the name (`fieldManager`).
        version: the apiVersion that the fields are written in.
        now: the time, as metav1.Time has it.
    """

    manager: str
    version: str
    now: str

    def owner(self, operation: str, fields: set[Path]) -> Owner:
        """An owner of these fields by Apply or by Update."""
        return Owner(self.manager, operation, fields, self.version, self.now)


def owners(obj: Object) -> list[Owner]:
    """The owners that an object's managedFields name."""
    return [
        Owner(
            entry.get("manager", ""),
            entry.get("operation", ""),
            set(_flat(entry.get("fieldsV1") or {})),
            entry.get("apiVersion", ""),
            entry.get("time", ""),
        )
        for entry in obj["metadata"].get("managedFields") or ()
    ]


def _with_owners(obj: Object, who: list[Owner]) -> Object:
    entries = [owner.entry() for owner in who if owner.fields]
    return {**obj, "metadata": {**obj["metadata"], "managedFields": entries}}


def _readable(path: Path) -> str:
    text = ""
    for part in path:
        if part.startswith("f:"):
            text += f".{part[2:]}"
        elif part.startswith("k:"):
            keys = orjson.loads(part[2:])
            text += "[" + ",".join(f"{key}={orjson.dumps(value).decode()}" for key, value in keys.items()) + "]"
        elif part.startswith("v:"):
            text += f"[={part[2:]}]"
    return text


def _merge(fields: Fields, live: Any, config: Any, at: Place = ()) -> Any:
    """Merge the applied configuration into the present object."""
    if isinstance(config, dict) and isinstance(live, dict) and not fields.atomic(at):
        out = dict(live)
        for key, value in config.items():
            if at == _METADATA and key in _SYSTEM:
                continue
            out[key] = _merge(fields, live.get(key), value, (*at, key))
        return out
    rule = fields.rule(at)
    if isinstance(config, list) and isinstance(live, list) and rule is not None and (rule.map_keys or rule.is_set):
        wanted = {_key(rule, item, at): item for item in config}
        out_list, done = [], set()
        for item in live:
            key = _key(rule, item, at)
            done.add(key)
            out_list.append(_merge(fields, item, wanted[key], at) if key in wanted and not rule.is_set else item)
        return out_list + [item for key, item in wanted.items() if key not in done]
    return config


def _remove(fields: Fields, obj: Any, path: Path, at: Place = ()) -> Any:
    """The object without a field; containers that become empty are removed, too."""
    part, rest = path[0], path[1:]
    if part.startswith("f:") and isinstance(obj, dict):
        key = part[2:]
        if key not in obj:
            return obj
        below = _remove(fields, obj[key], rest, (*at, key)) if rest else None
        if below in (None, {}, []):
            return {name: value for name, value in obj.items() if name != key}
        return {**obj, key: below}
    rule = fields.rule(at)
    if rule is not None and isinstance(obj, list):
        out = []
        for item in obj:
            if _key(rule, item, at) == part:
                if not rest or rest == (".",):
                    continue
                if rest[0][2:] in rule.map_keys:  # an element that stays keeps its key fields
                    return obj
                item = _remove(fields, item, rest, at)
            out.append(item)
        return out
    return obj


def apply(fields: Fields, live: Object | None, config: Object, writer: Writer, *, force: bool) -> Object:
    """The object as it is after `writer` applied `config`; `live` is None where it is to be made.

    Raises:
        ApiError: 409 with a cause per field that another manager owns with another value, unless `force`.
    """
    mine = leaves(fields, config)
    wanted = set(mine)
    if live is None:
        return _with_owners(config, [writer.owner("Apply", wanted)])
    there = leaves(fields, live)
    everyone = owners(live) or [Owner("before-first-apply", "Update", set(there), writer.version, writer.now)]
    me = next((owner for owner in everyone if (owner.manager, owner.operation) == (writer.manager, "Apply")), None)
    others = [owner for owner in everyone if owner is not me]
    conflicts = [
        (owner, path)
        for owner in others
        for path in sorted(owner.fields & wanted)
        if path[-1] != "." and path in there and not same(there[path], mine[path])
    ]
    if conflicts and not force:
        raise _conflict(conflicts)
    for owner, path in conflicts:
        owner.fields.discard(path)
    out = _merge(fields, live, config)
    kept = set().union(*(owner.fields for owner in others)) | wanted
    gone = me.fields - wanted if me else set()
    for path in sorted(gone, key=lambda path: (path[-1] != ".", len(path), path)):  # whole elements before their parts
        stem = path[:-1] if path[-1] == "." else path
        if not any(other[: len(stem)] == stem for other in kept):
            out = _remove(fields, out, path)
    if me is not None and me.fields == wanted:
        return _with_owners(out, everyone)
    who = writer.owner("Apply", wanted)
    return _with_owners(out, [who if owner is me else owner for owner in everyone] + ([] if me else [who]))


def _conflict(conflicts: list[tuple[Owner, Path]]) -> ApiError:
    """409 for fields that other managers own with other values."""
    causes: list[Object] = [
        {
            "reason": "FieldManagerConflict",
            "message": f'conflict with "{owner.manager}" using {owner.version}',
            "field": _readable(path),
        }
        for owner, path in conflicts
    ]
    lines = "\n".join(f"{cause['message']}: {cause['field']}" for cause in causes)
    some = "1 conflict" if len(causes) == 1 else f"{len(causes)} conflicts"
    return ApiError(409, "Conflict", f"Apply failed with {some}: {lines}", details={"causes": causes})


def note_update(fields: Fields, old: Object, new: Object, writer: Writer) -> Object:
    """The new object; `writer` becomes the owner of the fields that it changed, if the object has managedFields."""
    if not old["metadata"].get("managedFields"):
        return new
    if new["metadata"].get("managedFields") == [{}]:  # how a client clears them; leaving them out keeps them
        return {**new, "metadata": {key: value for key, value in new["metadata"].items() if key != "managedFields"}}
    before, after = leaves(fields, old), leaves(fields, new)
    changed = {path for path, value in after.items() if path not in before or not same(before[path], value)}
    gone = before.keys() - after.keys()
    everyone = owners(old)
    if changed or gone:
        for owner in everyone:
            owner.fields -= changed | gone
        me = next((owner for owner in everyone if (owner.manager, owner.operation) == (writer.manager, "Update")), None)
        if me is None:
            everyone.append(writer.owner("Update", changed))
        else:
            me.fields |= changed
            me.time = writer.now
    return _with_owners(new, everyone)
