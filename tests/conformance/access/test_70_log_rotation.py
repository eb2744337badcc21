"""A log is kept in files of bounded size and number; whoever follows it reads on across them."""

from __future__ import annotations

from tests.conformance.conftest import Own
from tests.conformance.harness import Kube
from tests.conformance.reading import begun

LINES = 4000


async def test_bounds_and_follow(own: Own) -> None:
    given = {"container_log_max_size": "64Ki", "container_log_max_files": 3}
    async with own(given=given) as kube:
        script = ("print", "first", "await", "/go/on", "now", "flood", str(LINES), "print", "last", "sleep", "1000")
        await kube.create(*script, **kube.gate())
        await kube.until(begun)
        lines = []
        async with kube.patience(), kube.admin.stream(f"{kube.path}/pods/p/log", {"follow": "true"}) as content:
            async for line in content:
                lines.append(line)
                if line == b"first\n":  # whoever follows is there before the log is long
                    await kube.open_gate()
                elif line == b"last\n":
                    break
        assert lines[0] == b"first\n"
        assert lines[-1] == b"last\n"
        assert len(set(lines[1:-1])) == 1
        kept = await kube.log()
        assert kept.endswith("last\n")
        assert 0 < len(kept) < 3 * 64 * 1024 < LINES * 64
        assert await kube.log(tailLines="2") == kept[-69:]


async def test_a_log_of_the_default_size(kube: Kube) -> None:
    await kube.create("flood", "2000", "print", "last")
    text = await kube.output()
    assert len(text) == 2000 * 64 + len("last\n")
