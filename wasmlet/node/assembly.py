"""Makes the parts that a node needs to serve pods, from those that it has before (`Foundation`).

Nothing is started here: `wasmlet.node.node` starts the parts, in the order in which they are needed.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import random
from collections.abc import Callable
from pathlib import Path

import attrs

from wasmlet.clock import Clock, Pacing
from wasmlet.kube import Client, History
from wasmlet.kube.events import EventRecorder
from wasmlet.model.pod import Raw
from wasmlet.node.admission import Admission
from wasmlet.node.api import NodeApi
from wasmlet.node.collection import Collection, Watching
from wasmlet.node.config import NodeConfig
from wasmlet.node.figures import Figures, Until
from wasmlet.node.inputs import InputStore
from wasmlet.node.lease import LeaseKeeper
from wasmlet.node.metrics import Metrics
from wasmlet.node.pods.manager import PodManager
from wasmlet.node.registration import NodeRegistration
from wasmlet.node.services import NodeServices
from wasmlet.node.serving import ServingCertificate
from wasmlet.node.status_writer import StatusWriter
from wasmlet.provider import Provider

RUNTIME_CLASSES = "/apis/node.k8s.io/v1/runtimeclasses"

BUSY = 16
"""With so many pods that start, or whose status is to be written, events have to wait."""


@attrs.frozen(kw_only=True)
class Foundation:
    """The parts that a node has once its provider is started, and before it serves pods.

    Attributes:
        client: for requests.
        watch_client: has a connection for each watch.
        ip: the node's address.
        directory: the node's state directory.
        certificate_until: when the node's client certificate ends; None where it has none of its own.
    """

    config: NodeConfig
    provider: Provider
    client: Client
    watch_client: Client
    registration: NodeRegistration
    lease: LeaseKeeper
    ip: str
    directory: Path
    certificate_until: Until
    clock: Clock
    rng: random.Random


@attrs.frozen(kw_only=True)
class Parts:
    """The further parts that a node has while it serves pods.

    Attributes:
        watching: what the watches are made with.
        services: what all pod tasks share.
        serving: the certificate that `api` shows; used only where the configuration asks for it.
    """

    watching: Watching
    services: NodeServices
    pods: PodManager
    api: NodeApi
    serving: ServingCertificate


def assemble(base: Foundation, group: asyncio.TaskGroup) -> Parts:
    """Make the parts.

    Args:
        group: owns the tasks of the parts.
    """
    registration, clock, rng = base.registration, base.clock, base.rng
    watching = Watching(
        client=base.watch_client, requests=base.client, group=group, clock=clock, rng=rng, history=History()
    )
    services = _services(base, watching, inputs_changed=lambda uid: pods.inputs_changed(uid))
    pods = PodManager(services, registration.changed)
    services.metrics.watch(lambda: services.writer.unwritten, pods.phases, pods.container_states)
    api = NodeApi(services, base.config, pods, registration)
    services.metrics.registry.register(
        Figures(
            version=importlib.metadata.version("wasmlet"),
            provider=base.provider,
            client=base.client,
            clock=base.clock,
            allocatable=lambda: registration.allocatable,
            client_until=base.certificate_until,
            server_until=lambda: api.until,
        )
    )
    serving = ServingCertificate(services, base.config, base.directory, registration, api.show)
    return Parts(watching=watching, services=services, pods=pods, api=api, serving=serving)


def _services(base: Foundation, watching: Watching, inputs_changed: Callable[[str], None]) -> NodeServices:
    """What all pod tasks share.

    Args:
        inputs_changed: told the UID of a pod when something that the pod refers to has changed.
    """
    config, registration, clock, rng = base.config, base.registration, base.clock, base.rng
    classes = Collection(watching, RUNTIME_CLASSES)

    async def runtime_class(name: str) -> Raw | None:
        await classes.load()
        return classes.of().get(name)

    inputs = InputStore(
        watching,
        node_name=config.node_name,
        node_ips=[base.ip],
        allocatable=lambda: registration.allocatable,
        runtime_class=runtime_class,
        changed=inputs_changed,
    )
    admission = Admission(
        lambda: registration.node,
        lambda: registration.runtime_handlers,
        runtime_class,
        lambda: registration.leaving,
    )
    metrics = Metrics(config.node_name)
    writer = StatusWriter(base.client, watching.group, metrics, pacing=Pacing(clock, rng))
    starting: set[str] = set()

    def busy() -> bool:
        return writer.unwritten + len(starting) >= BUSY

    return NodeServices(
        provider=base.provider,
        client=base.client,
        writer=writer,
        starting=starting,
        events=EventRecorder(base.client, config.node_name, clock=clock, busy=busy),
        metrics=metrics,
        inputs=inputs,
        admission=admission,
        node_ips=[base.ip],
        history=watching.history,
        clock=clock,
        rng=rng,
        group=watching.group,
    )
