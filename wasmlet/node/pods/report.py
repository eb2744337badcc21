"""Reports the status of one pod to the API, and keeps what the API has.

A `PodReport` holds the newest status of a pod on one side and the API's on the other, and hands what is different to
the status writer. `pod_task` says what the newest is; `status` works out how the API puts it.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import attrs

from wasmlet.kube import later
from wasmlet.model.pod import Pod, Raw
from wasmlet.model.status import ENDED, Phase, PodStatus, phase_of
from wasmlet.node.pods import losses
from wasmlet.node.pods import status as statuses
from wasmlet.node.services import NodeServices

STARTING_SECONDS = 0.3
"""A pod that only waits to be started is reported after this time: most run by then, which saves a write each."""
STARTING_SECONDS_EACH = 0.02
"""This is added for each other pod that is about to start: with many of them, the writes themselves take long."""

EACH_CONTAINER_SECONDS, MOST_SECONDS = 0.005, 1.0
"""The least time between two writes for one pod: so much for each of its containers, and at most the second number. One
status has all containers. Without a pause, containers that start or end together would cause a write each. A kubelet
looks at a pod each second, too."""

ENDING_SECONDS = 1.0
"""After this time a pod that is being deleted is reported as seen (`observedGeneration`), and so is the end of its
containers, unless the pod has ended by then: its last status says that, too."""

_SEVERAL = "several"
"""Stands for more than one version."""


class PodReport:
    """The status of one pod. All on the event loop, none of it waits.

    Args:
        known: what the provider says of the pod already, when it has run it since before this node loop began.
    """

    def __init__(self, services: NodeServices, pod: Pod, known: PodStatus | None) -> None:
        self._services = services
        self._pod = pod
        self.status = known
        """The newest: what the provider said last, or what we say of a pod that it will not have."""
        self.by_provider = known
        """What the provider said last."""
        self.final = False
        """Nothing of the pod runs any more: the status is its last."""
        self.current = pod.status
        """What the API has."""
        self._version = pod.resource_version
        self._earlier: dict[str, losses.EarlierInstances] = {}
        self._start_time = ""
        self._seen = services.clock.monotonic()
        self._starting: asyncio.TimerHandle | None = None
        self._pacing: asyncio.Handle | None = None
        self._paced_until = 0.0
        """When `_pacing` is due, in the loop's time: a handle of uvloop does not say it if that is within 1 ms."""
        self._sent_at = float("-inf")
        containers = (*pod.containers, *pod.init_containers)
        self._pace = min(MOST_SECONDS, EACH_CONTAINER_SECONDS * len(containers)) if len(containers) > 1 else 0.0
        self._closed = False
        self._settled = False
        """The API has all of the newest status, as far as we know."""
        self._composed: PodStatus | None = None
        """What the last patch was made of."""
        self._sent: tuple[Raw, frozenset[str]] | None = None
        """The API's status that the patch under way was made against, and the keys that are in the patch."""
        self._unsure = ""
        """The version that was heard of while a write was under way, if it is one: its answer says whose it was."""

    @property
    def phase(self) -> str:
        """The pod's phase as the API has it."""
        return str(self.current.get("phase") or "Pending")

    @property
    def finished(self) -> bool:
        """Whether that phase is Succeeded or Failed, which a pod never leaves."""
        return self.phase in ENDED

    @property
    def overruled(self) -> bool:
        """Whether the API has a final phase that the provider did not report: somebody else has written it."""
        return self.finished and not self.final and (self.by_provider is None or self._goes_on)

    @property
    def _goes_on(self) -> bool:
        """Whether the provider says that the pod has not ended."""
        return self.by_provider is not None and phase_of(self._pod, self.by_provider) not in ENDED

    @property
    def shown(self) -> Raw:
        """The pod as the API has it or will have it, with the newest status."""
        newest = {} if self.status is None else self._wanted(self.status)
        return {**self._pod.raw, "status": {**self.current, **newest}}

    def applied(self, pod: Pod, *, rewound: bool) -> None:
        """The API has this version of the pod now; `rewound`, although it is not a later one."""
        before, self._pod = self._pod, pod
        ends = pod.deleting and not before.deleting
        # Our own write comes back as an event; anything else may have changed what we had written. The answer to a
        # write may come before an event that is older, so that this one is the first to tell of a new generation.
        news = rewound or later(pod.resource_version, self._version)
        # Not one that changes nothing which matters here, such as the last of a pod's grace period, or a label. Without
        # generations, the spec may be another one.
        matters = news and (rewound or not (self._settled and pod.generation and pod.status == self.current))
        if news:
            self._heard_of(pod.status, pod.resource_version)
        elif pod.resource_version == self._version:
            self.current = pod.status
        if rewound:
            self._earlier = losses.most(self._earlier, losses.reported_before(pod.status, self.by_provider))
        if self.status is None or self._starting is not None:
            return
        if pod.generation != before.generation or ends or rewound:
            self.send(after=ENDING_SECONDS if ends else 0.0)
        elif matters and self._services.writer.sending(pod.uid):
            # Most likely this is what we have just written. Of two changes one is somebody else's.
            self._unsure = _SEVERAL if self._unsure else pod.resource_version
        elif matters:
            self.send()

    def count_reported(self) -> None:
        """Count in what the API has heard of the pod's containers and the provider does not know."""
        self._earlier = losses.reported_before(self.current, self.by_provider)

    def provider_lost_it(self) -> None:
        """The provider does not know the pod any more: what it said last is void."""
        self.by_provider = None

    def ended(self, status: PodStatus | None) -> None:
        """Nothing of the pod runs any more, and the provider says that this is its last status; None: nothing new."""
        if status is not None:
            self.status = status
        self.final = True

    def lose(self, now: datetime) -> None:
        """The provider has lost the pod: what it had been told is void, and what starts next is a restart."""
        self.status = None
        self._earlier = losses.lost_before(self._pod, self.current, now)

    def told(self, status: PodStatus) -> None:
        """The provider says that this is the pod's status."""
        self.status = self.by_provider = status
        if statuses.only_starting(status) and not self.current.get("containerStatuses"):
            self.send_soon()
        elif self._pod.deleting and not status.running:
            self.send(after=ENDING_SECONDS)  # the last status comes as soon as the provider has removed the pod
        else:
            self.send()

    def say(self, status: PodStatus) -> None:
        """Report a status of our own."""
        self.status = status
        # The last status of a pod that took its time is often the one that it was reported with before.
        told = self._settled and self.finished and self._pacing is None and status == self._composed
        if not told:
            self.send()

    def accepted(self) -> None:
        """The provider has taken the pod on: from now on its word counts, and not ours."""
        self.status = self.by_provider
        if self.status is None:
            self.send_soon()
        elif self._starting is None:
            self.send()

    def send(self, after: float = 0.0) -> None:
        """Have the status written to the API: at once, or when the pause after the last write is over.

        Args:
            after: in so many seconds, unless there is a reason to write it sooner.
        """
        self._cancel_starting()
        if self._closed:
            return
        loop = asyncio.get_running_loop()
        at = max(loop.time() + after, self._sent_at + self._pace)
        if self._pacing is not None:
            if self._paced_until <= at:
                return
            self._pacing.cancel()
        if at > loop.time():
            self._pacing, self._paced_until = loop.call_at(at, self._send_now), at
        else:
            self._send_now()

    def _send_now(self) -> None:
        self._cancel()
        if self.status is not None and not self._closed:
            self._sent_at = asyncio.get_running_loop().time()
            self._settled = False
            self._services.writer.put(self._pod, self._compose, self._written)

    def send_soon(self) -> None:
        """Report that the pod is starting, unless there is more to say in a moment."""
        if self._starting is None and not self._closed:
            starting = self._services.starting
            seconds = STARTING_SECONDS + STARTING_SECONDS_EACH * len(starting)
            starting.add(self._pod.uid)
            self._starting = asyncio.get_running_loop().call_later(seconds, self._still_starting)

    async def flushed(self) -> None:
        """Return when the API has heard it all."""
        if self._pacing is not None:
            self._send_now()
        await self._services.writer.flushed(self._pod.uid)

    def close(self, *, drop: bool) -> None:
        """Report nothing more: the node ends, or (`drop`) the API has the pod no more."""
        self._closed = True
        self._cancel()
        if drop:
            self._services.writer.drop(self._pod.uid)

    def _cancel(self) -> None:
        self._cancel_starting()
        if self._pacing is not None:
            self._pacing.cancel()
            self._pacing = None

    def _cancel_starting(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
            self._starting = None
            self._services.starting.discard(self._pod.uid)

    def _still_starting(self) -> None:
        if self.status is None:
            self.status = PodStatus()
        self.send()

    def _compose(self) -> dict[str, Any] | None:
        """What the API lacks of our status; made when it is sent, so that it is always the newest."""
        self._unsure = ""  # a write before this one has failed, and what was heard meanwhile is taken in now
        if self.status is None:
            return None
        self._composed = self.status
        patch = statuses.patch_of(self._pod, self.current, self._wanted(self.status))
        self._settled = patch is None
        self._sent = None if patch is None else (self.current, frozenset(patch["status"]))
        return patch

    def _wanted(self, status: PodStatus) -> Raw:
        """The status as the API should have it."""
        services, now = self._services, self._services.clock.now()
        if self._earlier:
            status = losses.counting(status, self._earlier)
        current = self.current
        if self.finished:  # whoever wrote that: a pod never leaves such a phase
            reason, message = (str(current.get(key) or "") for key in ("reason", "message"))
            status = attrs.evolve(status, phase=_ended(self.phase), reason=reason, message=message)
        if self._start_time and not current.get("startTime"):
            current = {**current, "startTime": self._start_time}  # sent already, though nobody has said that it arrived
        wanted = statuses.api_status(self._pod, current, status, node_ips=services.node_ips, now=now, final=self.final)
        losses.never_fewer(wanted, current)
        self._start_time = wanted["startTime"]
        return wanted

    def _written(self, answer: Raw) -> None:
        version = str((answer.get("metadata") or {}).get("resourceVersion", ""))
        self._services.history.seen(version)
        sent, self._sent = self._sent, None
        another = False
        if later(version, self._version):
            status = answer.get("status") or {}
            self._heard_of(status, version)
            # Somebody else's write before ours, of which the watch tells nothing new any more. What is in the patch is
            # not looked at: an API server that drops some of it would be written to without end.
            another = sent is not None and _differ_beside(sent[1], sent[0], status)
        self._settled = True
        unsure, self._unsure = self._unsure, ""
        if another or (unsure and unsure != version):
            self.send()

    def _heard_of(self, status: Raw, version: str) -> None:
        """This is what the API has: the watch may say so before the answer to the write does."""
        before, self.current, self._version = self.current, status, version
        if self.phase == "Running" != before.get("phase"):
            self._services.metrics.running_after(self._services.clock.monotonic() - self._seen)
        if self.finished and (self.final or not self._goes_on):
            self._services.admission.release(self._pod.uid)


def _differ_beside(keys: frozenset[str], before: Raw, after: Raw) -> bool:
    """Whether two statuses differ in something else than these keys."""
    return any(before.get(key) != after.get(key) for key in {*before, *after} - keys)


def _ended(phase: str) -> Phase | None:
    """The phase, if it is one that a pod never leaves."""
    return next((ended for ended in ENDED if ended == phase), None)
