"""Networks by CNI of many pods at once: how far they are ahead of their turn, what is kept of each, and of plugins."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from pathlib import Path

import pytest

from tests.runtime.network.cni.networks import SAYS, chain, needs_root, network, request
from wasmlet.runtime.network.cni import AT_ONCE
from wasmlet.runtime.network.network import PodNetwork

pytestmark = needs_root


async def test_few_pods_have_namespaces_before_their_turn(tmp_path: Path) -> None:
    """So the first ones do not wait until there are namespaces for all."""
    began, held = tmp_path / "began", tmp_path / "held"
    os.mkfifo(began)
    cni = chain(tmp_path, f"echo > {began}; flock -s {held} true; echo '{SAYS}'")
    names = [str(number) for number in range(5 * AT_ONCE)]
    with began.open("rb+", buffering=0) as told:
        async with asyncio.TaskGroup() as group:
            with held.open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                adding = [group.create_task(cni.add(request(name))) for name in names]
                for _ in range(AT_ONCE):
                    assert await asyncio.to_thread(told.read, 1) == b"\n"
                assert AT_ONCE <= len(list((tmp_path / "cni" / "namespaces").iterdir())) <= 2 * AT_ONCE
    assert all(task.result() for task in adding)
    for name in names:
        await cni.remove(f"uid-{name}")
    assert await cni.list() == {}


def there(pid: int) -> bool:
    """Whether there is such a process, if only until it is reaped."""
    return Path(f"/proc/{pid}").exists()


async def test_plugins_are_reaped(tmp_path: Path) -> None:
    cni = chain(tmp_path, f"echo $$ > {tmp_path}/pid; echo '{SAYS}'")
    for _ in range(2):
        assert await cni.add(request())
        pid = int((tmp_path / "pid").read_text())
        await cni.remove("uid-p")
        async with asyncio.timeout(20):
            while there(pid):  # noqa: ASYNC110 - nothing tells of it on older kernels
                await asyncio.sleep(0.01)
    assert await cni.add(request())
    await cni.remove("uid-p")
    await cni.close()
    assert not there(int((tmp_path / "pid").read_text()))


async def test_a_plugin_is_reaped_however_often_its_start_is_cut_off(tmp_path: Path) -> None:
    told = tmp_path / "told"
    os.mkfifo(told)
    cni = chain(tmp_path, f"echo $$ > {told}; sleep 1000")
    adding = asyncio.create_task(cni.add(request()))
    pid = int(await asyncio.to_thread(told.read_text))
    for _ in range(2):
        adding.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await adding
    await cni.close()
    assert not there(pid)
    await cni.remove("uid-p")


async def test_what_was_written_down_is_read_again(tmp_path: Path) -> None:
    """Whole, as it was once written; and where the process ended while it wrote."""
    cni = chain(tmp_path, f"echo '{SAYS}'")
    found = await cni.add(request())
    assert found is not None
    file = tmp_path / "cni" / "pods" / "uid-p.json"
    begun, finished = file.read_bytes().splitlines()
    file.write_text(json.dumps({**json.loads(begun), "result": json.loads(finished)}))
    assert await network(tmp_path / "cni", tmp_path / "conf", tmp_path / "plugins").list() == {"uid-p": found}
    for torn in (b"", b"\n", b"\n" + finished[:-1], b"\n" + finished):
        file.write_bytes(begun + torn)
        assert await cni.list() == {"uid-p": PodNetwork(())}
    await cni.remove("uid-p")
    assert await cni.list() == {}


async def test_a_directory_that_is_gone_is_made_anew(tmp_path: Path) -> None:
    cni = chain(tmp_path, f"echo '{SAYS}'")
    for gone in ("namespaces", "pods"):
        assert await cni.add(request())
        await cni.remove("uid-p")
        (tmp_path / "cni" / gone).rmdir()
    assert await cni.add(request())
    await cni.remove("uid-p")
