"""Checks of the provider as a whole: what it is called, its node status, `start`, `stop`, and the event loop."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress

import attrs

from wasmlet.model.pod import Pod
from wasmlet.model.quantity import Quantity
from wasmlet.model.status import Condition
from wasmlet.options import HELP
from wasmlet.provider import NodeContext, NodeStatus
from wasmlet.testing.contract.heartbeat import Heartbeat
from wasmlet.testing.contract.lifecycle import cancelled_after, exits
from wasmlet.testing.contract.logs import written
from wasmlet.testing.contract.pods import NODE_IP, inputs
from wasmlet.testing.contract.processes import below, left_of
from wasmlet.testing.contract.restart_policy import restarted
from wasmlet.testing.contract.suite import Suite
from wasmlet.testing.contract.trial import Trial
from wasmlet.testing.contract.verdict import broken, demand, differing, ended, listed, runs, shown

__tracebackhide__ = True  # pytest hides this module's calls in tracebacks, so that those of the provider are seen

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class Restarts(Suite):
    """The provider describes itself, starts, stops, and leaves the loop to others."""

    async def test_name_and_config(self) -> None:
        """The name is fit for a label; Config is an attrs class whose fields explain themselves."""
        provider = self.make_provider()
        name = getattr(provider, "name", None)
        right = isinstance(name, str) and _LABEL.fullmatch(name)
        demand(
            right,
            "name",
            "lower-case letters, digits and '-', at most 63",
            repr(name),
            'set name = "mine" in the class',
        )
        config = type(provider).Config
        mend = "decorate it with @attrs.frozen, and make each field with wasmlet.option(default, help=...)"
        demand(isinstance(config, type) and attrs.has(config), "Config", "an attrs class", repr(config), mend)
        mute = [field.name for field in attrs.fields(config) if field.init and not field.metadata.get(HELP)]
        demand(not mute, "Config", "a help text for every field", f"none for {', '.join(mute)}", mend)
        poll = provider.poll_seconds
        demand(poll > 0, "poll_seconds", "a number of seconds above 0", poll, "leave it at its default, 1.0")

    async def test_nothing_is_there_at_first(self, trial: Trial) -> None:
        """On a machine where nothing ever ran, list_pods is empty after start."""
        records = await trial.records()
        mend = "list only what create_pod accepted, in this process or in one before it with the same state_dir"
        demand(not records, "list_pods", "nothing after the first start", listed(records), mend)

    async def test_node_status_is_valid(self, trial: Trial) -> None:
        """Capacity in quantities, allocatable within it, conditions with the API's words."""
        status = await trial.call("node_status", trial.provider.node_status())
        mend = 'return wasmlet.NodeStatus(capacity={"cpu": "2", "memory": "4Gi"})'
        demand(isinstance(status, NodeStatus), "node_status", "a wasmlet.NodeStatus", repr(status), mend)
        capacity = _quantities("capacity", status.capacity)
        for name, amount in _quantities("allocatable", status.allocatable or {}).items():
            expected = f"allocatable {name} of at most its capacity, {capacity.get(name, 'which is not there')}"
            within = name in capacity and not capacity[name] < amount
            demand(
                within, "node_status", expected, amount, "allocatable is capacity less what the node keeps for itself"
            )
        for condition in status.conditions:
            words = isinstance(condition, Condition) and condition.status in ("True", "False", "Unknown")
            demand(words, "node_status", 'conditions with the status "True", "False" or "Unknown"', condition, mend)
            mend = "raise an error from ping when the provider cannot work; the node loop makes Ready of that"
            demand(
                condition.type != "Ready",
                "node_status",
                "no condition Ready, which is the node loop's",
                condition,
                mend,
            )
        texts = {**status.labels, **status.system_info}
        wrong = {key: value for key, value in texts.items() if not (isinstance(key, str) and isinstance(value, str))}
        demand(not wrong, "node_status", "labels and system_info of text", wrong, "make them str")

    async def test_ping_returns(self, trial: Trial) -> None:
        """The provider is well, and says so in time."""
        await trial.call("ping", trial.provider.ping())

    async def test_stop_may_follow_a_start_that_failed(self, trial: Trial) -> None:
        """Nothing was started, or only half of it: stop copes, and the next process can start."""
        await trial.stop_reading()
        await trial.call("stop", trial.provider.stop(), seconds=trial.suite.patience_seconds)
        context = NodeContext("contract", NODE_IP, 10, trial.state_dir)
        for turns in (None, 0, 1, 5):
            provider = trial.provider = self.make_provider()
            if turns is not None:
                await cancelled_after(turns, provider.start(context), "start", trial.suite.patience_seconds)
            try:
                await trial.call("stop", provider.stop(), seconds=trial.suite.patience_seconds, allow=(Exception,))
            except Exception as error:
                how = "was never called" if turns is None else "was cancelled half-way"
                mend = "set what stop needs in __init__, and close only what start has opened"
                broken("stop", f"no error where start {how}", repr(error), mend, error)
        trial.provider = self.make_provider()
        await trial.start()
        await trial.call("list_pods", trial.provider.list_pods())

    async def test_pods_after_a_restart(self, trial: Trial) -> None:
        """Where the provider `survives`, its pods go on; else none is left that claims to."""
        pod = await trial.running(lines=["begun"])
        await written(trial, pod, b"begun")
        first = await trial.main(pod)
        if not self.survives:
            await trial.restart()
            alive = [record for record in await trial.records() if record.status.running]
            mend = "set survives = True in the contract's class if pods outlive the provider; else end them in stop"
            demand(not alive, "list_pods", "no pod that runs after stop and another start", listed(alive), mend)
            return
        await trial.restart()
        record = await trial.listed(pod)
        mend = "find in start what went on, by what you keep in context.state_dir or where the pods run"
        if record is None:
            broken("list_pods", f"pod {pod.key} (uid {pod.uid}), which went on", "it is not listed", mend)
        demand(record.key == pod.key, "list_pods", repr(pod.key), repr(record.key), mend)
        await trial.create(pod)  # as the node loop may do with a pod that it finds
        await trial.until(pod, runs, "the pod still Running after a restart")
        await trial.later()
        now = await trial.main(pod)
        mend = "stop leaves pods alone, and a pod that runs already is not started by create_pod"
        found = f"{shown(now)}: {differing(first, now)}"
        demand(now == first, "stop", f"the container to go on: {shown(first)}", found, mend)
        text = await trial.log(pod)
        demand(text is None or text.count(b"begun") == 1, "stop", "a container started once", text, mend)
        await trial.delete(pod)
        await trial.gone(pod)

    async def test_stop_leaves_no_process_behind(self, trial: Trial) -> None:
        """Where the provider does not `survive`, stop ends what its pods run: nobody would find it again."""
        if self.survives:
            return
        before = await asyncio.to_thread(below)
        await trial.running(containers=("one", "two"))
        begun = await asyncio.to_thread(below) - before
        await trial.stop_reading()
        await trial.call("stop", trial.provider.stop(), seconds=trial.suite.patience_seconds)
        left = await left_of(begun, trial.suite.accept_seconds)
        mend = "end every pod in stop; if pods outlive the provider and start finds them again, set survives = True"
        demand(not left, "stop", "no process of a pod left when it returns", ", ".join(left), mend)

    async def test_what_ended_while_the_provider_was_away(self, trial: Trial) -> None:
        """The exit code of a container that ended meanwhile is told afterwards."""
        if not self.survives:
            return
        pod = trial.pod(exit_code=3, after=self.moment_seconds)
        await trial.create(pod)
        await trial.until(pod, lambda status: runs(status) or ended(status), "the container started")
        await trial.restart(asyncio.sleep(2 * self.moment_seconds))
        record = await trial.listed(pod)
        mend = "let something that outlives the node's process write down how each container ended"
        demand(record is not None, "list_pods", f"pod {pod.key}, which ended meanwhile", "it is not listed", mend)
        status = await trial.until(pod, ended, "every container Terminated")
        exits(status, 3)
        await trial.create(pod)  # as the node loop may do
        await trial.later()
        now = await trial.status(pod)
        mend = "a pod that has ended stays ended, also for create_pod in a later process"
        found = f"{shown(now)}: {differing(status, now)}"
        demand(now == status, "create_pod", f"the pod to stay ended: {shown(status)}", found, mend)

    async def test_a_container_that_ends_after_a_restart_is_started_again(self, trial: Trial) -> None:
        """A provider that starts containers again does so for pods from before its restart, once they are handed over.

        The node loop hands each pod that it finds to `update_pod`, at its own start and after the changes broke off.
        """
        if not self.survives:
            return
        tried = trial.pod(restart="Always", exit_code=3, after=self.moment_seconds)
        await trial.create(tried)
        await trial.until(tried, lambda status: ended(status) or restarted(status), "the container ended")
        for _ in range(5):  # on a busy machine one moment is short
            await trial.later()
            if restarted(await trial.status(tried)):
                break
        else:
            return  # it leaves containers ended, whatever their restartPolicy
        await trial.delete(tried)

        pod = trial.pod(restart="Always", exit_code=3, after=6 * self.moment_seconds)
        await trial.create(pod)
        await trial.until(pod, runs, "the container started")
        await trial.restart()
        await trial.call("update_pod", trial.provider.update_pod(pod, inputs()))
        mend = "keep the pod that update_pod was given, and go by it for what ends later"
        await trial.until(pod, restarted, "after a restart, the container started again when it had ended", mend=mend)
        await trial.delete(pod)

    async def test_the_event_loop_is_not_held_up(self, trial: Trial) -> None:
        """No call computes, sleeps or waits for a disk or a network without letting others go on."""
        async with Heartbeat() as heartbeat:
            await trial.restart()
            pods = [await trial.running(lines=["line"]), await trial.finished(3, lines=["line"])]
            for pod in pods:
                labelled = Pod({**pod.raw, "metadata": {**pod.metadata, "labels": {"a": "b"}}})
                await trial.call("update_pod", trial.provider.update_pod(labelled, inputs()))
                with suppress(Exception):  # other checks are about logs
                    await trial.log(pod)
            await trial.records()
            await trial.call("node_status", trial.provider.node_status())
            await trial.call("ping", trial.provider.ping())
            for pod in pods:
                await trial.delete(pod, 1)
        expected = f"the event loop held up for {self.block_seconds:g} s at most"
        found = f"{heartbeat.longest:.2f} s, in\n{heartbeat.where}"
        mend = "await asyncio.to_thread(...) for what blocks, or use the asynchronous form of the call"
        demand(heartbeat.longest <= self.block_seconds, "every method", expected, found, mend)


def _quantities(what: str, amounts: Mapping[str, str]) -> dict[str, Quantity]:
    """Each amount, read."""
    mend = 'write quantities as a manifest does: "2", "500m", "4Gi"'
    read = {}
    for name, text in amounts.items():
        try:
            read[name] = Quantity.parse(text)
        except ValueError as error:
            broken("node_status", f"a quantity for {what} {name}", repr(text), mend, error)
        positive = isinstance(text, str) and not read[name] < Quantity.parse(0)
        demand(positive, "node_status", f"a quantity, as text, for {what} {name}", repr(text), mend)
    return read
