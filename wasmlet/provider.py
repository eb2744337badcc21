"""`Provider`: what turns pods into something that runs. Subclass it and you have a node.

    class Echo(Provider):
        name = "echo"
        ...

    wasmlet.run(Echo())

A provider owns what runs and nothing else: it never talks to the API server. The node loop (`wasmlet.node`) watches
pods, calls the methods below, and writes what the provider reports to the API. `wasmlet.runtime.RuntimeProvider` is a
provider that does everything a kubelet does around containers for an engine that can run one.

The contract, for every method:

- Pods are told apart by UID. Two pods with one name and different UIDs may exist at once: the older one is ending.
- A method may be cancelled at any await, and the node loop calls it again later. So each method is idempotent.
- For one UID the loop makes one call at a time. Calls for different pods run concurrently.
- A call that is no longer wanted is cancelled, and the next one is made: the pod is deleted while it is created, or its
  grace period is shortened.
- No method blocks the event loop. What blocks runs in a thread.
- A call for a pod may take 60 seconds; `delete_pod` and `end_pod` have the grace period in addition. A call that takes
  longer is cancelled.
- Raise what `wasmlet.errors` says. Any other exception is shown in the pod, and the call is made again, for ever, with
  growing pauses. The pod's owner sees the text of the exception, and it is logged: it must name no secret.

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
    """Runs pods. A subclass implements `create_pod`, `delete_pod`, `pod_status` and `list_pods`.

    All other methods have a default. `logs`, `exec`, `attach`, `port_forward` and `stats` answer "unsupported" until a
    subclass overrides them.

    `Provider[MyConfig]` is a provider with settings: an attrs class whose fields are made with `wasmlet.option`. The
    command line has a flag for each field, `self.config` is an instance, and type checkers know that.

    Attributes:
        name: the provider's name, in labels, in the node's taint and for `--provider`: lower case, no spaces.
        Config: the class of the settings; without it, that of `Provider[MyConfig]`. `__init__` is called with an
            instance as its only argument.
        poll_seconds: seconds between two looks at the pods, in which `pod_status` is called for every pod. Used only
            while `changes` is not overridden.
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
        """Whether an optional call can be made here. Where it cannot, callers are told before they are connected.

        The default says yes for the methods that the class overrides. May be called at any time after `start`.

        Args:
            call: the name of a method: `logs`, `exec`, `attach`, `port_forward`, `stats` or `take_image`.
        """
        return getattr(type(self), call) is not getattr(Provider, call)

    async def check(self) -> None:
        """Find out whether the provider can run on this machine. Starts nothing. `wasmlet providers` shows the answer.

        Raises:
            ConfigError: it cannot run; the message says what to do.
        """

    async def remarks(self) -> Sequence[str]:
        """What this machine lacks for a provider that can run on it, and why. `wasmlet providers` shows it.

        Raises:
            ConfigError: as `check`.
        """
        return ()

    async def start(self, context: NodeContext) -> None:
        """Get ready. Called once, before all other methods but `check`, and before the node registers.

        Find the pods that went on running while no node loop was there; `list_pods` gives them.

        Raises:
            ConfigError: this machine cannot run the provider; the node ends with this message.
        """

    async def stop(self) -> None:
        """Close what belongs to this process: the node loop ends. Pods go on running.

        Called once, also after a `start` that failed or was cancelled. Pods that have to end were deleted before.
        If your pods cannot outlive this process, end them here, so that nothing is left behind that nobody finds again.
        The next node loop sees that they are lost, and reports them or creates them again.
        """

    @abc.abstractmethod
    async def create_pod(self, pod: Pod, inputs: Inputs) -> None:
        """Accept the pod and start it. Return as soon as it is accepted, not when it runs.

        May be called for a pod that is here already: after a restart, or after a call that failed half-way. Then the
        pod goes on as it is, and does not run twice. A pod that has ended stays ended.

        A pod that was refused or rejected is not held, and `list_pods` leaves it out. It comes here again when somebody
        has changed it.

        To start a container again, as `spec.restartPolicy` says, is the provider's work, with a growing pause. So is
        all else that the spec asks of containers: what cannot be honoured is refused, never ignored.

        Args:
            pod: the pod, as the API has it.
            inputs: the objects that it refers to: config maps, secrets, services, tokens.

        Raises:
            Refused: a field cannot be honoured; the pod stays Pending and says so.
            Rejected: the pod must fail with this reason.
        """

    async def update_pod(self, pod: Pod, inputs: Inputs) -> None:
        """Take a change of the pod's metadata, of the mutable part of its spec, or of its inputs.

        The default does nothing.

        Only a changed image is a reason to start a container again. Only `create_pod` starts a pod that is not here.

        Not called for a pod that has finished. Called for a pod that is being deleted only if that began while no node
        loop was there: then it is called before `delete_pod`, without inputs, so that the provider knows what the
        manifest wants done before the end (preStop). It must start nothing then.

        Raises:
            NotFound: no pod has this UID here (any more).
        """

    @abc.abstractmethod
    async def delete_pod(self, key: PodKey, grace_seconds: float) -> PodStatus | None:
        """End the pod, free all that it holds, and forget it. Return its last status when nothing of it is left.

        The containers have `grace_seconds` from this call on to end by themselves. Then they are ended by force. A pod
        that has ended already is forgotten at once. While the pod ends, its changes are still reported.

        A call that was cancelled may have begun to end the pod. It is made again, perhaps with a shorter grace period,
        and then goes faster. May be called for a pod whose `create_pod` was cancelled: nothing of it may start later.

        Args:
            key: which pod.
            grace_seconds: seconds; 0 means at once.

        Returns:
            The last status, in which every container that was started is Terminated with its exit code. Usual are 143
            for a container that was told to end, and 137 for one that was ended by force: 128 and the number of the
            signal. None only if nothing of the
            pod was ever started.

        Raises:
            NotFound: no pod has this UID here; the loop takes the delete as done.
        """

    async def end_pod(self, key: PodKey, grace_seconds: float) -> PodStatus | None:
        """End the pod as `delete_pod` does, but keep its logs, which may be read until the pod is deleted.

        Called for a pod that stays in the API: somebody else has marked it Failed or Succeeded, or the node ends.
        `delete_pod` follows when it leaves the API. `create_pod` follows if the API was restored from a backup in which
        the pod runs: it is then started again.

        The default calls `delete_pod`: whoever asks for a log afterwards is told that there is no such pod.

        Raises:
            NotFound: no pod has this UID here; the loop takes the pod as ended.
        """
        return await self.delete_pod(key, grace_seconds)

    @abc.abstractmethod
    async def pod_status(self, key: PodKey) -> PodStatus:
        """The pod's status now, with every container that was started.

        With restartPolicy Never, a container that is Terminated stays Terminated.

        Raises:
            NotFound: no pod has this UID here.
        """

    @abc.abstractmethod
    async def list_pods(self) -> Sequence[PodRecord]:
        """Every pod that this provider holds, with its status. Pods that have ended are held until they are deleted.

        Called after `start`, to find what went on running while the node loop was away. A pod that the API does not
        have is deleted. A pod that the API has and this list lacks has been lost. Until this returns, the Node is
        NotReady and takes no pods.
        """

    def changes(self) -> AsyncGenerator[Change, None] | None:
        """A stream of changes, as they happen. None, the default, means that the loop polls `pod_status`.

        Called after `start`, and again if the stream ends or raises. One stream is read at a time. What changes while
        nobody reads must be in the next stream: keep it, or begin each stream with the status of every pod.

        After a stream that broke off, the loop gives each listed pod to `update_pod` again: what is behind the provider
        may have been restarted, and may know less than it was told.

        Raises:
            ConfigError: the provider cannot go on, for example because another node loop drives what is behind it. The
                node ends with this message; its pods go on.
        """
        return None

    def logs(self, key: PodKey, container: str, options: LogOptions) -> AsyncGenerator[bytes, None]:
        """The container's log, in pieces of any size. A reader may leave at any time, which closes the generator.

        Errors are raised by the call itself, or instead of the first piece.

        Raises:
            NotFound: the pod, the container or, with `previous`, the earlier instance is not known.
            InvalidInput: the container has not been started yet.
            Unsupported: this provider keeps no logs (the default).
        """
        raise Unsupported.by(self.name, "logs")

    async def node_status(self) -> NodeStatus:
        """The node's capacity and what else its Node object says.

        Called at the start, with each heartbeat, and after `NodeChanged`. It has 10 seconds. If it raises or takes
        longer, the node goes on with what it returned last; `ping` decides whether the node is Ready. At the start
        there is nothing to go on with, so the node registers when this has returned.
        """
        return NodeStatus(capacity={})

    async def ping(self) -> None:
        """Return when the provider can do its work. An error, or no answer in 10 seconds, makes the node NotReady."""

    async def exec(self, key: PodKey, container: str, command: Sequence[str], streams: Streams) -> int:
        """Run a command in the container until it ends.

        When this returns, everything that the command wrote has been passed to `streams`. It is cancelled when the
        caller leaves: then end the command, and what it has started, before returning.

        Args:
            command: the program and its arguments, one word or more; there is no shell.
            streams: the caller's side.

        Returns:
            The exit code; 128 plus its number for a command that a signal ended.

        Raises:
            NotFound: the pod or the container is not known, or does not run.
            InvalidInput: the command cannot be started, for example because there is no such program.
            Unsupported: this provider has no exec (the default).
        """
        raise Unsupported.by(self.name, "exec")

    async def attach(self, key: PodKey, container: str, streams: Streams) -> None:
        """Connect `streams` to the container's main process until that ends.

        Output begins with what is written from now on. Cancelled when the caller leaves; the container goes on. The end
        of the caller's stdin closes the container's stdin only if the container has `stdinOnce`.

        Raises:
            NotFound: the pod or the container is not known, or does not run.
            Unsupported: this provider has no attach (the default).
        """
        raise Unsupported.by(self.name, "attach")

    async def port_forward(self, key: PodKey, port: int, channel: Channel) -> None:
        """Connect the channel to a TCP port of the pod. Return when the pod's side closes.

        Called once for each connection; several may be open at a time. Cancelled when the caller leaves.

        Raises:
            NotFound: the pod does not run.
            InvalidInput: nothing listens at that port.
            Unsupported: this provider has no port-forward (the default).
        """
        raise Unsupported.by(self.name, "port_forward")

    async def stats(self) -> Raw:
        """CPU and memory, in the form of the kubelet's `/stats/summary` (`stats/v1alpha1` Summary).

        Raises:
            Unsupported: this provider does not measure its pods (the default).
        """
        raise Unsupported.by(self.name, "stats")

    def figures(self) -> Sequence[Figure]:
        """Figures of the provider's own for `/metrics`, looked up at each scrape. The default has none."""
        return ()

    async def take_blob(self, digest: str, size: int, offset: int, data: bytes) -> int:
        """Take a piece of a blob that `take_image` lacks. Pieces come in order, and one may come again.

        Args:
            digest: the digest of the whole blob, `sha256:...`. A blob that has another digest in the end is dropped.
            size: the size of the whole blob in bytes.
            offset: where the piece begins, in bytes.
            data: the piece.

        Returns:
            How many bytes of the blob are here. The next piece begins there.

        Raises:
            WasmletError: the blob is too large, or is not what its digest says.
            Unsupported: this provider gets its images by itself (the default).
        """
        raise Unsupported(f"provider {self.name} gets its images by itself")

    async def take_image(self, reference: str, image: HandedImage, *, files: bool) -> Sequence[str]:
        """Take an image that the caller brings, on a machine that reaches no registry.

        The pods that need it have it among their inputs (`Inputs.images`) and are handed over afterwards. If it is gone
        by then, `create_pod` and `update_pod` raise `NotYet`.

        Args:
            reference: the image's name in the pod.
            image: the digest of its manifest, and whether its index says that it is WebAssembly.
            files: True if the pod mounts the image, False if it runs it.

        Returns:
            The digests of the blobs that are missing, which `take_blob` brings. Empty when the image is here.

        Raises:
            WasmletError: the image cannot be run, or cannot be mounted.
            Unsupported: this provider gets its images by itself (the default).
        """
        raise Unsupported(f"provider {self.name} gets its images by itself")

    def probe_counts(self) -> Mapping[ProbeCount, int]:
        """How often the probes of the pods have succeeded and failed. Empty where none are run (the default)."""
        return {}
