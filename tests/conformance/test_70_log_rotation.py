"""A log is kept in files of bounded size and number; whoever follows it reads on across them."""

from __future__ import annotations

import asyncio

from tests.conformance.conftest import Own
from tests.conformance.harness import Kube, begun

LINES = 4000


async def test_bounds_and_follow(own: Own) -> None:
    given = {"container_log_max_size": "64Ki", "container_log_max_files": 3}
    async with own(given=given) as kube:
        script = ("print", "first", "await", "/go/on", "now", "flood", str(LINES), "print", "last", "sleep", "1000")
        await kube.create(*script, **kube.gate())
        await kube.until(begun)
        follow = asyncio.create_task(kube.logged("last"))
        await kube.logged("first")
        await kube.open_gate()
        followed = await follow
        assert followed.startswith("first\n")
        assert followed.endswith("last\n")
        kept = await kube.log()
        assert kept.endswith("last\n")
        assert 0 < len(kept) < 3 * 64 * 1024 < LINES * 64
        assert await kube.log(tailLines="2") == kept[-69:]
        whole = [line for line in followed.splitlines() if line not in ("first", "last")]
        assert len(set(whole)) == 1


async def test_a_log_of_the_default_size(kube: Kube) -> None:
    await kube.create("flood", "2000", "print", "last")
    text = await kube.output()
    assert len(text) == 2000 * 64 + len("last\n")
