"""The waSCC engine in the node's process: it checks actors and their pods before anything runs."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import attrs
import structlog
from wasmlet_wasmtime import WasmtimeEngine

from wasmlet import ConfigError, Refused
from wasmlet.artifacts.wasm_reader import NotWasm
from wasmlet.model.pod import Container, Pod
from wasmlet.runtime import (
    PREVIEW1,
    PREVIEW1_FUNCTIONS,
    PROCESS,
    Engine,
    EngineSettings,
    GuestSettings,
    Isolation,
    Links,
    Needs,
    Signature,
)
from wasmlet_wascc import claims, grants
from wasmlet_wascc.capability import GROUP
from wasmlet_wascc.nkeys import BadKey, PublicKey

log = structlog.get_logger(__name__)

_SIGNATURES = {
    "__guest_request": (2, 0), "__guest_response": (2, 0), "__guest_error": (2, 0), "__host_call": (8, 1),
    "__host_response_len": (0, 1), "__host_response": (1, 0), "__host_error_len": (0, 1), "__host_error": (1, 0),
    "__console_log": (2, 0),
}  # fmt: skip
"""How many numbers each function of waPC takes and returns."""
_PROTOBUF = (
    "the actor is of waSCC's first generation, which speaks protobuf, and this engine speaks MessagePack: build it "
    "with wascc-actor 0.4 or newer"
)
"""The advice for actors whose `__host_call` takes four numbers: all of them speak protobuf."""
_ONE_INSTANCE = ("wasmlet.dev/http-instances", "wasmlet.dev/http-concurrency")


def _signature(takes: int, gives: int) -> Signature:
    return Signature(("i32",) * takes, ("i32",) * gives)


class WasccEngine(Engine):
    """Actors on the wasmtime that `wasmlet-wasmtime` brings along.

    Args:
        issuers: public keys of the accounts whose actors are run; none: those of everybody.

    Raises:
        ConfigError: one of them is no such key.
    """

    name: ClassVar[str] = "wascc"
    handlers: ClassVar[Mapping[str, Isolation]] = {"wasmlet-wascc": PROCESS}
    sockets: ClassVar[bool] = True
    examines: ClassVar[bool] = True
    links: ClassVar[Links | None] = Links(
        {"wapc": {name: _signature(*shape) for name, shape in _SIGNATURES.items()}, PREVIEW1: PREVIEW1_FUNCTIONS},
        memory=True,
        others={"wapc": {"__host_call": _signature(6, 1)}},
        entry="__guest_call",
        explained={("wapc.__host_call", _signature(4, 1)): _PROTOBUF},
    )

    def __init__(self, issuers: tuple[str, ...] = ()) -> None:
        for issuer in issuers:
            try:
                PublicKey.of(issuer, "account")
            except BadKey as error:
                raise ConfigError(f"--wascc-issuers: {error}") from None
        self._issuers = frozenset(issuers)
        self._wasmtime = WasmtimeEngine()

    @classmethod
    def configured(cls, config: EngineSettings) -> Self:
        return cls(config.wascc_issuers)

    @functools.cached_property
    def version(self) -> str:
        """Of wasmtime, and of the distribution whose in-worker modules serve HTTP here, too."""
        return f"{self._wasmtime.version}-{importlib.metadata.version('wasmlet-wasmtime')}"

    @property
    def guest_module(self) -> Path:
        return Path(__file__).parent / "worker" / "guest.py"

    @property
    def notice(self) -> str:
        """What the owner of the node is told at its start."""
        if self._issuers:
            return f"only actors of these issuers are run: {', '.join(sorted(self._issuers))}"
        return "actors of every issuer are run, whoever has signed them; --wascc-issuers names those whom you trust"

    async def check(self) -> None:
        await self._wasmtime.check()
        log.info("wascc", issuers=self.notice)

    def check_pod(self, pod: Pod) -> None:
        if pod.init_containers:
            raise Refused("spec.initContainers", "an actor answers requests and never ends: it has no init containers")
        for name in _ONE_INSTANCE:
            if name in pod.annotations:
                raise Refused(
                    f"metadata.annotations[{name}]", "an actor has one instance, which answers one request at a time"
                )
        for container in pod.containers:
            for path, why in _unfit(container):
                raise Refused(f"{container.field}.{path}", why, container=container.name)
            grants.Asked.of(pod, container)

    def examine(self, wasm: bytes | memoryview) -> dict[str, Any]:
        try:
            return attrs.asdict(claims.read(wasm))
        except NotWasm as error:
            raise ValueError(f"not a valid WebAssembly module: {error}") from None

    @classmethod
    def shown(cls, facts: Any) -> Mapping[str, str]:
        found = claims.Claims(**facts)
        times = {"issued": found.issued, "not before": found.not_before, "expires": found.expires}
        return {
            "actor": found.name or "(no name)",
            "issuer": found.issuer,
            "subject": found.subject,
            "may use": ", ".join(found.capabilities) or "nothing",
            **{name: claims.moment(seconds) for name, seconds in times.items() if seconds is not None},
            **({"revision": str(found.revision)} if found.revision is not None else {}),
            **({"version": found.version} if found.version else {}),
            **({"tags": ", ".join(found.tags)} if found.tags else {}),
        }

    @classmethod
    def needs(cls, facts: Any) -> Needs:
        claimed = claims.Claims(**facts).capabilities
        volumes = ("data",) if grants.BLOBS in claimed else ()
        return Needs(grants.annotations_for(claimed), grants.HTTP in claimed, volumes)

    def guest_settings(self, pod: Pod, container: Container, facts: Any, now: float) -> GuestSettings:
        found = claims.Claims(**facts)
        try:
            found.check_time(now)
            found.check_issuer(self._issuers)
        except claims.BadClaims as error:
            raise Refused(f"{container.field}.image", str(error), container=container.name) from None
        asked = grants.Asked.of(pod, container)
        decision = grants.decide(found.capabilities, asked.names, installed())
        spec = {
            "granted": [name for name in decision.granted if name != grants.HTTP],
            "serves": [grants.HTTP] if grants.HTTP in decision.granted else [],
            "refused": decision.refused,
            "settings": asked.settings,
            "bindings": asked.bindings,
        }
        return GuestSettings(spec, tuple(_remarks(decision)), serves=bool(spec["serves"]))


@functools.cache
def installed() -> frozenset[str]:
    """The names of all capabilities that this node has."""
    return frozenset(grants.OWN) | {point.name for point in importlib.metadata.entry_points(group=GROUP)}


def _unfit(container: Container) -> Iterator[tuple[str, str]]:
    """Fields that make no sense for an actor, and why."""
    raw = container.raw
    for name in ("command", "args"):
        if raw.get(name):
            yield name, "an actor takes no arguments: it answers requests"
    for name in ("stdin", "tty"):
        if raw.get(name):
            yield name, "an actor reads no input: it answers requests"
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if (raw.get(name) or {}).get("exec"):
            yield (
                f"{name}.exec",
                "an actor runs no commands; use httpGet, which without a path asks for its health",
            )
    for name, hook in (raw.get("lifecycle") or {}).items():
        if isinstance(hook, dict) and hook.get("exec"):
            yield f"lifecycle.{name}.exec", "an actor runs no commands; use httpGet"


def _remarks(decision: grants.Decision) -> Iterator[tuple[str, str]]:
    for name, why in decision.refused.items():
        reason = "CapabilityNotClaimed" if name in decision.unclaimed else "CapabilityNotGranted"
        yield reason, f"The actor may not use {name}: {why}"
