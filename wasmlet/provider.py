"""`Provider`: what turns pods into something that runs. Subclass it and you have a node.

    class Echo(Provider):
        name = "echo"
        ...

    wasmlet.run(Echo())

A provider owns what runs and nothing else: it never talks to the API server. The node loop (`wasmlet.node`) watches
pods, calls the methods below, and writes what the provider reports to the API. `wasmlet.runtime.RuntimeProvider` is a
provider that does everything a kubelet does around containers for an engine that can run one.

The contract, for every method:

- Pods are told apart by UID. Two pods with one name and different UIDs may exist at once, the older one ending.
- A method may be cancelled at any await, and the loop calls it again later; so each is idempotent.
- For one UID the loop makes one call at a time; calls for different pods run concurrently. A call that is no longer
  wanted (the pod is deleted while it is created, its grace period is shortened) is cancelled, and the next one made.
- No method holds up the event loop: what blocks goes to a thread.
- A call for a pod has a minute, and `delete_pod` the grace period beside; one that takes longer is cancelled.
- Raise what `wasmlet.errors` says; any other exception is reported in the pod and the call is repeated, for ever, with
  growing pauses. Its text is shown to the pod's owner and logged: let it name no secret.

`wasmlet.testing.ProviderContract` checks all of it.
"""

from __future__ import annotations

import abc
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, get_args, get_origin

from wasmlet.errors import Unsupported
from wasmlet.model.inputs import HandedImage, Inputs
from wasmlet.model.pod import Pod, PodKey, Raw
from wasmlet.model.status import PodStatus
from wasmlet.provider_values import (
    Address,
    Change,
    Channel,
    Figure,
    LogOptions,
    NoConfig,
    NodeChanged,
    NodeContext,
    NodeImage,
    NodeStatus,
    PodEvent,
    PodRecord,
    ProbeCount,
    ProbeKind,
    StatusChanged,
    Streams,
    Taint,
)

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    ConfigT = TypeVar("ConfigT", default=Any)
else:
    from typing import TypeVar

    ConfigT = TypeVar("ConfigT")

__all__ = [
    "Address",
    "Change",
    "Channel",
    "Figure",
    "LogOptions",
    "NoConfig",
    "NodeChanged",
    "NodeContext",
    "NodeImage",
    "NodeStatus",
    "PodEvent",
    "PodRecord",
    "ProbeCount",
    "ProbeKind",
    "Provider",
    "StatusChanged",
    "Streams",
    "Taint",
]


