"""Objects that nobody counts references to: from Python 3.12 on, and with no effect on what a program does."""

from __future__ import annotations

from tests.worker.conftest import printed
from tests.worker.harness import WORKER

PROGRAM = f"""
import gc, json, sys
sys.path.insert(0, {str(WORKER.parent)!r})
from worker.guest.immortal import make_all_immortal

class Kept:
    def said(self, words):
        return json.dumps({{"words": words}})

kept = [Kept() for _ in range(3)]
make_all_immortal()
gc.collect()
gc.freeze()

def counts():
    return [sys.getrefcount(one) for one in (Kept, Kept.said, Kept.said.__code__, kept, json.dumps, json)]

before = counts()
more = [(Kept, Kept.said, Kept.said.__code__, kept, json.dumps, json) for _ in range(5)]
after = counts()
for turn in range(1000):
    assert kept[turn % 3].said([turn, str(turn)]) == '{{"words": [%d, "%d"]}}' % (turn, turn)
kept[0] = None
kept.extend(Kept() for _ in range(1000))
del kept, more, Kept
import decimal
assert gc.collect() >= 0
print(json.dumps({{"version": sys.version_info[:2], "counted": [new - old for new, old in zip(after, before)]}}))
"""


def test_references_are_not_counted_where_python_can_do_without(each_python: str) -> None:
    said = printed(each_python, PROGRAM)
    assert said["counted"] == ([0] * 6 if said["version"] >= [3, 12] else [5] * 6)
