"""Strategic merge patch: merge patch that knows which lists are merged by a key.

`LISTS` says, by kind and by the path of a list, how a patch and server-side apply merge the list. (`apply` reads it
too, and `http.openapi` publishes it.) It repeats the tags `patchMergeKey`, `patchStrategy`, `listType` and `listMapKey`
of the API types. The directives `$patch`, `$setElementOrder`, `$deleteFromPrimitiveList` and `$retainKeys` are
understood.
"""

from __future__ import annotations

from typing import Any

import attrs

from wasmlet.controlplane.storage.status import Object, bad_request

_ORDER = "$setElementOrder/"
_DELETE = "$deleteFromPrimitiveList/"


@attrs.frozen
class ListRule:
    """How a list is merged.

    `merge_key` is the key of a strategic merge; "" merges primitives; None replaces the list.
    `map_keys` are the keys by which server-side apply tells elements apart; () with `is_set` for a set of primitives;
    () without it for a list that is owned as a whole.
    """

    merge_key: str | None = None
    map_keys: tuple[str, ...] = ()
    is_set: bool = False
    retain_keys: bool = False

    @classmethod
    def by(cls, key: str, *more: str, retain_keys: bool = False) -> ListRule:
        return cls(key, (key, *more), retain_keys=retain_keys)


def _container(at: str) -> dict[str, ListRule]:
    return {
        at: ListRule.by("name"),
        f"{at}.env": ListRule.by("name"),
        f"{at}.ports": ListRule("containerPort", ("containerPort", "protocol")),
        f"{at}.resources.claims": ListRule(None, ("name",)),
        f"{at}.volumeDevices": ListRule.by("devicePath"),
        f"{at}.volumeMounts": ListRule.by("mountPath"),
    }


_META = {
    "metadata.finalizers": ListRule("", is_set=True),
    "metadata.ownerReferences": ListRule.by("uid"),
}
_CONDITIONS = {"status.conditions": ListRule.by("type")}
_POD = {
    **_container("spec.containers"),
    **_container("spec.initContainers"),
    **_container("spec.ephemeralContainers"),
    "spec.hostAliases": ListRule.by("ip"),
    "spec.imagePullSecrets": ListRule.by("name"),
    "spec.resourceClaims": ListRule.by("name", retain_keys=True),
    "spec.schedulingGates": ListRule.by("name"),
    "spec.topologySpreadConstraints": ListRule("topologyKey", ("topologyKey", "whenUnsatisfiable")),
    "spec.volumes": ListRule.by("name", retain_keys=True),
    "status.podIPs": ListRule.by("ip"),
    "status.resourceClaimStatuses": ListRule.by("name", retain_keys=True),
    **{
        f"status.{which}.volumeMounts": ListRule.by("mountPath")
        for which in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
    },
}
_SELF = ListRule()
_WORKLOAD = {
    **_META,
    **_CONDITIONS,
    **{f"spec.template.{at}": rule for at, rule in _POD.items() if not at.startswith("status.")},
}

LISTS: dict[str, dict[str, ListRule]] = {
    "pods": {**_META, **_CONDITIONS, **_POD},
    "nodes": {
        **_META,
        **_CONDITIONS,
        "spec.podCIDRs": ListRule("", is_set=True),
        "status.addresses": ListRule.by("type"),
    },
    "services": {
        **_META,
        **_CONDITIONS,
        "spec.ports": ListRule("port", ("port", "protocol")),
    },
    "serviceaccounts": {**_META, "secrets": ListRule.by("name")},
    "deployments": _WORKLOAD,
    "replicasets": _WORKLOAD,
    "statefulsets": _WORKLOAD,
    "jobs": _WORKLOAD,
    "poddisruptionbudgets": {**_META, "status.conditions": ListRule.by("type")},
    "namespaces": {**_META, **_CONDITIONS},
    "persistentvolumeclaims": {**_META, **_CONDITIONS},
    "certificatesigningrequests": {**_META, "status.conditions": ListRule(None, ("type",))},
    "endpointslices": {**_META, "endpoints": _SELF},
}


def rules(plural: str) -> dict[str, ListRule]:
    """The rules of a kind."""
    return LISTS.get(plural, _META)


def merge(plural: str, target: Object, patch: Any) -> Object:
    """The object with a strategic merge patch applied; shares what was not touched.

    Raises:
        ApiError: 400, the patch does not fit the object.
    """
    if not isinstance(patch, dict):
        raise bad_request("a strategic merge patch is an object")
    out: Object = _object(rules(plural), "", target, patch)
    return out


