"""Plans a start of a container: its arguments, variables, streams, limits and mounts; or raises why it is refused.

These are pure functions of the manifest, its inputs (other API objects that it refers to), the image and the node's
settings. `launch` carries a plan out. A new plan is made for each instance, so that a restart uses the current inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from wasmlet.errors import Refused
from wasmlet.model.environment import Files, environment
from wasmlet.model.expansion import command_and_args
from wasmlet.model.hosts import Dns, hosts_file, resolv_conf, set_hostname
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Container, Pod, Raw
from wasmlet.runtime import resizing
from wasmlet.runtime.engine import GuestSettings
from wasmlet.runtime.files import volume_rules
from wasmlet.runtime.files.mounts import MountRequest
from wasmlet.runtime.files.pod_users import User
from wasmlet.runtime.images.images import Module
from wasmlet.runtime.linking import Uses
from wasmlet.runtime.network import egress, granting, http_serving, requests
from wasmlet.runtime.network.network import PodNetwork
from wasmlet.runtime.network.node_network import NO_NETWORK, NodeNetwork
from wasmlet.runtime.pods import manifest
from wasmlet.runtime.shim.instances import Kind, Labels
from wasmlet.worker.grants import Grant

NO_SETTINGS = GuestSettings()

STREAMS = {"stdin": "stdin", "stdin_once": "stdinOnce", "tty": "tty"}
"""The fields of a manifest that say how a container's streams are, by their names on the wire."""


@attrs.frozen
class Networking:
    """The network of a container's pod.

    Attributes:
        found: what the pod has; None for no network.
        node: what the node's network means for pods.
        dns: how the cluster resolves names.
        sockets: whether the engine gives its guests sockets.
        uses: what the container's module does with a network and with files.
        taken: TCP ports that other containers of the pod have, with the names of these containers.
    """

    found: PodNetwork | None = None
    node: NodeNetwork = NO_NETWORK
    dns: Dns = attrs.field(factory=Dns)
    sockets: bool = False
    uses: Uses = attrs.field(factory=Uses)
    taken: Mapping[int, str] = attrs.field(factory=dict)

    @property
    def on(self) -> bool:
        """Whether there is a network: for this node's pods in general, or for this pod from an earlier kind."""
        return self.node.on or self.found is not None

    @property
    def ips(self) -> tuple[str, ...]:
        """The pod's addresses."""
        return self.found.ips if self.found is not None else ()

    @property
    def no_sockets(self) -> str:
        """Why the container's guest has no sockets; "" where it has."""
        if not self.sockets:
            return "the engine that runs it gives guests no sockets"
        return "" if self.uses.sockets else "its module imports none of the functions for sockets"


@attrs.frozen
class StartRequest:
    """The next instance of a container.

    Attributes:
        manifest: the pod as the API has it now.
        attempt: counts the container's instances from 0.
        backoff: seconds to wait after this instance has ended.
        resources: what it is to be given, as a manifest has `resources`.
        handler: the name of the RuntimeClass handler that runs the pod.
        dense: whether containers of this handler share a process.
        user: the pod's own user; None where all pods are the node's user.
        network: that of its pod.
    """

    manifest: Pod
    container: Container
    inputs: Inputs
    kind: Kind
    attempt: int
    backoff: float
    resources: Raw
    handler: str
    dense: bool
    user: User | None
    network: Networking = Networking()


@attrs.frozen
class Limits:
    """What an instance may take.

    Attributes:
        resources: as the manifest has them.
        memory: bytes that the engine lets it have; None for no limit.
        message: as `wasmlet.worker.wire` has `resources`.
    """

    resources: Raw
    memory: int | None
    message: Mapping[str, int | None]

    @classmethod
    def of(cls, resources: Raw) -> Limits:
        message = resizing.as_message(resources)
        return cls(resources, message["memory"], message)


