"""The controllers of CertificateSigningRequests: one approves what needs no person, the other signs what is approved.

As in kube-controller-manager, the client certificate of a node is approved automatically, where a bootstrapper or the
node itself asks. A serving certificate waits for `kubectl certificate approve`, unless the control plane was told
otherwise. A request that a signer refuses to sign gets the condition Failed, which says why.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Collection
from datetime import timedelta

from cryptography import x509
from cryptography.x509.oid import NameOID

from wasmlet.controlplane.access.authorizer import Attributes, Authorizer
from wasmlet.controlplane.access.certificate_requests import (
    CLIENT,
    KUBELET_CLIENT,
    KUBELET_SERVING,
    PLURAL,
    common_name,
    conditions_of,
    names,
    parse,
)
from wasmlet.controlplane.access.users import NODES, User
from wasmlet.controlplane.certificates.pki import Authority
from wasmlet.controlplane.objects.registry import Call, Registry
from wasmlet.controlplane.storage.kinds import Kind, core
from wasmlet.controlplane.storage.status import ApiError, Object
from wasmlet.controlplane.storage.store import Event, Record

YEAR = 365 * 24 * 3600.0
"""How long a certificate lives at most, in seconds, unless the control plane says otherwise."""
BACKDATE = 300.0
"""How many seconds before its signing a certificate becomes valid, for clients whose clocks are behind. For a
certificate that lives less than 10 minutes it is a tenth of its life."""
_SHORT = 8 * 3600.0
_LEAST = 600.0
_NODE = "system:node:"
_SIGNED = (KUBELET_CLIENT, KUBELET_SERVING, CLIENT)
_USAGES = {KUBELET_CLIENT: "client auth", KUBELET_SERVING: "server auth", CLIENT: "client auth"}


def objection(signer: str, found: x509.CertificateSigningRequest, usages: Collection[str]) -> str:
    """Why a signer of Kubernetes refuses the request; "" if it signs it (`pkg/apis/certificates/helpers.go`)."""
    wanted = {"digital signature", _USAGES[signer]}
    if signer == CLIENT:
        if extra := sorted({*usages} - wanted - {"key encipherment"}):
            return f"invalid usage for client certificate: {extra[0]}"
        return "" if "client auth" in usages else "missing required usage for client certificate: client auth"
    if names(found.subject, NameOID.ORGANIZATION_NAME) != [NODES]:
        return f"subject organization is not {NODES}"
    alternatives = _alternatives(found)
    hosts = [item for item in alternatives if isinstance(item, x509.DNSName | x509.IPAddress)]
    if signer == KUBELET_SERVING and not hosts:
        return "DNS or IP subjectAltName is required"
    for item in alternatives:
        what = {x509.DNSName: "DNS", x509.IPAddress: "IP", x509.RFC822Name: "Email"}.get(type(item), "URI")
        if signer == KUBELET_CLIENT or item not in hosts:
            return f"{what} subjectAltNames are not allowed"
    if {*usages} - {"key encipherment"} != wanted:
        return f"usages did not match {sorted(wanted | {'key encipherment'})}"
    return "" if common_name(found).startswith(_NODE) else f"subject common name does not begin with {_NODE}"


def _alternatives(found: x509.CertificateSigningRequest) -> list[x509.GeneralName]:
    try:
        return list(found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except (x509.ExtensionNotFound, ValueError):
        return []


class Signer:
    """Approves and signs requests while `run` runs; it follows the store from its construction.

    Args:
        approve: the signers whose requests are approved automatically, where a node asks for itself.
        seconds: how long a certificate lives at most.
    """

    def __init__(
        self,
        registry: Registry,
        authorizer: Authorizer,
        authority: Authority,
        *,
        approve: Collection[str] = (KUBELET_CLIENT,),
        seconds: float = YEAR,
    ) -> None:
        self._registry = registry
        self._authorizer = authorizer
        self._authority = authority
        self._approve = approve
        self._seconds = seconds
        self._queue: dict[str, None] = {}
        self._wake = asyncio.Event()
        registry.store.listeners.append(self._on_change)

    def _on_change(self, kind: Kind, event: Event) -> None:
        if kind.key == PLURAL and event.change != "DELETED":
            self._queue[event.record.name] = None
            self._wake.set()

    async def run(self) -> None:
        """Approve and sign until cancelled."""
        while True:
            while self._queue:
                name = next(iter(self._queue))
                del self._queue[name]
                record = self._registry.store[PLURAL].get("", name)
                if record is not None:
                    self._handle(record)
                await asyncio.sleep(0)
            self._wake.clear()
            await self._wake.wait()

    def _handle(self, record: Record) -> None:
        spec = record.raw["spec"]
        signer, state = spec["signerName"], {item.get("type") for item in conditions_of(record.raw)}
        if signer not in _SIGNED or (record.raw.get("status") or {}).get("certificate"):
            return
        if state & {"Denied", "Failed"}:
            return
        found = parse(spec)
        why = objection(signer, found, spec["usages"])
        if "Approved" not in state:
            if signer in self._approve and not why and (message := self._may(signer, spec, found)):
                self._write(record, "approval", {"type": "Approved", "reason": "AutoApproved", "message": message})
        elif why:
            self._write(record, "status", {"type": "Failed", "reason": "SignerValidationFailure", "message": why})
        else:
            self._write(record, "status", certificate=self._sign(spec, found))

    def _may(self, signer: str, spec: Object, found: x509.CertificateSigningRequest) -> str:
        """The message with which a request is approved; "" if a user has to approve it."""
        own = common_name(found) == spec["username"]
        if signer != KUBELET_CLIENT:
            return "Auto approving what a node asks for itself." if own else ""
        user = User(spec["username"], frozenset(spec["groups"]))
        tried = (("selfnodeclient", "self kubelet"),) if own else ()
        for sub, what in (*tried, ("nodeclient", "kubelet")):
            asked = Attributes("create", "certificates.k8s.io", PLURAL, sub)
            if self._authorizer.denial(user, asked) is None:
                return f"Auto approving {what} client certificate after SubjectAccessReview."
        return ""

    def _write(self, record: Record, sub: str, condition: Object | None = None, certificate: str = "") -> None:
        status = dict(record.raw.get("status") or {})
        if condition is not None:
            status["conditions"] = [*conditions_of(record.raw), {**condition, "status": "True"}]
        if certificate:
            status["certificate"] = certificate
        call = Call(core(PLURAL), name=record.name, sub=sub, manager="kube-controller-manager")
        try:
            self._registry.update(call, {**record.raw, "status": status})
        except ApiError:
            return  # it was changed or deleted meanwhile, and that change has been queued

    def _sign(self, spec: Object, found: x509.CertificateSigningRequest) -> str:
        """The certificate in the form of the API: PEM in base64."""
        wanted = spec.get("expirationSeconds")
        seconds = self._seconds if wanted is None else min(max(float(wanted), _LEAST), self._seconds)
        back = BACKDATE if seconds >= _LEAST else seconds / 10
        now = self._registry.clock.now()
        end = now + timedelta(seconds=seconds if seconds < _SHORT else seconds - back)
        pem = self._authority.sign(
            found,
            _alternatives(found),
            encipherment="key encipherment" in spec["usages"],
            server=spec["signerName"] == KUBELET_SERVING,
            start=now - timedelta(seconds=back),
            end=end,
        )
        return base64.b64encode(pem).decode()
