"""The API server's rules for CertificateSigningRequests: what may be requested, and what may change later.

The spec says who asks, and never changes once it is written. A write to `/approval` changes the conditions, and one to
`/status` the certificate; neither can take a decision back. `objects.registry` calls this module for each write;
`certificates.signer` approves and signs. The rules are those of `pkg/apis/certificates/validation` and of the
strategies beside it.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID

from wasmlet.controlplane.access.users import MASTERS, User
from wasmlet.controlplane.storage.kinds import core
from wasmlet.controlplane.storage.status import Cause, Object, forbidden
from wasmlet.kube.keys import read_request

PLURAL = "certificatesigningrequests"
KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
"""The signer of a node's client certificate, with which it identifies itself to the API server."""
KUBELET_SERVING = "kubernetes.io/kubelet-serving"
"""The signer of the serving certificate of a node's HTTPS API."""
CLIENT = "kubernetes.io/kube-apiserver-client"
"""The signer of client certificates of users that are not nodes."""
LEAST_SECONDS = 600
USAGES = (
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
)
_LEGACY = "kubernetes.io/legacy-unknown"
_DECISIONS = ("Approved", "Denied")
_FOR_EVER = (*_DECISIONS, "Failed")
_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_SIGNER = re.compile(rf"{_LABEL}(\.{_LABEL})+/[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def parse(spec: Object) -> x509.CertificateSigningRequest:
    """The PKCS#10 request of a spec.

    Raises:
        ValueError: it is no base64 of the PEM of one, or not signed with the key it names.
    """
    try:
        data = base64.b64decode(spec.get("request") or "", validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise ValueError("is not base64") from None
    return read_request(data)


def names(subject: x509.Name, oid: x509.ObjectIdentifier) -> list[str]:
    """The values of one attribute of a subject."""
    return [str(item.value) for item in subject.get_attributes_for_oid(oid)]


def common_name(found: x509.CertificateSigningRequest) -> str:
    """The user that a request is about; "" for none."""
    return next(iter(names(found.subject, NameOID.COMMON_NAME)), "")


def prepare(obj: Object, who: User) -> None:
    """Complete a new request: write into its spec who asks, and empty its status.

    Raises:
        ApiError: 403, a client certificate for system:masters (admission plugin CertificateSubjectRestriction).
    """
    spec = obj.get("spec")
    if not isinstance(spec, dict):
        spec = obj["spec"] = {}
    for key in ("uid", "extra"):
        spec.pop(key, None)
    spec["username"], spec["groups"] = who.name, sorted(who.groups)
    if who.uid:
        spec["uid"] = who.uid
    if who.extra:
        spec["extra"] = {key: list(values) for key, values in who.extra.items()}
    obj["status"] = {}
    if spec.get("signerName") == CLIENT:
        try:
            organizations = names(parse(spec).subject, NameOID.ORGANIZATION_NAME)
        except ValueError:
            return  # validation says so
        if MASTERS in organizations:
            why = f"use of {CLIENT} signer with {MASTERS} group is not allowed"
            raise forbidden(core(PLURAL), str(obj["metadata"].get("name", "")), why)


def check(obj: Object, old: Object | None) -> list[Cause]:
    """What is wrong with a new request; a later write cannot change what is looked at here."""
    if old is not None:
        return []
    spec, out = obj.get("spec") or {}, []
    try:
        parse(spec)
    except ValueError as error:
        out.append(Cause.invalid("spec.request", str(spec.get("request", "")), str(error)))
    signer = spec.get("signerName")
    if not signer:
        out.append(Cause.required("spec.signerName"))
    elif signer == _LEGACY:
        out.append(
            Cause.invalid("spec.signerName", signer, "the legacy signerName is not allowed via this API version")
        )
    elif not isinstance(signer, str) or len(signer) > 571 or not _SIGNER.fullmatch(signer):
        why = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
        out.append(Cause.invalid("spec.signerName", signer, why))
    seconds = spec.get("expirationSeconds")
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, int) or seconds < LEAST_SECONDS):
        why = "may not specify a duration less than 600 seconds (10 minutes)"
        out.append(Cause.invalid("spec.expirationSeconds", seconds, why))
    return out + _usages(spec.get("usages"))


