"""Certificates that the cluster signs: asked for, waited for, kept in a file and renewed before they end.

`CertificateKeeper` has one of them. A request (CertificateSigningRequest) is made for a key that is kept beside the
certificate, and its name follows from the key and the content: after a restart the same request is found again, and
waited for on. One that was denied, has failed or was removed is made anew, with a new key.
"""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import structlog

from wasmlet.clock import Backoff, Clock, Pacing, Retries
from wasmlet.errors import WasmletError
from wasmlet.kube import errors
from wasmlet.kube.client import Client
from wasmlet.kube.keys import Pair, Wanted, new_key, request_for, request_name, write_private
from wasmlet.kube.reflector import Reflector, Selection
from wasmlet.model.pod import Raw

log = structlog.get_logger(__name__)

REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client-kubelet"
SERVING_SIGNER = "kubernetes.io/kubelet-serving"
RENEWED_AT = (0.7, 0.9)
"""The share of its life after which a certificate is renewed, by chance in this range so that nodes do not do it
together (a kubelet's)."""
LEAST = 0.1
"""A certificate is used for at least this share of the life that it has left, before it is renewed."""
LOOK_SECONDS = 60.0
QUIET_SECONDS = 3.0
"""How long a request may be undecided before users are asked to approve it: many clusters approve by themselves."""
REMIND_SECONDS = 300.0
WATCH = Backoff(initial=1, cap=60, jitter=0.5)
"""The pauses between watches of a request: longer than others, since a user may have to decide on it."""
TRIES = Backoff(initial=2, cap=300, jitter=0.5)
RENEWALS = Backoff(initial=0.25, cap=60, jitter=0.5)
SOON_SECONDS = 300.0
"""Half of the shortest life that a request can ask for. Renewals that follow each other sooner have growing pauses
between them, so that a signer whose certificates last for seconds is not flooded."""
ANEW = Backoff(initial=60, cap=3600, jitter=0.5)
"""The pauses before a request is made again that was denied or has failed."""

Pending = Callable[[str, float], None]
"""Told that the request of that name is undecided, and for how many seconds."""


class NotSigned(WasmletError):
    """The request was denied, has failed, was removed, or was answered with something that cannot be used."""


