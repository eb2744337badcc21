"""Commands whose answers a test decides, in the place of exec, for the time rules of probes and hooks.

That probes and hooks really run in a guest is tested in `test_exec`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

from wasmlet_wasmtime import WasmtimeProvider

from tests.runtime.harness import PATIENCE, Runtime
from wasmlet.errors import Unsupported
from wasmlet.model.pod import PodKey


class Script:
    """Answers commands by their first word: `codes[word]` is the exit code (0 where there is none).

    A word in `held` is answered once the test has taken it out with `release`; one in `broken` cannot be run.
    """

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}
        self.held: set[str] = set()
        self.broken: set[str] = set()
        self.cancelled: list[str] = []
        self.asked: Counter[str] = Counter()
        self._changed = asyncio.Condition()

    async def run(self, pod: PodKey, container: str, command: Sequence[str]) -> tuple[int, bytes]:
        word = command[0]
        async with self._changed:
            self.asked[word] += 1
            self._changed.notify_all()
            try:
                await self._changed.wait_for(lambda: word not in self.held)
            except asyncio.CancelledError:
                self.cancelled.append(word)
                raise
        if word in self.broken:
            raise Unsupported("there is no such command")
        code = self.codes.get(word, 0)
        return code, f"{word} says {code}".encode()

    async def release(self, word: str) -> None:
        async with self._changed:
            self.held.discard(word)
            self._changed.notify_all()

    async def until_asked(self, word: str, times: int = 1) -> None:
        async with asyncio.timeout(PATIENCE), self._changed:
            await self._changed.wait_for(lambda: self.asked[word] >= times)


class ScriptedProvider(WasmtimeProvider):
    """wasmtime with a script in the place of exec; a new node loop has the same script."""

    script = Script()

    def __init__(self, config: Any = None, *, clock: Any = None) -> None:
        super().__init__(config, clock=clock)
        self._commands = self.script


def script_of(runtime: Runtime) -> Script:
    provider = runtime.provider
    assert isinstance(provider, ScriptedProvider)
    return provider.script


def probe(word: str, **fields: Any) -> dict[str, Any]:
    """A probe by this command."""
    return {"exec": {"command": [word]}, **fields}
