"""Creates the Node object, keeps it up to date, and creates it again if somebody deletes it.

`NodeRegistration.register` creates the Node or takes over one that exists, leaving labels, taints and conditions that
others set alone (a node may not change its taints after registration, by NodeRestriction). `run` watches the Node,
looks every ten seconds whether something changed and reports at least every five minutes, as a kubelet does; the lease
(`wasmlet.node.lease`) is the heartbeat in between. If somebody else overwrites the part of the status that the node
owns, the node writes it again. (The node lifecycle controller overwrites it if it has not seen the lease renewed.) When
the API server was away, the Node is read and reported at once.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from wasmlet.clock import Backoff, Clock, Pacing, either
from wasmlet.errors import ConfigError
from wasmlet.failures import described, text_of
from wasmlet.kube import Client, History, Reflector, Selection, errors, later, paths
from wasmlet.model.pod import Raw
from wasmlet.node.description import HANDLER_LABEL, NodeDescription
from wasmlet.node.node_status import owned, patch_of, stamped, version_of
from wasmlet.node.provider_calls import answer
from wasmlet.provider import NodeStatus, Provider

log = structlog.get_logger(__name__)

CHECK_SECONDS = 10.0
TOLD_SECONDS = 60.0
"""Between two warnings that the node's status cannot be written, while it stays so."""
REPORT_SECONDS = 300.0
SHUTTING_DOWN = "node is shutting down"
RETRIES = Backoff(initial=1, cap=CHECK_SECONDS, jitter=0.2)
FIRST_STATUS = Backoff(initial=0.5, cap=CHECK_SECONDS)
"""Between the questions for the provider's node status, until it is said for the first time."""
SHUTDOWN_SECONDS = 3.0
"""How long the end of the node waits to say so."""
PING_SECONDS = 10.0
"""How long the provider may take to say that it is well, and what the node's status is."""
STUCK_SECONDS = 120.0
"""Without a look at the node for this long, `/healthz` says that the node loop is stuck (a kubelet's time)."""


