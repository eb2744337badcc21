"""port-forward's protocol is there; a guest listens nowhere, so a connection is answered with why it cannot be."""

from __future__ import annotations

import asyncio
import re
import subprocess

import pytest

from tests.conformance.harness import SECONDS, Kube


@pytest.mark.later
async def test_what_a_connection_is_told(kube: Kube) -> None:
    await kube.create("sleep", "1000")
    await kube.ready()
    plane = kube.machine.plane
    process = await asyncio.create_subprocess_exec(
        kube.machine.kubectl,
        *("--kubeconfig", str(plane.kubeconfig), "-n", kube.namespace, "port-forward", "p", ":8080"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    text = ""
    try:
        async with asyncio.timeout(SECONDS):
            while "does not support port-forward" not in text:
                line = await process.stdout.readline()
                assert line, text
                text += line.decode()
                if (port := re.search(r"127\.0\.0\.1:(\d+) ->", line.decode())) is not None:
                    _, writer = await asyncio.open_connection("127.0.0.1", int(port[1]))
                    writer.close()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
