"""Everything at once and at random: pods come, change, finish and go while API server, provider and node loop fail.

    python -m tests.node.churn --seconds 600 --seed 1

or `make churn`. At the end the faults stop, and API, provider and node loop have to agree, with nothing left over.
`churn_checks` says what must hold all the time; `test_churn` is the short form for every day.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import attrs

import wasmlet
from tests.node.churn_checks import Witness, Worker, disagreements, maps_of
from tests.node.churn_report import Report, described, pod_tasks, quiet, resident
from tests.node.cluster import NODE, Cluster
from tests.node.trouble import KUBELET, FastClock, troubled_cluster
from wasmlet.clock import Clock
from wasmlet.controlplane.faults import Cut, Delay, Drop, Effect, Fail, Faults
from wasmlet.kube import errors
from wasmlet.kube.client import MERGE_PATCH
from wasmlet.node.pods.pod_task import PodTask

PODS = "/api/v1/namespaces/default/pods"
MAPS = "/api/v1/namespaces/default/configmaps"
NAMES = [f"p{i}" for i in range(40)]
MAP_NAMES = [f"m{i}" for i in range(5)]
USERS = 4
SPEED = 20.0
CALL_SECONDS = 0.5
SETTLE_SECONDS = 40.0
GROWTH_SHARE = 0.1
"""By how much memory may grow from a third of the time to its end, in a churn of at least `LONG` seconds."""
LONG = 300.0

EFFECTS: list[tuple[Effect, str]] = [
    (Drop(), "*"),
    (Drop(after=True), "*"),
    (Delay(0.1), "*"),
    (Fail(500), "*"),
    (Fail(503), "*"),
    (Fail(429, retry_after=1), "*"),
    (Fail(401), "*"),
    (Fail(409), "*"),
    (Fail(410), "watch"),
    (Fail(410), "list"),
    (Cut(0), "watch"),
    (Cut(2), "watch"),
]


@attrs.define
class Churn:
    """One churn under way."""

    cluster: Cluster
    report: Report
    rng: random.Random
    clock: Clock
    witness: Witness
    provider: Worker
    seconds: float
    say: Callable[[str], None]
    over: asyncio.Event = attrs.field(factory=asyncio.Event)
    calm: asyncio.Event = attrs.field(factory=asyncio.Event)
    """Users do nothing while the API server goes back to an older state: they would not know what of it was done."""
    others: frozenset[PodTask] = attrs.field(factory=lambda: frozenset(pod_tasks()))
    """What other tests of this process have left."""

    @property
    def faults(self) -> Faults:
        found: Faults = self.cluster.plane.faults
        return found

    async def run(self) -> None:
        self.cluster.plane._store.listeners.append(self.witness.listen)
        self.calm.set()
        self.provider.trouble = self._trouble
        async with asyncio.TaskGroup() as group:
            node = group.create_task(self._nodes())
            actors = [
                group.create_task(self._repeat(partial(self._use, random.Random(self.rng.random()))))
                for _ in range(USERS)
            ]
            actors += [
                group.create_task(self._repeat(self._harm_api)),
                group.create_task(self._repeat(self._harm_provider)),
            ]
            actors.append(group.create_task(self._repeat(self._expire)))
            watch = group.create_task(self._watch_memory())
            await asyncio.sleep(self.seconds)
            self.over.set()
            await asyncio.wait(actors)
            await watch
            await self._end()
            node.cancel()
        self.report.wrong += self.witness.wrong + self.provider.overlaps
        self.report.counts |= {"pods started": self.provider.started, "changes of pods": self.witness.changes}

    async def _repeat(self, act: Callable[[], Awaitable[None]]) -> None:
        while not self.over.is_set():
            with suppress(errors.ApiError):
                await act()
            await asyncio.sleep(0.01)

    # -- users

    async def _use(self, rng: random.Random) -> None:
        """One thing that a user does, or a controller, or a guest."""
        await self.calm.wait()
        admin, name = self.cluster.admin, rng.choice(NAMES)
        path = f"{PODS}/{name}"
        what = rng.choices(
            ["create", "label", "annotate", "delete", "force", "shorten", "finish", "release", "map"],
            [30, 8, 4, 14, 5, 4, 8, 8, 3],
        )[0]
        match what:
            case "create":
                await self._create(rng, name)
            case "label":
                await admin.patch(path, {"metadata": {"labels": {"a": str(rng.randrange(9))}}}, MERGE_PATCH)
            case "annotate":
                await admin.patch(path, {"metadata": {"annotations": {"b": str(rng.randrange(9))}}}, MERGE_PATCH)
            case "delete":
                await admin.delete(path)
            case "force":
                await admin.delete(path, {"gracePeriodSeconds": 0})
            case "shorten":
                await admin.delete(path, {"gracePeriodSeconds": 20})
                await admin.delete(path, {"gracePeriodSeconds": 1})
            case "finish" if self.provider.pods:
                held = rng.choice(list(self.provider.pods.values()))
                self.provider.finish(held.key, rng.choice([0, 0, 1, 137]))
            case "release":
                await self._release(rng.choice(NAMES))
            case "map":
                await self._map(rng.choice(MAP_NAMES), rng)
        self.report.count(what)

    async def _create(self, rng: random.Random, name: str) -> None:
        container: dict[str, Any] = {"name": "c", "image": "file:///none.wasm"}
        if rng.random() < 0.3:
            container["envFrom"] = [{"configMapRef": {"name": rng.choice(MAP_NAMES), "optional": True}}]
        metadata = {"finalizers": ["example.com/wait"]} if rng.random() < 0.15 else {}
        await self.cluster.create(
            name,
            metadata=metadata,
            containers=[container],
            restartPolicy=rng.choice(["Never", "Never", "OnFailure", "Always"]),
            terminationGracePeriodSeconds=rng.choice([0, 1, 30]),
            automountServiceAccountToken=rng.random() < 0.5,
        )

    async def _release(self, name: str) -> None:
        """Take a pod's finalizers away; all of them in the end go this way."""
        await self.cluster.admin.patch(f"{PODS}/{name}", {"metadata": {"finalizers": None}}, MERGE_PATCH)

    async def _map(self, name: str, rng: random.Random) -> None:
        try:
            if rng.random() < 0.2:
                await self.cluster.admin.delete(f"{MAPS}/{name}")
            else:
                await self.cluster.admin.patch(f"{MAPS}/{name}", {"data": {"a": str(rng.random())}}, MERGE_PATCH)
        except errors.ObjectNotFound:
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "first"}}
            await self.cluster.admin.create(MAPS, body)

    async def _expire(self) -> None:
        """Events go after a time, as in any cluster: they would be most of what grows."""
        await asyncio.sleep(2)
        await self.cluster.admin.delete("/api/v1/namespaces/default/events")

    # -- faults

    async def _harm_api(self) -> None:
        """One fault of the API server, from its beginning to its end; mostly for the node alone."""
        rng = self.rng
        what = rng.choices(
            ["rule", "outage", "silence", "disconnect", "restart", "rewind", "peace"], [8, 2, 1, 2, 1, 1, 6]
        )[0]
        self.report.count(f"api {what}")
        match what:
            case "rule":
                effect, verb = rng.choice(EFFECTS)
                with self.faults.add(effect, verb=verb, user=KUBELET, probability=rng.choice([0.1, 0.4, 0.9])):
                    if verb == "watch" or rng.random() < 0.3:
                        self.faults.disconnect()
                    await asyncio.sleep(rng.uniform(0.1, 1))
            case "outage" | "silence":
                async with self.faults.outage(silent=what == "silence"):
                    await asyncio.sleep(rng.uniform(0.05, 0.6))
            case "disconnect":
                self.faults.disconnect()
            case "restart":
                await self.faults.restart()
            case "rewind":
                await self._rewind(rng.uniform(0.1, 1))
            case "peace":
                await asyncio.sleep(rng.uniform(0.1, 1))

    async def _rewind(self, seconds: float) -> None:
        """Go back to the state of some time ago."""
        state = self.faults.snapshot()
        # Many writes, so to speak: what is written to the restored server cannot reach the versions of the lost time.
        self.cluster.plane._store.version += 1_000_000
        await asyncio.sleep(seconds)
        self.calm.clear()
        async with self.faults.outage():
            # The listener hears of the way back, too: that is no change of a pod, and it is told so first and last.
            self.cluster.plane._store.listeners.remove(self.witness.listen)
            self.faults.restore(state)
            self.cluster.plane._store.listeners.append(self.witness.listen)
            self.witness.rewound([record.raw for record in state.records["pods"][1]])
        self.calm.set()

    async def _trouble(self, call: str, after: bool) -> None:
        """What may happen in a call of the provider."""
        chance = self.rng.random()
        if chance < 0.04:
            self.report.count("provider fails")
            raise RuntimeError(f"bad luck with {call}: {chance}")
        if chance < 0.05:
            self.report.count("provider hangs")
            await asyncio.sleep(2 * CALL_SECONDS)
        elif chance < 0.3:
            await asyncio.sleep(chance / 10)

    async def _harm_provider(self) -> None:
        await asyncio.sleep(self.rng.uniform(0.2, 2))
        self.report.count("provider breaks its changes")
        self.provider.break_changes()

    # -- the node

    async def _nodes(self) -> None:
        """A node for as long as this lasts; it is stopped, or killed, and started again now and then."""
        config = self.cluster.config()
        while True:
            node = wasmlet.Node(self.provider, config, clock=self.clock, rng=random.Random(self.rng.random()))
            try:
                await node.__aenter__()
                await self._alive(node, self.rng.uniform(1, 5))
                if self.over.is_set():
                    await self._alive(node, None)
                await self._end_node(node)
            except asyncio.CancelledError:
                await node.stop()
                raise
            except wasmlet.ConfigError:
                self.report.count("node could not start")  # the API server is away
                await asyncio.sleep(0.1)
            except Exception as error:
                if "bad luck" in str(error):  # the provider could not list its pods
                    self.report.count("node could not start")
                    continue
                self.report.wrong.append(f"the node ended: {''.join(traceback.format_exception(error))}")

    async def _alive(self, node: wasmlet.Node, seconds: float | None) -> None:
        """See that the node lives for some time."""
        assert node._task is not None
        if (await asyncio.wait({node._task}, timeout=seconds))[0]:
            await node.wait()
            raise AssertionError("the node ended by itself")

    async def _end_node(self, node: wasmlet.Node) -> None:
        if self.rng.random() < 0.5:
            self.report.count("node stopped")
            await node.stop()
        else:
            self.report.count("node killed")
            assert node._task is not None
            node._task.cancel()
            await asyncio.wait([node._task])

    # -- the end

    async def _end(self) -> None:
        """Stop all faults, wait until everything agrees, then see that nothing is left when the pods are gone."""
        self.faults.clear()
        self.provider.trouble = _peace
        for name in NAMES:
            with suppress(errors.ObjectNotFound):
                await self._release(name)
        await self._settle("after the faults", ended=False)
        for name in NAMES:
            with suppress(errors.ObjectNotFound):
                await self.cluster.delete(name)
        await self._settle("after all pods were deleted", ended=True)

    async def _settle(self, when: str, *, ended: bool) -> None:
        """Wait until API and provider agree, and the node keeps no more than that needs."""
        wrong = [f"nothing was looked at {when}"]
        until = time.monotonic() + SETTLE_SECONDS
        while wrong and time.monotonic() < until:
            await asyncio.sleep(0.1)
            try:
                pods = (await self.cluster.admin.get(PODS))["items"]
                maps = (await self.cluster.admin.get(MAPS))["items"]
            except errors.ApiError as error:
                wrong = [f"the API server does not answer: {error}"]
                continue
            by_name = {item["metadata"]["name"]: item for item in maps}
            wrong = disagreements(pods, self.provider, by_name, ended=ended)
            if not wrong:
                wrong = self._left(len(pods), {*maps_of(pods)})
        self.report.wrong += [f"{when}: {what}" for what in wrong]
        self.say(f"{when}: {'; '.join(wrong) or 'all agree'}")

    def _left(self, pods: int, maps: set[str]) -> list[str]:
        """What the node keeps beyond what it needs for so many pods that refer to these config maps."""
        gc.collect()
        tasks = [task for task in pod_tasks() if task not in self.others]
        watches = self.faults._server.watches if self.faults._server else 0
        # Pods, the Node, services; and each config map that a pod refers to, kube-root-ca.crt by their tokens.
        allowed = 3 + len(maps) + (1 if pods else 0)
        running = len(asyncio.all_tasks())
        wrong = []
        if len(tasks) != pods:
            wrong.append(f"{len(tasks)} pod tasks for {pods} pods: {', '.join(map(described, tasks))}")
        if watches > allowed:
            wrong.append(f"{watches} watches where {allowed} do")
        if running > 80 + 8 * pods:  # the control plane has some 50 of its own
            wrong.append(f"{running} asyncio tasks for {pods} pods")
        return wrong

    # -- memory

    async def _watch_memory(self) -> None:
        """Take the resident memory ten times, first after a third of the time."""
        begun = time.monotonic()
        for step in range(10):
            await asyncio.sleep(max(0.0, begun + self.seconds * (1 / 3 + step / 15) - time.monotonic()))
            gc.collect()
            self.report.memory.append((round(time.monotonic() - begun, 1), resident()))
            acts, pods = sum(self.report.counts.values()), self.provider.started
            at, size = self.report.memory[-1]
            self.say(f"{at:6.0f} s  {size:.1f} MiB  {acts} acts  {pods} pods")