@attrs.frozen
class StartPlan:
    """All that an instance is given. Its variables may be secrets: it goes into no log and no message.

    Attributes:
        argv: the guest's arguments, its name first.
        grant: what the guest may ask of its pod's network; None for nothing.
        http: how it serves HTTP, where it does (`wasmlet.runtime.network.http_serving`).
        engine: what the engine's in-worker module is told beside.
        plain: whether the engine's in-worker module for plain modules can run it (`Uses.plain`).
        remarks: reasons and messages of events that warn the pod's owner before the start.
        image_remarks: the same, of what of its image the guest does not get.
    """

    argv: tuple[str, ...]
    variables: Mapping[str, str] = attrs.field(repr=False)
    limits: Limits
    streams: Mapping[str, bool]
    mounts: MountRequest = attrs.field(repr=False)
    labels: Labels
    user: User | None
    grant: Grant | None
    http: Mapping[str, Any]
    engine: Mapping[str, Any] = attrs.field(repr=False)
    plain: bool
    remarks: tuple[tuple[str, str], ...]
    image_remarks: tuple[tuple[str, str], ...]


def plan(request: StartRequest, module: Module, files: Files, settings: GuestSettings = NO_SETTINGS) -> StartPlan:
    """What this start comes to.

    Args:
        files: what `env[].valueFrom.fileKeyRef` of the container names.
        settings: what the engine wants of it.

    Raises:
        Refused: the manifest asks for what this node cannot give; names the field.
    """
    pod, container = request.manifest, request.container
    manifest.check_container(container, network=request.network.on)
    volume_rules.check_mounts(container, {volume["name"] for volume in pod.spec.get("volumes") or ()})
    found = environment(pod, container, request.inputs, request.network.ips, files)
    if found.binary:
        names = ", ".join(found.binary)
        raise Refused(
            f"{container.field}.env",
            f"the value of {names} is not UTF-8, which a guest needs",
            container=container.name,
        )
    given = _image_variables(module) | found.variables
    grant = _grant(request, given, serves=request.network.uses.serves or settings.serves)
    return StartPlan(
        argv=_argv(container, module, found.variables),
        # As container runtimes do: what they set themselves and those of the image are lowest, and unknown to what a
        # kubelet expands.
        variables=_runtime_variables(request, grant) | given,
        limits=Limits.of(request.resources),
        streams=_streams(request),
        mounts=MountRequest(
            pod,
            container,
            request.inputs,
            found.variables,
            request.attempt,
            module.files,
            request.network.ips,
            # Listeners take the numbers of descriptors that directories have kept for them.
            request.network.uses.files or (grant is not None and bool(grant.ports)),
        ),
        labels=_labels(request, module, grant),
        user=request.user,
        grant=grant,
        http=http_serving.of_pod(pod),
        engine=settings.spec,
        plain=request.network.uses.plain,
        remarks=(
            *settings.remarks,
            *(("InvalidEnvironmentVariableNames", message) for message in found.skipped),
            *(("PortNotListenedAt", message) for message in _unserved(request)),
        ),
        image_remarks=tuple(_image_remarks(module)),
    )


def _grant(request: StartRequest, variables: Mapping[str, str], *, serves: bool) -> Grant | None:
    """What the guest may ask of its pod's network; `serves`: it serves HTTP.

    Raises:
        Refused: an annotation of the pod is no grant, or there is no port for it.
    """
    pod, network = request.manifest, request.network
    if network.found is None or not network.sockets:
        return None
    if not network.uses.sockets:
        egress.of_pod(pod)
        # It does not use the network, but enters its pod's namespace, if there is one.
        return Grant(network.found.namespace, network.ips) if network.found.namespace else None
    names = granting.NameFiles(resolv_conf(pod, network.dns), hosts_file(pod, request.inputs, network.dns, network.ips))
    return granting.grant_of(
        pod, _ports(request, variables, serves=serves), network.found, network.node, names, request.inputs.node_ips
    )


