"""Plugins that fail, hang or are left over: what they had done is taken back."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import subprocess
import time
from pathlib import Path

import pytest

from tests.runtime.network.cni.networks import SAYS, chain, needs_root, network, request
from wasmlet.errors import ConfigError
from wasmlet.runtime.network.network import NetworkError, PodNetwork
from wasmlet.runtime.network.plugins import MAX_OUTPUT, SECONDS, end_orphans
from wasmlet.testing.clock import FakeClock


@needs_root
@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("exit 3", "ADD failed: exit status 3, and no reason that can be read: nothing"),
        ("""echo '{"code": 11, "msg": "no more addresses", "details": "in 10.0.0.0/30"}'; exit 1""",
         "ADD failed: no more addresses: in 10.0.0.0/30"),
        ("echo rubbish", "expected a result as JSON, found 'rubbish"),
        ("echo '[1]'", "expected a result as JSON"),
        ("echo '{}'", "gave the pod no address"),
        ("""echo '{"ips": [{"address": "10.0.0.300/8"}]}'""", "expected addresses in the result"),
        ("kill -9 $$", "ADD failed: exit status -9"),
        ("yes", f"said more than {MAX_OUTPUT} bytes"),
    ],
)  # fmt: skip
async def test_what_fails_is_taken_back(tmp_path: Path, body: str, words: str) -> None:
    cni = chain(tmp_path, f"echo '{SAYS}'", body)
    with pytest.raises(NetworkError) as failed:
        await cni.add(request())
    assert words in str(failed.value)
    assert len(str(failed.value)) < 1000
    calls = (tmp_path / "plugins" / "calls").read_text().split("\n")[:-1]
    assert calls == ["ADD one", "ADD two", "DEL two", "DEL one"]
    assert await cni.list() == {}
    assert not list((tmp_path / "cni" / "namespaces").iterdir())


@needs_root
async def test_a_plugin_that_hangs_is_ended(tmp_path: Path) -> None:
    told = tmp_path / "told"
    os.mkfifo(told)
    chain(tmp_path, f"sleep 1000 & echo $! > {told}; wait")
    clock = FakeClock()
    cni = network(tmp_path / "cni", tmp_path / "conf", tmp_path / "plugins", clock)
    adding = asyncio.create_task(cni.add(request()))
    assert await clock.next_sleep() == SECONDS
    left = os.pidfd_open(int(await asyncio.to_thread(told.read_text)))
    clock.advance(SECONDS)
    with pytest.raises(NetworkError, match="ADD took longer than 60 seconds"):
        await adding
    # What it had started has ended with it.
    assert select.select([left], [], [], 20)[0]
    os.close(left)
    assert await cni.list() == {}


@needs_root
async def test_a_start_that_is_cut_off_is_taken_back_later(tmp_path: Path) -> None:
    told = tmp_path / "told"
    os.mkfifo(told)
    cni = chain(tmp_path, f"echo > {told}; sleep 1000")
    adding = asyncio.create_task(cni.add(request()))
    await asyncio.to_thread(told.read_text)
    adding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await adding
    assert await cni.list() == {"uid-p": PodNetwork(())}
    await cni.remove("uid-p")
    assert await cni.list() == {}
    assert not list((tmp_path / "cni" / "namespaces").iterdir())


@needs_root
async def test_a_configuration_that_is_gone_is_missed_after_a_restart_too(tmp_path: Path) -> None:
    cni = chain(tmp_path, f"echo '{SAYS}'")
    await cni.add(request())
    (source,) = (tmp_path / "conf").iterdir()
    source.unlink()
    cni = network(tmp_path / "cni", tmp_path / "conf", tmp_path / "plugins")
    assert list(await cni.list()) == ["uid-p"]
    try:
        with pytest.raises(NetworkError, match=r"1\.conflist: it is gone"):
            await cni.add(request("q"))
    finally:
        await cni.remove("uid-p")
        await cni.remove("uid-q")
    assert await cni.list() == {}


@pytest.mark.parametrize("old", [False, True], ids=["this kernel", "before 5.3"])
def test_plugins_whose_node_is_gone_are_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bool) -> None:
    script = "setsid sleep 1000 > /dev/null 2>&1 & echo $!"
    variables = {**os.environ, "CNI_NETNS": f"{tmp_path}/x"}
    pid = int(subprocess.run(["sh", "-c", script], env=variables, stdout=subprocess.PIPE, check=True).stdout)
    left = os.pidfd_open(pid)
    while os.getsid(pid) != pid:
        time.sleep(0.01)

    def none_such(pid: int) -> int:
        raise OSError(errno.ENOSYS, "Function not implemented")

    if old:
        monkeypatch.setattr(os, "pidfd_open", none_such)
    end_orphans(tmp_path)
    assert select.select([left], [], [], 20)[0]
    os.close(left)


async def test_what_is_missing_is_named(tmp_path: Path) -> None:
    cni = network(tmp_path / "cni", tmp_path / "conf", tmp_path)
    expected = "containernetworking-plugins" if os.geteuid() == 0 else "expected to run as root"
    with pytest.raises(ConfigError, match=expected):
        await cni.check()
