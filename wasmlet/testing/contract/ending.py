"""Checks of a pod's end: `delete_pod`, in time, shortened, cancelled and repeated."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from wasmlet.errors import NotFound
from wasmlet.model.pod import Pod
from wasmlet.model.status import PodStatus, Terminated
from wasmlet.testing.contract.lifecycle import LONG_GRACE, TURNS, cancelled_after, exits
from wasmlet.testing.contract.pods import unknown
from wasmlet.testing.contract.suite import Suite
from wasmlet.testing.contract.trial import Trial
from wasmlet.testing.contract.verdict import broken, demand, ended, let_go, listed, shown

__tracebackhide__ = True  # pytest hides this module's calls in tracebacks, so that those of the provider are seen

AGAIN = "keep what delete_pod has begun with the pod, so that the next call goes on from there"


class Ending(Suite):
    """When delete_pod returns, nothing of the pod is left, and its last status is told."""

    async def test_delete_pod_ends_a_running_pod(self, trial: Trial) -> None:
        """Every container Terminated in the status that is returned; then the pod is not known any more."""
        pod = await trial.running(containers=("one", "two"))
        self._terminated(await trial.delete(pod, 30), pod)
        await trial.gone(pod)
        await trial.missing("delete_pod", trial.provider.delete_pod(pod.key, 0), "a pod that is gone")
        await trial.later()
        await trial.gone(pod)

    async def test_delete_pod_of_an_ended_pod_keeps_how_it_ended(self, trial: Trial) -> None:
        """A pod that has ended by itself is only forgotten, at once, with the exit code that it had."""
        pod = await trial.finished(3)
        exits(await trial.delete(pod, LONG_GRACE, seconds=trial.suite.patience_seconds), 3, "delete_pod")
        await trial.gone(pod)

    async def test_delete_pod_of_an_unknown_pod(self, trial: Trial) -> None:
        """NotFound, which the loop takes as done; also where a pod of that name is here under another UID."""
        key = unknown()
        await trial.missing("delete_pod", trial.provider.delete_pod(key, 0), "a UID that was never here")
        pod = await trial.running(name=key.name)
        await trial.missing("delete_pod", trial.provider.delete_pod(key, 0), "a UID that was never here")
        demand(
            await trial.listed(pod),
            "delete_pod",
            "only the pod with that UID ended",
            "another of its name",
            "go by UID",
        )

    async def test_delete_pod_ends_by_force_when_the_grace_period_is_over(self, trial: Trial) -> None:
        """A container that does not end when asked to is ended after `grace_seconds`."""
        pod = await trial.running(stubborn=True)
        self._terminated(await trial.delete(pod, 2 * self.moment_seconds), pod)
        await trial.gone(pod)

    async def test_delete_pod_without_grace_ends_at_once(self, trial: Trial) -> None:
        """A grace period of 0: nothing is waited for."""
        pod = await trial.running(stubborn=True)
        self._terminated(await trial.delete(pod, 0, seconds=trial.suite.accept_seconds), pod)
        await trial.gone(pod)

    async def test_delete_pod_tells_which_signal_ended_a_container(self, trial: Trial) -> None:
        """Exit codes as a shell has them: 128 plus the number of the signal; 143 if told to end, 137 if forced to."""
        pod = await trial.running()
        self._by_signal(await trial.delete(pod, 30), pod, "told to end", least=0)
        pod = await trial.running(stubborn=True)
        self._by_signal(await trial.delete(pod, 0), pod, "ended by force")

    @classmethod
    def _by_signal(cls, status: PodStatus, pod: Pod, how: str, least: int = 129) -> None:
        """See that the codes are those of signals.

        Args:
            least: 0 where the container may have come to a good end of its own by that signal.
        """
        cls._terminated(status, pod)
        for container in status.containers:
            assert isinstance(container.state, Terminated)
            code = container.state.exit_code
            usual = "0, or 128 plus the signal's number (143 for SIGTERM)" if not least else "137, as SIGKILL gives it"
            mend = "report 128 plus the signal's number: Python's returncode for it is negative, so 128 - returncode"
            right = 128 < code <= 255 or code == least
            demand(right, "delete_pod", f"an exit code of {usual} for a container that was {how}", code, mend)

    async def test_delete_pod_called_again_with_a_shorter_grace_hurries(self, trial: Trial) -> None:
        """The first call is cancelled when somebody shortens the grace period; the second one's counts."""
        pod = await trial.running(stubborn=True)
        first = asyncio.ensure_future(trial.provider.delete_pod(pod.key, LONG_GRACE))
        await asyncio.wait([first], timeout=self.moment_seconds)
        if first.done():  # a container that has no say in when it ends
            self._terminated(first.result(), pod)
        else:
            await let_go(first, "delete_pod", trial.suite.accept_seconds)
            second, seconds = trial.provider.delete_pod(pod.key, 0), trial.suite.accept_seconds
            with suppress(NotFound):  # the cancelled call had come to its end
                status = await trial.call("delete_pod", second, seconds=seconds, allow=(NotFound,))
                self._terminated(status, pod)
        await trial.gone(pod)

    async def test_delete_pod_may_be_cancelled_and_called_again(self, trial: Trial) -> None:
        """A call can end at any await; the next one ends what is left."""
        pods = [await trial.running() for _ in TURNS]
        for pod, turns in zip(pods, TURNS, strict=True):
            await cancelled_after(turns, trial.provider.delete_pod(pod.key, 30), "delete_pod", self.patience_seconds)
            await self._delete(trial, pod)
        for pod in pods:
            await trial.gone(pod)

    async def test_delete_pod_while_it_is_created(self, trial: Trial) -> None:
        """create_pod is cancelled when the pod is deleted; nothing of it comes to life afterwards."""
        pods = [trial.pod() for _ in TURNS]
        for pod, turns in zip(pods, TURNS, strict=True):
            await cancelled_after(turns, trial.creating(pod), "create_pod", self.patience_seconds)
            await self._delete(trial, pod)
        await trial.later()
        records = await trial.records()
        mend = "let delete_pod end what create_pod has begun, also what it has not finished"
        demand(not records, "delete_pod", "nothing left of pods that were deleted while created", listed(records), mend)
        for pod in pods:
            await trial.gone(pod)

    @staticmethod
    async def _delete(trial: Trial, pod: Pod) -> None:
        """Delete a pod of which there may be nothing."""
        call = trial.provider.delete_pod(pod.key, 0)
        try:
            await trial.call("delete_pod", call, seconds=trial.suite.patience_seconds, allow=(Exception,))
        except NotFound:
            pass
        except Exception as error:
            broken("delete_pod", "the end of the pod, or wasmlet.NotFound", repr(error), AGAIN, error)

    @staticmethod
    def _terminated(status: PodStatus | None, pod: Pod) -> None:
        names = sorted(container.name for container in pod.containers)
        right = status is not None and ended(status) and sorted(c.name for c in status.containers) == names
        mend = "wait until each container has ended, and return the status that you have then, before you forget it"
        expected = f"a last status with {', '.join(map(repr, names))} Terminated"
        demand(right, "delete_pod", expected, shown(status), mend)
