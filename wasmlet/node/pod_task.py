"""One pod's life on this node, from the first watch event to its last delete.

A `PodTask` owns one pod UID: nothing else calls the provider for it or writes its status, so nothing needs a lock.
It sleeps until something about the pod changes and then does the next thing that is due: create, update, end, report,
remove from the API. A step that fails is repeated with a growing pause, for ever; a change of the pod cuts the pause
short. Being asked for the pod's status and being drained are such steps, too: whatever the provider is called for, it
is called from here, one call at a time. `wasmlet.node.pods` finds the task that an event is for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Literal

import attrs
import structlog

from wasmlet.clock import Backoff
from wasmlet.errors import NotFound, Refused, Rejected
from wasmlet.failures import described, text_of
from wasmlet.kube import errors, paths
from wasmlet.kube.recovery import Pauses
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod, PodKey, Raw
from wasmlet.model.status import Condition, PodStatus, Terminated, phase_of
from wasmlet.model.times import parse
from wasmlet.node import losses
from wasmlet.node import status as statuses
from wasmlet.node.provider_calls import DeliveredVersion, Interrupted, ProviderCalls
from wasmlet.node.report import PodReport
from wasmlet.node.services import NodeServices

log = structlog.get_logger(__name__)

DRAIN_SLACK_SECONDS = 5.0
LOOK_CAP_SECONDS = 10.0
"""The longest pause between two questions for a pod's status, while they fail."""
LEAST_GRACE_SECONDS = 2.0
"""What a pod has even where its grace period is over, as with a kubelet."""