def _usages(usages: Any) -> list[Cause]:
    if not isinstance(usages, list) or not usages:
        return [Cause.required("spec.usages")]
    out = []
    for at, usage in enumerate(usages):
        if usage not in USAGES:
            out.append(Cause.unsupported(f"spec.usages[{at}]", usage, USAGES))
        if usage in usages[:at]:
            out.append(Cause.duplicate(f"spec.usages[{at}]", usage))
    return out


def _of(kind: str, conditions: list[Object]) -> list[Object]:
    return [item for item in conditions if item.get("type") == kind]


def conditions_of(obj: Object) -> list[Object]:
    """The conditions of a request, those that are objects."""
    found = (obj.get("status") or {}).get("conditions")
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def update(sub: str, new: Object, old: Object, now: str) -> list[Cause]:
    """Work out the new status of a request after a write to `/approval` or `/status`, and put it into `new`.

    Returns:
        What is wrong with the write.
    """
    before, conditions = conditions_of(old), conditions_of(new)
    had, given = (old.get("status") or {}).get("certificate"), (new.get("status") or {}).get("certificate")
    out = []
    if sub == "approval":
        given = had
    else:
        for kind in _DECISIONS:
            if len(_of(kind, conditions)) > len(_of(kind, before)):
                out.append(Cause.forbidden("status.conditions", f'updates may not add a condition of type "{kind}"'))
        conditions = [
            next(iter(_of(item["type"], before)), item) if item.get("type") in _DECISIONS else item
            for item in conditions
        ]
        if had and given != had:
            out.append(Cause.forbidden("status.certificate", "updates may not modify existing certificate content"))
        elif given and given != had and (wrong := _certificate(given)):
            out.append(Cause.invalid("status.certificate", "<certificate data>", wrong))
    for kind in _FOR_EVER:
        if len(_of(kind, conditions)) < len(_of(kind, before)):
            out.append(Cause.forbidden("status.conditions", f'updates may not remove a condition of type "{kind}"'))
    out += _conditions(conditions)
    status: Object = {}
    if conditions:
        status["conditions"] = [_stamped(item, before, now) for item in conditions]
    if given:
        status["certificate"] = given
    new["status"] = status
    return out


def _conditions(conditions: list[Object]) -> list[Cause]:
    out: list[Cause] = []
    seen: set[Any] = set()
    for at, item in enumerate(conditions):
        field, kind, value = f"status.conditions[{at}]", item.get("type"), item.get("status")
        allowed = ("True",) if kind in _FOR_EVER else ("False", "True", "Unknown")
        if not kind:
            out.append(Cause.required(f"{field}.type"))
        if not value:
            out.append(Cause.required(f"{field}.status"))
        elif value not in allowed:
            out.append(Cause.unsupported(f"{field}.status", value, allowed))
        if kind in _DECISIONS and seen & {*_DECISIONS} - {kind}:
            why = "Approved and Denied conditions are mutually exclusive"
            out.append(Cause.invalid(f"{field}.type", kind, why))
        if kind in seen:
            out.append(Cause.duplicate(f"{field}.type", kind))
        seen.add(kind)
    return out


def _stamped(condition: Object, before: list[Object], now: str) -> Object:
    """A condition with its times; the transition time is kept where the condition's status has not changed."""
    same = [item for item in _of(str(condition.get("type")), before) if item.get("status") == condition.get("status")]
    since = same[0].get("lastTransitionTime") if same else None
    return {
        **condition,
        "lastUpdateTime": condition.get("lastUpdateTime") or now,
        "lastTransitionTime": condition.get("lastTransitionTime") or since or now,
    }


def _certificate(given: Any) -> str:
    """What is wrong with a certificate that a signer wrote; "" for nothing."""
    try:
        data = base64.b64decode(given, validate=True)
    except (binascii.Error, TypeError, ValueError):
        return "is not base64"
    if b"-----BEGIN " not in data:
        return "must contain at least one CERTIFICATE PEM block"
    if data.count(b"-----BEGIN ") != data.count(b"-----BEGIN CERTIFICATE-----"):
        return "only CERTIFICATE PEM blocks are allowed"
    try:
        x509.load_pem_x509_certificates(data)
    except ValueError as error:
        return str(error)
    return ""
