"""Calls a provider with a time limit, and ends a call early when something else is due.

A provider may hang, and a pod may be deleted while it is created; either way its task must get on. A call is ended by
cancelling it, which the contract of `wasmlet.provider` allows at every await.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from wasmlet.errors import WasmletError

T = TypeVar("T")


class Interrupted(Exception):
    """The call was ended because something else is due now."""


async def answer(provider: str, call: Awaitable[T], seconds: float, limit: asyncio.Timeout | None = None) -> T:
    """What the provider's call returns.

    Args:
        provider: its name, for messages.
        limit: a timeout of that many seconds, not entered yet, by which the caller can end the call sooner.

    Raises:
        TimeoutError: it took too long; the message names the provider.
        WasmletError: the provider raised a CancelledError although nobody cancelled the call.
    """
    limit = limit or asyncio.timeout(seconds)
    try:
        async with limit:
            return await call
    except TimeoutError:
        if limit.expired():
            raise TimeoutError(f"provider {provider} did not answer within {seconds:g} s") from None
        raise
    except asyncio.CancelledError:
        if (task := asyncio.current_task()) is not None and not task.cancelling():
            # Nobody cancelled us: a provider let the end of a task of its own escape.
            raise WasmletError(f"provider {provider} cancelled its own call") from None
        raise


class ProviderCalls:
    """The calls for one pod, of which one is under way at a time."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._limit: asyncio.Timeout | None = None
        self._interrupted = False

    def interrupt(self) -> None:
        """End the call that is under way, if there is one: what it was for is no longer what is wanted."""
        if self._limit is not None and not self._limit.expired():
            self._interrupted = True
            self._limit.reschedule(asyncio.get_running_loop().time())

    async def run(self, call: Awaitable[T], seconds: float) -> T:
        """What the call returns.

        Raises:
            Interrupted: `interrupt` ended it.
            TimeoutError: it took too long; the message names the provider.
        """
        self._interrupted = False
        self._limit = asyncio.timeout(seconds)
        try:
            return await answer(self._provider, call, seconds, self._limit)
        except TimeoutError:
            if self._interrupted:
                raise Interrupted from None
            raise
        finally:
            self._limit = None
