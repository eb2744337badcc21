"""The CPU and memory that nodes and containers use. Kubelets are asked only when somebody asks here.

The first question asks a kubelet twice, `SETTLE` seconds apart, since use is a difference of two samples. A later
question asks once, and one within `FRESH` seconds not at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

import aiohttp
import attrs

from wasmlet.clock import Clock
from wasmlet.controlplane.kubelets.registered import Kubelets
from wasmlet.controlplane.kubelets.samples import Samples, Use, Who, read, use
from wasmlet.controlplane.storage.status import ApiError

FRESH = 10.0
"""For how many seconds an answer of a kubelet is used again, and one that failed is not asked again."""
STALE = 120.0
"""After how many seconds an answer is too old to say what is used now."""
SETTLE = 2.0
"""The pause in seconds between the two first scrapes of a node."""
SECONDS = 5.0
"""How long a scrape may take."""
BYTES = 32 * 2**20
"""The most bytes that an answer may have."""
AT_ONCE = 20
"""How many kubelets are asked at the same time."""


@attrs.define
class _Node:
    """The last two answers of a node's kubelet; `tried` is when it was asked last, by the monotonic clock."""

    lock: asyncio.Lock = attrs.field(factory=asyncio.Lock)
    before: Samples = attrs.field(factory=dict)
    after: Samples = attrs.field(factory=dict)
    tried: float | None = None
    answered: float | None = None


class Usage:
    """Asks kubelets and remembers what they said."""

    def __init__(self, kubelets: Kubelets, clock: Clock) -> None:
        self._kubelets = kubelets
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._nodes: dict[str, _Node] = {}
        self._room = asyncio.Semaphore(AT_ONCE)

    async def close(self) -> None:
        """Close the connections to kubelets."""
        if self._session is not None:
            await self._session.close()

    def forget(self, node: str) -> None:
        """Drop what is known of a node that is gone."""
        self._nodes.pop(node, None)

    async def of(self, nodes: Iterable[str]) -> Mapping[str, Mapping[Who, Use]]:
        """The use of each node and its containers; a node whose kubelet cannot be asked is left out."""
        async with asyncio.TaskGroup() as group:
            asked = {name: group.create_task(self._ask(name)) for name in dict.fromkeys(nodes)}
        return {name: found for name, task in asked.items() if (found := task.result())}

    async def _ask(self, name: str) -> Mapping[Who, Use]:
        node = self._nodes.setdefault(name, _Node())
        async with node.lock:  # somebody who asks meanwhile gets the same answer
            now = self._clock.monotonic()
            if node.tried is None or now - node.tried >= FRESH:
                if node.answered is None or now - node.answered > STALE:
                    node.after = {}
                    if await self._scrape(name, node):
                        await self._clock.sleep(SETTLE)
                        await self._scrape(name, node)
                else:
                    await self._scrape(name, node)
            if node.tried != node.answered:
                return {}
            found = {who: use(node.before.get(who), sample) for who, sample in node.after.items()}
        return {who: value for who, value in found.items() if value is not None}

    async def _scrape(self, name: str, node: _Node) -> bool:
        """Ask a kubelet. Returns whether it answered."""
        node.tried = self._clock.monotonic()
        try:
            async with self._room:
                text = await self._get(f"{self._kubelets.url(name)}/metrics/resource")
            samples = await asyncio.to_thread(read, text, self._clock.now().timestamp())
        except (ApiError, TimeoutError, aiohttp.ClientError, OSError, ValueError):
            return False  # it is left out of the answer, as from every metrics server
        node.before, node.after, node.answered = node.after, samples, node.tried
        return True

    async def _get(self, url: str) -> str:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._kubelets.context, limit=AT_ONCE),
                timeout=aiohttp.ClientTimeout(total=SECONDS),
            )
        async with self._session.get(url, allow_redirects=False) as answer:
            answer.raise_for_status()
            body = bytearray()
            async for chunk in answer.content.iter_any():
                body += chunk
                if len(body) > BYTES:
                    raise ValueError(f"the answer of {url} has more than {BYTES} bytes")
        return body.decode()