def _object(table: dict[str, ListRule], at: str, target: Any, patch: Object) -> Any:
    directive = patch.get("$patch")
    if directive == "replace":
        return _clean({key: value for key, value in patch.items() if key != "$patch"})
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise bad_request(f"$patch: {directive!r} is not known; it may be merge, replace or delete")
    out = dict(target) if isinstance(target, dict) else {}
    retain = patch.get("$retainKeys")
    if retain is not None:
        if not isinstance(retain, list):
            raise bad_request("$retainKeys is a list of keys")
        out = {key: value for key, value in out.items() if key in retain}
    for key, value in patch.items():
        if key.startswith("$"):
            if key.startswith(_DELETE):
                name = key[len(_DELETE) :]
                if isinstance(out.get(name), list) and isinstance(value, list):
                    out[name] = [item for item in out[name] if item not in value]
            elif key.startswith(_ORDER):
                name = key[len(_ORDER) :]
                if name not in patch and isinstance(out.get(name), list):
                    out[name] = _ordered(table.get(_path(at, name)), out[name], out[name], value)
            elif key not in ("$patch", "$retainKeys"):
                raise bad_request(f"{key!r} is not a directive of a strategic merge patch")
            continue
        if value is None:
            out.pop(key, None)
            continue
        path = _path(at, key)
        if isinstance(value, dict):
            if value.get("$patch") == "delete":
                out.pop(key, None)
            else:
                out[key] = _object(table, path, out.get(key), value)
        elif isinstance(value, list):
            rule = table.get(path)
            if rule is None or rule.merge_key is None:
                out[key] = [_clean(item) for item in value]
            else:
                before = out.get(key)
                order = patch.get(_ORDER + key)
                out[key] = _list(table, path, before if isinstance(before, list) else [], value, order)
        else:
            out[key] = value
    return out


def _path(at: str, key: str) -> str:
    return f"{at}.{key}" if at else key


def _list(table: dict[str, ListRule], path: str, target: list[Any], patch: list[Any], order: Any) -> list[Any]:
    """Merge a list by the rule for its path; `order` is the value of `$setElementOrder` for it, or None."""
    rule = table[path]
    if rule.merge_key == "":
        if any(isinstance(item, dict | list) for item in patch):
            raise bad_request(f"{path}: every element is a plain value")
        added = [item for item in patch if item not in target]
        merged = [*target, *dict.fromkeys(added)]
        return _ordered(rule, merged, target, order) if order else merged
    key = str(rule.merge_key)
    if any(isinstance(item, dict) and item.get("$patch") == "replace" for item in patch):
        return [_clean(item) for item in patch if not (isinstance(item, dict) and item.get("$patch") == "replace")]
    merged = list(target)
    places = {item.get(key): at for at, item in enumerate(merged) if isinstance(item, dict)}
    gone = set()
    for item in patch:
        if not isinstance(item, dict):
            raise bad_request(f"{path}: every element is an object, found {item!r}")
        if key not in item:
            raise bad_request(f"map: {item} does not contain declared merge key: {key}")
        name_of = item[key]
        if isinstance(name_of, dict | list):
            raise bad_request(f"{path}: the merge key {key} is a plain value, found {name_of!r}")
        if item.get("$patch") == "delete":
            gone.add(name_of)
        elif name_of in places:
            merged[places[name_of]] = _object(table, path, merged[places[name_of]], item)
        else:
            places[name_of] = len(merged)
            merged.append(_object(table, path, {}, item))
    if gone:
        merged = [item for item in merged if not (isinstance(item, dict) and item.get(key) in gone)]
    return _ordered(rule, merged, target, order) if order else merged


def _ordered(rule: ListRule | None, items: list[Any], server: list[Any], order: Any) -> list[Any]:
    """The items in the order that the patch sets; items that it does not name keep their place among the others."""
    if rule is None or rule.merge_key is None or not isinstance(order, list):
        return items
    key = rule.merge_key

    def name(item: Any) -> Any:
        return item.get(key) if key and isinstance(item, dict) else item

    names = [name(item) for item in order]
    if any(isinstance(item, dict | list) for item in names):
        raise bad_request("$setElementOrder names elements by their merge key")
    rank = {item: at for at, item in enumerate(names)}
    named = sorted((item for item in items if name(item) in rank), key=lambda item: rank[name(item)])
    before = {name(item): at for at, item in enumerate(server)}
    out: list[Any] = []
    others = [item for item in items if name(item) not in rank]
    for item in named:
        place = before.get(name(item), -1)
        while others and before.get(name(others[0]), len(server)) < place:
            out.append(others.pop(0))
        out.append(item)
    return out + others


def _clean(value: Any) -> Any:
    """A value from a patch, without directives and nulls."""
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items() if item is not None and not key.startswith("$")}
    if isinstance(value, list):
        return [_clean(item) for item in value if not (isinstance(item, dict) and item.get("$patch") == "delete")]
    return value
