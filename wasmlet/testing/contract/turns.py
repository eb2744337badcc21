"""Makes sure that a check makes one call at a time for each pod, as the node loop does.

A check that calls a provider for a pod while another call for it is under way would ask for more than the contract
does, so it fails. A question for a pod's status that the suite asks by itself makes way for any other call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod, PodKey
from wasmlet.model.status import PodStatus
from wasmlet.provider import Provider
from wasmlet.testing.contract.verdict import awaitable, broken, let_go

__tracebackhide__ = True  # pytest hides this module's calls in tracebacks, so that those of the provider are seen

T = TypeVar("T")


class TakesTurns:
    """A provider whose calls for one pod are made one at a time; everything else is the provider's own.

    Args:
        seconds: how long a question may take to end when it is cancelled.
    """

    def __init__(self, provider: Provider, seconds: float) -> None:
        self.provider = provider
        self._seconds = seconds
        self._under_way: dict[str, str] = {}
        """By UID, the method that was called and has not returned."""
        self._questions: dict[str, asyncio.Future[PodStatus]] = {}
        """By UID, the `pod_status` that makes way."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.provider, name)

    async def create_pod(self, pod: Pod, inputs: Inputs) -> None:
        await self._alone("create_pod", pod.uid, lambda: self.provider.create_pod(pod, inputs))

    async def update_pod(self, pod: Pod, inputs: Inputs) -> None:
        await self._alone("update_pod", pod.uid, lambda: self.provider.update_pod(pod, inputs))

    async def delete_pod(self, key: PodKey, grace_seconds: float) -> PodStatus | None:
        return await self._alone("delete_pod", key.uid, lambda: self.provider.delete_pod(key, grace_seconds))

    async def pod_status(self, key: PodKey) -> PodStatus:
        return await self._alone("pod_status", key.uid, lambda: self.provider.pod_status(key))

    async def look(self, key: PodKey) -> PodStatus | None:
        """What `pod_status` says; None where another call for the pod is under way or comes meanwhile."""
        if key.uid in self._under_way:
            return None
        question = self._questions[key.uid] = asyncio.ensure_future(self.provider.pod_status(key))
        try:
            await asyncio.wait([question])
        except asyncio.CancelledError:
            question.cancel()
            await asyncio.wait([question], timeout=self._seconds)
            raise
        finally:
            self._questions.pop(key.uid, None)
        return None if question.cancelled() else question.result()

    async def _alone(self, method: str, uid: str, call: Callable[[], Awaitable[T]]) -> T:
        if (question := self._questions.get(uid)) is not None:
            await let_go(question, "pod_status", self._seconds)
        if (other := self._under_way.get(uid)) is not None:
            mend = "in the check, wait for the first call, or cancel it: the node loop makes one call at a time"
            broken(method, "no other call for the pod under way", f"{other} has not returned", mend)
        self._under_way[uid] = method
        try:
            return await awaitable(method, call())  # type: ignore[no-any-return]
        finally:
            del self._under_way[uid]