async def _peace(call: str, after: bool) -> None:
    """A provider that is well."""


async def churn(
    directory: Path, *, seed: int, seconds: float, say: Callable[[str], None] = lambda text: None
) -> Report:
    """Run one. What was wrong is in the report; nothing is raised for it."""
    report, rng, clock, witness = Report(seed), random.Random(seed), FastClock(SPEED), Witness()
    async with troubled_cluster(directory, seed=seed, ring=512, clock=clock) as cluster, quiet(report, CALL_SECONDS):
        await Churn(cluster, report, rng, clock, witness, Worker(witness), seconds, say).run()
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=f"Churn on node {NODE}; see the module's docstring.")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"churn of {options.seconds:g} s with seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        report = asyncio.run(churn(Path(directory), seed=seed, seconds=options.seconds, say=partial(print, flush=True)))
    for what, count in sorted(report.counts.items()):
        print(f"{count:8}  {what}")
    print(f"memory grew by {report.growth:.1f} MiB from {report.memory[0][1]:.1f}")
    # What is remembered of the past is full by then, and only a leak still grows.
    if options.seconds >= LONG and report.growth > GROWTH_SHARE * report.memory[0][1]:
        report.wrong.append(f"memory grew by more than {GROWTH_SHARE:.0%}: {report.memory}")
    if report.wrong:
        print("\n".join([*report.log, *report.wrong]))
        print(f"{len(report.wrong)} things are wrong; seed {seed}")
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
