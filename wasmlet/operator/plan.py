"""What is to be done with the nodes of a pool next. Pure: what the API server has goes in, steps come out.

Guests run in the pod of their node and end with it. So a node that is to go, or to be made anew, is emptied first; its
pod goes when that is done or has taken too long; its Node goes last, when no node loop is there to make it again. A
StatefulSet ends the pods with the highest ordinals, so the number of replicas is lowered past those that are empty.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import attrs

from wasmlet.operator.seen import Member, NodeSeen, PodSeen, Seen, SetSeen


@attrs.frozen
class Plan:
    """The next steps.

    Attributes:
        replicas: of the StatefulSet; more than wanted while nodes are emptied.
        drain: nodes to be emptied, and kept so until they end.
        restart: pods whose node is empty, to be deleted so that the StatefulSet makes new ones.
        release: Nodes that were to be emptied and are not any more.
        forget: Nodes without a pod that nobody wants.
        outdated: names of nodes whose pod is not what the StatefulSet says.
        surplus: names of nodes that are to go.
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
        """Whether all nodes are as they are to be, as far as the plan sees."""
        return not (self.drain or self.restart or self.release or self.forget or self.outdated or self.surplus)


def planned(wanted: int, seen: Seen, emptied: Collection[str], max_unavailable: int) -> Plan:
    """The next steps towards so many nodes, all of them what the StatefulSet says.

    Args:
        wanted: how many; 0 for a pool that is deleted.
        emptied: UIDs of Nodes that are empty, or have had the time for it.
        max_unavailable: how many nodes may be away for a change at a time.
    """
    surplus = [member for member in seen.members if member.ordinal >= wanted]
    kept = [member for member in seen.members if member.ordinal < wanted]
    waiting = [member for member in surplus if _holds_guests(member) and not _emptied(member, emptied)]
    # A StatefulSet that is made anew, as somebody has deleted it, takes the pods that it finds.
    found = max((member.ordinal + 1 for member in seen.members if member.pod is not None), default=0)
    current = seen.set.replicas if seen.set is not None else found
    replicas = wanted if wanted >= current else min(current, max([wanted, *(m.ordinal + 1 for m in waiting)]))
    outdated = [member for member in kept if _outdated(member, seen.set)]
    known = seen.set is not None and bool(seen.set.revision)
    if known:
        idle = [member for member in outdated if not _holds_guests(member)]
        turn = [*idle, *_turn(wanted, kept, outdated, emptied, max_unavailable)]
        release = [member for member in kept if member not in turn and _released(member, outdated)]
    else:  # what is emptied may be about to be outdated
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
    """Whether pods may run on it: there is a Node, and a pod whose container runs. One that is not ready may, too."""
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
    """Which of the outdated nodes with guests are emptied, or made anew, now.

    Those that are being emptied go on, but no more than may be away. Then come those that are not ready.
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
    """The next steps where nodes are agents: those that are to go are emptied, and then their Nodes go.

    Args:
        wanted: how many of the first members stay; 0 for a pool that is deleted.
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
