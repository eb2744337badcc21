"""Approves the certificate requests of a pool's nodes: only a node, or its pod, may ask, and only for that node.

A node requests its first certificate with the service account token of its pod. The API server writes the pod's name
and UID into the request. Later client certificates, and the serving certificates of its API, it requests as itself.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Sequence
from typing import Any

import structlog
from cryptography import x509
from cryptography.x509.oid import NameOID

from wasmlet.clock import Pacing, either
from wasmlet.kube import Client, Reflector, Selection, errors
from wasmlet.kube.certificates import CLIENT_SIGNER, REQUESTS, SERVING_SIGNER
from wasmlet.kube.keys import read_request
from wasmlet.model.pod import Raw
from wasmlet.operator.objects import prefixed
from wasmlet.operator.pool import LABEL, POOLS, ordinal_of

log = structlog.get_logger(__name__)

NODE = "system:node:"
_POD = "authentication.kubernetes.io/pod-"
_USAGES = {CLIENT_SIGNER: {"client auth"}, SERVING_SIGNER: {"server auth"}}
_COMMON_USAGES = {"digital signature", "key encipherment"}
_NO_POD: Raw = {"metadata": {}}
_NAME = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")
"""What a Node name looks like. Other names are refused, because the name becomes part of a URL path."""
AGAIN_SECONDS = 30.0
"""The pause in seconds before refused requests are checked again: a reason may pass, as a pod gets its address later.
"""
MOST_LATER = 1000
"""The most refused requests that are kept and checked again: two for each node, of its client and its server."""


class Approvals:
    """Approves the requests that are allowed; a reflector's handler. It starts to watch when a pool needs certificates.

    Args:
        namespace: the namespace of the nodes' pods.
    """

    def __init__(self, client: Client, namespace: str, pacing: Pacing) -> None:
        self._client = client
        self._namespace = namespace
        self._pacing = pacing
        self._asked = asyncio.Event()
        self._open: dict[str, Raw] = {}
        self._later: dict[str, Raw] = {}
        """The requests that are refused for now, and are checked again."""
        self._said: dict[str, str] = {}
        """The reason that was logged last for each request."""
        self._news = asyncio.Event()

    def ask(self) -> None:
        """Start the watch, as there is a pool whose nodes have certificates."""
        self._asked.set()

    async def run(self) -> None:
        """Watch requests and decide them until cancelled."""
        await self._asked.wait()
        async with asyncio.TaskGroup() as group:
            group.create_task(Reflector(self._client, Selection(REQUESTS), self, pacing=self._pacing).run())
            group.create_task(self._decide())

    async def _decide(self) -> None:
        pauses = self._client.recovery.pauses(self._pacing.backoff, self._pacing.clock, self._pacing.rng)
        while True:
            await either(self._pacing.clock, AGAIN_SECONDS, self._news)
            self._news.clear()
            self._open, self._later = {**self._later, **self._open}, {}
            while self._open:
                name, raw = next(iter(self._open.items()))
                pauses.begin()
                try:
                    why = await self._settle(name, raw)
                except errors.ApiError as error:
                    log.warning("a request for a certificate is not decided, trying again", error=str(error))
                    if (newest := self._open.pop(name, None)) is not None:
                        self._open[name] = newest  # to the end, so that the others do not wait for it
                    await pauses.wait()
                    continue
                if self._open.get(name) is raw:  # otherwise a newer version has come meanwhile
                    del self._open[name]
                    if why:
                        self._check_later(name, raw)
                if why and self._said.get(name) != why:
                    self._said[name] = why
                    log.warning("a request for a certificate is not approved", request=name, why=why)

    def _check_later(self, name: str, raw: Raw) -> None:
        """Keep a refused request, and of several for the same certificate the newest: nobody waits for the others.

        So a node that asks again and again costs no more than one that has asked once.
        """
        wanted, asked = _certificate(raw), raw["metadata"]["creationTimestamp"]
        for kept in [kept for kept, other in self._later.items() if _certificate(other) == wanted]:
            if self._later[kept]["metadata"]["creationTimestamp"] > asked:
                return
            del self._later[kept]
        if len(self._later) < MOST_LATER:
            self._later[name] = raw

    async def _settle(self, name: str, raw: Raw) -> str:
        """Approve a request if that is allowed.

        Returns:
            Why it is refused, where that may change later; "" where it is decided.
        """
        pod = await self._get(f"/api/v1/namespaces/{self._namespace}/pods/{asking(raw)}")
        pool = (pod["metadata"].get("labels") or {}).get(LABEL, "")
        why = objection(raw, pod, await self._get(f"{POOLS}/{pool}") if pool else _NO_POD, self._namespace)
        if why and "name" not in pod["metadata"]:
            log.warning("a request for a certificate is not approved", request=name, why=why)
            return ""
        if why:
            return why  # checked again as long as there is a pod: it may have no address yet
        said = {
            "type": "Approved",
            "status": "True",
            "reason": "NodeOfPool",
            "message": f"asked for by the pod of node {asking(raw)} of pool {pool}",
        }
        kind = {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest"}
        try:
            await self._client.replace(f"{REQUESTS}/{name}/approval", {**raw, **kind, "status": {"conditions": [said]}})
        except (errors.ObjectNotFound, errors.Conflict):
            return ""  # the request has changed; the watch will report it
        except (errors.BadRequest, errors.Forbidden, errors.Invalid) as error:
            return str(error)
        log.info("a node gets a certificate", node=asking(raw), pool=pool)
        return ""

    async def _get(self, path: str) -> Raw:
        try:
            return await self._client.get(path)
        except errors.ObjectNotFound:
            return _NO_POD

    # --- Handler of a reflector

    def synced(self, items: Sequence[dict[str, Any]]) -> None:
        self._open, self._later = {}, {}
        for item in items:
            self.applied(item)
        self._said = {name: why for name, why in self._said.items() if name in self._open}

    def applied(self, item: dict[str, Any]) -> None:
        status, name = item.get("status") or {}, item["metadata"]["name"]
        undecided = not status.get("conditions") and not status.get("certificate")
        if undecided and item["spec"].get("signerName") in _USAGES and asking(item):
            self._later.pop(name, None)
            self._open[name] = item
            self._news.set()
        else:
            self.deleted(item)

    def deleted(self, item: dict[str, Any]) -> None:
        for kept in (self._open, self._later, self._said):
            kept.pop(item["metadata"]["name"], None)


def _certificate(raw: Raw) -> tuple[str, str]:
    """Which certificate is asked for: the node's name, and the signer."""
    return asking(raw), str(raw["spec"].get("signerName"))