class CertificateKeeper:
    """Keeps one certificate.

    Args:
        file: holds the key and the certificate; the key of a request under way is beside it.
        signer: `CLIENT_SIGNER`, or one whose certificates are for servers (`SERVING_SIGNER`).
        wanted: gives the names that the certificate has to contain; called each time, since addresses change.
    """

    def __init__(
        self,
        file: Path,
        signer: str,
        wanted: Callable[[], Wanted],
        clock: Clock,
        rng: random.Random,
        *,
        pending: Pending = lambda name, seconds: None,
    ) -> None:
        self._file = file
        self._key_file = file.with_suffix(".key")
        self._signer = signer
        self._wanted = wanted
        self._clock = clock
        self._rng = rng
        self._pending = pending
        self.pair: Pair | None = None

    async def load(self) -> Pair | None:
        """The certificate of the file, where there is one that is still valid."""
        try:
            pair = Pair.parse(await asyncio.to_thread(self._file.read_bytes))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning("a certificate cannot be read, asking for another", file=str(self._file), error=str(error))
            return None
        if not pair.valid(self._clock.now()):
            log.warning("a certificate is not valid now, asking for another", file=str(self._file))
            return None
        self.pair = pair
        return pair

    def deadline(self, pair: Pair) -> datetime:
        """When to renew it: a random time, another one at each call; never at once, even if a signer backdates."""
        now = self._clock.now()
        aged = pair.not_before + (pair.not_after - pair.not_before) * self._rng.uniform(*RENEWED_AT)
        return max(aged, now + (pair.not_after - now) * LEAST)

    async def due(self) -> None:
        """Return when a new certificate is wanted: there is none, it gets old, or it lacks something."""
        pair = self.pair
        if pair is None:
            return
        deadline = self.deadline(pair)
        while pair.says(self._wanted()) and (left := deadline - self._clock.now()) > timedelta():
            # In steps, for what is wanted may change, and the machine may sleep.
            await self._clock.sleep(min(left.total_seconds(), LOOK_SECONDS))

    async def obtain(self, client: Client) -> Pair:
        """Ask for a certificate, wait until it is signed, and keep it. A call after a cancelled one goes on with it.

        Raises:
            NotSigned: the next call makes another request.
            ApiError: the API server cannot be asked, or may not be.
            ConfigError: the file cannot be written, or the node's name is too long.
        """
        wanted = self._wanted()
        key = await asyncio.to_thread(self._request_key)
        try:
            name, uid = await self._request(client, key, wanted)
            reminder = asyncio.create_task(self._remind(name))
            try:
                certificate = await self._signed(client, name, uid)
            finally:
                reminder.cancel()
            pair = self._usable(name, key + certificate)
        except NotSigned:
            await asyncio.to_thread(self._key_file.unlink, missing_ok=True)
            raise
        await asyncio.to_thread(write_private, self._file, pair.pem)
        await asyncio.to_thread(self._key_file.unlink, missing_ok=True)
        self.pair = pair
        log.info("certificate signed", request=name, signer=self._signer, until=pair.not_after.isoformat())
        return pair

    async def keep(
        self,
        requester: Callable[[], AbstractAsyncContextManager[Client]],
        installed: Callable[[Pair], Awaitable[None]],
    ) -> None:
        """Get a certificate if there is none, and renew it in time, until cancelled.

        Args:
            requester: gives the client to ask with, for one request.
            installed: called with each new certificate, to put it to use.
        """
        tries, anew = (Retries(pauses, self._clock, self._rng) for pauses in (TRIES, ANEW))
        renewals = Retries(RENEWALS, self._clock, self._rng, steady=SOON_SECONDS)
        while True:
            if self.pair is not None:
                renewals.begin()
                await self.due()
                await renewals.wait()
            try:
                async with requester() as client:
                    pair = await self.obtain(client)
            except (NotSigned, errors.Forbidden, errors.ObjectNotFound) as error:
                log.warning("no certificate is signed, asking again later", signer=self._signer, error=str(error))
                await anew.wait()
            except WasmletError as error:
                log.warning("a certificate cannot be asked for, trying again", signer=self._signer, error=str(error))
                await tries.wait(at_least=error.retry_after if isinstance(error, errors.ApiError) else 0.0)
            else:
                await installed(pair)
                tries.start_over()
                if pair.says(self._wanted()):
                    anew.start_over()
                else:  # it is due again already, and a signer that leaves something out may always do so
                    log.warning("the certificate lacks something that was asked for", signer=self._signer)
                    await anew.wait()

    def _usable(self, name: str, pem: bytes) -> Pair:
        try:
            pair = Pair.parse(pem)
        except ValueError as error:
            raise NotSigned(f"request {name} was answered with a certificate that cannot be used: {error}") from None
        if pair.not_after <= self._clock.now():
            raise NotSigned(f"the certificate of request {name} has run out")
        return pair

    def _request_key(self) -> bytes:
        """The key of the request that is under way, or a new one."""
        try:
            key = self._key_file.read_bytes()
            request_name(key, Wanted(""), "")
            return key
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            log.warning("a key cannot be read, making another", file=str(self._key_file), error=str(error))
        key = new_key()
        write_private(self._key_file, key)
        return key

    async def _request(self, client: Client, key: bytes, wanted: Wanted) -> tuple[str, str]:
        """The request's object, made or found: its name and UID."""
        request = await asyncio.to_thread(request_for, key, wanted)
        name = request_name(key, wanted, self._signer)
        body = {
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": {"name": name},
            "spec": {
                "request": base64.b64encode(request).decode(),
                "signerName": self._signer,
                "usages": ["digital signature", "client auth" if self._signer == CLIENT_SIGNER else "server auth"],
            },
        }
        try:
            made = await client.create(REQUESTS, body)
            log.info("certificate requested", request=name, signer=self._signer)
        except errors.AlreadyExists:
            made = await self._get(client, name)
            log.info("certificate requested before, waiting for it", request=name, signer=self._signer)
        return name, str(made["metadata"]["uid"])

    async def _get(self, client: Client, name: str) -> dict[str, Any]:
        try:
            return await client.get(f"{REQUESTS}/{name}")
        except errors.ObjectNotFound:
            raise NotSigned(f"request {name} was removed before it was decided") from None

    async def _signed(self, client: Client, name: str, uid: str) -> bytes:
        """The certificate, as soon as it is there."""
        decision = _Decision(name, uid)
        reflector = Reflector(
            client,
            Selection(REQUESTS, {"fieldSelector": f"metadata.name={name}"}),
            decision,
            pacing=Pacing(self._clock, self._rng, WATCH),
            fatal=(errors.Unauthorized,),  # other credentials may be needed by now, and the caller has them
        )
        watching = asyncio.create_task(reflector.run())
        decision.made.add_done_callback(lambda made: watching.cancel())
        try:
            await asyncio.wait({watching})
            if not decision.made.done():
                await watching  # raises what has ended it
            made = await decision.made
            if isinstance(made, NotSigned):
                raise made
            return made
        finally:
            watching.cancel()
            await asyncio.wait({watching})

    async def _remind(self, name: str) -> None:
        seconds = QUIET_SECONDS
        waited = 0.0
        while True:
            await self._clock.sleep(seconds)
            waited += seconds
            self._pending(name, waited)
            seconds = REMIND_SECONDS


class _Decision:
    """What becomes of one request; handler of its reflector.

    Attributes:
        made: the certificate, or why there is none.
    """

    def __init__(self, name: str, uid: str) -> None:
        self._name = name
        self._uid = uid
        self.made: asyncio.Future[bytes | NotSigned] = asyncio.get_running_loop().create_future()

    def synced(self, items: Sequence[Raw]) -> None:
        if items:
            self.applied(items[0])
        else:
            self._removed()

    def applied(self, item: Raw) -> None:
        if item["metadata"]["uid"] != self._uid:
            self._removed()
            return
        status = item.get("status") or {}
        for condition in status.get("conditions") or ():
            if condition.get("type") in _PAST and condition.get("status", "True") == "True":
                why = ": ".join(filter(None, (condition.get("reason"), condition.get("message"))))
                self._fail(f"request {self._name} was {_PAST[condition['type']]} ({why})")
        if (certificate := status.get("certificate")) and not self.made.done():
            try:
                self.made.set_result(base64.b64decode(certificate))
            except ValueError as error:
                self._fail(f"request {self._name} was answered with what is no base64: {error}")

    def deleted(self, item: Raw) -> None:
        self._removed()

    def _removed(self) -> None:
        self._fail(f"request {self._name} was removed before it was decided")

    def _fail(self, why: str) -> None:
        if not self.made.done():
            self.made.set_result(NotSigned(why))


_PAST = {"Denied": "denied", "Failed": "not signed"}
