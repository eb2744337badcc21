"""What is done with the nodes of a pool next."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from tests.operator.pools import NEW, OLD, member, seen, stateful
from wasmlet.operator.plan import Plan, planned
from wasmlet.operator.seen import Member, Seen

SINCE = datetime(2026, 1, 1, tzinfo=UTC)


def names(nodes: object) -> list[str]:
    return [node.name for node in nodes]  # type: ignore[attr-defined]


def test_a_new_pool_has_as_many_replicas_as_it_wants() -> None:
    plan = planned(3, Seen(None, []), (), 1)
    assert plan == Plan(3, [], [], [], [], [], [])


def test_growing_waits_for_nothing() -> None:
    assert planned(5, seen([member(0)], 1), (), 1).replicas == 5


def test_a_node_that_is_to_go_is_emptied_while_its_pod_stays() -> None:
    plan = planned(1, seen([member(0), member(1), member(2)], 3), (), 1)
    assert (plan.replicas, names(plan.drain), plan.forget) == (3, ["edge-1", "edge-2"], [])


def test_replicas_are_lowered_past_the_nodes_that_are_empty() -> None:
    members = [member(0), member(1, draining=SINCE), member(2, draining=SINCE)]
    assert planned(1, seen(members, 3), {"node-1"}, 1).replicas == 3
    assert planned(1, seen(members, 3), {"node-2"}, 1).replicas == 2
    assert planned(1, seen(members, 3), {"node-1", "node-2"}, 1).replicas == 1


def test_a_node_is_forgotten_when_its_pod_is_gone_and_nobody_makes_it_again() -> None:
    ending, gone = member(1, draining=SINCE, ending=True), member(1, draining=SINCE, has_pod=False)
    assert planned(1, seen([member(0), ending], 1), {"node-1"}, 1).forget == []
    assert planned(1, seen([member(0), gone], 2), {"node-1"}, 1).forget == []
    assert names(planned(1, seen([member(0), gone], 1), {"node-1"}, 1).forget) == ["edge-1"]


def test_a_node_that_was_empty_before_it_was_to_go_is_not_taken_for_empty() -> None:
    plan = planned(1, seen([member(0), member(1)], 2), {"node-1"}, 1)
    assert (plan.replicas, names(plan.drain)) == (2, ["edge-1"])


def test_a_pod_that_never_became_a_node_ends_at_once() -> None:
    assert planned(1, seen([member(0), member(1, ready=False, has_node=False)], 2), (), 1).replicas == 1


def test_a_node_that_is_wanted_again_is_released() -> None:
    plan = planned(2, seen([member(0), member(1, draining=SINCE)], 2), (), 1)
    assert (names(plan.release), plan.drain, plan.replicas) == (["edge-1"], [], 2)


def test_a_change_takes_one_node_at_a_time() -> None:
    plan = planned(3, seen([member(n, OLD) for n in range(3)], 3), (), 1)
    assert (names(plan.drain), plan.restart, plan.release) == (["edge-2"], [], [])
    members = [member(0, OLD), member(1, OLD), member(2, OLD, draining=SINCE)]
    plan = planned(3, seen(members, 3), {"node-2"}, 1)
    assert (names(plan.drain), names(plan.restart)) == (["edge-2"], ["edge-2"])
    members[2] = member(2, NEW, draining=SINCE)
    plan = planned(3, seen(members, 3), {"node-2"}, 1)
    assert (plan.drain, plan.restart, names(plan.release)) == ([], [], ["edge-2"])
    members[2] = member(2, NEW)
    assert names(planned(3, seen(members, 3), (), 1).drain) == ["edge-1"]


def test_a_change_takes_several_nodes_where_so_many_may_be_away() -> None:
    assert names(planned(4, seen([member(n, OLD) for n in range(4)], 4), (), 3).drain) == ["edge-3", "edge-2", "edge-1"]


def test_a_node_that_is_away_counts_against_a_change() -> None:
    members = [member(0, OLD), member(1, OLD), member(2, NEW, ready=False)]
    assert planned(3, seen(members, 3), (), 1).drain == []


def test_a_node_that_is_away_with_an_old_pod_is_made_anew_at_once() -> None:
    away = member(1, OLD, ready=False, running=False)
    plan = planned(3, seen([member(0, OLD), away, member(2, OLD)], 3), (), 1)
    assert (plan.drain, names(plan.restart)) == ([], ["edge-1"])


def test_nodes_that_are_not_ready_may_hold_guests() -> None:
    members = [member(n, OLD, ready=False) for n in range(3)]
    plan = planned(3, seen(members, 3), (), 1)
    assert (names(plan.drain), plan.restart) == (["edge-2"], [])
    plan = planned(0, seen(members, 3), (), 1)
    assert (plan.replicas, names(plan.drain)) == (3, ["edge-0", "edge-1", "edge-2"])


def test_one_that_is_not_ready_is_made_anew_before_one_that_is() -> None:
    plan = planned(3, seen([member(0, OLD), member(1, OLD, ready=False), member(2, OLD)], 3), (), 1)
    assert names(plan.drain) == ["edge-1"]


def test_no_more_nodes_go_on_being_emptied_than_may_be_away() -> None:
    """Nodes that were to go are wanted again, and the pool is changed."""
    members = [member(0, OLD), *(member(n, OLD, draining=SINCE) for n in range(1, 4))]
    plan = planned(4, seen(members, 4), (), 1)
    assert (names(plan.drain), names(plan.release)) == (["edge-3"], ["edge-1", "edge-2"])
    plan = planned(4, seen(members, 4), {"node-1"}, 1)
    assert (names(plan.restart), names(plan.drain), names(plan.release)) == (
        ["edge-1"],
        ["edge-1"],
        ["edge-2", "edge-3"],
    )


def test_what_is_emptied_goes_on_while_the_controller_has_not_seen_the_change() -> None:
    members = [member(0), member(1, draining=SINCE)]
    plan = planned(2, seen(members, 2, revision=""), (), 1)
    assert (names(plan.drain), plan.release, plan.restart) == (["edge-1"], [], [])
    plan = planned(2, seen(members, 2, revision=""), {"node-1"}, 1)
    assert (names(plan.drain), plan.release, plan.restart) == (["edge-1"], [], [])


def test_nothing_is_made_anew_while_the_controller_has_not_seen_the_change() -> None:
    plan = planned(2, seen([member(0, OLD), member(1, OLD)], 2, revision=""), (), 1)
    assert (plan.drain, plan.restart, plan.outdated) == ([], [], [])


def test_a_pool_that_is_deleted_is_one_without_nodes() -> None:
    plan = planned(0, seen([member(0), member(1)], 2), (), 1)
    assert (plan.replicas, names(plan.drain)) == (2, ["edge-0", "edge-1"])
    plan = planned(0, Seen(None, [member(0, has_pod=False)]), (), 1)
    assert names(plan.forget) == ["edge-0"]


MEMBERS = st.lists(
    st.builds(
        member,
        st.integers(0, 6),
        st.sampled_from([OLD, NEW]),
        ready=st.booleans(),
        running=st.booleans(),
        ending=st.booleans(),
        draining=st.sampled_from([None, SINCE]),
        has_pod=st.booleans(),
        has_node=st.booleans(),
    ).filter(lambda one: one.pod is not None or one.node is not None),
    max_size=7,
    unique_by=lambda one: one.ordinal,
).map(lambda found: sorted(found, key=lambda one: one.ordinal))


@given(
    MEMBERS,
    st.integers(0, 7),
    st.integers(0, 7),
    st.sets(st.sampled_from([f"node-{n}" for n in range(7)])),
    st.integers(1, 3),
)
def test_no_node_ends_before_it_is_empty(
    members: list[Member], wanted: int, current: int, emptied: set[str], most: int
) -> None:
    plan = planned(wanted, Seen(stateful(current), members), emptied, most)
    ends = {pod.name for pod in plan.restart} | {m.name for m in members if plan.replicas <= m.ordinal < current}
    for one in members:
        alive = one.pod is not None and not one.pod.ending and one.pod.running
        if one.name in ends and one.node is not None and alive:
            assert one.node.uid in emptied
            assert one.node.draining is not None
    assert plan.replicas >= wanted
    assert not {node.name for node in plan.drain} & {node.name for node in plan.release}
    assert all(m.pod is None for m in members if m.node in plan.forget)


@given(MEMBERS, st.integers(0, 7), st.integers(1, 3))
def test_a_change_leaves_as_many_nodes_as_it_has_to(members: list[Member], wanted: int, most: int) -> None:
    plan = planned(wanted, Seen(stateful(wanted), members), (), most)
    taken = {node.name for node in plan.drain} | {pod.name for pod in plan.restart}
    kept = [m for m in members if m.ordinal < wanted and m.available]
    left = [m for m in kept if m.name not in taken]
    assert len(left) >= min(len(kept), wanted - most)


@given(MEMBERS, st.integers(0, 7))
def test_carrying_out_the_plan_comes_to_an_end(members: list[Member], wanted: int) -> None:
    """Each step done, each node that is to be emptied empty, each pod made: the pool is as it is wanted."""
    replicas = max([wanted, *(m.ordinal + 1 for m in members)])
    for _ in range(40):
        found = Seen(stateful(replicas), members)
        plan = planned(wanted, found, {f"node-{n}" for n in range(9)}, 1)
        if plan.done and plan.replicas == wanted and len(members) == wanted:
            return
        replicas = plan.replicas
        members = _after(plan, members, replicas)
    raise AssertionError((plan, members))


def _after(plan: Plan, members: list[Member], replicas: int) -> list[Member]:
    drain, release = {node.name for node in plan.drain}, {node.name for node in plan.release}
    restart, forget = {pod.name for pod in plan.restart}, {node.name for node in plan.forget}
    by_ordinal = {one.ordinal: one for one in members}
    after = []
    for ordinal in range(9):
        one = by_ordinal.get(ordinal)
        name = f"edge-{ordinal}"
        since = one.node.draining if one and one.node else None
        since = SINCE if name in drain else None if name in release else since
        if ordinal < replicas:
            anew = one is None or one.pod is None or one.pod.ending or name in restart
            after.append(member(ordinal, NEW if anew else one.pod.revision, draining=since))  # type: ignore[union-attr]
        elif one is not None and one.node is not None and name not in forget:
            after.append(member(ordinal, draining=since, has_pod=False))
    return after


def test_a_node_that_is_empty_is_kept_so_while_another_is_emptied() -> None:
    members = [member(0), member(1, draining=SINCE), member(2, draining=SINCE)]
    plan = planned(1, seen(members, 3), {"node-1"}, 1)
    assert (plan.replicas, names(plan.drain), plan.release) == (3, ["edge-1", "edge-2"], [])


def test_pods_whose_statefulset_is_gone_are_emptied_before_it_is_made_anew_without_them() -> None:
    """`kubectl delete sts edge --cascade=orphan`: the new one takes them, and ends those it does not want."""
    plan = planned(0, Seen(None, [member(0), member(1)]), (), 1)
    assert (plan.replicas, names(plan.drain), plan.forget) == (2, ["edge-0", "edge-1"], [])
    plan = planned(0, Seen(None, [member(0, draining=SINCE), member(1, draining=SINCE)]), {"node-0", "node-1"}, 1)
    assert plan.replicas == 0