class Provider(abc.ABC, Generic[ConfigT]):
    """Runs pods. Abstract: `create_pod`, `delete_pod`, `pod_status`, `list_pods`.

    `Provider[MyConfig]` is a provider with settings: an attrs class whose fields are made with `wasmlet.option`. The
    command line derives flags from it, `self.config` is an instance, and type checkers know that.

    Class attributes:
        name: what the provider is called, in labels, the node's taint and `--provider`; lower case, no spaces.
        Config: the class of the settings; that of `Provider[MyConfig]` where it is not set. `__init__` is called with
            an instance as its only argument.
        poll_seconds: how often `pod_status` is asked of every pod, of all side by side, while `changes` is not
            overridden.
    """

    name: ClassVar[str]
    Config: ClassVar[type[Any]] = NoConfig
    poll_seconds: ClassVar[float] = 1.0

    def __init_subclass__(cls, **rest: Any) -> None:
        super().__init_subclass__(**rest)
        for base in cls.__dict__.get("__orig_bases__", ()):
            found = get_args(base)
            if get_origin(base) is Provider and isinstance(found[0], type) and "Config" not in cls.__dict__:
                cls.Config = found[0]

    def __init__(self, config: ConfigT | None = None) -> None:
        self.config: ConfigT = self.Config() if config is None else config

    def supports(self, call: str) -> bool:
        """Whether an optional call can be made here at all; where not, its callers are told before they are connected.

        The default says so of those that the class overrides. Asked at any time after `start`.

        Args:
            call: the name of a method: `logs`, `exec`, `attach`, `port_forward`, `stats` or `take_image`.
        """
        return getattr(type(self), call) is not getattr(Provider, call)

    async def check(self) -> None:
        """Find out whether it can run on this machine, without starting anything; `wasmlet providers` shows it.

        Raises:
            ConfigError: it cannot; the message says what to do.
        """

    async def remarks(self) -> Sequence[str]:
        """What `wasmlet providers` adds of a provider that can run here: what it does without on this machine, and why.

        Raises:
            ConfigError: as `check`.
        """
        return ()

    async def start(self, context: NodeContext) -> None:
        """Get ready: called once, before anything else, and before the node registers.

        Find again what ran before (see `list_pods`). Raise `ConfigError` where this machine cannot run the provider.
        """

    async def stop(self) -> None:
        """The node loop ends. What runs goes on running; only what belongs to this process is closed.

        Called once, also after a `start` that failed or was cancelled. Pods that have to end were deleted before this.
        Where pods cannot outlive this process, end them here rather than leave behind what nobody would find again: the
        node loop of the next process sees that they are lost, and reports them or creates them again.
        """

    @abc.abstractmethod
    async def create_pod(self, pod: Pod, inputs: Inputs) -> None:
        """Accept the pod and start it; return as soon as it is accepted, not when it runs.

        May be called for a pod that exists already, after a restart or a failure half-way: the pod must then go on as
        it is and must not run twice. One that has ended stays ended.

        A pod that is refused or rejected is not held, and `list_pods` leaves it out; it comes here again when it has
        been changed.

        Raises:
            Refused: a field cannot be honoured; the pod stays Pending and says so.
            Rejected: the pod must fail with this reason.
        """

    async def update_pod(self, pod: Pod, inputs: Inputs) -> None:
        """The pod's metadata, the mutable part of its spec, or its inputs have changed. The default does nothing.

        Never called for a pod that has finished. For one that is being deleted only where that began while no node loop
        was there: then it is called before `delete_pod`, without inputs, so that what the manifest has done before the
        end (preStop) is known; nothing is to be started. Only a changed image is a reason to start a
        container anew, and only `create_pod` starts a pod that is not here.

        Raises:
            NotFound: no pod has this UID here (any more).
        """

    @abc.abstractmethod
    async def delete_pod(self, key: PodKey, grace_seconds: float) -> PodStatus | None:
        """End the pod, free all that it holds, forget it; return its last status when nothing of it is left.

        In that status every container that was started is Terminated, with the exit code it ended with: 143 and 137 are
        usual for one that was told to end and one that was made to. None only where there was never anything to tell.

        The containers get `grace_seconds`, from this call on, to end by themselves and are ended by force after that; 0
        means at once. A cancelled call may have begun to end the pod; it is called again, perhaps with a shorter grace
        period, and then hurries. A pod that has ended already is only forgotten, at once. While it ends, changes go on
        to be reported. May be called for a pod whose `create_pod` was cancelled: nothing of it may start later.

        Raises:
            NotFound: no pod has this UID here; the loop takes the delete as done.
        """

    async def end_pod(self, key: PodKey, grace_seconds: float) -> PodStatus | None:
        """End the pod as `delete_pod` does, and keep of it what may be read until it is deleted: its logs.

        Called for a pod that the API goes on having: somebody else has marked it Failed or Succeeded, or the node ends.
        `delete_pod` comes when the API has it no more; `create_pod`, if the API was restored from a backup that has the
        pod running: it is then started again. By default it is `delete_pod`: whoever asks for a log is told that there
        is no such pod.

        Raises:
            NotFound: no pod has this UID here; the loop takes the pod as ended.
        """
        return await self.delete_pod(key, grace_seconds)

    @abc.abstractmethod
    async def pod_status(self, key: PodKey) -> PodStatus:
        """The pod's status now, with every container that was started.

        Under restartPolicy Never a container that is Terminated stays so.

        Raises:
            NotFound: no pod has this UID here.
        """

    @abc.abstractmethod
    async def list_pods(self) -> Sequence[PodRecord]:
        """Every pod that this provider holds, ended ones too until they are deleted, with what `pod_status` says.

        Asked after `start` to find what went on running while the node loop was away. A pod that the API has never
        heard of or has no more is deleted; one that the API has and this list lacks has been lost. Until it returns the
        node is there, NotReady, and takes no pods.
        """

    def changes(self) -> AsyncGenerator[Change, None] | None:
        """A stream of changes, as they happen; None (the default) means: poll `pod_status`.

        Called after `start`, and again if the stream ends or raises; one stream is read at a time. The loop lists all
        pods before it reads, so what changes while nobody reads must be in the next stream: keep it, or begin a stream
        with the status of every pod. After a stream that broke off the loop hands each pod that is listed to
        `update_pod` again: what is behind the provider may have started anew, and know less than it was told.

        Raises:
            ConfigError: the provider cannot go on, as where another node loop drives what is behind it now; the node
                ends, and says this. Its pods go on.
        """
        return None

    def logs(self, key: PodKey, container: str, options: LogOptions) -> AsyncGenerator[bytes, None]:
        """The container's log, in pieces of any size. A reader may leave at any time, which closes the generator.

        Raises (at the call or with the first piece):
            NotFound: the pod, the container or, with `previous`, the earlier instance is not known.
            InvalidInput: the container has not been started yet.
            Unsupported: this provider keeps no logs (the default).
        """
        raise Unsupported(f"provider {self.name} keeps no logs")

    async def node_status(self) -> NodeStatus:
        """Capacity and the like; asked at start, with each heartbeat and after `NodeChanged`.

        It has ten seconds. Where it raises or does not return, the node goes on with what it returned last; whether the
        node is Ready is what `ping` says. At the start there is nothing to go on with: the node registers when it has
        returned.
        """
        return NodeStatus(capacity={})

    async def ping(self) -> None:
        """Return when the provider can do its work; an error, or no answer in ten seconds, makes the node NotReady."""

    async def exec(self, key: PodKey, container: str, command: Sequence[str], streams: Streams) -> int:
        """Run a command in the container until it ends; return its exit code (128 plus the number of a signal).

        Everything that the command wrote has been passed to `streams` by then. Cancelled when the caller leaves: end
        the command, and what it has started, before returning.

        Args:
            command: the program and its arguments, at least one; no shell is implied.

        Raises:
            NotFound: the pod or the container is not known, or does not run.
            InvalidInput: the command cannot be started, as when there is no such program.
            Unsupported: there is no exec here (the default); so for attach, port-forward and stats.
        """
        raise Unsupported(f"provider {self.name} does not support exec")

    async def attach(self, key: PodKey, container: str, streams: Streams) -> None:
        """Connect to the streams of the container's main process until it ends.

        Output starts with what is written from now on. Cancelled when the caller leaves: the container goes on. The end
        of `streams`' stdin closes the container's where its `stdinOnce` is set, and otherwise means nothing.
        """
        raise Unsupported(f"provider {self.name} does not support attach")

    async def port_forward(self, key: PodKey, port: int, channel: Channel) -> None:
        """Connect the channel to a TCP port of the pod until the pod's side closes; then return.

        Called once for each connection, side by side. Cancelled when the caller leaves.

        Raises:
            NotFound: the pod does not run.
            InvalidInput: nothing listens at that port.
        """
        raise Unsupported(f"provider {self.name} does not support port-forward")

    async def stats(self) -> Raw:
        """CPU and memory in the form of the kubelet's `/stats/summary` (`stats/v1alpha1` Summary)."""
        raise Unsupported(f"provider {self.name} does not measure its pods")

    def figures(self) -> Sequence[Figure]:
        """What else is worth watching, looked up at each scrape; the default has nothing."""
        return ()

    async def take_blob(self, digest: str, size: int, offset: int, data: bytes) -> int:
        """Take a piece of a blob that `take_image` lacks; pieces come in order, and one may come again.

        Args:
            digest: of the whole, as `sha256:...`; what has another one in the end is dropped.
            size: of the whole, bytes.
            offset: where the piece begins.

        Returns:
            How many bytes of the blob are here, which is where the next piece begins.

        Raises:
            WasmletError: it is too large, or is not what its digest says.
        """
        raise Unsupported(f"provider {self.name} gets its images by itself")

    async def take_image(self, reference: str, image: HandedImage, *, files: bool) -> Sequence[str]:
        """Take an image of an OCI registry which the caller brings, where no registry is reached from here.

        The pods that need it have it among their inputs (`Inputs.images`), and are handed over afterwards. `create_pod`
        and `update_pod` raise `NotYet` where it is gone by then.

        Args:
            reference: what the pod calls it.
            files: whether the pod mounts it, and does not run it.

        Returns:
            The digests of blobs that are missing, which `take_blob` brings; none once the image is here.

        Raises:
            WasmletError: it is no image that could be run, or mounted.
        """
        raise Unsupported(f"provider {self.name} gets its images by itself")

    def probe_counts(self) -> Mapping[ProbeCount, int]:
        """How often the probes of the pods that are here have succeeded and failed; the default runs none."""
        return {}
