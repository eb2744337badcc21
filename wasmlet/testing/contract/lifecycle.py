"""Checks of a pod's beginning: `create_pod`, `update_pod`, and the status that follows."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import attrs

from wasmlet.errors import NotFound, Refused, Rejected
from wasmlet.model.pod import Pod
from wasmlet.model.status import ContainerStatus, PodStatus, Running, Terminated
from wasmlet.testing.contract.pods import inputs
from wasmlet.testing.contract.suite import Suite
from wasmlet.testing.contract.trial import Trial
from wasmlet.testing.contract.verdict import (
    ALL_CONTAINERS,
    broken,
    demand,
    differing,
    ended,
    left_out,
    let_go,
    listed,
    runs,
    shown,
)

__tracebackhide__ = True  # pytest hides this module's calls in tracebacks, so that those of the provider are seen

LONG_GRACE = 600.0
CLOCK_SKEW = timedelta(seconds=2)
TURNS = (0, 1, 2, 5, 20)
"""After how many turns of the event loop a call is cancelled."""
ONCE = "start a pod only if its UID is new to you; one that is there already, running or ended, stays as it is"


class Lifecycle(Suite):
    """A pod is accepted, starts, and is what it is until it ends."""

    async def test_create_pod_runs_every_container(self, trial: Trial) -> None:
        """create_pod returns when the pod is accepted; each container is Running then, since a time that is true."""
        before = datetime.now(UTC) - CLOCK_SKEW
        pod = trial.pod(containers=("one", "two"))
        await trial.create(pod)
        status = await trial.until(pod, lambda status: len(status.containers) == 2 and runs(status), "both Running")
        names = [container.name for container in status.containers]
        demand(sorted(names) == ["one", "two"], "pod_status", "the containers 'one' and 'two'", names, ALL_CONTAINERS)
        for container in status.containers:
            self._true_start(container, before)

    @staticmethod
    def _true_start(container: ContainerStatus, before: datetime) -> None:
        assert isinstance(container.state, Running)
        started = container.state.started_at
        aware = isinstance(started, datetime) and started.tzinfo is not None
        mend = "use datetime.now(UTC) at the moment the container starts, and keep it"
        demand(aware, "pod_status", "started_at as an aware datetime", repr(started), mend)
        now = datetime.now(UTC)
        expected = f"started_at between the call and now ({before} to {now})"
        demand(before <= started <= now + CLOCK_SKEW, "pod_status", expected, started, mend)

    async def test_create_pod_again_does_not_run_the_pod_twice(self, trial: Trial) -> None:
        """The loop calls create_pod again after a restart or a failure half-way: nothing may change by that."""
        pod = await trial.running(lines=["begun"])
        first = await trial.main(pod)
        await trial.create(pod)
        await trial.later()
        self._same(first, await trial.main(pod), "create_pod")
        await self._once(trial, pod)
        done = await trial.finished(3, lines=["begun"])
        first = await trial.main(done)
        await trial.create(done)
        await trial.later()
        self._same(first, await trial.main(done), "create_pod")
        await self._once(trial, done)

    async def test_create_pod_may_be_cancelled_and_called_again(self, trial: Trial) -> None:
        """A call can end at any await; the next one makes good what is missing and starts nothing twice."""
        pods = [trial.pod(lines=["begun"]) for _ in TURNS]
        for pod, turns in zip(pods, TURNS, strict=True):
            await cancelled_after(turns, trial.creating(pod), "create_pod", self.patience_seconds)
            await trial.create(pod)
        for pod in pods:
            await trial.until(pod, runs, "every container Running, after a create_pod that was cancelled and another")
        await trial.later()
        for pod in pods:
            await self._once(trial, pod)

    async def test_pods_of_one_name_are_told_apart_by_uid(self, trial: Trial) -> None:
        """A pod that was deleted and made again has another UID: the old one ends beside the new one."""
        old, new = await trial.running(name="same"), await trial.running(name="same")
        first = await trial.main(new)
        records = await trial.records()
        both = {old.uid, new.uid} <= {record.key.uid for record in records}
        mend = "keep your pods by key.uid, never by namespace and name"
        demand(both, "list_pods", "two pods of one name with their two UIDs", listed(records), mend)
        await trial.delete(old)
        await trial.gone(old)
        now = await trial.main(new)
        found = f"{shown(now)}: {differing(first, now)}"
        demand(now == first, "delete_pod", f"the other pod of that name untouched: {shown(first)}", found, mend)

    async def test_what_cannot_be_honoured_is_refused(self, trial: Trial) -> None:
        """Refused names the field; the pod is not held, so that create_pod can be called when it has been mended."""
        fields = self.refused()
        if fields is None:
            left_out("the hook refused() names no fields; override it if there are any that the provider refuses")
        good = trial.pod()
        bad = {k: v for k, v in fields.items() if k != "containers"}
        raw = [dict(c.raw) | part for c, part in zip(good.containers, fields.get("containers", [{}]), strict=True)]
        pod = Pod({**good.raw, "spec": {**good.spec, "containers": raw, **bad}})
        mend = 'raise wasmlet.Refused("spec.containers[0].field", "what cannot be had, and what to do instead")'
        try:
            await trial.call("create_pod", trial.creating(pod), allow=(Exception,))
        except Rejected as error:
            demand(error.reason, "create_pod", "Rejected with a reason", repr(error), "name the reason in one word")
        except Refused as error:
            field = error.field
            demand(field.startswith("spec."), "create_pod", "Refused with the path of the field", repr(field), mend)
        except Exception as error:
            broken("create_pod", f"wasmlet.Refused for {fields}", repr(error), mend, error)
        else:
            broken("create_pod", f"wasmlet.Refused for {fields}", "it was accepted", mend)
        record = await trial.listed(pod)
        mend = "forget a pod before you refuse it; a pod that is listed counts as accepted and is never created again"
        demand(record is None, "list_pods", "no pod that create_pod has refused", record and record.key, mend)
        await trial.create(good)
        await trial.until(good, runs, "a pod that was refused once, and was mended, Running")

    async def test_many_pods_at_once(self, trial: Trial) -> None:
        """Calls for different pods run side by side, and what each of them ends with is its own."""
        codes = {}
        pods = []
        for i in range(trial.suite.many):
            code = 1 + i if i % 2 else None
            pods.append(trial.pod(exit_code=code, lines=[f"pod {i}"]))
            codes[pods[-1].uid] = code
        async with asyncio.TaskGroup() as group:
            for pod in pods:
                group.create_task(trial.create(pod))
        for pod in pods:
            code = codes[pod.uid]
            status = await trial.until(pod, ended if code else runs, "ended" if code else "Running")
            if code:
                exits(status, code)
        records = await trial.records()
        found = sorted(record.key for record in records)
        mend = "give every pod its own record, by UID, and list them all"
        demand(found == sorted(pod.key for pod in pods), "list_pods", f"{len(pods)} pods", listed(records), mend)
        for i, pod in enumerate(pods):
            text = await trial.log(pod) if codes[pod.uid] else None
            demand(
                text in (None, b"pod %d\n" % i),
                "logs",
                f"the log of pod {i} alone",
                text,
                "keep logs by UID and container",
            )
        async with asyncio.TaskGroup() as group:
            ends = [group.create_task(trial.delete(pod)) for pod in pods]
        for pod, end in zip(pods, ends, strict=True):
            if code := codes[pod.uid]:
                exits(end.result(), code, "delete_pod")
        records = await trial.records()
        demand(not records, "list_pods", "nothing once every pod is deleted", listed(records), "forget what is deleted")

    async def test_pods_do_not_wait_for_each_other(self, trial: Trial) -> None:
        """While a pod takes its grace period to end, another one is created, looked at and ended."""
        slow = await trial.running(stubborn=True)
        ending = asyncio.ensure_future(trial.provider.delete_pod(slow.key, LONG_GRACE))
        try:
            await asyncio.wait([ending], timeout=self.moment_seconds)  # it may have no say in when it ends
            other = trial.pod()
            await trial.create(other)
            await trial.until(other, runs, "every container Running while another pod ends")
            await trial.delete(other)
        finally:
            await let_go(ending, "delete_pod", trial.suite.accept_seconds)

    async def test_update_pod_restarts_nothing(self, trial: Trial) -> None:
        """New labels and annotations are no reason to start a container again."""
        pod = await trial.running(lines=["begun"])
        first = await trial.main(pod)
        metadata = {**pod.metadata, "labels": {"a": "b"}, "annotations": {"c": "d"}, "resourceVersion": "2"}
        await trial.call("update_pod", trial.provider.update_pod(Pod({**pod.raw, "metadata": metadata}), inputs()))
        await trial.later()
        self._same(first, await trial.main(pod), "update_pod")

    async def test_update_pod_starts_nothing(self, trial: Trial) -> None:
        """A pod that is not here, lost perhaps, must not be run again by an update; NotFound says that it is lost."""
        pod = trial.pod()
        with suppress(NotFound):
            await trial.call("update_pod", trial.provider.update_pod(pod, inputs()), allow=(NotFound,))
        record = await trial.listed(pod)
        mend = "raise wasmlet.NotFound for a UID that you do not hold; only create_pod starts pods"
        demand(record is None, "update_pod", "an unknown pod to stay unknown", f"it is listed: {record}", mend)

    @staticmethod
    def _same(first: ContainerStatus, now: ContainerStatus, method: str) -> None:
        """See that the container has not been started anew."""
        before, after = _identity(first), _identity(now)
        found = f"{shown(now)}: {differing(before, after)}"
        demand(before == after, method, f"the container to go on as it was: {shown(first)}", found, ONCE)

    @staticmethod
    async def _once(trial: Trial, pod: Pod) -> None:
        """See that the pod is there once, and has written its line once where there is a log."""
        records = [record for record in await trial.records() if record.key.uid == pod.uid]
        demand(len(records) == 1, "list_pods", f"pod {pod.key} once", listed(records), ONCE)
        text = await trial.log(pod)
        if text is not None:
            count = text.count(b"begun")
            demand(count <= 1, "create_pod", "a container that is started once", f"its first line {count} times", ONCE)


def _identity(status: ContainerStatus) -> ContainerStatus:
    """What must be the same for as long as a container is not started anew: all but readiness."""
    return attrs.evolve(status, ready=None, started=None)


async def cancelled_after(turns: int, call: object, method: str, seconds: float) -> None:
    """Make the call and cancel it after so many turns of the event loop; what comes of it does not matter.

    Args:
        seconds: how long it may take to end then.
    """
    task = asyncio.ensure_future(call)  # type: ignore[call-overload]
    for _ in range(turns):
        await asyncio.sleep(0)
    await let_go(task, method, seconds)


def exits(status: PodStatus, code: int, method: str = "pod_status") -> None:
    """See that every container has ended with that exit code."""
    mend = "report the exit code that the container ended with: Terminated(exit_code, ...)"
    right = ended(status) and all(
        isinstance(c.state, Terminated) and c.state.exit_code == code for c in status.containers
    )
    demand(right, method, f"every container Terminated with exit code {code}", shown(status), mend)