class PodTask:
    """The life of one pod UID. Its public methods return at once and are called on the event loop.

    Args:
        ended: called when the pod is gone from the API and from the provider.
        known: what the provider says of the pod already, when it has run it since before this node loop began.
    """

    def __init__(
        self,
        services: NodeServices,
        pod: Pod,
        ended: Callable[[PodTask], None],
        *,
        known: PodStatus | None = None,
    ) -> None:
        self._services = services
        self._tell_ended = ended
        self.pod = pod
        self._report = PodReport(services, pod, known)
        self._accepted = known is not None
        self._delivered: DeliveredVersion | None = None
        """The pod as the provider was last told of it, whatever it answered."""
        self._offered = False
        """The provider was handed the pod and has not accepted it."""
        self._stale = False
        """Something that the pod refers to has changed since the provider was told."""
        self._ended = False
        """Nothing of the pod is left with the provider."""
        self._late = known is not None and pod.deleting
        """It was being deleted when this node loop began, and the provider has not been told what it is."""
        self._removed = False
        """The API has been asked to forget the pod; the watch will say when it has."""
        self._gone = False
        self._left = False
        self._drain_by: float | None = None
        """When the pod has to have ended because the node ends, by the monotonic clock."""
        self._rewound = False
        self._failure = ""
        self._working = False
        self._changed = False
        """Something may be due."""
        self._asked = False
        """The provider is to be asked for the pod's status."""
        self._looking = False
        self._look_after = float("-inf")
        self._look_pauses: Iterator[float] | None = None
        """While the provider cannot say the pod's status."""
        self._stirred = asyncio.Event()
        self._idle: asyncio.Event | None = None
        """Set when nothing is due any more; for whoever drains the pod."""
        self._calls = ProviderCalls(services.provider.name)
        self._torn_down = False
        """It was begun to end the pod because somebody else has ended it in the API."""

        if known is not None and (not self.finished or self._overruled):
            services.admission.count(pod)
            self._report.count_reported()
        elif known is None and losses.has_run(pod.status) and not (self.finished or pod.deleting):
            self._lost()

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
        """Whether that is one that the pod never leaves."""
        return self._report.finished

    @property
    def accepted(self) -> bool:
        """Whether the provider has taken the pod on, so that it can be asked for its status."""
        return self._accepted and not self._ended

    @property
    def leaving(self) -> bool:
        """Whether the pod is being deleted, or the API has it no more: another pod may have its name by now."""
        return self._gone or self.pod.deleting

    def applied(self, pod: Pod) -> None:
        """The API has this version of the pod now."""
        before, self.pod = self.pod, pod
        rewound, self._rewound = self._rewound, False
        if rewound:
            self._removed = False  # it may have forgotten that it was asked
        self._report.applied(pod, rewound=rewound)
        sooner = pod.deleting and (not before.deleting or pod.deletion_grace_seconds < before.deletion_grace_seconds)
        overruled = self._overruled and not self._torn_down
        if sooner or overruled:
            self._calls.interrupt()
        self._torn_down = self._torn_down or overruled
        # A change of the status is no reason to cut a pause short: the failure that we pause for may have made it.
        if self._due and (
            not self._working or sooner or overruled or rewound or DeliveredVersion.of(before).differs(pod)
        ):
            self.wake()

    def rewound(self) -> None:
        """The API server was restored from a backup: what it says next of the pod replaces what we know."""
        self._rewound = True

    def revived(self, pod: Pod) -> bool:
        """Whether the API, restored from a backup, has a pod again that we have ended."""
        return self._gone or (self._ended and not pod.deleting)

    def gone(self) -> None:
        """The API has the pod no more: what still runs of it ends now."""
        self._gone = True
        self._report.close(drop=True)
        self._calls.interrupt()
        self.wake()

    def leave(self) -> None:
        """The node ends, and the pod goes on: nothing more is begun."""
        self._left = True
        self._report.close(drop=False)

    def reported(self, status: PodStatus) -> None:
        """The provider says that this is the pod's status."""
        # While it is drained, what its containers end with is not yet how the pod ended: that has a reason.
        if not self._ended and not self._shutting_down:
            self._report.told(status)

    def inputs_changed(self) -> None:
        """Something that the pod refers to is different now."""
        self._stale = True
        if self._due:
            self.wake()

    def ask(self) -> None:
        """Have the provider asked for the pod's status, unless it is being asked already."""
        if self.accepted and not self._looking and self._services.clock.monotonic() >= self._look_after:
            self._asked = True
            self._begin()

    def _lost(self) -> None:
        """The provider knows nothing of a pod that it once ran: its containers are lost.

        Where the restart policy allows it the provider gets the pod again; else it has failed.
        """
        self._accepted, self._report.by_provider = False, None
        now, ends = self._services.clock.now(), losses.ends_in_api(self._report.current)
        completed = any(isinstance(c.state, Terminated) and c.state.exit_code == 0 for c in ends.containers)
        if self.pod.restart_policy == "Never" or (completed and self.pod.restart_policy == "OnFailure"):
            # The API refuses a container that is done and runs again, and a provider cannot start half a pod.
            self._delivered = DeliveredVersion.of(self.pod)
            self._report.say(attrs.evolve(losses.with_losses(self.pod, ends, now), phase="Failed"))
        else:
            self._delivered = None
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
        self._idle = asyncio.Event()
        self._calls.interrupt()
        self.wake()
        try:
            async with asyncio.timeout(self._grace(self.pod) + DRAIN_SLACK_SECONDS):
                await self._idle.wait()
        except TimeoutError:
            log.warning("the pod could not be ended in time", pod=str(self.key))

    def event(self, type: Literal["Normal", "Warning"], reason: str, message: str, field: str = "") -> None:  # noqa: A002
        """Tell the pod's owner of something, as an Event."""
        key = self.key
        involved = {"apiVersion": "v1", "kind": "Pod", "namespace": key.namespace, "name": key.name, "uid": key.uid}
        self._services.events.record(involved | ({"fieldPath": field} if field else {}), reason, message, type)

    def wake(self) -> None:
        """See what is due, now. A task exists only while there is something to do."""
        self._changed = True
        if self._looking:
            self._calls.interrupt()  # a question changes nothing, and can be asked again
        self._begin()

    def _begin(self) -> None:
        self._stirred.set()
        if not self._working and not self._left:
            self._working = True
            self._services.group.create_task(self._run())

    @property
    def _shutting_down(self) -> bool:
        """Whether the pod ends because the node does, and not because somebody deletes it."""
        return self._drain_by is not None and not self.leaving

    @property
    def _overruled(self) -> bool:
        """Whether somebody else has ended in the API what the provider runs: it ends here, too (as in pod_workers)."""
        held = (self._accepted or self._offered) and not self._ended
        return held and not self.leaving and self._report.overruled

    @property
    def _due(self) -> bool:
        if self._gone:
            return True
        if self.pod.deleting:
            return not self._removed
        if self.finished or self._ended:
            return self._overruled
        return self._drain_by is not None or self._delivered is None or self._stale or self._delivered.differs(self.pod)

    async def _run(self) -> None:
        services = self._services
        pauses = services.client.recovery.pauses(services.backoff, services.clock, services.rng)
        while self._changed or self._asked:
            if not self._changed:
                await self._look()
                continue
            self._changed = False
            try:
                if await self._step():
                    self._tell_ended(self)
                    break
            except Exception as error:  # whatever a provider raises must not end the node
                self._failed(error)
                await self._pause(pauses)
                self._changed = True
            else:
                self._failure = ""
                pauses.start_over()
        else:
            self._working = False
        if self._idle is not None:
            self._idle.set()

    async def _step(self) -> bool:
        """Do what is due now; True when nothing will ever be due again."""
        if not self._due:
            return False
        pod = self.pod
        if self._overruled:
            if await self._end(pod):
                self._report.say(losses.with_losses(pod, self.status, self._services.clock.now()))
            return False
        if self._shutting_down:
            await self._shut_down(pod)
            return False
        if not self._gone and not pod.deleting:
            await self._tell(pod)
            return False
        if not self._ended and not await self._end(pod):
            return False
        if not self._gone:
            await self._remove(pod)
        return self._gone

    async def _tell(self, pod: Pod) -> None:
        """Hand the pod, or what has changed of it, to the provider."""
        stale, self._stale = self._stale, False
        try:
            await self._calls.run(self._hand_over(pod), self._services.call_seconds)
        except Interrupted:
            return
        except NotFound:
            if not self._accepted:
                raise
            self._lost()
            return
        except Refused as error:
            # Trying again as it stands would not help; a change of the pod brings us here again.
            self.event("Warning", "Failed", f"Error: {error}")
            self._delivered = DeliveredVersion.of(pod)
            if not self._accepted:  # what runs goes on as it was, whatever is wrong with the change
                self._report.say(statuses.refused(pod, error.reason, str(error), error.container))
            return
        except Rejected as error:
            self.event("Warning", error.reason, str(error))
            self._delivered, self._offered = DeliveredVersion.of(pod), False
            self._report.say(PodStatus(phase="Failed", reason=error.reason, message=str(error)))
            return
        except Exception:
            self._stale = self._stale or stale
            raise
        self._delivered, self._accepted = DeliveredVersion.of(pod), True
        self._report.accepted()

    async def _hand_over(self, pod: Pod) -> None:
        if self._accepted or losses.has_run(self._report.current):
            self._services.admission.count(pod)
        else:
            await self._services.admission.admit(pod)
        inputs = await self._services.inputs.inputs(pod)
        if self._accepted:
            with self._services.metrics.provider_call("update_pod"):
                await self._services.provider.update_pod(pod, inputs)
        else:
            again, self._offered = self._offered, True
            with self._services.metrics.provider_call("create_pod"):
                await self._services.provider.create_pod(pod, inputs)
            self._accepted, self._offered = True, False
            if again:
                # A call that failed may have started the pod, which then goes on as it was handed over that time.
                with self._services.metrics.provider_call("update_pod"):
                    await self._services.provider.update_pod(pod, inputs)

    async def _end(self, pod: Pod) -> bool:
        """Have the provider end the pod; False where something shorter is wanted meanwhile."""
        try:
            if self._late and not self._gone:
                await self._tell_late(pod)
        except Interrupted:
            return False
        grace = self._grace(pod)
        end = self._services.provider.delete_pod(pod.key, grace)
        try:
            with self._services.metrics.provider_call("delete_pod"):
                final = await self._calls.run(end, grace + self._services.call_seconds)
        except Interrupted:
            return False
        except NotFound:
            final = None
        if final is not None:
            self._report.status = final
        self._ended = self._report.final = True
        self._services.inputs.release(pod.uid)
        self._services.admission.release(pod.uid)
        return True

    async def _tell_late(self, pod: Pod) -> None:
        """Tell the provider what it has run all along: a pod may have something to do before it ends."""
        with contextlib.suppress(NotFound, Refused):
            await self._calls.run(self._services.provider.update_pod(pod, Inputs()), self._services.call_seconds)

    async def _shut_down(self, pod: Pod) -> None:
        """End the pod because the node ends, and say so."""
        if (self._accepted or self._offered) and not await self._end(pod):
            return
        self._ended = self._report.final = True
        last = losses.with_losses(pod, self.status, self._services.clock.now())
        if phase_of(pod, last, final=True) != "Succeeded":
            message = "Pod was terminated in response to imminent node shutdown."
            disrupted = Condition("DisruptionTarget", "True", "TerminationByKubelet", message)
            last = attrs.evolve(
                last, phase="Failed", reason="Terminated", message=message, conditions=(*last.conditions, disrupted)
            )
        self._report.say(last)

    def _grace(self, pod: Pod) -> float:
        """How long the pod has to end. Where the node loop comes back to it that is what is left, or the least."""
        if self._gone:
            return 0
        grace: float = pod.deletion_grace_seconds if pod.deleting else pod.termination_grace_seconds
        if self._late and grace > LEAST_GRACE_SECONDS:
            left = (parse(pod.metadata["deletionTimestamp"]) - self._services.clock.now()).total_seconds()
            grace = max(LEAST_GRACE_SECONDS, min(grace, left))
        if self._drain_by is not None:
            grace = min(grace, max(0.0, self._drain_by - self._services.clock.monotonic()))
        return grace

    async def _remove(self, pod: Pod) -> None:
        """Tell the API how the pod ended, then ask it to forget the pod. With finalizers the object stays."""
        services = self._services
        # Without a status it may have run once, and nobody knows how it ended. What ended without us has been told.
        told = self._accepted or not self.finished
        if told and (self.status is not None or self._report.current.get("containerStatuses")):
            # Once, and not at each try: a time at which something ended does not move.
            self._report.say(losses.with_losses(pod, self.status, services.clock.now()))
            await self._report.flushed()
        if self._gone:
            return
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod.uid}}
        with contextlib.suppress(errors.ObjectNotFound):  # gone already: the watch tells
            try:
                await services.client.delete(paths.pod(pod.key), options)
            except errors.Conflict:
                found = await services.client.get(paths.pod(pod.key))
                if found["metadata"]["uid"] == pod.uid:
                    raise
                # Another pod has its name: the watch tells of that too.
        self._removed = True

    def _failed(self, error: Exception) -> None:
        """A step failed and will be repeated: say so where the pod's owner looks, once for each reason."""
        text = text_of(error)
        self._services.metrics.retries.inc()
        log.warning("pod: a step failed, trying again", pod=str(self.key), **described(error, first=not self._failure))
        if text == self._failure:
            return
        self._failure = text
        if self._gone or isinstance(error, errors.ApiError):
            return
        if self.pod.deleting:
            self.event("Warning", "FailedKillPod", f"error killing pod: {text}")
        else:
            self.event("Warning", "FailedCreatePodSandBox", f"Failed to create pod: {text}")
            if not self._accepted and self._report.by_provider is None:
                self._report.say(statuses.refused(self.pod, "CreateContainerError", text))

    async def _pause(self, pauses: Pauses) -> None:
        """Wait before the next try.

        A change of the pod and the end of an outage of the API server cut it short, a question for its status does not.
        """
        over = asyncio.ensure_future(pauses.wait())
        try:
            while not (self._changed or over.done()):
                if self._asked:
                    await self._look()
                    continue
                self._stirred.clear()
                stirred = asyncio.ensure_future(self._stirred.wait())
                await asyncio.wait([over, stirred], return_when=asyncio.FIRST_COMPLETED)
                stirred.cancel()
        finally:
            over.cancel()

    async def _look(self) -> None:
        """Ask the provider for the pod's status."""
        self._asked = False
        if not self.accepted:
            return
        self._looking = True
        try:
            status = await self._calls.run(self._services.provider.pod_status(self.key), self._services.call_seconds)
            if status != self.status:
                self.reported(status)
            self._look_pauses = None
        except Interrupted:
            self._asked = True
        except NotFound:
            self._look_pauses = None
            if not (self.finished or self.leaving):
                self._lost()
        except Exception as error:  # whatever a provider says or raises must not end the node
            self._look_failed(error)
        finally:
            self._looking = False

    def _look_failed(self, error: Exception) -> None:
        """The status is not to be had: ask ever less often, and say it once."""
        services = self._services
        if self._look_pauses is None:
            log.warning("the provider cannot say a pod's status, trying again", pod=str(self.key), **described(error))
            backoff = Backoff(services.provider.poll_seconds, max(services.provider.poll_seconds, LOOK_CAP_SECONDS))
            self._look_pauses = backoff.pauses(services.rng)
        else:
            log.debug("the provider cannot say a pod's status", pod=str(self.key), error=text_of(error))
        self._look_after = services.clock.monotonic() + next(self._look_pauses)