class NodeRegistration:
    """Keeps one Node object up to date.

    Args:
        description: what the Node says of itself.
    """

    def __init__(self, client: Client, provider: Provider, description: NodeDescription, clock: Clock) -> None:
        self._client = client
        self._provider = provider
        self._description = description
        self._name = description.config.node_name
        self._port: int | None = None
        self._clock = clock
        self._wake = asyncio.Event()
        self._path = f"{paths.NODES}/{self._name}"
        self._reported: dict[str, Any] = {}
        """What was sent last."""
        self._reported_at = float("-inf")
        self._answered: dict[str, Any] = {}
        """What the API answered: it writes quantities in its own way, and leaves out fields that it does not know."""
        self._due = True
        """The status has to be written, even if it is the same as the one that was sent last."""
        self._uncertain = False
        """The API server was away: what the watch has told may be out of date."""
        self._put_right_at = float("-inf")
        client.recovery.on_end(self._recovered)
        self.node: Raw = {"metadata": {"name": self._name}}
        """The Node as the API has it."""
        self.runtime_handlers: frozenset[str] = frozenset([""])
        self._missing = False
        """Somebody else has deleted the Node."""
        self._newest_status: NodeStatus | None = None
        """The last node status of the provider that the API has accepted."""
        self._silent = False
        """The provider did not give its node status when it was asked last."""
        self._leaving = False
        self.trouble = ""
        """What keeps the node from being ready, beside what the provider says itself."""
        self.ready = True
        self.uid = ""
        self._looked = clock.monotonic()

    @property
    def leaving(self) -> bool:
        """Whether the node shuts down, and takes no more pods."""
        return self._leaving

    async def shut_down(self) -> None:
        """Set the node NotReady, so that it gets no new pods while it ends: a kubelet's graceful shutdown, KEP-2000."""
        self._leaving = True
        try:
            async with asyncio.timeout(SHUTDOWN_SECONDS):
                if self._newest_status is not None:  # not asked for now: the provider may not answer in this time
                    await self._report(self._newest_status)
        except (TimeoutError, errors.ApiError) as error:
            log.warning("the node could not say that it shuts down", error=text_of(error))

    def changed(self) -> None:
        """Something that the Node shows is different: look now."""
        self._wake.set()

    @property
    def allocatable(self) -> Mapping[str, str]:
        """What the Node says that it can give."""
        return self._reported.get("allocatable") or {}

    @property
    def capacity(self) -> Mapping[str, str]:
        """What the Node says that it has."""
        return self._reported.get("capacity") or {}

    @property
    def addresses(self) -> Sequence[Raw]:
        """The node's addresses, as its status has them."""
        return self._reported.get("addresses") or ()

    async def register(self, port: int | None) -> None:
        """Create the Node, or take over the one there is, and report its status.

        Waits until the provider has said what the node is: its labels and taints are set once.

        Args:
            port: of the node's HTTPS API; None where it serves none.
        """
        self._port = port
        pauses = FIRST_STATUS.pauses()
        while (status := await self._ask()) is None:
            await self._clock.sleep(next(pauses))
        labels = self._description.labels(status)
        annotations = dict(status.annotations)
        body = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self._name, "labels": labels, "annotations": annotations},
            "spec": self._description.spec(status),
        }
        try:
            node = await self._client.create(paths.NODES, body)
            log.info("node registered", node=self._name)
        except errors.AlreadyExists:
            node = await self._client.get(self._path)
            changes = {
                "labels": _changes(node["metadata"].get("labels") or {}, labels),
                "annotations": _changes(node["metadata"].get("annotations") or {}, annotations),
            }
            if any(changes.values()):
                node = await self._client.patch(self._path, {"metadata": changes})
            log.info("node found", node=self._name)
        self.uid = node["metadata"]["uid"]
        self.node = node
        self._due = True
        await self._report(status, self.trouble)

    # --- what the API says of the Node (Handler of a reflector)

    def synced(self, items: Sequence[Raw]) -> None:
        if items:
            self.applied(items[0])
        else:
            self._gone()

    def applied(self, item: Raw) -> None:
        self._missing = False
        if not later(version_of(item), version_of(self.node)):
            return
        self.node = item
        # At once, but only now and then: somebody who always writes the same gets no more writes than there are looks.
        now = self._clock.monotonic()
        if self._overwritten() and now - self._put_right_at >= CHECK_SECONDS:
            self._put_right_at = now
            self._wake.set()

    def deleted(self, item: Raw) -> None:
        self._gone()

    def _rewound(self) -> None:
        """The API server was restored from a backup: what it has of our status may be an older one."""
        self.node = {**self.node, "metadata": {**self.node["metadata"], "resourceVersion": ""}}
        self._due = True
        self._wake.set()

    def _recovered(self, silent: bool, began: float) -> None:
        """The API server was away."""
        self._uncertain = True
        self._wake.set()

    def _overwritten(self) -> bool:
        """Whether somebody else has changed what this node owns, since the API answered our last write."""
        return bool(self._reported) and owned(self.node, self._reported) != self._answered

    def _gone(self) -> None:
        self._missing = True
        self._wake.set()

    async def run(self, watch_client: Client, rng: random.Random, history: History) -> None:
        """Keep the Node true until cancelled."""
        selection = Selection(paths.NODES, {"fieldSelector": f"metadata.name={self._name}"})
        history.on_rewound(self._rewound)
        reflector = Reflector(watch_client, selection, self, pacing=Pacing(self._clock, rng), history=history)
        async with asyncio.TaskGroup() as group:
            group.create_task(reflector.run())
            group.create_task(self._keep())

    async def _keep(self) -> None:
        pauses, written, told = self._client.recovery.pauses(RETRIES, self._clock), True, 0.0
        while True:
            try:
                await either(self._clock, CHECK_SECONDS, self._wake)
                self._wake.clear()
                await self._check()
                written = True
                pauses.start_over()
            except Exception as error:  # whatever a provider says of the node must not end it
                now = self._clock.monotonic()
                if written or now - told >= TOLD_SECONDS:
                    log.warning("the node's status is not written, trying again", **described(error, first=written))
                    told = now
                written = False
                await pauses.wait()
                self._wake.set()
            self._looked = self._clock.monotonic()

    def stuck(self) -> str:
        """What `/healthz/syncloop` says against the node loop, or ""."""
        seconds = self._clock.monotonic() - self._looked
        return f"the node was last looked at {seconds:.0f} s ago" if seconds > STUCK_SECONDS else ""

    async def _check(self) -> None:
        async with asyncio.TaskGroup() as group:  # side by side: one that hangs does not put the other off
            ping, asking = group.create_task(self._ping()), group.create_task(self._ask())
        trouble, status = ping.result(), asking.result()
        if self._uncertain:
            await self._read()
        if self._missing:
            log.warning("the node was deleted by somebody else; registering it again", node=self._name)
            await self.register(self._port)
            self._missing = False
        if status is None:
            return  # it has never said what the node is, so there is none
        try:
            await self._report(status, trouble)
        except (errors.Invalid, errors.BadRequest, TypeError) as error:  # or something that JSON has no word for
            if self._newest_status is None or status == self._newest_status:
                raise
            log.warning("the API does not take the node's status; reporting the one before", error=text_of(error))
            await self._report(self._newest_status, trouble)

    async def _ask(self) -> NodeStatus | None:
        """The provider's node status; if it cannot be had now, the last one that the API accepted, or None.

        The node's Ready condition does not depend on it.
        """
        try:
            status = await answer(self._provider.name, self._provider.node_status(), PING_SECONDS)
            self._status(status, "")  # raises where that is no status
        except ConfigError:
            if self._newest_status is None:
                raise  # for the user, as at any start
            return self._newest_status
        except Exception as error:
            log.warning("the provider cannot say the node's status", **described(error, first=not self._silent))
            self._silent = True
            return self._newest_status
        self._silent = False
        return status

    async def _read(self) -> None:
        """Read the Node from the API, which may know more than the watch has told, and have the status written."""
        self._uncertain = False
        try:
            self.node = await self._client.get(self._path)
        except errors.ObjectNotFound:
            self._missing = True
        except errors.ApiError:
            self._uncertain = True
            raise
        self._due = True

    async def _ping(self) -> str:
        """What is wrong with the node, or ""."""
        try:
            await answer(self._provider.name, self._provider.ping(), PING_SECONDS)
        except TimeoutError as error:
            return text_of(error)
        except Exception as error:
            return f"provider {self._provider.name}: {text_of(error)}"
        return self.trouble

    async def _report(self, status: NodeStatus, trouble: str = "") -> None:
        now = self._clock.now()
        if self._leaving:
            trouble = SHUTTING_DOWN
        self.ready = not trouble
        body = self._status(status, trouble)
        due = self._due or self._clock.monotonic() - self._reported_at >= REPORT_SECONDS
        if body == self._reported and not due and not self._overwritten():
            return
        stamped_body = body | {"conditions": [stamped(c, self.node, now) for c in body["conditions"]]}
        taken = await self._client.patch(f"{self._path}/status", {"status": patch_of(self._reported, stamped_body)})
        self._reported, self._reported_at, self._due = body, self._clock.monotonic(), False
        self._newest_status, self._answered = status, owned(taken, body)
        if later(version_of(taken), version_of(self.node)):
            self.node = taken
        elif self._overwritten():  # the watch was faster, and has told of a later write by somebody else
            self._wake.set()

    def _status(self, status: NodeStatus, trouble: str) -> dict[str, Any]:
        self.runtime_handlers = frozenset(["", *status.runtime_handlers])
        return self._description.status(status, trouble, self._port)


def _changes(labels: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str | None]:
    """What to patch in labels or annotations.

    Those of somebody else's stay; labels of handlers that are not offered any more go.
    """
    stale: dict[str, str | None] = {name: None for name in labels if name.startswith(HANDLER_LABEL)}
    return {name: value for name, value in (stale | dict(wanted)).items() if labels.get(name) != value}