def asking(raw: Raw) -> str:
    """The name of the node that asks, which is also its pod's name; "" where neither a node nor a pod asks."""
    spec = raw["spec"]
    username = str(spec.get("username") or "")
    name = username.removeprefix(NODE) if username.startswith(NODE) else _extra(spec, "name")
    return name if _NAME.fullmatch(name) else ""


def objection(raw: Raw, pod: Raw, pool: Raw, namespace: str) -> str:
    """Why a request must not be approved; "" where it may be approved.

    Args:
        raw: the CertificateSigningRequest.
        pod: the pod that asks, as the API server has it now.
        pool: the pool that the pod's label names.
    """
    spec, metadata = raw["spec"], pod["metadata"]
    name, found = str(metadata.get("name") or ""), pool["metadata"].get("name", "")
    if not name or "deletionTimestamp" in metadata:
        return f"there is no pod {asking(raw)}"
    owners = [one for one in metadata.get("ownerReferences") or () if one.get("controller")]
    made = [(one.get("kind"), one.get("name")) for one in owners] == [("StatefulSet", found)]
    if not found or ordinal_of(name, found) is None or not made:
        return f"pod {name} is not of a pool's node"
    if pool["spec"].get("identity") != "Certificate":
        return f"the nodes of pool {found} have no certificates"
    account = f"system:serviceaccount:{namespace}:{prefixed(found)}"
    if spec.get("username") == account:
        if spec.get("signerName") != CLIENT_SIGNER:
            return "a pod asks for no more than its node's identity"
        if (_extra(spec, "name"), _extra(spec, "uid")) != (name, metadata.get("uid")):
            return f"it is not asked for by the pod {name} that there is now"
    elif spec.get("username") != f"{NODE}{name}":
        return f"{spec.get('username')} is neither node {name} nor its pod"
    return _content(spec, name, str((pod.get("status") or {}).get("podIP") or ""))


def _content(spec: Raw, name: str, address: str) -> str:
    """Why the certificate must not be issued, by its usages, subject and hosts; "" where nothing is wrong."""
    wanted = _USAGES[spec["signerName"]]
    usages = set(spec.get("usages") or ())
    if not wanted <= usages or not usages <= wanted | _COMMON_USAGES:
        return f"expected the usages {sorted(wanted | _COMMON_USAGES)}, found {sorted(usages)}"
    try:
        request = read_request(base64.b64decode(spec.get("request") or "", validate=True))
        subject = [(attribute.oid, attribute.value) for attribute in request.subject]
        hosts = list(request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        hosts = []
    except (binascii.Error, TypeError, ValueError):
        return "it cannot be read"
    whole = [(NameOID.ORGANIZATION_NAME, "system:nodes"), (NameOID.COMMON_NAME, f"{NODE}{name}")]
    if sorted(map(str, subject)) != sorted(map(str, whole)):
        return f"its subject is not that of node {name}"
    allowed = {("DNSName", name), ("IPAddress", address)} if spec["signerName"] == SERVING_SIGNER else set()
    others = [host for host in hosts if (type(host).__name__, str(host.value)) not in allowed]
    return f"it is for {others[0].value}, too" if others else ""


def _extra(spec: Raw, key: str) -> str:
    values = (spec.get("extra") or {}).get(f"{_POD}{key}") or [""]
    return str(values[0]) if len(values) == 1 else ""
