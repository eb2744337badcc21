"""Answers lists: filtered by namespace and selectors, whole or in pages, at a version.

A list in pages is a snapshot: later pages show what the first one saw (`store.Store.keep`).
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping

import orjson

from wasmlet.controlplane.http.paths import Target
from wasmlet.controlplane.storage.selectors import selector
from wasmlet.controlplane.storage.status import ApiError, Object, bad_request, expired
from wasmlet.controlplane.storage.store import Record, Store


def _number(params: Mapping[str, str], key: str) -> int:
    text = params.get(key) or "0"
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise bad_request(f"{key} is a number, found {text!r}")
    return int(text)


class Lists:
    """Answers list requests out of the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def all(self, target: Target, params: Mapping[str, str]) -> list[Record]:
        """All objects that the selectors match, in order."""
        chosen = selector(
            target.kind, target.namespace, params.get("labelSelector", ""), params.get("fieldSelector", "")
        )
        return self._store.of(target.kind).select(chosen)

    def page(self, target: Target, params: Mapping[str, str]) -> tuple[list[Record], Object]:
        """The records of a page and the metadata of the list.

        Raises:
            ApiError: 400, a parameter is wrong; 410, the page is of a list that is no longer kept, or the version is
                gone; 504, the version is not here yet.
        """
        limit = _number(params, "limit")
        token = params.get("continue", "")
        version = self._store.version
        if token:
            records, version = self._store.resume(self._read(token))
        else:
            self._check_version(params, version)
            records = self.all(target, params)
        meta: Object = {"resourceVersion": str(version)}
        if limit and len(records) > limit:
            rest, records = records[limit:], records[:limit]
            name = secrets.token_hex(8)
            self._store.keep(name, rest, version)
            meta["continue"] = base64.urlsafe_b64encode(
                orjson.dumps({"v": "meta.k8s.io/v1", "rv": version, "start": name})
            ).decode()
            if not params.get("labelSelector") and not params.get("fieldSelector"):
                meta["remainingItemCount"] = len(rest)
        return records, meta

    @staticmethod
    def _read(token: str) -> str:
        try:
            return str(orjson.loads(base64.urlsafe_b64decode(token))["start"])
        except (ValueError, KeyError, TypeError):
            raise bad_request(f"continue key is not valid: {token!r}") from None

    @staticmethod
    def _check_version(params: Mapping[str, str], version: int) -> None:
        wanted = _number(params, "resourceVersion")
        match = params.get("resourceVersionMatch", "")
        if match not in ("", "NotOlderThan", "Exact"):
            raise bad_request(f"resourceVersionMatch is NotOlderThan or Exact, found {match!r}")
        if match and "resourceVersion" not in params:
            raise bad_request("resourceVersionMatch is forbidden unless resourceVersion is provided")
        if wanted > version:
            cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
            raise ApiError(
                504,
                "Timeout",
                f"Too large resource version: {wanted}, current: {version}",
                details={"causes": [cause]},
                retry_after=1,
            )
        if match == "Exact" and wanted != version:
            raise expired(f"The resourceVersion for the provided list is too old: {wanted} ({version})")
