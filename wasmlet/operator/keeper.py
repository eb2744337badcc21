"""The control loop of one pool: look at its state, decide, do the next steps, and wait until something changes."""

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
from wasmlet.operator.applying import Applier, Dresser
from wasmlet.operator.classes import make_classes
from wasmlet.operator.draining import Drains
from wasmlet.operator.home import Home
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
"""The longest time between two looks at a pool, where no change is reported."""
SETTLE_SECONDS = 0.1
"""Changes come in groups, so a look waits so long for the rest of a group."""
REMOVING_SECONDS = 5.0
"""The longest time between two looks at a pool that is being deleted: then kopf does not report its changes."""
AGAIN_SECONDS = 30.0
"""The pause before another try where an administrator has to correct something that no watch reports."""
HOST_SECONDS = 2.0
"""How long a host may need to end the node of an agent whose key was deleted."""
WORDS_SECONDS = 5.0
"""The least time between two status writes that differ only in words. Another operator may write it in other words,
too."""
MOST_CONFLICTS = 5
"""After so many conflicts in a row there are warnings and long pauses; before that, the next look follows soon."""
Ask = Callable[[], Awaitable[Raw]]


class Keeper:
    """Keeps one pool.

    Args:
        uid: the pool's UID. A pool of the same name with another UID counts as gone.
        ask: returns the pool's object as it is now.
        removing: the pool is being deleted. Then its nodes are ended, and `run` returns when they are gone.
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
        """The pool's object from the API server's answer to the last status write."""
        self._reported = float("-inf")
        self._core = f"/api/v1/namespaces/{shared.config.namespace}"
        self._locked_out: dict[str, float] = {}
        """When the keys of agents were taken back, by UID of their Nodes."""
        self._let_in: Sequence[str] | None = None
        """The agents that may have keys; the keys of all others were deleted. None before that was done."""
        self._scaler = Scaler(shared.client, shared.waiting, shared.clock)
        self._classes: Collection[str] = ()
        """The engines for which the RuntimeClasses have been created."""
        self._free: set[str] = set()
        """Names of nodes that are about to be made and were checked: no Node of somebody else has them."""
        self._dresser = Dresser(shared.client, shared.clock)
        self._home = Home(shared.client, name, shared.config.namespace, self._tell)

    async def run(self) -> None:
        """Keep the pool until cancelled, or until it is gone."""
        shared = self._shared
        await shared.fleet.in_sync()
        pauses = shared.client.recovery.pauses(shared.pacing.backoff, shared.clock, shared.rng)
        conflicts = 0
        async with Drains(shared, self._name, self._tell) as drains:
            while True:
                self._wake.clear()
                pauses.begin()
                try:
                    with shared.pulse.looking(self._name):
                        again = await self._look(drains)
                except errors.ApiError as error:
                    conflicts = conflicts + 1 if isinstance(error, errors.Conflict) else 0
                    if 0 < conflicts < MOST_CONFLICTS:
                        log.debug("somebody else has written meanwhile", pool=self._name, error=str(error))
                        await shared.clock.sleep(SETTLE_SECONDS)
                        continue
                    log.warning("a pool is not as it is to be, trying again", pool=self._name, **described(error))
                    shared.metrics.failed(self._name)
                    await pauses.wait()
                    continue
                conflicts = 0
                if again is None:
                    return
                await either(shared.clock, again, self._wake)
                await shared.clock.sleep(SETTLE_SECONDS)

    async def _look(self, drains: Drains) -> float | None:
        """Look at the pool once, and do the steps that follow.

        Returns:
            In how many seconds to look again at the latest; None when the pool is gone.
        """
        try:
            raw = await self._ask()
            if raw["metadata"]["uid"] != self._uid:
                return None
            if not await self._home.is_here(raw, removing=self._removing):
                return AGAIN_SECONDS
            pool = await self._with_replicas(Pool.of(raw))
        except errors.ObjectNotFound:
            return None
        seen = self._seen(pool)
        wanted = 0 if self._removing else pool.wanted

        def decided() -> Plan:
            emptied = drains.emptied(seen, pool.drain_timeout)
            if pool.remote is not None:
                return planned_of_agents(wanted, seen, emptied)
            return planned(wanted, seen, emptied, pool.max_unavailable)

        plan = decided()
        trouble, again = None, [REMOVING_SECONDS if self._removing else LOOK_SECONDS]
        try:
            if self._removing and nothing_runs(seen):
                await remove_objects(self._shared.client, self._shared.config.namespace, self._name)
                return None
            seen, strays = await self._completed(plan, seen)
            plan = decided()
            due = await drains.follow(plan.drain, seen, pool.drain_timeout)
            for node in plan.release:
                await drains.release(node)
            again += [] if self._removing else await self._dresser.dress(pool, seen)
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
        seen = self._seen(pool)  # again: the controller may not have seen what was applied
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

    async def _completed(self, plan: Plan, seen: Seen) -> tuple[Seen, list[str]]:
        """Add the Nodes that the watch has not reported yet, for pods that are about to end.

        Returns:
            The completed state, and the names of Nodes that have pods but have lost the label by which the watch finds
            them.
        """
        have = 0 if seen.set is None else seen.set.replicas
        ending = {pod.name for pod in plan.restart}
        members, strays = [], []
        for member in seen.members:
            ends = member.name in ending or plan.replicas <= member.ordinal < have
            path = f"{paths.NODES}/{member.name}"
            if ends and _hides_guests(member) and (raw := await self._found(path)) is not None:
                if (raw["metadata"].get("labels") or {}).get(LABEL) == self._name:
                    members.append(attrs.evolve(member, node=NodeSeen.of(raw)))
                    continue
                pods = await self._shared.client.get(paths.PODS, fieldSelector=f"spec.nodeName={member.name}")
                strays += [member.name] if pods["items"] else []
            members.append(member)
        return attrs.evolve(seen, members=members), strays

    async def _found(self, path: str) -> Raw | None:
        """The object as the API server has it now; None where there is none."""
        try:
            return await self._shared.client.get(path)
        except errors.ObjectNotFound:
            return None

    async def _with_replicas(self, pool: Pool) -> Pool:
        """The pool with `replicas` set; where it is not, a default is written into the object first.

        A HorizontalPodAutoscaler does not scale an object that has no number.
        """
        if pool.replicas is not None or pool.remote is not None or self._removing:
            return pool
        raw = await self._shared.client.get(f"{POOLS}/{pool.name}")
        if (found := Pool.of(raw)).replicas is not None or found.uid != pool.uid:
            return attrs.evolve(pool, replicas=found.replicas)
        count = 1 if pool.autoscaling is None else pool.autoscaling.least
        patch = {"metadata": {"resourceVersion": version_of(raw)}, "spec": {"replicas": count}}
        return Pool.of(await self._shared.client.patch(f"{POOLS}/{pool.name}", patch, MERGE_PATCH))

    async def _check(self, pool: Pool, plan: Plan, seen: Seen, strays: Sequence[str]) -> None:
        """Check that the pool's spec can be carried out.

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
        self._free.intersection_update(names)
        for name in names:
            if name not in self._free and await self._is_taken(name):
                # The pool's nodes would get the right to act as that Node, or still have it from before.
                if have and pool.remote is None:
                    await self._apply(pool, attrs.evolve(plan, replicas=have), seen)
                raise Unusable("NameTaken", f"there is a Node {name} that is not of this pool; rename the pool")
            self._free.add(name)

    async def _is_taken(self, name: str) -> bool:
        """Whether somebody else's Node has this name."""
        found = await self._found(f"{paths.NODES}/{name}")
        return found is not None and (found["metadata"].get("labels") or {}).get(LABEL) != self._name

    async def _scale(self, pool: Pool, rules: Autoscaling, seen: Seen) -> float:
        """Change the pool's `replicas` where it scales itself. The next look acts on that.

        Returns:
            In how many seconds to look again.
        """
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
        """Apply the pool's objects; of a pool that is being deleted, only where the number of its nodes changes."""
        if self._removing and pool.remote is not None and not plan.forget:
            return None
        if self._removing and pool.remote is None and plan.replicas == (0 if seen.set is None else seen.set.replicas):
            return None
        config = self._shared.config
        names = [pool.node(ordinal) for ordinal in range(plan.replicas)]
        names += [member.name for member in seen.members if member.ordinal >= plan.replicas]
        if pool.certificates:  # an older pod keeps its right to act as its Node until it is replaced
            names = [m.name for m in seen.members if m.pod is not None and not m.pod.certificates]
        place = objects.Place(config.namespace, config.node_image, self._shared.client.identity.server)
        made = objects.of_nodes(pool, place, plan.replicas, names)
        if pool.remote is not None:
            # Its name leaves the role first: else the agent could join again with its token once its key is deleted.
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
        """Delete the pods and Nodes that the plan names.

        Returns:
            The seconds to wait where Nodes may not be deleted yet; empty where there is nothing to wait for.
        """
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
            if await self._found(f"{self._core}/pods/{node.name}") is not None:
                continue  # the watch has not reported this pod yet, which would create its Node again
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
        """In how many seconds the Node of an agent may be deleted; earlier, its host might create it again."""
        now = self._shared.clock.monotonic()
        return self._locked_out.setdefault(node.uid, now) + HOST_SECONDS - now

    async def _report(self, raw: Raw, status: dict[str, Any]) -> float | None:
        """Write the pool's status if it has changed.

        Returns:
            In how many seconds to write it, where it differs only in words and was written a moment ago; else None.
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
    """Whether pods may run on this node although the watch has not shown its Node."""
    return member.node is None and member.pod is not None and member.pod.running and not member.pod.ending


def version_of(raw: Raw) -> str:
    return str(raw["metadata"]["resourceVersion"])
