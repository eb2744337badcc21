"""Who the node is to the API server: a kubeconfig, or a certificate that it gets for a bootstrap token and renews.

TLS bootstrap as a kubelet does it: with the credentials of `--bootstrap-kubeconfig` the node asks for a client
certificate of its own, waits until somebody approves it, and keeps it in the state directory with a kubeconfig that
names it. A later start finds both there. The certificate is renewed before it ends, and put to use without a restart.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog
import yaml

from wasmlet.clock import Backoff, Clock
from wasmlet.errors import ConfigError
from wasmlet.kube import Client, Identity, errors, load_identity
from wasmlet.kube.certificates import CLIENT_SIGNER, CertificateKeeper, NotSigned
from wasmlet.kube.keys import Pair, Wanted, write_private
from wasmlet.kube.kubeconfig import load
from wasmlet.node.config import NodeConfig

log = structlog.get_logger(__name__)

BOOTSTRAP = Backoff(initial=2, cap=60)
"""Between the requests for the node's first certificate."""
FIRST_CONTACT = Backoff(initial=0.3, cap=2)
"""Between the first requests of a node that starts."""

FIRST_TRIES = 5
"""How often the first contact with the API server is tried before the user hears that it is away."""


class Credentials:
    """The node's identity, from its first moment on.

    Args:
        directory: the node's state directory.
    """

    def __init__(self, config: NodeConfig, directory: Path, clock: Clock, rng: random.Random) -> None:
        self._config = config
        self._clock = clock
        self._rng = rng
        self._kubeconfig = directory / "kubeconfig"
        if config.bootstrap_kubeconfig is None or config.kubeconfig is not None:
            self._kubeconfig = config.kubeconfig or self._kubeconfig
        self._certificate = directory / "pki" / "client.pem"
        wanted = Wanted(f"system:node:{config.node_name}", ("system:nodes",))
        self._keeper = CertificateKeeper(
            self._certificate, CLIENT_SIGNER, lambda: wanted, clock, rng, pending=_say_pending
        )

    async def identity(self) -> Identity:
        """The node's identity; with a bootstrap kubeconfig the call may wait long for somebody's approval.

        Raises:
            ConfigError: there are no credentials that can be used; the message says which and what is wrong.
        """
        config = self._config
        if config.bootstrap_kubeconfig is None:
            identity = await load_identity(config.kubeconfig, clock=self._clock)
            await self._keeper.load()
            return identity.as_node(config.node_name) if config.impersonate_node else identity
        if (kept := await self.kept()) is not None:
            return kept
        await self._bootstrap(config.bootstrap_kubeconfig)
        return await load_identity(self._kubeconfig, clock=self._clock)

    async def kept(self) -> Identity | None:
        """The identity that an earlier start has kept, if it is still valid; else None. Makes no request.

        Raises:
            ConfigError: a kubeconfig is there that cannot be used.
        """
        if not await self._has_certificate():
            return None
        return await load_identity(self._kubeconfig, clock=self._clock)

    @property
    def until(self) -> datetime | None:
        """When the client certificate ends that the node has got itself; None where it has none."""
        return self._keeper.pair.not_after if self._keeper.pair is not None else None

    async def _has_certificate(self) -> bool:
        """Whether an earlier start has left credentials that are still valid."""
        if not await asyncio.to_thread(self._kubeconfig.exists):
            return False
        if await self._keeper.load() is not None:
            return True
        with suppress(ConfigError):  # it may name a certificate of ours that is no more
            return (await load_identity(self._kubeconfig, clock=self._clock)).certificate != self._certificate
        return False

    async def _bootstrap(self, path: Path) -> None:
        log.info("asking for a certificate of the node's own", bootstrap_kubeconfig=str(path))
        if self._certificate.is_relative_to("/run"):
            log.warning(
                "the certificate will be lost at the next boot: give --state-dir a place on a disk",
                file=str(self._certificate),
            )
        identity = await load_identity(path, clock=self._clock)
        pauses = BOOTSTRAP.pauses(self._rng)
        async with Client(identity, clock=self._clock) as client:
            await first_contact(client, self._clock)
            while True:
                try:
                    await self._keeper.obtain(client)
                    break
                except errors.Unauthorized:
                    raise ConfigError(
                        f"{identity.server} does not accept the credentials of {path} (401); a bootstrap token ends "
                        "after a day or so: make another, as with `kubeadm token create`"
                    ) from None
                except errors.Forbidden as error:
                    raise ConfigError(
                        f"the credentials of {path} may not ask for a certificate: {error}; bind their group "
                        "(system:bootstrappers) to ClusterRole system:node-bootstrapper"
                    ) from None
                except (NotSigned, errors.ApiError) as error:
                    log.warning("the node has no certificate yet, trying again", error=str(error))
                    await self._clock.sleep(next(pauses))
        text = await asyncio.to_thread(_kubeconfig, path, self._certificate)
        await asyncio.to_thread(write_private, self._kubeconfig, text)

    async def run(self, clients: Sequence[Client]) -> None:
        """Renew the certificate for as long as the node runs, where it is one that we have got ourselves."""
        identity = clients[0].identity
        if identity.certificate != self._certificate:
            return

        async def use(pair: Pair) -> None:
            renewed = await identity.reload()
            for client in clients:
                await client.use(renewed)
            log.info("the node has a new client certificate", until=pair.not_after.isoformat())

        await self._keeper.keep(self._requester(clients[0]), use)

    def _requester(self, client: Client) -> Callable[[], Any]:
        """Who asks for a new certificate: the node, or the bootstrap token where it is too late for that."""
        bootstrap = self._config.bootstrap_kubeconfig

        @asynccontextmanager
        async def requester() -> AsyncGenerator[Client, None]:
            pair = self._keeper.pair
            if pair is not None and not pair.valid(self._clock.now()) and bootstrap is not None:
                async with Client(await load_identity(bootstrap, clock=self._clock), clock=self._clock) as other:
                    yield other
            else:
                yield client

        return requester


def _say_pending(name: str, seconds: float) -> None:
    log.warning(
        f"waiting for a certificate: approve the request with `kubectl certificate approve {name}`",
        seconds=round(seconds),
    )


def _kubeconfig(bootstrap: Path, certificate: Path) -> bytes:
    """A kubeconfig for the API server of another one, with a certificate in the place of its user."""
    cluster, _ = load([bootstrap]).chosen()
    pem = str(certificate)
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "default", "cluster": cluster.raw()}],
            "users": [{"name": "node", "user": {"client-certificate": pem, "client-key": pem}}],
            "contexts": [{"name": "default", "context": {"cluster": "default", "user": "node"}}],
            "current-context": "default",
        },
        sort_keys=False,
    ).encode()


async def first_contact(client: Client, clock: Clock) -> None:
    """Check that the API server can be reached and accepts our credentials, before anything is started.

    Raises:
        ConfigError: it is away, or does not accept us.
    """
    server = client.identity.server
    pauses = FIRST_CONTACT.pauses()
    for attempt in range(1, FIRST_TRIES + 1):
        try:
            await client.get("/api/v1")
            return
        except errors.Unauthorized:
            raise ConfigError(
                f"{server} does not accept the kubeconfig's credentials (401): they are another cluster's, or "
                "they have run out"
            ) from None
        except errors.Forbidden:
            return  # it knows us; what we need we may have all the same
        except errors.ApiError as error:
            if attempt == FIRST_TRIES:
                raise ConfigError(f"{error}; is the API server running, and is the kubeconfig for it?") from None
        await clock.sleep(next(pauses))
