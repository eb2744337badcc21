"""What is remembered of a fleet: nothing of what is gone, and what has another label is another pool's."""

from __future__ import annotations

from typing import Any

from wasmlet.operator.fleet import Kept
from wasmlet.operator.pool import LABEL


def node(version: int, pool: str = "edge", uid: str = "u") -> dict[str, Any]:
    return {"metadata": {"name": "edge-0", "uid": uid, "resourceVersion": str(version), "labels": {LABEL: pool}}}


class Heard:
    def __init__(self) -> None:
        self.woken: list[str] = []
        self.kept = Kept(lambda item: str(item["metadata"]["uid"]), self.woken.append)


def test_the_answer_to_a_write_that_comes_after_the_news_of_the_end_brings_nothing_back() -> None:
    heard = Heard()
    heard.kept.applied(node(1))
    heard.kept.deleted(node(3))
    heard.kept.applied(node(2))
    assert heard.kept.of("edge") == {}
    assert not heard.kept.pools()


def test_an_object_that_has_its_label_again_is_there_again() -> None:
    """To a watch by label, one that loses it is deleted."""
    heard = Heard()
    heard.kept.applied(node(1))
    heard.kept.deleted(node(2))
    heard.kept.applied(node(3))
    assert heard.kept.of("edge") == {"edge-0": "u"}


def test_an_object_with_another_label_is_another_pools() -> None:
    heard = Heard()
    heard.kept.applied(node(1))
    heard.kept.applied(node(2, pool="shop"))
    assert (heard.kept.of("edge"), heard.kept.of("shop")) == ({}, {"edge-0": "u"})
    assert heard.woken == ["edge", "edge", "shop"]
    heard.kept.deleted(node(3, pool="shop"))
    assert not heard.kept.pools()
