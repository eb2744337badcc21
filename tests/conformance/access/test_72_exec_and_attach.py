"""kubectl exec starts a second instance of the container's module, with its mounts; attach reaches the one that runs.

A guest is one program: there is no shell to name, and every word is an argument of that program.
"""

from __future__ import annotations

from tests.conformance.harness import Kube


async def test_exec(kube: Kube) -> None:
    env = [{"name": "V", "value": "given"}]
    mounts = {"volumeMounts": [{"name": "v", "mountPath": "/v"}], "spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}
    await kube.create("put", "/v/file", "shared", "sleep", "1000", env=env, **mounts)
    await kube.logged("ok")
    text = await kube.kubectl("exec", "p", "--", "x", "env", "V", "cat", "/v/file", "error", " and stderr")
    assert sorted(text.split()) == ["V=given", "and", "shared", "stderr"]


async def test_exit_codes(kube: Kube) -> None:
    await kube.create("sleep", "1000")
    await kube.ready()
    await kube.kubectl("exec", "p", "--", "x", "exit", "0")
    text = await kube.kubectl("exec", "p", "--", "x", "exit", "7", code=7)
    assert "command terminated with exit code 7" in text
    assert "unreachable" in await kube.kubectl("exec", "p", "--", "x", "trap", code=134)


async def test_stdin(kube: Kube) -> None:
    await kube.create("sleep", "1000")
    await kube.ready()
    assert (
        await kube.kubectl("exec", "-i", "p", "--", "x", "copy", stdin="through and through") == "through and through"
    )


async def test_attach(kube: Kube) -> None:
    await kube.create("copy", "print", "end", stdin=True, stdinOnce=True)
    if kube.machine.handler == "wasmlet-dense":  # a guest that waits for input could not be ended by itself
        assert "spec.containers[0].stdin: handler 'wasmlet-dense'" in await kube.refused()
        return
    await kube.ready()
    text = await kube.kubectl("attach", "-i", "p", stdin="typed\n")
    assert "typed\n" in text
    await kube.phase("Succeeded")
    assert await kube.log() == "typed\nend\n"


async def test_what_does_not_run(kube: Kube) -> None:
    await kube.create("print", "x")
    await kube.phase("Succeeded")
    assert "cannot exec into a container in a completed pod" in await kube.kubectl("exec", "p", "--", "x", code=1)
