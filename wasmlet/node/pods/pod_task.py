"""One pod's life on this node, from the first watch event to its last delete.

A `PodTask` owns one pod UID: nothing else calls the provider for it or writes its status, so nothing needs a lock.
It sleeps until something about the pod changes and then does the next thing that is due: create, update, end, report,
remove from the API. A step that fails is repeated with a growing pause, for ever; a change of the pod cuts the pause
short. Being asked for the pod's status and being drained are such steps, too: whatever the provider is called for, it
is called from here, one call at a time. `wasmlet.node.pods.manager` finds the task that an event is for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal

import structlog

from wasmlet.errors import NotFound, Refused, Rejected
from wasmlet.model.pod import Pod, PodKey, Raw
from wasmlet.model.status import PodStatus
from wasmlet.node.pods import delivery, ending, losses
from wasmlet.node.pods import status as statuses
from wasmlet.node.pods.delivery import DeliveredVersion, Delivery
from wasmlet.node.pods.report import PodReport
from wasmlet.node.pods.stages import Stage, StageEvent, after
from wasmlet.node.pods.status_questions import StatusQuestions
from wasmlet.node.pods.step_failures import StepFailures
from wasmlet.node.pods.step_loop import StepLoop
from wasmlet.node.provider_calls import Interrupted, ProviderCalls
from wasmlet.node.services import NodeServices

log = structlog.get_logger(__name__)


class PodTask:
    """The life of one pod UID. Its public methods return at once and are called on the event loop.

    `_stage` is where the pod stands with the provider and the API (see `stages`). Beside it:

    - `_delivery` is what the provider has been told of the pod.
    - `_was_accepted` is true if and only if nothing of the pod runs any more, and the provider held it.
    - `_began_before` is true if and only if the pod was being deleted already when this node loop found it with the
      provider: the provider has not been told what the pod is to do at its end.
    - `_torn_down` is true if and only if a change of the pod showed that somebody else has ended it in the API.
    - `_drain_by` is when the pod has to have ended because the node ends, by the monotonic clock; None if and only if
      the node does not end, or its pods go on.
    - `_rewound` is true if and only if the API server was restored from a backup, and has not shown the pod since.

    Args:
        ended: called when the pod is gone from the API and from the provider.
        known: what the provider says of the pod already, when it has run it since before this node loop began.
    """

    def __init__(
        self, services: NodeServices, pod: Pod, ended: Callable[[PodTask], None], *, known: PodStatus | None = None
    ) -> None:
        self._services = services
        self._tell_ended = ended
        self.pod = pod
        self._report = PodReport(services, pod, known)
        self._stage = Stage.NEW if known is None else Stage.ACCEPTED
        self._delivery = Delivery()
        self._began_before = known is not None and pod.deleting
        self._was_accepted = self._torn_down = self._rewound = False
        self._drain_by: float | None = None
        self._failures = StepFailures(pod.key)
        self._calls = ProviderCalls(services.provider.name)
        self._questions = StatusQuestions(pod.key, services.provider.poll_seconds, services.clock, services.rng)
        self._loop = StepLoop(services.group, services.pauses)

        if known is not None and (not self.finished or self._overruled):
            services.admission.count(pod)
            self._report.count_reported()
        elif known is None and losses.has_run(pod.status) and not (self.finished or pod.deleting):
            services.admission.count(pod)  # it has its place here, before any pod that has not run yet
            self._recover()

    @property
    def key(self) -> PodKey:
        return self.pod.key

    @property
    def status(self) -> PodStatus | None:
        """The newest status of the pod."""
        return self._report.status

    @property
    def shown(self) -> Raw:
        """The pod as the API has it or will have it, with the newest status."""
        return self._report.shown

    @property
    def phase(self) -> str:
        """The pod's phase as the API has it."""
        return self._report.phase

    @property
    def finished(self) -> bool:
        """Whether the API has phase Succeeded or Failed, which a pod never leaves."""
        return self._report.finished

    @property
    def accepted(self) -> bool:
        """Whether the provider has taken the pod on, so that it can be asked for its status."""
        return self._stage.accepted

    @property
    def leaving(self) -> bool:
        """Whether the pod is being deleted, or the API has it no more: another pod may have its name by now."""
        return self._stage.gone or self.pod.deleting

    def applied(self, pod: Pod) -> None:
        """The API has this version of the pod now."""
        before, self.pod = self.pod, pod
        rewound, self._rewound = self._rewound, False
        if rewound:
            self._become(StageEvent.RESTORE)
        self._report.applied(pod, rewound=rewound)
        sooner = pod.deleting and (not before.deleting or pod.deletion_grace_seconds < before.deletion_grace_seconds)
        overruled = self._overruled and not self._torn_down
        if sooner or overruled:
            self._calls.interrupt()
        self._torn_down = self._torn_down or overruled
        if not self._due:
            return
        # A change of the status is no reason to cut a pause short: the failure that we pause for may have made it.
        urgent = sooner or overruled or rewound or not self._loop.working
        if urgent or DeliveredVersion.of(before).differs(pod):
            self.wake()

    def rewound(self) -> None:
        """The API server was restored from a backup: what it says next of the pod replaces what we know."""
        self._rewound = True

    def revived(self, pod: Pod) -> bool:
        """Whether the API, restored from a backup, has a pod again that we have ended.

        A pod that was ended though nobody deleted it (the node ends, somebody else marked it Failed) stays in the API.
        It changes there, if only by our own writes. Such a change does not mean that it is back.
        """
        ended = self._stage.ended and not pod.deleting
        return self._stage.gone or (ended and (self.pod.deleting or self._rewound))

    def gone(self) -> None:
        """The API has the pod no more: what still runs of it ends now."""
        self._become(StageEvent.VANISH)
        self._report.close(drop=True)
        self._calls.interrupt()
        self.wake()

    def leave(self) -> None:
        """The node ends, and the pod goes on: nothing more is begun."""
        self._loop.stop()
        self._report.close(drop=False)

    async def flushed(self) -> None:
        """Return when the API has all that is known of the pod."""
        await self._report.flushed()

    def reported(self, status: PodStatus) -> None:
        """The provider says that this is the pod's status."""
        # While the pod is drained, what its containers end with is not reported: `_shut_down` does it, with a reason.
        if not self._stage.ended and not self._shutting_down:
            self._report.told(status)

    def inputs_changed(self) -> None:
        """Something that the pod refers to is different now."""
        self._delivery.inputs_changed()
        if self._due:
            self.wake()

    def ask(self) -> None:
        """Have the provider asked for the pod's status, unless it is being asked already."""
        if self.accepted and self._questions.allowed:
            self._loop.ask(self)

    def _become(self, event: StageEvent) -> None:
        self._stage = after(self._stage, event)

    def _lost(self) -> None:
        """The provider knows nothing of a pod that it held: its containers are lost."""
        self._become(StageEvent.LOSE)
        self._report.provider_lost_it()
        self._recover()

    def _recover(self) -> None:
        """Give the provider a pod again whose containers are lost; or let it fail, where the restart policy says so."""
        now = self._services.clock.now()
        if (failed := losses.failed_by_loss(self.pod, self._report.current, now)) is not None:
            self._delivery.told(self.pod)
            self._report.say(failed)
        else:
            self._delivery.lost()
            self._report.lose(now)
            self.wake()

    async def drain(self, seconds: float) -> None:
        """End the pod because the node ends; return when that is done, or has taken too long.

        Its object stays, Failed, as at a kubelet's graceful shutdown (KEP-2000). A pod whose creation is under way is
        ended too, and one that is being deleted is waited for.

        Args:
            seconds: how long it may take, if its own grace period is not shorter.
        """
        self._drain_by = self._services.clock.monotonic() + seconds
        if not self._due:
            return
        self._calls.interrupt()
        self.wake()
        try:
            async with asyncio.timeout(self._grace(self.pod) + ending.DRAIN_SLACK_SECONDS):
                await self._loop.until_idle()
        except TimeoutError:
            log.warning("the pod could not be ended in time", pod=str(self.key))

    def event(self, type: Literal["Normal", "Warning"], reason: str, message: str, field: str = "") -> None:  # noqa: A002
        """Tell the pod's owner of something, as an Event."""
        self._services.events.record(self.key.reference(field), reason, message, type)

    def wake(self) -> None:
        """See what is due, now."""
        if self._loop.looking:
            self._calls.interrupt()  # a question changes nothing, and can be asked again
        self._loop.wake(self)

    @property
    def _shutting_down(self) -> bool:
        """Whether the pod ends because the node does, and not because somebody deletes it."""
        return self._drain_by is not None and not self.leaving

    @property
    def _overruled(self) -> bool:
        """Whether the API has a final phase that somebody else wrote: the pod ends here, too (as in pod_workers)."""
        return self._stage.may_be_held and not self.leaving and self._report.overruled

    @property
    def _due(self) -> bool:
        if self._stage.gone:
            return True
        if self.pod.deleting:
            return self._stage is not Stage.FORGETTING
        if self.finished or self._stage.ended:
            return self._overruled
        return self._drain_by is not None or self._delivery.due(self.pod)

    # --- what the loop calls, one at a time (Work of the StepLoop)

    async def step(self) -> bool:
        """Do what is due now; True when nothing will ever be due again."""
        over = await self._step(self.pod) if self._due else False
        self._failures.none()
        return over

    async def _step(self, pod: Pod) -> bool:
        if self._overruled:
            if await self._end(pod, keep=True):
                self._report.say(losses.with_losses(pod, self.status, self._services.clock.now()))
        elif self._shutting_down:
            await self._shut_down(pod)
        elif not self.leaving:
            await self._tell(pod)
        elif self._stage.forgotten or await self._end(pod):
            if not self._stage.gone:
                await self._remove(pod)
            return self._stage.gone
        return False

    async def look(self) -> bool:
        """Ask the provider for the pod's status; False where something else came first."""
        if not self.accepted:
            return True
        try:
            question = self._services.provider.pod_status(self.key)
            status = await self._calls.run(question, self._services.call_seconds)
            if status != self.status:
                self.reported(status)
            self._questions.answered()
        except Interrupted:
            return False
        except NotFound:
            self._questions.answered()
            if not (self.finished or self.leaving):
                self._lost()
        except Exception as error:  # whatever a provider says or raises must not end the node
            self._questions.failed(error)
        return True

    def step_failed(self, error: Exception) -> None:
        """A step failed and will be repeated: say so where the pod's owner looks, once for each reason."""
        self._services.metrics.retries.inc()
        self._failures.failed(error, self._tell_failure)

    def _tell_failure(self, text: str, reason: str) -> None:
        if self._stage.gone:
            return
        if self.pod.deleting:
            self.event("Warning", "FailedKillPod", f"error killing pod: {text}")
        else:
            self.event("Warning", "FailedCreatePodSandBox", f"Failed to create pod: {text}")
            if not self._stage.accepted and self._report.by_provider is None:
                self._report.say(statuses.refused(self.pod, reason, text))

    def over(self) -> None:
        self._tell_ended(self)

    async def _tell(self, pod: Pod) -> None:
        """Hand the pod, or what has changed of it, to the provider."""
        stale = self._delivery.begin()
        try:
            await self._calls.run(self._hand_over(pod), self._services.call_seconds)
        except Interrupted:
            # The pod ends. Should the API, restored from a backup, have it go on, the provider lacks this change.
            self._delivery.failed(stale)
            return
        except NotFound:
            if not self._stage.accepted:
                raise
            self._lost()
            return
        except Refused as error:
            # Trying again as it stands would not help; a change of the pod brings us here again.
            self.event("Warning", "Failed", f"Error: {error}")
            self._delivery.told(pod)
            if not self._stage.accepted:  # what runs goes on as it was, whatever is wrong with the change
                self._report.say(statuses.refused(pod, error.reason, str(error), error.container))
            return
        except Rejected as error:
            self.event("Warning", error.reason, str(error))
            self._delivery.told(pod)
            self._become(StageEvent.REJECT)
            self._report.say(PodStatus(phase="Failed", reason=error.reason, message=str(error)))
            return
        except Exception:
            self._delivery.failed(stale)
            raise
        self._delivery.told(pod)
        self._report.accepted()

    async def _hand_over(self, pod: Pod) -> None:
        services = self._services
        has_run = self._stage.accepted or losses.has_run(self._report.current)
        inputs = await delivery.admitted_inputs(services, pod, has_run=has_run)
        if not self._stage.accepted:
            offered_before = self._stage is Stage.OFFERED
            self._become(StageEvent.OFFER)
            await delivery.create(services, pod, inputs)
            self._become(StageEvent.ACCEPT)
            if not offered_before:
                return
            # A call that failed may have started the pod, which then goes on as it was handed over that time.
        await delivery.update(services, pod, inputs)

    async def _end(self, pod: Pod, *, keep: bool = False) -> bool:
        """Have the provider end the pod; with `keep` its logs stay. False if the call was interrupted."""
        services = self._services
        try:
            if self._began_before and not self._stage.gone:
                await ending.tell_before_end(services, self._calls, pod)
            last = await ending.end(services, self._calls, pod, self._grace(pod), keep=keep)
        except Interrupted:
            return False
        self._has_ended(last, StageEvent.STOP if keep else StageEvent.END)
        services.inputs.release(pod.uid)
        services.admission.release(pod.uid)
        return True

    def _has_ended(self, last: PodStatus | None, event: StageEvent) -> None:
        """Nothing of the pod runs any more; `last` is its last status, where the provider has told one."""
        before = self._stage
        self._become(event)
        if not before.ended:  # else it has been told how the pod ended
            self._was_accepted = before.accepted
            self._report.ended(last)

    async def _shut_down(self, pod: Pod) -> None:
        """End the pod because the node ends, and say so."""
        if not self._stage.may_be_held:
            self._has_ended(None, StageEvent.STOP)
        elif not await self._end(pod, keep=True):
            return
        self._report.say(ending.shut_down_status(pod, self.status, self._services.clock.now()))

    def _grace(self, pod: Pod) -> float:
        """How many seconds the pod has to end."""
        if self._stage.gone:
            return 0
        return ending.grace_seconds(pod, self._services.clock, began_before=self._began_before, drain_by=self._drain_by)

    async def _remove(self, pod: Pod) -> None:
        """Tell the API how the pod ended, then ask it to forget the pod."""
        # Without a status it may have run once, and nobody knows how it ended. What ended without us has been told.
        # Said once, and not at each try: a time at which something ended does not move.
        told = self._was_accepted or not self.finished
        if told and (self.status is not None or self._report.current.get("containerStatuses")):
            self._report.say(losses.with_losses(pod, self.status, self._services.clock.now()))
            await self._report.flushed()
        if not self._stage.gone:
            await ending.have_forgotten(self._services.client, pod)
            self._become(StageEvent.FORGET)
