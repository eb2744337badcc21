"""Termination messages of real guests: from the file, from the log, and what a guest makes of the file."""

from __future__ import annotations

from typing import Any

import pytest

from tests.runtime.files.test_volumes import mounts, with_volume
from tests.runtime.harness import Runtime, pod_of
from wasmlet.model.status import Waiting

LOG = "/dev/termination-log"
FALLBACK: dict[str, Any] = {"terminationMessagePolicy": "FallbackToLogsOnError"}


@pytest.mark.parametrize(
    ("script", "container", "message"),
    [
        (("put", LOG, "DONE"), {}, "DONE"),
        (("put", LOG, "DONE", "exit", "3"), {}, "DONE"),
        (("put", LOG, "DONE", "print", "log", "exit", "3"), FALLBACK, "DONE"),
        (("print", "log", "exit", "3"), {}, ""),
        (("print", "log"), FALLBACK, ""),
        (("print", "out", "error", "err", "exit", "3"), FALLBACK, "out\nerr\n"),
        (("put", "/tmp/said", "DONE"), {"terminationMessagePath": "/tmp/said"}, "DONE"),
        (("put", "/tmp/a/b", "DONE"), {"terminationMessagePath": "tmp//a/./b"}, "DONE"),
        (("put", LOG, "DONE", "unlink", LOG, "exit", "1"), {}, ""),
        (("unlink", LOG, "mkdir", LOG, "exit", "1"), {}, ""),
        (("unlink", LOG, "put", "/dev/x", "other", "symlink", "x", LOG, "exit", "1"), {}, ""),
        (("unlink", LOG, "symlink", "../" * 7 + "secret", LOG, "exit", "1"), {}, ""),
    ],
)
async def test_messages(
    runtime: Runtime, image: str, script: tuple[str, ...], container: dict[str, Any], message: str
) -> None:
    (runtime.state_dir / "secret").write_text("hush")
    key = await runtime.create(pod_of(*script, image=image, **container))
    assert (await runtime.ended(key)).message == message


async def test_the_last_4096_bytes_of_the_file(runtime: Runtime, image: str) -> None:
    key = await runtime.create(pod_of("fill", LOG, "5", "append", LOG, "THE END", image=image))
    message = (await runtime.ended(key)).message
    assert len(message) == 4096
    assert message.endswith("THE END")


async def test_the_last_2048_bytes_of_the_log(runtime: Runtime, image: str) -> None:
    key = await runtime.create(pod_of("line", "3000", "print", "THE END", "exit", "1", image=image, **FALLBACK))
    message = (await runtime.ended(key)).message
    assert len(message) == 2048
    assert message.endswith("THE END\n")


async def test_the_last_80_lines_of_the_log(runtime: Runtime, image: str) -> None:
    lines = [word for number in range(100) for word in ("print", str(number))]
    key = await runtime.create(pod_of(*lines, "exit", "1", image=image, **FALLBACK))
    assert (await runtime.ended(key)).message.split() == [str(number) for number in range(20, 100)]


async def test_a_trap_and_a_message(runtime: Runtime, image: str) -> None:
    key = await runtime.create(pod_of("put", LOG, "DONE", "trap", image=image))
    message = (await runtime.ended(key)).message
    assert "unreachable" in message
    assert message.endswith(": DONE")


async def test_a_trap_that_is_logged_is_in_the_message_once(runtime: Runtime, image: str) -> None:
    key = await runtime.create(pod_of("print", "out", "trap", image=image, **FALLBACK))
    message = (await runtime.ended(key)).message
    assert message.count("unreachable") == 1
    assert message.endswith(": out\n")


async def test_a_message_in_a_volume(runtime: Runtime, image: str) -> None:
    pod = with_volume(
        "mkdir", "/v/deep", "put", "/v/deep/said", "DONE", image=image, source={"emptyDir": {}},
        terminationMessagePath="/v/deep/said",
    )  # fmt: skip
    key = await runtime.create(pod)
    assert (await runtime.ended(key)).message == "DONE"


async def test_each_instance_has_a_message_of_its_own(runtime: Runtime, image: str) -> None:
    script = ("put", LOG, "once", "append", "/v/n", "x", "stat", "/v/n", "exit", "1")
    pod = with_volume(*script, image=image, source={"emptyDir": {}}, volumeMounts=mounts(), restart="OnFailure")
    key = await runtime.create(pod)
    status = await runtime.main(key, lambda s: s.restart_count == 1 and isinstance(s.state, Waiting))
    assert status.last_state is not None
    assert status.last_state.message == "once"


async def test_a_message_while_the_node_loop_is_away(runtime: Runtime, image: str) -> None:
    pod = pod_of("print", "ready", "put", LOG, "DONE", "sleep", "1", image=image)
    key = await runtime.create(pod)
    await runtime.logged(key, b"ready\n")
    await runtime.restart()
    await runtime.create(pod)
    assert (await runtime.ended(key)).message == "DONE"