def _ports(request: StartRequest, variables: Mapping[str, str], *, serves: bool) -> list[requests.ContainerPort]:
    """The ports that the container has.

    Raises:
        Refused: it declares none where it serves HTTP, and another container has the one that it would have, or its
            variable `PORT` names none, or one that the kernel keeps to root.
    """
    pod, container, network = request.manifest, request.container, request.network
    ports = requests.listened(container, variables, host=requests.on_host(pod), serves=serves)
    for port in ports:
        if not port.field and (other := network.taken.get(port.number)) is not None:
            raise Refused(
                f"{container.field}.ports",
                f"the container serves HTTP, at port {port.number} where none is declared, and container {other} of "
                "the pod has that one; declare another, such as ports: [{containerPort: 8081}]",
                container=container.name,
            )
        own = network.found is not None and bool(network.found.namespace)
        if not port.field and not own and (why := requests.kept_to_root(port.number, network.node)):
            raise Refused(f"{container.field}.env", f"the variable PORT: {why}", container=container.name)
    return ports


def _runtime_variables(request: StartRequest, grant: Grant | None) -> dict[str, str]:
    """Those that a container runtime sets, and what says to the guest where its listeners are."""
    name = set_hostname(request.manifest, request.network.dns.domain, request.inputs.node_name)
    return {"HOSTNAME": name} | (granting.listening_variables(grant) if grant is not None else {})


def _unserved(request: StartRequest) -> Iterator[str]:
    network = request.network
    if network.found is not None:
        namespace, mapped = bool(network.found.namespace), network.found.mapped
        yield from requests.unserved(
            request.container, namespace=namespace, no_sockets=network.no_sockets, mapped=mapped
        )


def _labels(request: StartRequest, module: Module, grant: Grant | None) -> Labels:
    return Labels(
        request.manifest.key,
        request.container.name,
        request.kind,
        request.attempt,
        request.container.image,
        module.image_id,
        request.backoff,
        request.handler,
        request.user.id if request.user is not None else 0,
        tuple(port.number for port in granting.listeners_of(grant)) if grant is not None else (),
    )


def _streams(request: StartRequest) -> dict[str, bool]:
    """Its streams, as `wasmlet.worker.wire` has them for `run`."""
    container = request.container
    for field in ("stdin", "tty"):
        if request.dense and container.raw.get(field):
            raise Refused(
                f"{container.field}.{field}",
                f"handler {request.handler!r} cannot end a guest that waits for input; use one that gives each "
                "container a process of its own",
                container=container.name,
            )
    return {name: bool(container.raw.get(field)) for name, field in STREAMS.items()}


def _image_variables(module: Module) -> dict[str, str]:
    """The variables that its image gives a guest. Its working directory is one of them, for WASI has none."""
    folder = {"PWD": module.folder} if module.folder not in ("", "/") else {}
    return folder | dict(text.split("=", 1) for text in module.environment if "=" in text)


def _image_remarks(module: Module) -> Iterator[tuple[str, str]]:
    if module.folder not in ("", "/"):
        yield (
            "WorkingDirNotApplied",
            f'Image "{module.image}" has the working directory {module.folder[:200]}, and WASI has none: relative '
            "paths begin at /. The variable PWD is set to it, which programs in Go follow; others need absolute paths.",
        )


def _argv(container: Container, module: Module, variables: Mapping[str, str]) -> tuple[str, ...]:
    command, args = command_and_args(container, variables)
    # Without a command the module is the entry point and its name is argv[0]; with one the command is all of argv, as
    # in an image without an entry point: there is no other program that it could name.
    argv = (*command, *args) if command else (*(module.command or [module.path.name]), *(args or module.arguments))
    if any("\0" in word for word in argv):
        raise Refused(
            f"{container.field}.args", "an argument has a NUL byte, which ends an argument", container=container.name
        )
    return argv
