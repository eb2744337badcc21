"""What has ended leaves nothing for the garbage collector: objects of wasmlet's own types are counted, not bytes."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import FrameType

PATIENCE = 10.0
LOOKS = 1000


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _ours(kind: type) -> bool:
    module = str(kind.__module__)
    return module.startswith("wasmlet") and not module.startswith(("wasmlet.controlplane", "wasmlet.testing"))


@asynccontextmanager
async def nothing_left(*kinds: type) -> AsyncIterator[None]:
    """Check that what ended meanwhile left no circles of references, and that there is nothing of these types any more.

    The garbage collector is off meanwhile, so what is gone was freed by itself. What still ends is waited for.
    """
    gc.collect()
    before = {id(one) for one in gc.get_objects() if isinstance(one, kinds)}
    gc.disable()
    try:
        yield
        for _ in range(LOOKS):
            if not (left := _alive(before, kinds)):
                break
            await asyncio.sleep(PATIENCE / LOOKS)
        found = _collected()
    finally:
        gc.enable()
    assert not left, f"still there: {dict(left)}; then collected: {dict(found)}"
    assert not found, f"collected: {dict(found)}"


def _alive(before: set[int], kinds: tuple[type, ...]) -> Counter[str]:
    return Counter(_name(type(one)) for one in gc.get_objects() if isinstance(one, kinds) and id(one) not in before)


def _collected() -> Counter[str]:
    """What of ours only the garbage collector could free, by type."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        calls = [one.f_code for one in gc.garbage if isinstance(one, FrameType)]
        ours = Counter(_name(type(one)) for one in gc.garbage if _ours(type(one)))
        return ours and ours + Counter(f"call of {code.co_name}" for code in calls)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.collect()
