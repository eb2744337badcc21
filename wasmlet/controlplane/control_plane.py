"""`ControlPlane`: the parts of this package put together, started and stopped.

It has an API server on a TLS port, a scheduler, a signer of certificates, and a directory with the kubeconfigs and
certificates that clients need. One process can have many of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import ssl
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from aiohttp import web

from wasmlet.clock import Clock, SystemClock
from wasmlet.controlplane.access import users
from wasmlet.controlplane.access.authorizer import Authorizer
from wasmlet.controlplane.access.certificate_requests import KUBELET_CLIENT
from wasmlet.controlplane.access.rights import Rights
from wasmlet.controlplane.access.rules import Rule
from wasmlet.controlplane.access.users import MASTERS, NODES, Authenticator, Token
from wasmlet.controlplane.certificates.kubeconfig import file_name, kubeconfig, write_private
from wasmlet.controlplane.certificates.pki import Authority
from wasmlet.controlplane.certificates.prepared import Prepared, prepare
from wasmlet.controlplane.certificates.signer import YEAR, Signer
from wasmlet.controlplane.controllers.batch.jobs import Jobs
from wasmlet.controlplane.controllers.definitions import CustomResourceCleanup
from wasmlet.controlplane.controllers.disruption import Disruptions
from wasmlet.controlplane.controllers.eviction import TaintEviction
from wasmlet.controlplane.controllers.lifecycle import GRACE_SECONDS, NodeLifecycle
from wasmlet.controlplane.controllers.stateful.sets import StatefulSets
from wasmlet.controlplane.controllers.volumes.binder import Binder
from wasmlet.controlplane.controllers.workloads.deployments import Deployments
from wasmlet.controlplane.controllers.workloads.endpoints import EndpointSlices
from wasmlet.controlplane.controllers.workloads.garbage import GarbageCollector
from wasmlet.controlplane.controllers.workloads.ownership import Ownership
from wasmlet.controlplane.controllers.workloads.replicasets import ReplicaSets
from wasmlet.controlplane.faults import Faults
from wasmlet.controlplane.http.listener import Listener
from wasmlet.controlplane.http.metrics_api import MetricsApi
from wasmlet.controlplane.http.openapi import OpenApi
from wasmlet.controlplane.http.reviews import Reviews
from wasmlet.controlplane.http.server import BODY, Server, ServerServices
from wasmlet.controlplane.kubelets.proxy import LogProxy
from wasmlet.controlplane.kubelets.registered import ADDRESSES, Kubelets
from wasmlet.controlplane.kubelets.streams import Mode, PodStreams
from wasmlet.controlplane.kubelets.usage import Usage
from wasmlet.controlplane.objects.bootstrap import SECONDS, BootstrapTokens
from wasmlet.controlplane.objects.deletion import Deletion
from wasmlet.controlplane.objects.initial import populate
from wasmlet.controlplane.objects.pod_operations import PodOperations
from wasmlet.controlplane.objects.registry import Registry
from wasmlet.controlplane.scheduler import Scheduler
from wasmlet.controlplane.storage.retention import Retention
from wasmlet.controlplane.storage.store import RING, Store

_STOP_SECONDS = 0.5
_HEADER = 64 * 1024


_T = TypeVar("_T")
_Run = Coroutine[Any, Any, None]


def _started(value: _T | None) -> _T:
    if value is None:
        raise RuntimeError("the control plane is not running: use it as `async with ControlPlane() as cp`")
    return value


class ControlPlane:
    """A small Kubernetes control plane in memory.

    It has an API server, a scheduler, a signer of certificates and a garbage collector. It has controllers for nodes
    that fell silent and for taints, for Deployments, ReplicaSets, StatefulSets, Jobs and EndpointSlices, for
    PodDisruptionBudgets, for claims, and for custom resources. It has nothing else.

    Args:
        host: the address to listen on; also what kubeconfigs point at.
        port: the TCP port; 0 picks a free one.
        directory: where kubeconfigs and certificates are written (made with mode 0700 if missing, kept at the end);
            by default a temporary directory that is removed at the end.
        ring: how many changes of each resource are kept for watches that resume; with fewer, 410 comes sooner.
        bookmarks: the pause between bookmarks of a watch, in seconds.
        kubelet_addresses: which types of a node's addresses are dialled for logs and the like, the best first.
        verify_kubelets: whether a kubelet's serving certificate has to be signed by this cluster's authority
            (`--kubelet-certificate-authority`); by default any will do.
        streams: how exec, attach and port-forward reach a kubelet: "pass" as they come (API servers up to 1.29),
            "translate" from websockets to SPDY (from 1.30), "declared" as websockets to nodes that declare
            ExtendWebSocketsToKubelet (from 1.36).
        schedule: whether pods without a node are given one.
        node_monitor_grace: for how many seconds a node may be silent before its conditions become Unknown, it is
            tainted and its pods are no longer ready (`--node-monitor-grace-period`); pods that do not tolerate a
            NoExecute taint are deleted. None: no controller watches nodes and taints.
        approve: the signers whose CertificateSigningRequests are approved automatically, where a node asks for itself;
            by default only nodes' client certificates. A serving certificate waits for `kubectl certificate approve`,
            as in a cluster, unless "kubernetes.io/kubelet-serving" is among them.
        certificate_seconds: how long a signed certificate lives at most, whatever was asked for
            (`--cluster-signing-duration`). A request's `expirationSeconds`, at least 600, can only shorten that.
        clock: tells the time in objects; timeouts run on the event loop's own.
        seed: makes generated names, and faults with a probability, the same in each run.

    Attributes:
        faults: what may go wrong between clients and the API server; see `wasmlet.controlplane.faults`.

    Raises:
        OSError: raised on entering: the port is taken or the directory cannot be written.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        directory: str | Path | None = None,
        *,
        ring: int = RING,
        bookmarks: float = 60.0,
        kubelet_addresses: Sequence[str] = ADDRESSES,
        verify_kubelets: bool = False,
        streams: Mode = "translate",
        schedule: bool = True,
        node_monitor_grace: float | None = GRACE_SECONDS,
        approve: Collection[str] = (KUBELET_CLIENT,),
        certificate_seconds: float = YEAR,
        clock: Clock | None = None,
        seed: int | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._given = Path(directory) if directory is not None else None
        self._clock = clock or SystemClock()
        self._rng = random.Random(seed)
        self._bookmarks = bookmarks
        self._addresses = kubelet_addresses
        self._verify = verify_kubelets
        self._streams: Mode = streams
        self._schedule = schedule
        self._grace = node_monitor_grace
        self._approve = approve
        self._certificate_seconds = certificate_seconds
        self._tokens: BootstrapTokens | None = None
        self._store = Store(ring=ring)
        self._rights = Rights(self._store)
        self.faults = Faults(self._store, random.Random(seed))
        self._authenticator = Authenticator(self._clock)
        self._stack = contextlib.AsyncExitStack()
        self._directory: Path | None = None
        self._authority: Authority | None = None
        self._url = ""

    # -- what others need to know

    @property
    def url(self) -> str:
        """Where the API server is: https://host:port."""
        return self._url

    @property
    def directory(self) -> Path:
        """The directory with kubeconfigs and certificates."""
        return _started(self._directory)

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig of a user who may do everything (group system:masters)."""
        return self.directory / "admin.kubeconfig"

    @property
    def ca_file(self) -> Path:
        """The certificate of the authority that vouches for the API server and for its clients, PEM."""
        return self.directory / "ca.crt"

    @property
    def client_ca_file(self) -> Path:
        """The authority by which a kubelet knows its clients, `--client-ca-file`: the same one."""
        return self.ca_file

    def node_kubeconfig(self, name: str) -> Path:
        """A kubeconfig with the identity of a node: certificate system:node:NAME, group system:nodes."""
        return self._write(f"node-{file_name(name)}", f"system:node:{name}", [NODES], token=False)

    def user_kubeconfig(self, name: str, groups: Iterable[str] = (), *, token: bool = False) -> Path:
        """A kubeconfig of any user, with a client certificate or with a bearer token."""
        return self._write(f"user-{file_name(name)}", name, groups, token=token)

    def bootstrap_kubeconfig(self, token_id: str = "", *, seconds: float = SECONDS) -> Path:
        """A kubeconfig with a bootstrap token, of user system:bootstrap:ID and group system:bootstrappers.

        Its user may only ask for the client certificate of a node, which is approved and signed at once. The token is
        valid for that many seconds; it is the Secret `bootstrap-token-ID` in kube-system, and ends with that.

        Raises:
            ValueError: the id is not six of a-z and 0-9.
            wasmlet.controlplane.storage.status.ApiError: there is a token of that id.
        """
        token = _started(self._tokens).issue(token_id, seconds)
        file = f"bootstrap-{token.partition('.')[0]}.kubeconfig"
        config = kubeconfig(self._url, _started(self._authority).pem, "kubelet-bootstrap", token)
        return write_private(self.directory / file, config)

    def grant(self, subject: str, *rules: Rule) -> None:
        """Add rules to those of a user or of a group; they have the form of RBAC rules, see `access.rules`."""
        self._rights.grant(subject, *rules)

    def revoke(self, subject: str) -> None:
        """Remove what `grant` gave a user or a group; what bindings say stays, and what masters and nodes may do."""
        self._rights.revoke(subject)

    def _write(self, file: str, name: str, groups: Iterable[str], *, token: bool) -> Path:
        authority = _started(self._authority)
        groups = list(groups)
        if token:
            credentials: Any = self._authenticator.issue(Token(users.user(name, groups)))
        else:
            credentials = authority.client(name, groups)
        return write_private(
            self.directory / f"{file}.kubeconfig", kubeconfig(self._url, authority.pem, name, credentials)
        )

    # -- start and stop

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        prepared = await asyncio.to_thread(prepare, self._given, self._host, self._clock.now())
        if self._given is None:
            stack.callback(shutil.rmtree, prepared.directory, ignore_errors=True)
        self._directory, self._authority = prepared.directory, prepared.authority
        services = self._services(prepared)
        stack.push_async_callback(services.log_proxy.close)
        stack.push_async_callback(services.metrics.close)
        self._tokens = BootstrapTokens(services.registry)
        self._authenticator.bootstrap = self._tokens.user
        controllers = self._controllers(services, prepared.authority)
        populate(services.registry)
        port = await self._listen(stack, Server(services, bookmarks=self._bookmarks), prepared.tls)
        host = f"[{self._host}]" if ":" in self._host else self._host
        host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)
        self._url = f"https://{host}:{port}"
        admin = prepared.authority.client("admin", [MASTERS])
        write_private(self.kubeconfig, kubeconfig(self._url, prepared.authority.pem, "admin", admin))
        for name, run in controllers.items():
            stack.push_async_callback(_cancel, asyncio.create_task(run(), name=name))

    def _services(self, prepared: Prepared) -> ServerServices:
        """Make the parts that the server needs to answer requests."""
        authority = prepared.authority.pem.decode()
        registry = Registry(self._store, self._clock, self._rng, root_ca=authority, rights=self._rights)
        deletion = Deletion(registry)
        authorizer = Authorizer(self._store, self._rights)
        kubelets = Kubelets(
            registry,
            prepared.kubelet_certificate,
            prepared.kubelet_key,
            addresses=self._addresses,
            authority=authority if self._verify else None,
        )
        return ServerServices(
            registry=registry,
            deletion=deletion,
            authenticator=self._authenticator,
            authorizer=authorizer,
            pod_operations=PodOperations(registry, deletion),
            log_proxy=LogProxy(kubelets),
            streams=PodStreams(kubelets, self._streams),
            reviews=Reviews(registry, self._authenticator, authorizer),
            metrics=MetricsApi(self._store, Usage(kubelets, self._clock)),
            openapi=OpenApi(registry.definitions, self._store.catalog),
        )

    def _controllers(self, services: ServerServices, authority: Authority) -> dict[str, Callable[[], _Run]]:
        """Make the controllers, by task name; before the first object is stored, as they follow the store."""
        registry, approve = services.registry, self._approve
        signer = Signer(registry, services.authorizer, authority, approve=approve, seconds=self._certificate_seconds)
        runs: dict[str, Callable[[], _Run]] = {"wasmlet-signer": signer.run}
        if self._schedule:
            runs["wasmlet-scheduler"] = Scheduler(registry, services.pod_operations).run
        Retention(self._store)
        ownership, deletion, clock = Ownership(self._store), services.deletion, self._clock
        runs |= {
            "wasmlet-definitions": CustomResourceCleanup(registry, deletion, clock).run,
            "wasmlet-garbage": GarbageCollector(registry, deletion, ownership, clock).run,
            "wasmlet-replicasets": ReplicaSets(registry, deletion, ownership, clock).run,
            "wasmlet-statefulsets": StatefulSets(registry, deletion, ownership, clock).run,
            "wasmlet-volumes": Binder(registry, clock).run,
            "wasmlet-jobs": Jobs(registry, deletion, ownership, clock).run,
            "wasmlet-deployments": Deployments(registry, deletion, ownership, clock).run,
            "wasmlet-disruptions": Disruptions(registry, ownership, clock).run,
            "wasmlet-endpointslices": EndpointSlices(registry, deletion, clock).run,
        }
        if self._grace is not None:
            runs["wasmlet-node-lifecycle"] = NodeLifecycle(registry, self._clock, self._grace).run
            runs["wasmlet-taint-eviction"] = TaintEviction(registry, services.deletion, self._clock).run
        return runs

    async def _listen(self, stack: contextlib.AsyncExitStack, server: Server, tls: ssl.SSLContext) -> int:
        """Listen for requests, which go through `faults` to the server. Returns the port."""
        runner = web.ServerRunner(
            web.Server(
                self.faults.handle,
                request_factory=_request,
                handler_cancellation=True,
                access_log=None,
                max_field_size=_HEADER,
                max_line_size=_HEADER,
            ),
            shutdown_timeout=_STOP_SECONDS,
        )
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        listener = Listener(runner, tls)
        self.faults.attach(server, listener)
        port = await listener.open(self._host, self._port)
        stack.callback(listener.close)
        stack.callback(server.close)
        return port


def _request(message: Any, payload: Any, protocol: Any, writer: Any, task: asyncio.Task[None]) -> web.BaseRequest:
    """A request whose body is bounded."""
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=BODY)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
