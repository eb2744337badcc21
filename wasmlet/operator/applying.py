"""Writes the objects of a pool and what its template says of its Nodes, again where somebody has changed them."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable

import orjson

from wasmlet.clock import Clock
from wasmlet.kube import Client, errors, paths
from wasmlet.kube.client import APPLY_PATCH, MERGE_PATCH
from wasmlet.operator.dressing import dressed
from wasmlet.operator.fleet import Fleet
from wasmlet.operator.objects import Object
from wasmlet.operator.pool import LABEL, Pool, Unusable
from wasmlet.operator.seen import Seen

MANAGER = "wasmlet-operator"
MEND_SECONDS = 10.0
"""The least time between two corrections of the same object, so that a client that always writes causes few writes
here."""


class Applier:
    """Applies the objects of one pool.

    It remembers a hash of each object that it applied, and the edition (see `fleet.edition`) that the API server made
    of it. While both are the same, it does not apply the object again. After a restart it applies everything once.
    """

    def __init__(self, client: Client, fleet: Fleet, pool: str, clock: Clock) -> None:
        self._client = client
        self._fleet = fleet
        self._pool = pool
        self._clock = clock
        self._applied: dict[str, tuple[bytes, str]] = {}
        self._mended: dict[str, float] = {}

    async def apply(self, objects: Iterable[Object]) -> float | None:
        """Apply the objects that are new, that are to be different, or that somebody has changed.

        Returns:
            In how many seconds to call this again, to correct a change of somebody else; None where there is none.

        Raises:
            Unusable: an object of that name belongs to somebody else.
            ApiError: the API server does not take one.
        """
        wait: list[float] = []
        for one in objects:
            digest = hashlib.sha256(orjson.dumps(one.body)).digest()
            known = self._applied.get(one.path)
            if known is None:
                await self._check_owner(one)
            elif known[0] == digest:
                if known[1] == self._fleet.edition(one.path, self._pool):
                    continue
                left = self._mended.get(one.path, float("-inf")) + MEND_SECONDS - self._clock.monotonic()
                if left > 0:
                    wait.append(left)
                    continue
                self._mended[one.path] = self._clock.monotonic()
            await self._write(one, digest)
        return min(wait, default=None)

    async def _write(self, one: Object, digest: bytes) -> None:
        params = {"fieldManager": MANAGER, "force": "true"}
        answer = await self._client.request("PATCH", one.path, params=params, body=one.body, content_type=APPLY_PATCH)
        self._fleet.written(one.path, answer)
        edition = self._fleet.edition(one.path, self._pool)
        assert edition is not None
        self._applied[one.path] = digest, edition

    async def _check_owner(self, one: Object) -> None:
        """Refuse to take over an object that somebody else made."""
        try:
            found = await self._client.get(one.path)
        except errors.ObjectNotFound:
            return
        if (found["metadata"].get("labels") or {}).get(LABEL) != self._pool:
            what = f"{one.body['kind']} {one.body['metadata']['name']}"
            raise Unusable(
                "NameTaken", f"{what} is there already and belongs to no pool; delete it, or rename the pool"
            )


class Dresser:
    """Gives the Nodes of one pool what its template says of them."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._done: dict[str, tuple[int, float]] = {}
        """By UID of the Node: for which generation of the pool this was done last, and when."""

    async def dress(self, pool: Pool, seen: Seen) -> list[float]:
        """Change the Nodes that are not as the template says.

        Returns:
            In how many seconds to call this again, for each Node that somebody else has changed since a moment ago.

        Raises:
            ApiError: the API server does not take a change.
        """
        nodes = {member.node.uid: member.node for member in seen.members if member.node is not None}
        self._done = {uid: done for uid, done in self._done.items() if uid in nodes}
        waits = []
        for uid, node in nodes.items():
            if (patch := dressed(pool, node)) is None:
                continue
            generation, since = self._done.get(uid, (-1, 0.0))
            if generation == pool.generation and (left := since + MEND_SECONDS - self._clock.monotonic()) > 0:
                waits.append(left)
                continue
            with contextlib.suppress(errors.ObjectNotFound, errors.Conflict):
                await self._client.patch(f"{paths.NODES}/{node.name}", patch, MERGE_PATCH)
                self._done[uid] = pool.generation, self._clock.monotonic()
        return waits
