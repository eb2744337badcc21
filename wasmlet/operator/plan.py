"""Decides what to do next with the nodes of a pool. Pure: the observed state goes in, the next steps come out.

Guests run in the pod of their node and end with it. So a node that is to be removed or replaced is drained first. Its
pod is deleted when the drain is done or has timed out. Its Node object is deleted last, when no pod is left that would
create it again. A StatefulSet removes the pods with the highest ordinals first. So `replicas` is lowered only past
nodes that are empty.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import attrs

from wasmlet.operator.seen import Member, NodeSeen, PodSeen, Seen, SetSeen


@attrs.frozen
class Plan:
    """The next steps.

    Attributes:
        replicas: of the StatefulSet; more than wanted while surplus nodes are drained.
        drain: Nodes to drain, and to keep empty until they end.
        restart: outdated pods whose node is empty; deleted, so that the StatefulSet makes new ones.
        release: Nodes whose drain is to stop, as they are kept.
        forget: surplus Nodes to delete: those that have no pod any more; of agents, those whose drain is done.
        outdated: names of nodes whose pod has not the StatefulSet's current revision.
        surplus: names of nodes that are to be removed.
    """

    replicas: int
    drain: Sequence[NodeSeen]
    restart: Sequence[PodSeen]
    release: Sequence[NodeSeen]
    forget: Sequence[NodeSeen]
    outdated: Sequence[str]
    surplus: Sequence[str]

    @property
    def done(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.drain or self.restart or self.release or self.forget or self.outdated or self.surplus)


def planned(wanted: int, seen: Seen, emptied: Collection[str], max_unavailable: int) -> Plan:
    """The next steps towards `wanted` nodes, all with the StatefulSet's current revision.

    Args:
        wanted: how many nodes there are to be; 0 for a pool that is being deleted.
        emptied: UIDs of Nodes that are empty, or have had the time for it.
        max_unavailable: how many nodes may be unavailable at a time because of an update.
    """
    surplus = [member for member in seen.members if member.ordinal >= wanted]
    kept = [member for member in seen.members if member.ordinal < wanted]
    waiting = [member for member in surplus if _holds_guests(member) and not _emptied(member, emptied)]
    # Where somebody has deleted the StatefulSet, the new one adopts the pods that exist. So they count.
    found = max((member.ordinal + 1 for member in seen.members if member.pod is not None), default=0)
    current = seen.set.replicas if seen.set is not None else found
    replicas = wanted if wanted >= current else min(current, max([wanted, *(m.ordinal + 1 for m in waiting)]))
    outdated = [member for member in kept if _outdated(member, seen.set)]
    known = seen.set is not None and bool(seen.set.revision)
    if known:
        idle = [member for member in outdated if not _holds_guests(member)]
        turn = [*idle, *_turn(wanted, kept, outdated, emptied, max_unavailable)]
        release = [member for member in kept if member not in turn and _released(member, outdated)]
    else:  # the revision is not known: keep each drain going, as its node may turn out to be outdated
        turn, release = [member for member in kept if member.node is not None and member.node.draining is not None], []
    busy = [member for member in (*surplus, *turn) if _holds_guests(member)]
    pending = [member for member in busy if not _emptied(member, emptied)]
    return Plan(
        replicas=replicas,
        drain=[member.node for member in busy if member.node is not None],
        restart=[m.pod for m in turn if known and m.pod is not None and m not in pending],
        release=[member.node for member in release if member.node is not None],
        forget=[m.node for m in surplus if m.node is not None and m.pod is None and m.ordinal >= current],
        outdated=[member.name for member in outdated],
        surplus=[member.name for member in surplus],
    )


def _holds_guests(member: Member) -> bool:
    """Whether pods may run on the node: it has a Node, and its pod's container runs, even if it is not ready."""
    if member.node is None or member.pod is None or member.pod.ending:
        return False
    return member.pod.running or member.pod.ready


def _emptied(member: Member, emptied: Collection[str]) -> bool:
    return member.node is not None and member.node.uid in emptied and member.node.draining is not None


def _outdated(member: Member, target: SetSeen | None) -> bool:
    if member.pod is None or member.pod.ending or target is None or not target.revision:
        return False
    return member.pod.revision != target.revision


def _turn(
    wanted: int, kept: Sequence[Member], outdated: Sequence[Member], emptied: Collection[str], most: int
) -> list[Member]:
    """Which of the outdated nodes with guests are drained or replaced now.

    Nodes whose drain has begun come first, then nodes that are not available. In all, at most `most` nodes may be
    unavailable.
    """
    busy = [member for member in outdated if _holds_guests(member)]
    begun = [member for member in busy if member.node is not None and member.node.draining is not None]
    begun.sort(key=lambda member: (not _emptied(member, emptied), -member.ordinal))
    others = wanted - sum(member.available or member in busy for member in kept)
    more = max(0, most - others - len(begun))
    rest = sorted((m for m in busy if m not in begun), key=lambda member: (member.available, -member.ordinal))
    return [*begun[:most], *rest[:more]]


def _released(member: Member, outdated: Sequence[Member]) -> bool:
    if member.node is None or member.node.draining is None:
        return False
    if member in outdated:
        return True
    return member.pod is not None and member.pod.ready and not member.pod.ending and member.node.ready


def planned_of_agents(wanted: int, seen: Seen, emptied: Collection[str]) -> Plan:
    """The next steps of a pool of agents: surplus nodes are drained, and then their Nodes are deleted.

    Args:
        wanted: how many members stay, counted from the first; 0 for a pool that is being deleted.
        emptied: UIDs of Nodes that are empty, or have had the time for it.
    """
    surplus = [member for member in seen.members[wanted:] if member.node is not None]
    return Plan(
        replicas=wanted + len(surplus),
        drain=[member.node for member in surplus if member.node is not None],
        restart=[],
        release=[m.node for m in seen.members[:wanted] if m.node is not None and m.node.draining is not None],
        forget=[member.node for member in surplus if member.node is not None and _emptied(member, emptied)],
        outdated=[],
        surplus=[member.name for member in surplus],
    )
