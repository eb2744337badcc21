"""Variables are made up of those before them, in order; $$ escapes."""

from __future__ import annotations

from tests.conformance.harness import Kube


async def test_composition(kube: Kube) -> None:
    env = [
        {"name": "LATE", "value": "$(EARLY)"},
        {"name": "EARLY", "value": "1"},
        {"name": "BOTH", "value": "$(EARLY);;$(LATE)"},
        {"name": "ESCAPED", "value": "$$(EARLY)"},
        {"name": "TWICE", "value": "a"},
        {"name": "TWICE", "value": "$(TWICE)b"},
    ]
    names = ("LATE", "EARLY", "BOTH", "ESCAPED", "TWICE")
    await kube.create(*(word for name in names for word in ("env", name)), env=env)
    assert await kube.output() == "LATE=$(EARLY)\nEARLY=1\nBOTH=1;;$(EARLY)\nESCAPED=$(EARLY)\nTWICE=ab\n"
