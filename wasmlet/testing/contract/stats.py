"""Checks of `stats`: what a provider measures has the form of the kubelet's Summary."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson

from wasmlet.errors import Unsupported
from wasmlet.testing.contract.suite import Suite
from wasmlet.testing.contract.trial import LOOK_SECONDS, Trial
from wasmlet.testing.contract.verdict import broken, demand, left_out

__tracebackhide__ = True  # pytest hides this module's calls in tracebacks, so that those of the provider are seen

FORM = (
    'return {"node": {...}, "pods": [{"podRef": {"name": ..., "namespace": ..., "uid": ...}, "containers": [{"name": '
    '..., "cpu": {"usageCoreNanoSeconds": int}, "memory": {"workingSetBytes": int}}]}]}, or delete your stats'
)
FIGURES = {"cpu": ("usageNanoCores", "usageCoreNanoSeconds"), "memory": ("workingSetBytes", "usageBytes", "rssBytes")}


class Stats(Suite):
    """`kubectl top`, autoscalers and dashboards live on it."""

    async def test_stats_are_a_summary(self, trial: Trial) -> None:
        """It has every pod that runs, with its containers and what they use."""
        pod = await trial.running()
        loop = asyncio.get_running_loop()
        end = loop.time() + self.patience_seconds
        while True:
            summary = await self._summary(trial)
            found = [each for each in summary["pods"] if each["podRef"].get("uid") == pod.uid]
            names = [container.get("name") for each in found for container in each["containers"]]
            if names == ["main"]:
                break
            if loop.time() > end:
                expected = f"the pod that runs ({pod.key}, uid {pod.uid}) with its container 'main'"
                broken("stats", expected, summary["pods"], FORM)
            await asyncio.sleep(LOOK_SECONDS)
        reference = found[0]["podRef"]
        right = (reference.get("name"), reference.get("namespace")) == (pod.name, pod.namespace)
        demand(right, "stats", f"a podRef of {pod.key}", reference, FORM)
        for what, part in (("pod", found[0]), ("container", found[0]["containers"][0])):
            self._figures(what, part)

    @staticmethod
    async def _summary(trial: Trial) -> dict[str, Any]:
        try:
            summary = await trial.call("stats", trial.provider.stats(), allow=(Unsupported,))
        except Unsupported as error:
            left_out(f"stats raises Unsupported: {error}")
        right = isinstance(summary, dict) and isinstance(summary.get("pods"), list)
        demand(right, "stats", 'a dict with "node" and a list of "pods"', repr(summary), FORM)
        for pod in summary["pods"]:
            whole = isinstance(pod, dict) and isinstance(pod.get("podRef"), dict)
            whole = whole and isinstance(pod.get("containers"), list)
            demand(whole, "stats", 'a "podRef" and "containers" for each pod', repr(pod), FORM)
        try:
            orjson.dumps(summary)
        except TypeError as error:
            broken("stats", "what JSON can hold", str(error), "write times as text, as in 2026-01-01T00:00:00Z", error)
        return summary  # type: ignore[no-any-return]

    @staticmethod
    def _figures(what: str, part: Mapping[str, Any]) -> None:
        for kind, names in FIGURES.items():
            figures = part.get(kind) or {}
            given = [figures[name] for name in names if name in figures]
            right = all(isinstance(figure, int) and figure >= 0 for figure in given)
            expected = f"whole numbers for the {what}'s {kind}"
            demand(right, "stats", expected, figures, "count in nanoseconds of CPU time and in bytes")
