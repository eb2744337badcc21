"""The pods of an agent, and the calls that create, update and end them.

For one pod, calls run one after the other. A call goes on when the request that has asked for it is broken off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from typing import Any

import attrs
import structlog

from wasmlet.clock import Backoff, Clock, either
from wasmlet.concurrency import in_thread
from wasmlet.errors import InvalidInput, NotFound, Refused, Rejected
from wasmlet.failures import described, text_of
from wasmlet.model.pod import MOST_GRACE_SECONDS, Pod, PodKey
from wasmlet.model.status import PodStatus
from wasmlet.provider import Provider
from wasmlet_agent.changes import Changes
from wasmlet_agent.outcomes import outcome_of
from wasmlet_agent.pods import unseen
from wasmlet_agent.pods.ends import Ends
from wasmlet_agent.pods.fences import Fence, Fences
from wasmlet_agent.pods.held import Ending, Held, on_disk, pod_of
from wasmlet_agent.pods.keeping import Keeping
from wasmlet_agent.pods.store import KeptEnd, KeptPod, Store
from wasmlet_agent.protocol.failures import Stale, Starting
from wasmlet_agent.protocol.messages import ListedPod, PodRequest

log = structlog.get_logger(__name__)

Spawn = Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]

CALL_SECONDS = 60.0
"""How long a call for a pod may take; `delete_pod` has its grace period in addition."""
_AGAIN = Backoff(initial=1.0, cap=30.0)
"""Pauses between tries to end a pod."""


class Pods:
    """What node loops ask of the pods, and what the provider says of them.

    Args:
        spawn: runs a coroutine as a task that the agent owns; it raises nothing.
    """

    def __init__(self, store: Store, changes: Changes, clock: Clock, spawn: Spawn) -> None:
        self._store = store
        self._changes = changes
        self._clock = clock
        self._spawn = spawn
        self._provider: Provider | None = None
        self._fences = Fences()
        self._held: dict[str, Held] = {}
        self._ends = Ends(store, changes, clock)
        self._keeping = Keeping(store, changes)

    # --- what node loops ask

    async def create(self, uid: str, fence: Fence, digest: str, request: PodRequest) -> None:
        """Take the pod on; one that is here goes on as it is, with what has changed.

        Raises:
            Stale: a newer request for this pod was taken.
            WasmletError: as `Provider.create_pod`.
        """
        pod = pod_of(uid, request)
        self._fences.take(uid, fence)
        held = self._held.setdefault(uid, Held(pod.key))
        kept = KeptPod(request.pod, request.inputs, digest, fence)
        await self._call(held, fence, lambda: self._create(held, pod, kept))

    async def update(self, uid: str, fence: Fence, digest: str, request: PodRequest) -> None:
        """Hand over what has changed.

        Raises:
            NotFound: the pod is not here.
            Stale: a newer request for this pod was taken.
            WasmletError: as `Provider.update_pod`.
        """
        pod = pod_of(uid, request)
        self._fences.take(uid, fence)
        held = self._here(uid)
        kept = KeptPod(request.pod, request.inputs, digest, fence)
        await self._call(held, fence, lambda: self._update(held, pod, kept))

    async def delete(self, key: PodKey, fence: Fence, grace_seconds: float, *, keeps: bool = False) -> None:
        """End the pod in its own time; the end is told among the changes. With `keeps` its logs stay.

        A grace of more than `MOST_GRACE_SECONDS` is cut to that.

        Said again with less grace it hurries. Said again after an error it tells of the error, and tries again at once.

        Raises:
            NotFound: the pod is not here and never was, or it was forgotten.
            Stale: a newer request for this pod was taken.
        """
        self._fences.take(key.uid, fence)
        held = self._held.get(key.uid)
        if held is None:
            if (end := self._ends.get(key.uid)) is None:
                await self._store.drop_unread(key.uid)
                raise NotFound(f"pod {key} ({key.uid}) is not here")
            self._changes.ended(key.uid, end.status)
            return
        if held.stopped and keeps:
            self._changes.ended(key.uid, held.last)
            return
        deadline = self._clock.monotonic() + min(grace_seconds, MOST_GRACE_SECONDS)
        if (ending := held.ending) is not None and (keeps or not ending.keeps):
            if (failure := ending.failure) is not None:
                ending.again.set()
                raise failure
            if ending.done or deadline >= ending.deadline:
                return
        self._begin_end(held, deadline, fence, keeps=keeps)

    async def forget(self, uid: str, fence: Fence) -> None:
        """The API has the last status of a pod that has ended.

        Raises:
            Stale: a newer request for this pod was taken.
            OSError: that cannot be written down.
        """
        self._fences.take(uid, fence)
        if (commit := self._ends.forget(uid)) is not None:
            await asyncio.shield(commit.written)

    async def get(self, uid: str) -> ListedPod:
        """The pod, with its status now.

        Raises:
            NotFound: it is not here.
        """
        held = self._here(uid)
        status = held.instead or await self.provider.pod_status(held.key)
        await on_disk(held)
        return held.listed(status)

    async def listed(self) -> tuple[ListedPod, ...]:
        """Every pod."""
        found = {record.key.uid: record.status for record in await self.provider.list_pods()}
        found |= {uid: held.instead for uid, held in self._held.items() if held.instead is not None}
        here = [(held, status) for uid, status in found.items() if (held := self._held.get(uid)) is not None]
        await on_disk(*(held for held, _ in here))
        return tuple(held.listed(status) for held, status in here)

    def key(self, uid: str) -> PodKey:
        """Which pod this is.

        Raises:
            NotFound: it is not here.
        """
        return self._here(uid).key

    @property
    def provider(self) -> Provider:
        """The provider, which has started.

        Raises:
            Starting: it has not.
        """
        if self._provider is None:
            raise Starting("the agent's provider is starting")
        return self._provider

    # --- the provider comes, speaks and goes

    async def load(self) -> None:
        """Read what was kept on disk, before there is a provider."""
        kept = await in_thread(self._store.load)
        for uid, pod in kept.pods.items():
            if uid in kept.ends and kept.ends[uid].fence > pod.fence:  # the machine went off while its end was written
                await self._store.drop(uid)
                continue
            last = kept.statuses[uid].status if uid in kept.statuses else None
            self._held[uid] = Held(Pod(pod.pod).key, here=True, kept=pod, last=last)
            self._fences.known(uid, pod.fence)
        for uid in kept.strays:
            await self._store.drop(uid)
        for uid, end in kept.ends.items():
            self._fences.known(uid, end.fence)
        self._ends.load(kept.ends)

    async def attach(self, provider: Provider) -> None:
        """Take on what the provider has, and start again what it lacks."""
        listed = {record.key.uid: record for record in await provider.list_pods()}
        for uid, record in listed.items():
            self._held.setdefault(uid, Held(record.key)).here = True
        self._provider = provider
        for uid, held in list(self._held.items()):
            held.instead = None
            await self._revive(held, listed[uid].status if uid in listed else None)

    async def detach(self) -> None:
        """The provider is going to stop."""
        self._provider = None
        going = [
            task for held in self._held.values() for task in (*held.calls, held.ending and held.ending.task) if task
        ]
        for task in going:
            task.cancel()
        if going:
            await asyncio.wait(going)

    def saw(self, key: PodKey, status: PodStatus) -> None:
        """A pod's status is now this; what is told of pods that have ended is passed over."""
        held = self._held.get(key.uid)
        if held is not None and held.here and held.instead is None:
            self._keeping.say(held, status)

    async def _revive(self, held: Held, status: PodStatus | None) -> None:
        """Hand a pod to a provider that has just started.

        Args:
            status: what the provider says of it; None where it does not have it.
        """
        if status is not None:
            self._keeping.say(held, status)
        if (ending := held.ending) is not None:
            self._begin_end(held, ending.deadline, ending.fence, keeps=ending.keeps)
            return
        if (kept := held.kept) is None:
            return
        if kept.ends_at is not None:
            left = (kept.ends_at - self._clock.now()).total_seconds()
            self._begin_end(held, self._clock.monotonic() + max(0.0, left), kept.fence, keeps=kept.keeps)
            return
        pod = Pod(kept.pod)
        if status is None:
            held.instead = unseen.verdict(pod, held.last, kept.complete, self._clock.now())
            if held.instead is not None:
                self._keeping.say(held, held.instead)
                return
        if kept.complete:
            await self._call(held, kept.fence, lambda: self._start_again(held, pod, kept))

    async def _start_again(self, held: Held, pod: Pod, kept: KeptPod) -> None:
        try:
            await self.provider.create_pod(pod, kept.inputs)
            held.instead = None
        except (Refused, Rejected) as error:
            held.instead = unseen.refused(pod, error)
        except Exception as error:
            log.error("a pod cannot be started again", pod=str(held.key), **described(error))
            # Without a digest the node loop hands it over again.
            held.kept = attrs.evolve(kept, digest="")
            held.instead = unseen.waiting(pod, "CreateContainerError", text_of(error))
        if held.instead is not None:
            self._keeping.say(held, held.instead)

    # --- calls

    async def _call(self, held: Held, fence: Fence, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work after the calls that wait already, also if the caller is cancelled meanwhile."""

        async def locked() -> None:
            async with held.lock:
                self._fences.check(held.key.uid, fence)
                async with asyncio.timeout(CALL_SECONDS):
                    await work()

        task = self._spawn(outcome_of(locked()))
        held.calls.add(task)
        task.add_done_callback(lambda _: self._tidy(held, task))
        await asyncio.wait([task])
        if task.cancelled():
            raise Stale("the pod is being ended")
        task.result().get()

    async def _create(self, held: Held, pod: Pod, kept: KeptPod) -> None:
        before = held.here, held.kept, held.instead
        if held.stopped:  # it is started anew
            held.stopped = False
            self._changes.forget(held.key.uid)
        self._ends.forget(held.key.uid)  # where the API was restored from a backup, a pod comes again
        first, held.kept = held.kept is None, kept
        await self._keeping.keep(held, ahead=first)
        if held.instead is not None and unseen.over(pod, held.instead):
            return
        held.here, held.instead = True, None
        # The pod starts while what was written waits for the disk; its caller is answered when both are done.
        try:
            await self.provider.create_pod(pod, kept.inputs)
        except (Refused, Rejected, InvalidInput):
            held.here, held.kept, held.instead = before
            await self._keeping.keep(held)
            raise
        finally:
            await on_disk(held)

    async def _update(self, held: Held, pod: Pod, kept: KeptPod) -> None:
        if held.instead is not None:
            if not pod.deleting:
                await self._create(held, pod, kept)
            return
        await self.provider.update_pod(pod, kept.inputs)
        held.kept = kept
        await self._keeping.keep(held)

    def _begin_end(self, held: Held, deadline: float, fence: Fence, *, keeps: bool) -> None:
        for task in held.tasks():
            task.cancel()
        held.ending = ending = Ending(deadline, fence, keeps)
        ending.task = self._spawn(self._end(held, ending))

    async def _end(self, held: Held, ending: Ending) -> None:
        """End the pod. Raises nothing: one pod ends no agent. Where it fails, the next request begins it anew."""
        try:
            await self._end_and_keep(held, ending)
        except Exception as error:
            log.error("the end of a pod has failed", pod=str(held.key), **described(error))
            if held.ending is ending:
                held.ending = None

    async def _end_and_keep(self, held: Held, ending: Ending) -> None:
        uid = held.key.uid
        async with held.lock:
            if (kept := held.kept) is not None:  # so that the agent's next process goes on with it
                left = timedelta(seconds=max(0.0, ending.deadline - self._clock.monotonic()))
                ends_at = self._clock.now() + left
                held.kept = attrs.evolve(kept, ends_at=ends_at, keeps=ending.keeps)
                await self._keeping.keep_ending(held, ends_at, keeps=ending.keeps)
            final = await self._ended(held, ending)
            ending.done = True
            if final is None and held.last is not None and unseen.begun(held.last):
                final = unseen.ended(held.last, self._clock.now())
            if ending.keeps:
                held.stopped, held.last, held.ending = True, final or held.last, None
                self._changes.ended(uid, final)
                return
            try:
                await self._ends.keep(held.key, KeptEnd(final, ending.fence, self._clock.now()))
            finally:  # also where the agent lets its provider go meanwhile: the pod ends once
                held.here, held.kept, held.instead, held.last, held.ending = False, None, None, None, None
                self._changes.ended(uid, final)
                self._tidy(held, None)

    async def _ended(self, held: Held, ending: Ending) -> PodStatus | None:
        """The pod's last status from the provider; tries until it has ended."""
        first = True
        for pause in _AGAIN.pauses():
            left = max(0.0, ending.deadline - self._clock.monotonic())
            try:
                async with asyncio.timeout(left + CALL_SECONDS):
                    end = self.provider.end_pod if ending.keeps else self.provider.delete_pod
                    return await end(held.key, left)
            except NotFound:
                return None
            except Exception as error:
                ending.failure = error
                log.error("a pod does not end", pod=str(held.key), **described(error, first=first))
            first = False
            ending.again.clear()
            await either(self._clock, pause, ending.again)
            ending.failure = None
        raise AssertionError("pauses never end")

    def _tidy(self, held: Held, done: asyncio.Task[Any] | None) -> None:
        if done is not None:
            held.calls.discard(done)
        if not held.here and not held.calls and held.ending is None and self._held.get(held.key.uid) is held:
            del self._held[held.key.uid]

    def _here(self, uid: str) -> Held:
        held = self._held.get(uid)
        if held is None or not held.here:
            raise NotFound(f"pod {uid} is not here")
        return held
