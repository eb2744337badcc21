"""Discovery: /api, /apis and /version, in the old form and in the aggregated one, from a catalog of kinds."""

from __future__ import annotations

import platform

import orjson

from wasmlet.controlplane.storage.kinds import Catalog, Kind, Subresource
from wasmlet.controlplane.storage.status import Object

VERSION = "v1.36.0"
"""The release whose answers this API server gives; kubectl from 1.30 on works with it."""

AGGREGATED = ("v2", "v2beta1")


def version() -> Object:
    """The body of /version."""
    major, minor, _ = VERSION.removeprefix("v").split(".")
    return {
        "major": major,
        "minor": minor,
        "gitVersion": f"{VERSION}+wasmlet",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": platform.python_implementation(),
        "platform": f"{platform.system().lower()}/{platform.machine()}",
    }


def _resource(kind: Kind) -> Object:
    out: Object = {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": list(kind.verbs),
    }
    if kind.short:
        out["shortNames"] = list(kind.short)
    if kind.categories:
        out["categories"] = list(kind.categories)
    return out


def _split(group_version: str) -> tuple[str, str]:
    group, _, version_ = group_version.rpartition("/")
    return group, version_


def _subresource(kind: Kind, sub: Subresource) -> Object:
    out: Object = {
        "name": f"{kind.plural}/{sub.name}",
        "singularName": "",
        "namespaced": kind.namespaced,
        "kind": sub.kind or kind.kind,
        "verbs": list(sub.verbs),
    }
    if sub.group_version:
        out["group"], out["version"] = _split(sub.group_version)
    return out


def resources(catalog: Catalog, group: str, version_: str) -> Object | None:
    """APIResourceList of a group version; None where there is none."""
    kinds = list(catalog.of_group(group, version_))
    if not kinds:
        return None
    items = []
    for kind in kinds:
        items.append(_resource(kind))
        items += [_subresource(kind, sub) for sub in kind.subresources]
    group_version = f"{group}/{version_}" if group else version_
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": items}


def _group(catalog: Catalog, name: str) -> Object:
    versions = [
        {"groupVersion": f"{name}/{version_}", "version": version_}
        for group, version_ in catalog.group_versions()
        if group == name
    ]
    return {"name": name, "versions": versions, "preferredVersion": versions[0]}


def group(catalog: Catalog, name: str) -> Object | None:
    """APIGroup of a group; None where there is none."""
    if not name or all(name != known for known, _ in catalog.group_versions()):
        return None
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(catalog, name)}


def groups(catalog: Catalog) -> Object:
    """APIGroupList."""
    names = dict.fromkeys(name for name, _ in catalog.group_versions() if name)
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(catalog, name) for name in names]}


def core_versions(address: str) -> Object:
    """APIVersions, the body of /api."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def _kind(group_: str, version_: str, kind: str) -> Object:
    return {"group": group_, "version": version_, "kind": kind}


def _aggregated_resource(kind: Kind) -> Object:
    out: Object = {
        "resource": kind.plural,
        "responseKind": _kind(kind.group, kind.version, kind.kind),
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": list(kind.verbs),
    }
    if kind.short:
        out["shortNames"] = list(kind.short)
    if kind.categories:
        out["categories"] = list(kind.categories)
    if kind.subresources:
        out["subresources"] = []
        for sub in kind.subresources:
            at = _split(sub.group_version) if sub.group_version else (kind.group, kind.version)
            out["subresources"].append(
                {"subresource": sub.name, "responseKind": _kind(*at, sub.kind or kind.kind), "verbs": list(sub.verbs)}
            )
    return out


def aggregated(catalog: Catalog, root: str, version_: str) -> bytes:
    """APIGroupDiscoveryList for /api or /apis, serialised."""
    items = []
    names = dict.fromkeys(name for name, _ in catalog.group_versions() if bool(name) == (root == "apis"))
    for name in names:
        versions = [
            {
                "version": each,
                "resources": [_aggregated_resource(kind) for kind in catalog.of_group(name, each)],
                "freshness": "Current",
            }
            for known, each in catalog.group_versions()
            if known == name
        ]
        items.append({"metadata": {"name": name, "creationTimestamp": None}, "versions": versions})
    return orjson.dumps(
        {
            "kind": "APIGroupDiscoveryList",
            "apiVersion": f"apidiscovery.k8s.io/{version_}",
            "metadata": {},
            "items": items,
        }
    )
