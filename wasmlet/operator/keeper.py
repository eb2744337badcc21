"""One pool is kept as its object says: look, decide, do the next steps, wait until something changes."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

import attrs
import structlog

from wasmlet.clock import either
from wasmlet.failures import described
from wasmlet.kube import errors, later, paths
from wasmlet.kube.client import JSON_PATCH, MERGE_PATCH
from wasmlet.model.pod import Raw
from wasmlet.operator import objects
from wasmlet.operator.applying import Applier
from wasmlet.operator.classes import make_classes
from wasmlet.operator.draining import Drains
from wasmlet.operator.dressing import dressed
from wasmlet.operator.home import claim, home_of
from wasmlet.operator.leftovers import nothing_runs, remove_objects, take_back_keys
from wasmlet.operator.node_pod import check_config
from wasmlet.operator.plan import Plan, planned, planned_of_agents
from wasmlet.operator.pool import GROUP, KIND, LABEL, POOLS, VERSION, Autoscaling, Pool, Unusable
from wasmlet.operator.remote import of_agents
from wasmlet.operator.scaling import Scaler
from wasmlet.operator.seen import Member, NodeSeen, Seen
from wasmlet.operator.shared import Shared
from wasmlet.operator.status import in_words_only, some, stamped, status_of

log = structlog.get_logger(__name__)

LOOK_SECONDS = 600.0
"""A pool is looked at that often where nothing is heard of it."""
SETTLE_SECONDS = 0.1
"""Changes come in flocks; a look waits so long for the rest of one."""
REMOVING_SECONDS = 5.0
"""The same for a pool that is deleted: kopf tells of no change of an object while it handles its deletion."""
AGAIN_SECONDS = 30.0
"""What an administrator has to put right, and no watch tells of, is tried again so often."""
HOST_SECONDS = 2.0
"""What a host takes to end the node of an agent whose key is gone."""
WORDS_SECONDS = 5.0
"""The least time between two times that the same state is put into other words: another operator may do so, too."""
Ask = Callable[[], Awaitable[Raw]]


class Keeper:
    """Keeps one pool.

    Args:
        uid: of the pool.
        ask: gives the pool's object as it is now.
        removing: the pool is deleted: its nodes end, and `run` with them.
    """

    def __init__(self, name: str, uid: str, shared: Shared, ask: Ask, *, removing: bool) -> None:
        self._name = name
        self._uid = uid
        self._shared = shared
        self._ask = ask
        self._removing = removing
        self._wake = shared.wakes.of(name)
        self._applier = Applier(shared.client, shared.fleet, name, shared.clock)
        self._answered: Raw = {}
        """The pool, as the API server answered when its status was written last."""
        self._reported = float("-inf")
        self._core = f"/api/v1/namespaces/{shared.config.namespace}"
        self._locked_out: dict[str, float] = {}
        """When the keys of agents were taken back, by UID of their Nodes."""
        self._let_in: Sequence[str] | None = None
        """The agents that alone have keys."""
        self._scaler = Scaler(shared.client, shared.waiting, shared.clock)
        self._classes: Collection[str] = ()
        """The engines whose RuntimeClasses are there."""
        self._free: set[str] = set()
        """Names that are no Node's of somebody else."""
        self._home: str | None = None
        """The namespace of the pool's nodes, where that is known."""

    async def run(self) -> None:
        """Keep the pool until cancelled, or until it is gone."""
        shared = self._shared
        await shared.fleet.in_sync()
        pauses = shared.client.recovery.pauses(shared.pacing.backoff, shared.clock, shared.rng)
        async with Drains(shared, self._name, self._tell) as drains:
            while True:
                self._wake.clear()
                pauses.begin()
                try:
                    with shared.pulse.looking(self._name):
                        again = await self._look(drains)
                except errors.ApiError as error:
                    log.warning("a pool is not as it is to be, trying again", pool=self._name, **described(error))
                    shared.metrics.failed(self._name)
                    await pauses.wait()
                    continue
                if again is None:
                    return
                await either(shared.clock, again, self._wake)
                await shared.clock.sleep(SETTLE_SECONDS)

    async def _look(self, drains: Drains) -> float | None:
        """One look and the steps that follow.

        Returns:
            In how many seconds to look again at the latest; None when the pool is gone.
        """
        try:
            raw = await self._ask()
            if raw["metadata"]["uid"] != self._uid:
                return None
            if not await self._at_home(raw):
                return AGAIN_SECONDS
            pool = await self._with_replicas(Pool.of(raw))
        except errors.ObjectNotFound:
            return None
        seen = self._seen(pool)
        if self._removing and nothing_runs(seen):
            await remove_objects(self._shared.client, self._shared.config.namespace, self._name)
            return None
        wanted = 0 if self._removing else pool.wanted

        def decided() -> Plan:
            emptied = drains.emptied(seen, pool.drain_timeout)
            if pool.remote is not None:
                return planned_of_agents(wanted, seen, emptied)
            return planned(wanted, seen, emptied, pool.max_unavailable)

        plan = decided()
        trouble, again = None, [REMOVING_SECONDS if self._removing else LOOK_SECONDS]
        try:
            seen, strays = await self._completed(plan, seen)
            plan = decided()
            due = await drains.follow(plan.drain, seen, pool.drain_timeout)
            for node in plan.release:
                await drains.release(node)
            await self._dress(pool, seen)
            if pool.autoscaling is not None and not self._removing:
                again.append(await self._scale(pool, pool.autoscaling, seen))
            again += [] if due is None else [due]
            await self._check(pool, plan, seen, strays)
            mend = await self._apply(pool, plan, seen)
            again += [] if mend is None else [mend]
            again += await self._step(pool, plan)
        except Unusable as error:
            trouble = error
            again.append(AGAIN_SECONDS)
        except (errors.BadRequest, errors.Forbidden, errors.Invalid, errors.ObjectNotFound) as error:
            log.warning("the API server refuses what a pool needs", pool=self._name, error=str(error))
            self._shared.metrics.failed(self._name)
            trouble = Unusable("Refused", f"the API server refuses what the pool needs: {error}")
            again.append(AGAIN_SECONDS)
        seen = self._seen(pool)  # what was applied its controller has not seen
        status = status_of(pool, seen, plan, drains.progress(), trouble=trouble, removing=self._removing)
        if (later_on := await self._report(raw, status)) is not None:
            again.append(later_on)
        self._shared.metrics.looked(
            self._name,
            wanted=wanted,
            ready=status["readyReplicas"],
            updated=status["updatedReplicas"],
            draining=len(plan.drain),
        )
        return min(again)

    def _seen(self, pool: Pool) -> Seen:
        if pool.remote is not None:
            agents = pool.remote.agents
            if self._removing:
                nodes = self._shared.fleet.nodes.of(self._name)
                agents = [name for name in agents if name in nodes]
            return self._shared.fleet.of_agents(self._name, self._uid, agents)
        return self._shared.fleet.of(self._name)

    async def _at_home(self, raw: Raw) -> bool:
        """Whether the pool's nodes are in this operator's namespace, or nowhere yet.

        Where they are not, nothing is touched, the status neither: another operator may be there, and write it.
        """
        own = self._shared.config.namespace
        if self._home != own:
            before, self._home = self._home, await home_of(self._shared.client, self._name, own)
            if self._home is None and not self._removing:
                self._home = await claim(self._shared.client, Pool.of(raw), own)
            if self._home not in (None, own):
                if self._home != before:
                    said = f"its nodes are in namespace {self._home}, and this operator is for {own}: it does nothing"
                    log.warning("a pool is another operator's", pool=self._name, why=said)
                    self._tell("OtherNamespace", said, warning=True)
                return False
        return True

    async def _completed(self, plan: Plan, seen: Seen) -> tuple[Seen, list[str]]:
        """What is seen, with the Nodes of which the watch has not told yet, of pods that are to end.

        Returns:
            That, and the names of Nodes with pods that have lost the label by which they are seen.
        """
        have = 0 if seen.set is None else seen.set.replicas
        ending = {pod.name for pod in plan.restart}
        members, strays = [], []
        for member in seen.members:
            ends = member.name in ending or plan.replicas <= member.ordinal < have
            if ends and _hides_guests(member) and (raw := await self._node(member.name)) is not None:
                if (raw["metadata"].get("labels") or {}).get(LABEL) == self._name:
                    members.append(attrs.evolve(member, node=NodeSeen.of(raw)))
                    continue
                pods = await self._shared.client.get(paths.PODS, fieldSelector=f"spec.nodeName={member.name}")
                strays += [member.name] if pods["items"] else []
            members.append(member)
        return attrs.evolve(seen, members=members), strays

    async def _node(self, name: str) -> Raw | None:
        try:
            return await self._shared.client.get(f"{paths.NODES}/{name}")
        except errors.ObjectNotFound:
            return None

    async def _with_replicas(self, pool: Pool) -> Pool:
        """The pool with a number of nodes: where nobody says one, an autoscaler of pods would leave it alone."""
        if pool.replicas is not None or pool.remote is not None or self._removing:
            return pool
        raw = await self._shared.client.get(f"{POOLS}/{pool.name}")
        if (found := Pool.of(raw)).replicas is not None or found.uid != pool.uid:
            return attrs.evolve(pool, replicas=found.replicas)
        count = 1 if pool.autoscaling is None else pool.autoscaling.least
        patch = {"metadata": {"resourceVersion": version_of(raw)}, "spec": {"replicas": count}}
        return Pool.of(await self._shared.client.patch(f"{POOLS}/{pool.name}", patch, MERGE_PATCH))

    async def _check(self, pool: Pool, plan: Plan, seen: Seen, strays: Sequence[str]) -> None:
        """See that the pool can be as it says.

        Raises:
            Unusable: it cannot.
        """
        if not self._removing:
            check_config(pool)
        if strays:
            raise Unusable(
                "LabelMissing",
                f"the Node {strays[0]} has pods and is to end, but has lost its label; kubectl label node {strays[0]} "
                f"--overwrite {LABEL}={pool.name}",
            )
        have = 0 if seen.set is None else seen.set.replicas
        names = [pool.node(ordinal) for ordinal in range(have, plan.replicas)]
        if pool.remote is not None:
            names = [member.name for member in seen.members if member.node is None]
        for name in names:
            if name not in self._free:
                await self._check_free(name)
                self._free.add(name)

    async def _check_free(self, name: str) -> None:
        """The nodes of a pool may act as the Nodes of their names, so none may be another machine's."""
        found = await self._node(name)
        if found is not None and (found["metadata"].get("labels") or {}).get(LABEL) != self._name:
            raise Unusable("NameTaken", f"there is a Node {name} that is not of this pool; rename the pool")

    async def _scale(self, pool: Pool, rules: Autoscaling, seen: Seen) -> float:
        """Change how many nodes the pool wants; the next look sees it. Returns in how many seconds to look again."""
        wish, again = await self._scaler.wish(pool, rules, seen)
        if wish != pool.replicas:
            test = {"op": "test", "path": "/spec/replicas", "value": pool.replicas}
            patch = [test, {"op": "replace", "path": "/spec/replicas", "value": wish}]
            try:
                await self._shared.client.patch(f"{POOLS}/{pool.name}", patch, JSON_PATCH)
            except errors.Invalid:
                return again  # somebody else has changed it meanwhile
            why = "pods find no node" if wish > (pool.replicas or 0) else "the last node has no pods"
            self._tell("Autoscaled", f"from {pool.replicas} to {wish} nodes: {why}")
        return again

    # --- steps

    async def _apply(self, pool: Pool, plan: Plan, seen: Seen) -> float | None:
        """Make all objects what they are to be. Of a pool that goes only the number of its nodes is changed."""
        if self._removing and pool.remote is not None and not plan.forget:
            return None
        if self._removing and pool.remote is None and plan.replicas == (0 if seen.set is None else seen.set.replicas):
            return None
        config = self._shared.config
        names = [pool.node(ordinal) for ordinal in range(plan.replicas)]
        names += [member.name for member in seen.members if member.ordinal >= plan.replicas]
        if pool.certificates:  # until a pod is made anew it has the rights that it was made for
            names = [m.name for m in seen.members if m.pod is not None and not m.pod.certificates]
        place = objects.Place(config.namespace, config.node_image, self._shared.client.identity.server)
        made = objects.of_nodes(pool, place, plan.replicas, names)
        if pool.remote is not None:
            # One that goes must not come back with its token when its key is taken.
            names = [member.name for member in seen.members if member.node not in plan.forget]
            made = of_agents(pool, pool.remote, place, names)
            if self._removing:
                made = (one for one in made if one.body["kind"] == "ClusterRole")
        if pool.certificates:
            self._shared.approvals.ask()
        await self._make_classes(pool)
        mend = await self._applier.apply(made)
        if pool.remote is not None and names != self._let_in:
            await take_back_keys(self._shared.client, config.namespace, pool.name, names)
            self._let_in = names
        if seen.set is not None and seen.set.replicas < plan.replicas:
            self._tell("ScalingUp", f"from {seen.set.replicas} to {plan.replicas} nodes")
        return mend

    async def _make_classes(self, pool: Pool) -> None:
        engines = {*pool.engines, pool.provider if pool.remote is None else "wasmtime"}
        if not self._removing and engines != self._classes:
            await make_classes(self._shared.client, sorted(engines))
            self._classes = engines

    async def _step(self, pool: Pool, plan: Plan) -> list[float]:
        """What ends. Returns in how many seconds to look again, if something is about to."""
        client = self._shared.client
        restarted, gone = [], []
        for pod in plan.restart:
            path = f"{self._core}/pods/{pod.name}"
            with contextlib.suppress(errors.ObjectNotFound, errors.Conflict):
                await client.delete(path, {"preconditions": {"uid": pod.uid}})
                log.info("a node is made anew", pool=self._name, node=pod.name)
                restarted.append(pod.name)
        waits = [left for node in plan.forget if pool.remote is not None and (left := self._locked(node)) > 0]
        for node in plan.forget:
            if waits:
                break
            if await self._has_pod(node.name):
                continue  # the watch of pods is behind
            with contextlib.suppress(errors.ObjectNotFound, errors.Conflict):
                await client.delete(f"{paths.NODES}/{node.name}", {"preconditions": {"uid": node.uid}})
                log.info("a node is gone", pool=self._name, node=node.name)
                gone.append(node.name)
        if restarted:
            self._tell("NodeRestarted", f"made anew, as the pool says now: {some(restarted)}")
        if gone:
            self._tell("NodeRemoved", f"gone: {some(gone)}")
        return waits

    def _locked(self, node: NodeSeen) -> float:
        """In how many seconds the host of an agent whose key was taken back no longer makes its Node again."""
        now = self._shared.clock.monotonic()
        return self._locked_out.setdefault(node.uid, now) + HOST_SECONDS - now

    async def _dress(self, pool: Pool, seen: Seen) -> None:
        for member in () if self._removing else seen.members:
            if member.node is not None and (patch := dressed(pool, member.node)) is not None:
                with contextlib.suppress(errors.ObjectNotFound, errors.Conflict):
                    await self._shared.client.patch(f"{paths.NODES}/{member.name}", patch, MERGE_PATCH)

    async def _has_pod(self, name: str) -> bool:
        """Whether the node has a pod, which would make its Node again."""
        try:
            await self._shared.client.get(f"{self._core}/pods/{name}")
        except errors.ObjectNotFound:
            return False
        return True

    async def _report(self, raw: Raw, status: dict[str, Any]) -> float | None:
        """Write the status where it says something new.

        Returns:
            In how many seconds to do that, where it says the same in other words and was written just now.
        """
        if self._answered and not later(version_of(raw), version_of(self._answered)):
            raw = self._answered
        before, clock = raw.get("status") or {}, self._shared.clock
        if (changed := stamped(status, before, clock.now())) is None:
            return None
        left = self._reported + WORDS_SECONDS - clock.monotonic()
        if left > 0 and in_words_only(changed, before):
            return left
        self._reported = clock.monotonic()
        body = {"metadata": {"uid": self._uid}, "status": changed}
        with contextlib.suppress(errors.ObjectNotFound, errors.Conflict):
            self._answered = await self._shared.client.patch(f"{POOLS}/{self._name}/status", body, MERGE_PATCH)
        return None

    def _tell(self, reason: str, message: str, *, warning: bool = False) -> None:
        pool = {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "name": self._name, "uid": self._uid}
        self._shared.events.record(pool, reason, message, "Warning" if warning else "Normal")


def _hides_guests(member: Member) -> bool:
    """Whether pods may run on it although its Node is not seen."""
    return member.node is None and member.pod is not None and member.pod.running and not member.pod.ending


def version_of(raw: Raw) -> str:
    return str(raw["metadata"]["resourceVersion"])
