"""How often probes have succeeded and failed: what `/metrics/probes` of the node's API shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from wasmlet.model.pod import PodKey
from wasmlet.provider import ProbeCount


class ProbeCounts:
    """How often probes have succeeded and failed, by pod, container and kind."""

    def __init__(self) -> None:
        self._counts: Counter[ProbeCount] = Counter()

    def add(self, count: ProbeCount) -> None:
        self._counts[count] += 1

    def forget(self, pod: PodKey) -> None:
        """The pod is gone, and its counts with it."""
        for count in [count for count in self._counts if count.pod == pod]:
            del self._counts[count]

    def all(self) -> Mapping[ProbeCount, int]:
        """Every count there is."""
        return dict(self._counts)
