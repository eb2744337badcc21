"""Pods from files of the node (static pods) are not offered: the options that a kubelet has for them are unknown."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).with_name("wasmlet")


@pytest.mark.refused
@pytest.mark.parametrize("option", ["--pod-manifest-path", "--manifest-url"])
async def test_an_option_that_is_not_there(option: str) -> None:
    process = await asyncio.create_subprocess_exec(
        COMMAND,
        *("run", "--provider", "wasmtime", option, "/etc/kubernetes/manifests"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    text, _ = await process.communicate()
    assert process.returncode == 2
    assert f"No such option: {option}" in text.decode() or f"No such option '{option}'" in text.decode()
