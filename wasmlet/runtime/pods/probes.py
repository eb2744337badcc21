"""Probes: regular checks whether a container has started, is alive and is ready, as its manifest says.

The rules are those of the kubelet's prober. The other probes begin when the startup probe has succeeded. A result
counts when it has come as many times in a row as its threshold says. A probe that could not be run at all does not
count. If the startup or liveness probe fails, the container is ended; if the readiness probe fails, the container is
not ready.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Protocol

import attrs

from wasmlet.clock import Clock
from wasmlet.errors import WasmletError
from wasmlet.model.pod import Container
from wasmlet.provider import ProbeCount, ProbeKind
from wasmlet.runtime.pods import actions
from wasmlet.runtime.pods.actions import Action, Asked
from wasmlet.runtime.probe_counts import ProbeCounts
from wasmlet.runtime.shim.instances import Say

FIELDS: Mapping[str, ProbeKind] = {
    "startupProbe": "Startup",
    "livenessProbe": "Liveness",
    "readinessProbe": "Readiness",
}


def refusals(container: Container, *, network: bool) -> Iterator[tuple[str, str]]:
    """Paths below the container, and why they are refused.

    Args:
        network: whether pods have one here.
    """
    for field in FIELDS:
        if not (raw := container.raw.get(field)):
            continue
        for path, verdict in actions.refusals(raw, container, network=network):
            yield f"{field}.{path}", verdict


@attrs.frozen
class Probe:
    """One probe of a manifest, with the API's defaults; times in seconds.

    `grace` is how long a container that it ends has, where that is not the pod's own grace period.
    """

    kind: ProbeKind
    action: Action
    initial_delay: float
    timeout: float
    period: float
    success_threshold: int
    failure_threshold: int
    grace: float | None

    @classmethod
    def of(cls, container: Container, kind: ProbeKind) -> Probe | None:
        field = next(name for name, known in FIELDS.items() if known == kind)
        raw = container.raw.get(field)
        if not raw:
            return None
        return cls(
            kind,
            actions.action_of(raw, container),
            raw.get("initialDelaySeconds") or 0,
            raw.get("timeoutSeconds") or 1,
            raw.get("periodSeconds") or 10,
            raw.get("successThreshold") or 1,
            raw.get("failureThreshold") or 3,
            raw.get("terminationGracePeriodSeconds"),
        )


class Thresholds:
    """Counts equal results in a row. `state` is the last result that reached its threshold; None at first."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._last: bool | None = None
        self._run = 0
        self.state: bool | None = None

    def count(self, success: bool) -> bool | None:
        """Count one more result; return `state`."""
        self._run = self._run + 1 if success == self._last else 1
        self._last = success
        if self._run >= (self._probe.success_threshold if success else self._probe.failure_threshold):
            self.state = success
        return self.state


@attrs.frozen
class ProbeResults:
    """What probes have said of one instance."""

    started: bool = False
    ready: bool = False


class Probed(Protocol):
    """Takes what probes say of an instance; what is None stays as it was."""

    def __call__(self, *, started: bool | None = None, ready: bool | None = None) -> None: ...


@attrs.frozen
class ProbeServices:
    """What probing needs of the node."""

    counts: ProbeCounts
    clock: Clock


class Prober:
    """Probes one instance of a container.

    Args:
        container: as the manifest has it; its probes.
        asked: the instance, and the way to it.
        age: seconds since the instance began; asked when a probe's initial delay begins.
        probed: is told what the probes say.
        say: tells the pod's owner of a probe that failed.
    """

    def __init__(
        self,
        container: Container,
        asked: Asked,
        services: ProbeServices,
        *,
        age: Callable[[], float],
        probed: Probed,
        say: Say,
    ) -> None:
        self._container = container
        self._asked = asked
        self._services = services
        self._clock = services.clock
        self._age = age
        self._probed = probed
        self._say = say

    @property
    def idle(self) -> bool:
        """Whether there is nothing to probe."""
        return not any(self._container.raw.get(field) for field in FIELDS)

    async def run(self, *, started: bool) -> Probe:
        """Probe for as long as the instance is to live; return the startup or liveness probe that has failed.

        Args:
            started: whether the startup probe has succeeded before.
        """
        startup = Probe.of(self._container, "Startup")
        if startup is not None and not started and not await self._until_decided(startup):
            return startup
        self._probed(started=True)
        liveness = Probe.of(self._container, "Liveness")
        if liveness is None:
            await self.read()
            raise AssertionError("a readiness probe has no end")
        reading = asyncio.ensure_future(self.read())
        try:
            while await self._until_decided(liveness):
                pass
            return liveness
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def read(self) -> None:
        """Readiness alone, without end."""
        readiness = Probe.of(self._container, "Readiness")
        if readiness is None:
            await asyncio.Event().wait()
            return
        thresholds = Thresholds(readiness)
        async for success in self._results(readiness):
            state = thresholds.count(success)
            if state is not None:
                self._probed(ready=state)

    async def _until_decided(self, probe: Probe) -> bool:
        """Startup: what the probe says first. Liveness: return once it says that the container is dead."""
        thresholds = Thresholds(probe)
        async for success in self._results(probe):
            state = thresholds.count(success)
            if state is False or (state and probe.kind == "Startup"):
                return state
        raise AssertionError("a probe has no end")

    async def _results(self, probe: Probe) -> AsyncIterator[bool]:
        """Every result, one a period from the initial delay on."""
        clock = self._clock
        await clock.sleep(probe.initial_delay - self._age())
        while True:
            began = clock.monotonic()
            success = await self._once(probe)
            if success is not None:
                yield success
            await clock.sleep(probe.period - (clock.monotonic() - began))

    async def _once(self, probe: Probe) -> bool | None:
        """Probe once; None where that was not possible."""
        target, services = self._asked.target, self._services
        try:
            outcome = await actions.probe(probe.action, self._asked, probe.timeout, self._clock)
        except (WasmletError, OSError) as error:
            self._say("Warning", "Unhealthy", f"{probe.kind} probe errored and resulted in unknown state: {error}")
            return None
        failed = outcome.result == "failure"
        services.counts.add(ProbeCount(target.pod, target.container, probe.kind, "failed" if failed else "successful"))
        if failed:
            self._say("Warning", "Unhealthy", f"{probe.kind} probe failed: {outcome.output}")
        elif outcome.result == "warning":
            self._say("Warning", "ProbeWarning", f"{probe.kind} probe warning: {outcome.output}")
        return not failed
