"""command and args replace what an image has, and $(VAR) in them is filled in.

A module brings neither: it is its own entry point, with its file's name as argv[0]; a command is all of argv.
"""

from __future__ import annotations

import pytest

from tests.conformance.harness import Kube


@pytest.mark.parametrize(
    ("command", "args", "seen"),
    [
        ([], [], ""),
        ([], ["args"], "driver.wasm args"),
        (["x", "args"], [], "x args"),
        (["x"], ["args", "print", "y"], "x args print y y"),
    ],
)
async def test_the_four_cases(kube: Kube, command: list[str], args: list[str], seen: str) -> None:
    await kube.create(*args, command=command)
    assert (await kube.output()).split() == seen.split()
    await kube.phase("Succeeded")


async def test_expansion(kube: Kube) -> None:
    env = [{"name": "A", "value": "one"}, {"name": "B", "value": "$(A) two"}]
    script = ["print", "$(A)-$(B)", "print", "$$(A)", "print", "$(NONE)", "print", "$A"]
    await kube.create(command=["x", *script[:2]], args=script[2:], env=env)
    assert await kube.output() == "one-one two\n$(A)\n$(NONE)\n$A\n"
