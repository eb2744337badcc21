"""Checks of `spec.restartPolicy`: containers are started again by the provider, never by the node loop."""

from __future__ import annotations

import asyncio

import pytest

from wasmlet.errors import Refused
from wasmlet.model.pod import Pod
from wasmlet.model.status import PodStatus, Terminated
from wasmlet.testing.contract.lifecycle import exits
from wasmlet.testing.contract.suite import Suite
from wasmlet.testing.contract.trial import Trial
from wasmlet.testing.contract.verdict import demand, ended, left_out, shown

__tracebackhide__ = True  # pytest hides this module's calls in tracebacks, so that those of the provider are seen

AGAIN = (
    "start the container again, with a growing pause (wasmlet.Backoff), and count it in ContainerStatus.restart_count; "
    'a provider that cannot do it raises wasmlet.Refused("spec.restartPolicy", "...")'
)


class RestartPolicy(Suite):
    """A container that has ended is started again where the pod asks for that, or the pod is refused."""

    @pytest.mark.parametrize(("policy", "code"), [("Always", 0), ("Always", 3), ("OnFailure", 3)])
    async def test_a_container_that_ended_is_started_again(self, trial: Trial, policy: str, code: int) -> None:
        """Deployments, StatefulSets and DaemonSets have nothing but Always."""
        pod = trial.pod(restart=policy, exit_code=code)
        await self._accepted(trial, pod)
        what = f"the container started again, as restartPolicy {policy} asks after exit code {code},"
        status = await trial.until(pod, restarted, what, mend=AGAIN)
        last = status.containers[0].last_state
        mend = "keep how the instance before this one ended, in ContainerStatus.last_state"
        right = isinstance(last, Terminated) and last.exit_code == code
        demand(right, "pod_status", f"last_state Terminated with exit code {code}", repr(last), mend)

    async def test_a_container_that_succeeded_is_done_on_failure(self, trial: Trial) -> None:
        """Under restartPolicy OnFailure, exit code 0 is the end."""
        pod = trial.pod(restart="OnFailure", exit_code=0)
        await self._accepted(trial, pod)
        exits(await trial.until(pod, ended, "every container Terminated"), 0)
        await trial.later()
        await asyncio.sleep(2 * self.moment_seconds)  # a provider pauses before it starts a container again
        status = await trial.status(pod)
        right = ended(status) and not restarted(status)
        mend = "with restartPolicy OnFailure, start a container again only if its exit code is not 0"
        demand(right, "pod_status", "a container that has succeeded to stay ended", shown(status), mend)

    @staticmethod
    async def _accepted(trial: Trial, pod: Pod) -> None:
        """Have the pod created; skip the check where the provider refuses its restartPolicy by name."""
        try:
            await trial.call("create_pod", trial.creating(pod), allow=(Refused,))
        except Refused as error:
            mend = "name the field that cannot be honoured"
            demand(
                error.field == "spec.restartPolicy", "create_pod", "Refused for spec.restartPolicy", str(error), mend
            )
            left_out(f"the provider refuses it: {error}")


def restarted(status: PodStatus) -> bool:
    """Whether a container was started again."""
    return any(container.restart_count for container in status.containers)
