"""kubectl logs with each of its options."""

from __future__ import annotations

import asyncio

from tests.conformance.harness import Kube
from tests.conformance.reading import status

LINES = [word for n in range(1, 6) for word in ("print", f"line {n}")]


async def test_which_lines(kube: Kube) -> None:
    await kube.create(*LINES, "sleep", "1000")
    await kube.logged("line 5")
    text = "".join(f"line {n}\n" for n in range(1, 6))
    assert await kube.kubectl("logs", "p") == text
    assert await kube.kubectl("logs", "p", "--tail=2") == "line 4\nline 5\n"
    assert await kube.kubectl("logs", "p", "--tail=0") == ""
    assert await kube.kubectl("logs", "p", "--limit-bytes=9") == "line 1\nli"
    assert await kube.kubectl("logs", "p", "--since=1h") == text
    assert await kube.kubectl("logs", "p", "--since-time=2100-01-01T00:00:00Z") == ""
    stamped = (await kube.kubectl("logs", "p", "--timestamps")).splitlines()
    assert [line.partition(" ")[2] for line in stamped] == text.splitlines()
    stamps = [line.partition(" ")[0] for line in stamped]
    assert stamps == sorted(stamps)
    after = await kube.kubectl("logs", "p", f"--since-time={stamps[-1][:19]}Z")
    assert after.endswith("line 5\n")


async def test_which_container(kube: Kube) -> None:
    containers = [kube.container("print", "one", name="a"), kube.container("print", "two", name="b")]
    await kube.create(spec={"containers": containers})
    await kube.phase("Succeeded")
    assert await kube.kubectl("logs", "p", "-c", "b") == "two\n"
    assert "Defaulted container" in await kube.kubectl("logs", "p")
    assert sorted((await kube.kubectl("logs", "p", "--all-containers", "--prefix")).split("\n")) == [
        "",
        "[pod/p/a] one",
        "[pod/p/b] two",
    ]
    assert "container z is not valid" in await kube.kubectl("logs", "p", "-c", "z", code=1)


async def test_the_instance_before(timed: Kube) -> None:
    script = ("append", "/v/n", "x", "cat", "/v/n", "print", "", "exit", "1")
    volume = {"volumes": [{"name": "v", "emptyDir": {}}], "restartPolicy": "Always"}
    await timed.create(*script, spec=volume, volumeMounts=[{"name": "v", "mountPath": "/v"}])
    await timed.waiting("CrashLoopBackOff")
    timed.clock.advance(10)
    await timed.until(lambda pod: status(pod)["restartCount"] == 2 and "waiting" in status(pod)["state"])
    assert await timed.kubectl("logs", "p", "-p") == "append /v/n: ok\nxxx\n"


async def test_follow_ends_with_the_container(kube: Kube) -> None:
    await kube.create("print", "one", "await", "/go/on", "now", "print", "two", **kube.gate())
    await kube.logged("one")
    follow = asyncio.create_task(kube.kubectl("logs", "-f", "p"))
    await kube.open_gate()
    assert await follow == "one\ntwo\n"


async def test_both_streams_are_in_it(kube: Kube) -> None:
    await kube.create("print", "out", "error", "err")
    assert sorted((await kube.output()).split()) == ["err", "out"]
