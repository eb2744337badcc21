"""imagePullPolicy, and what is shown and told of an image that is there, is not there, or must not be pulled."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.runtime.harness import Runtime, pod_of
from wasmlet.model.pod import PodKey


def told(runtime: Runtime, key: PodKey, *reasons: str) -> list[tuple[str, str]]:
    return [(e.reason, e.message) for e in runtime.events if e.key == key and e.reason in reasons]


async def test_an_image_that_is_pulled_always(timed: Runtime, image: str) -> None:
    key = await timed.create(pod_of("print", "x", image=image, imagePullPolicy="Always"))
    await timed.ended(key)
    assert told(timed, key, "Pulling", "Pulled") == [
        ("Pulling", f'Pulling image "{image}"'),
        ("Pulled", f'Successfully pulled image "{image}" in 0ms (0ms including waiting)'),
    ]


async def test_an_image_that_is_never_pulled_and_is_there(timed: Runtime, image: str) -> None:
    key = await timed.create(pod_of("print", "x", image=image, imagePullPolicy="Never"))
    await timed.ended(key)
    assert told(timed, key, "Pulling", "Pulled") == [
        ("Pulled", f'Container image "{image}" already present on machine')
    ]


async def test_an_image_that_is_never_pulled_and_is_not_there(timed: Runtime, driver: Path, tmp_path: Path) -> None:
    later = tmp_path / "later.wasm"
    image = f"file://{later}"
    key = await timed.create(pod_of("print", "x", image=image, imagePullPolicy="Never"))
    waiting = await timed.waiting(key, "ErrImageNeverPull")
    message = f'Container image "{image}" is not present with pull policy of Never'
    assert waiting.message == message
    await timed.event(key, "Failed")
    assert told(timed, key, "ErrImageNeverPull", "Failed", "Pulling", "BackOff") == [
        ("ErrImageNeverPull", message),
        ("Failed", "Error: ErrImageNeverPull"),
    ]
    shutil.copy(driver, later)
    await timed.fake_clock.next_sleep()
    timed.fake_clock.advance(10)
    assert (await timed.ended(key)).exit_code == 0
