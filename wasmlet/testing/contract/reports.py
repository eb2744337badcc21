"""Checks of what a provider reports: `pod_status`, `list_pods` and `changes`."""

from __future__ import annotations

import asyncio

import pytest

from wasmlet.model.status import Terminated, phase_of
from wasmlet.testing.contract.lifecycle import TURNS, cancelled_after, exits
from wasmlet.testing.contract.pods import unknown
from wasmlet.testing.contract.suite import Suite
from wasmlet.testing.contract.trial import Trial
from wasmlet.testing.contract.verdict import broken, demand, differing, ended, runs, shown

__tracebackhide__ = True  # pytest hides this module's calls in tracebacks, so that those of the provider are seen


class Reports(Suite):
    """Statuses are true, agree with each other, and belong to the pod that they are about."""

    @pytest.mark.parametrize("code", [0, 1, 3, 255])
    async def test_exit_codes_are_reported(self, trial: Trial, code: int) -> None:
        """The container's own exit code, with the times of its start and end."""
        pod = trial.pod(exit_code=code)
        await trial.create(pod)
        status = await trial.until(pod, ended, "every container Terminated")
        exits(status, code)
        state = status.containers[0].state
        assert isinstance(state, Terminated)
        mend = "set started_at and finished_at of Terminated, with datetime.now(UTC) when it happens"
        times = (state.started_at, state.finished_at)
        present = state.finished_at is not None and state.finished_at.tzinfo is not None
        demand(present, "pod_status", "the (aware) time at which the container ended", times, mend)
        assert state.finished_at is not None
        ordered = state.started_at is None or state.started_at <= state.finished_at
        demand(ordered, "pod_status", "a start before the end", times, mend)
        wanted = "Failed" if code else "Succeeded"
        phase = phase_of(pod, status)
        mend = "leave PodStatus.phase None: it follows from the containers and restartPolicy"
        demand(phase == wanted, "pod_status", f"the phase {wanted} after exit code {code}", phase, mend)

    async def test_pod_status_and_list_pods_agree(self, trial: Trial) -> None:
        """Ended pods are listed too, with namespace, name and UID, and with what pod_status says."""
        pods = [await trial.running(), await trial.finished(0), await trial.finished(3)]
        for pod in pods:
            record = await trial.listed(pod)
            mend = "list every pod that create_pod accepted and delete_pod has not ended, whatever has become of it"
            if record is None:
                broken("list_pods", f"pod {pod.key}, {shown(await trial.status(pod))}", "it is not listed", mend)
            demand(record.key == pod.key, "list_pods", repr(pod.key), repr(record.key), "give PodRecord the pod's key")
            status = await trial.status(pod)
            mend = "answer both from one place"
            found = f"{shown(record.status)}: {differing(status, record.status)}"
            demand(record.status == status, "list_pods", f"what pod_status says: {shown(status)}", found, mend)

    async def test_the_status_of_an_ended_pod_stays(self, trial: Trial) -> None:
        """How and when a container ended is the same whenever it is asked for: a difference is written to the API."""
        pod = await trial.finished(3)
        before = await trial.status(pod)
        await trial.later()
        now = await trial.status(pod)
        mend = "keep finished_at, and all else of Terminated, as it was when you first saw that the container had ended"
        expected = f"the status of a pod that has ended to stay: {shown(before)}"
        demand(now == before, "pod_status", expected, differing(before, now), mend)

    async def test_pod_status_of_an_unknown_pod(self, trial: Trial) -> None:
        """NotFound, also where a pod of that name is here under another UID."""
        key = unknown()
        await trial.missing("pod_status", trial.provider.pod_status(key), "a UID that was never here")
        await trial.running(name=key.name)
        await trial.missing("pod_status", trial.provider.pod_status(key), "a UID that was never here")

    async def test_pod_status_makes_way_for_other_calls(self, trial: Trial) -> None:
        """A question for the status is cancelled when something else is due; the next call is as if it had not been."""
        pod = await trial.running()
        for turns in TURNS:
            call = trial.provider.pod_status(pod.key)
            await cancelled_after(turns, call, "pod_status", trial.suite.accept_seconds)
            status = await trial.status(pod)
            demand(runs(status), "pod_status", "every container Running still", shown(status), "change nothing here")

    async def test_changes_tell_that_a_pod_runs_and_how_it_ended(self, trial: Trial) -> None:
        """The stream (or polling) has Running, then the end with its exit code."""
        pod = trial.pod(exit_code=3, after=self.moment_seconds)
        await trial.create(pod)
        await trial.told(pod, runs, "every container Running")
        exits(await trial.told(pod, ended, "every container Terminated"), 3, "changes")

    async def test_changes_are_about_the_right_pod(self, trial: Trial) -> None:
        """What is told under a UID is that pod's, also when two have one name."""
        one = trial.pod(name="same", containers=("one",), exit_code=3)
        two = trial.pod(name="same", containers=("two",), exit_code=5)
        await trial.create(one, two)
        mend = "keep the PodKey that create_pod got, and yield StatusChanged with it"
        try:
            exits(await trial.told(one, ended, "the end of the pod"), 3, "changes")
            exits(await trial.told(two, ended, "the end of the pod"), 5, "changes")
        finally:
            for change in trial.history:
                pod = {one.uid: one, two.uid: two}.get(change.key.uid)
                name = f"a pod of this check ({one.key}, {one.uid} or {two.uid})"
                if pod is None:
                    broken("changes", name, change.key, mend)
                names = [container.name for container in change.status.containers]
                right = set(names) <= {pod.containers[0].name}
                expected = f"containers of pod {pod.uid} ({pod.containers[0].name!r})"
                demand(right and change.key == pod.key, "changes", expected, f"{change.key}: {names}", mend)

    async def test_changes_end_with_the_newest(self, trial: Trial) -> None:
        """However many statuses are told, the last one is the one that is true."""
        pods = [trial.pod(exit_code=code, after=self.moment_seconds) for code in (0, 3)]
        await trial.create(*pods)
        for pod in pods:
            await trial.until(pod, ended, "every container Terminated")
        await trial.later()
        await self._settled(trial)
        for pod in pods:
            last, now = trial.history_of(pod)[-1:], await trial.status(pod)
            found = f"{shown(last[0])}: {differing(now, last[0])}" if last else "nothing was told about this pod"
            mend = "yield a StatusChanged for every change, in the order in which they happen for one pod"
            demand(last == [now], "changes", f"what pod_status says, at last: {shown(now)}", found, mend)

    async def test_an_ended_container_never_runs_again(self, trial: Trial) -> None:
        """Under restartPolicy Never, Terminated is final: the API refuses every way back."""
        pod = trial.pod(exit_code=3, after=self.moment_seconds)
        await trial.create(pod)
        await trial.until(pod, ended, "every container Terminated")
        await trial.later()
        statuses = [*trial.history_of(pod), await trial.status(pod)]
        first = next((i for i, status in enumerate(statuses) if ended(status)), len(statuses))
        alive = [status for status in statuses[first:] if not ended(status)]
        mend = "with restartPolicy Never, start each container once, and drop statuses that are older than its end"
        found = f"{shown(alive[0])}, after {shown(statuses[first])}" if alive else ""
        demand(not alive, "changes", "no status but Terminated once a container has ended", found, mend)

    async def test_nothing_is_lost_between_two_readers_of_changes(self, trial: Trial) -> None:
        """The loop lists all pods and then reads on: what happens in between has to be in the next stream."""
        if trial.provider.changes() is None:
            return  # polling sees all there is
        await trial.stop_reading()
        pod = await trial.finished(3)
        trial.read()
        exits(await trial.told(pod, ended, "an end that came while nobody read, in the next stream"), 3, "changes")

    @staticmethod
    async def _settled(trial: Trial) -> None:
        """Return when nothing has been told for a moment."""
        loop, count = asyncio.get_running_loop(), -1
        end = loop.time() + trial.suite.patience_seconds
        while count != len(trial.history):
            count = len(trial.history)
            if loop.time() > end:
                before, last = trial.history[-2].status, trial.history[-1].status
                expected = f"no more changes of pods that have ended, within {trial.suite.patience_seconds:g} s"
                mend = "report a status only where it is another one; a time at which something happened does not move"
                broken("changes", expected, f"{shown(last)} again and again: {differing(before, last)}", mend)
            await asyncio.sleep(0.1)
