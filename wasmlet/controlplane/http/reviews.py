"""Requests that store nothing: TokenReview, the access reviews, and TokenRequest for a service account's token.

A kubelet that delegates authentication and authorization sends a TokenReview (whose is a token?) and a
SubjectAccessReview (may this user do this?). With a TokenRequest a node gets a signed token for a pod, bound to that
pod.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import orjson
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from wasmlet.controlplane.access.authorizer import Attributes, Authorizer
from wasmlet.controlplane.access.users import AUDIENCE, Authenticator, Token, User, user
from wasmlet.controlplane.objects.registry import Call, Registry, rfc3339
from wasmlet.controlplane.storage import status
from wasmlet.controlplane.storage.kinds import core
from wasmlet.controlplane.storage.status import Cause, Object, bad_request
from wasmlet.controlplane.storage.store import Record

LEAST_SECONDS = 600
MOST_SECONDS = 1 << 32


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _described(who: User) -> Object:
    out: Object = {"username": who.name, "groups": sorted(who.groups)}
    if who.uid:
        out["uid"] = who.uid
    if who.extra:
        out["extra"] = {key: list(values) for key, values in who.extra.items()}
    return out


def _subject(call: Call, spec: Object) -> User:
    """The user whom a review of access is about.

    Raises:
        ApiError: 422, the review names no user, or another namespace than its own.
    """
    name, groups = str(spec.get("user") or ""), [str(group) for group in spec.get("groups") or ()]
    causes = []
    if not name and not groups:
        causes.append(Cause.invalid("spec.user", "", "at least one of user or group must be specified"))
    resource = spec.get("resourceAttributes")
    if call.namespace and isinstance(resource, dict) and resource.get("namespace") != call.namespace:
        why = f"must match metadata.namespace: {call.namespace}"
        causes.append(Cause.invalid("spec.resourceAttributes.namespace", str(resource.get("namespace", "")), why))
    if causes:
        raise status.invalid(call.kind, "", causes)
    return User(name, frozenset(groups), str(spec.get("uid") or ""))


def _attributes(spec: Object) -> Attributes:
    """What a review asks about; a requirement on spec.nodeName counts, as in the selector of a list.

    Raises:
        ApiError: 400, not exactly one of a resource and a path.
    """
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if isinstance(resource, dict) == isinstance(path, dict):
        raise bad_request("exactly one of nonResourceAttributes or resourceAttributes must be specified")
    if isinstance(path, dict):
        return Attributes(str(path.get("verb") or ""), path=str(path.get("path") or ""))
    assert isinstance(resource, dict)
    node = None
    match resource.get("fieldSelector"):
        case {"requirements": [*requirements]}:
            for item in requirements:
                match item:
                    case {"key": "spec.nodeName", "operator": "In", "values": [str(name)]}:
                        node = name
    fields = ("verb", "group", "resource", "subresource", "namespace", "name")
    return attrs.evolve(Attributes(*(str(resource.get(key) or "") for key in fields)), node_name=node)


@attrs.frozen
class _Bound:
    """An object that a token is bound to: the token is valid only while the object exists."""

    plural: str
    namespace: str
    name: str
    uid: str

    @classmethod
    def of(cls, plural: str, record: Record) -> _Bound:
        return cls(plural, record.namespace, record.name, record.raw["metadata"]["uid"])

    @property
    def claim(self) -> dict[str, str]:
        """The form in which the token names the object."""
        return {"name": self.name, "uid": self.uid}


class Reviews:
    """Answers reviews and issues tokens."""

    def __init__(self, registry: Registry, authenticator: Authenticator, authorizer: Authorizer) -> None:
        self._registry = registry
        self._authenticator = authenticator
        self._authorizer = authorizer
        self._key = ec.generate_private_key(ec.SECP256R1())

    def answer(self, call: Call, body: Object) -> Object:
        """The object that was posted, with its status.

        Raises:
            ApiError: 400, 403, 404, 422.
        """
        spec = body.get("spec") or {}
        if not isinstance(spec, dict):
            raise bad_request("spec is an object")
        match call.kind.key:
            case "tokenreviews":
                answer = self._token(spec)
            case "selfsubjectreviews":
                answer = {"userInfo": _described(call.user)}
                body = {**body, "metadata": {"creationTimestamp": rfc3339(datetime.now(UTC))}}
            case "selfsubjectaccessreviews":
                answer = self._access(call.user, spec)
            case "subjectaccessreviews" | "localsubjectaccessreviews":
                answer = self._access(_subject(call, spec), spec)
            case "serviceaccounts" if call.sub == "token":
                return self._request(call, body, spec)
            case _:
                raise status.method_not_allowed()
        return {**body, "apiVersion": call.kind.api_version, "kind": call.kind.kind, "status": answer}

    def _token(self, spec: Object) -> Object:
        text = spec.get("token")
        if not isinstance(text, str) or not text:
            raise bad_request("token is required for TokenReview in authentication")
        found = self._authenticator.token(text)
        if found is None:
            return {"user": {}, "error": "invalid bearer token"}
        asked = [str(item) for item in spec.get("audiences") or [AUDIENCE]]
        common = [item for item in asked if item in found.audiences]
        if not common:
            mine, wanted = (" ".join(f'"{item}"' for item in names) for names in (found.audiences, asked))
            why = f"token audiences [{mine}] is invalid for the target audiences [{wanted}]"
            return {"user": {}, "error": f"[invalid bearer token, {why}]"}
        return {"authenticated": True, "user": _described(found.user), "audiences": common}

    def _access(self, who: User, spec: Object) -> Object:
        what = _attributes(spec)
        why = self._authorizer.denial(who, what)
        return {"allowed": why is None, **({"reason": why} if why else {})}

    def _request(self, call: Call, body: Object, spec: Object) -> Object:
        account = self._registry.find(core("serviceaccounts"), call.namespace, call.name)
        self._registry.restriction.token(call.user, call.name, call.namespace, spec)
        seconds = spec.get("expirationSeconds") or 3600
        if not isinstance(seconds, int) or not LEAST_SECONDS <= seconds < MOST_SECONDS:
            causes = [Cause.invalid("spec.expirationSeconds", seconds, f"may not be less than {LEAST_SECONDS} seconds")]
            raise status.invalid(core("serviceaccounts"), call.name, causes)
        owner, pod = _Bound.of("serviceaccounts", account), self._bound_pod(call, spec.get("boundObjectRef") or {})
        private: Object = {"namespace": call.namespace, "serviceaccount": owner.claim}
        extra: dict[str, tuple[str, ...]] = {}
        if pod is not None:
            private["pod"] = pod.claim
            extra = {f"authentication.kubernetes.io/pod-{key}": (value,) for key, value in pod.claim.items()}
        bound = [one for one in (owner, pod) if one is not None]
        audiences = [str(item) for item in spec.get("audiences") or [AUDIENCE]]
        now = self._registry.clock.now()
        until = now + timedelta(seconds=seconds)
        name = f"system:serviceaccount:{call.namespace}:{account.name}"
        text = self._sign(
            {
                "iss": AUDIENCE,
                "sub": name,
                "aud": audiences,
                "iat": int(now.timestamp()),
                "nbf": int(now.timestamp()),
                "exp": int(until.timestamp()),
                "kubernetes.io": private,
            }
        )
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{call.namespace}"]
        who = user(name, groups, uid=owner.uid, extra=extra)
        token = Token(who, until, tuple(audiences), alive=lambda: all(map(self._is_there, bound)))
        self._authenticator.issue(token, text)
        answer = {"token": text, "expirationTimestamp": rfc3339(until.astimezone(UTC))}
        return {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": account.name, "namespace": call.namespace, "creationTimestamp": rfc3339(now)},
            "spec": {**spec, "audiences": audiences, "expirationSeconds": seconds},
            "status": answer,
        }

    def _bound_pod(self, call: Call, reference: Object) -> _Bound | None:
        """The pod that a token is to be bound to; None where the reference names none.

        Raises:
            ApiError: 404, there is no such pod; 409, it has another UID.
        """
        if reference.get("kind") != "Pod":
            return None
        pod = self._registry.find(core("pods"), call.namespace, str(reference.get("name", "")))
        uid = pod.raw["metadata"]["uid"]
        if reference.get("uid") and reference["uid"] != uid:
            raise status.conflict(
                core("pods"),
                pod.name,
                f"the UID in the bound object reference ({reference['uid']}) does not match the UID in record ({uid})",
            )
        return _Bound.of("pods", pod)

    def _is_there(self, bound: _Bound) -> bool:
        """Whether the object that a token is bound to still exists, with the same UID."""
        record = self._registry.store[bound.plural].get(bound.namespace, bound.name)
        return record is not None and record.raw["metadata"]["uid"] == bound.uid

    def _sign(self, claims: dict[str, Any]) -> str:
        """A JWT, ES256."""
        head = _base64(orjson.dumps({"alg": "ES256", "typ": "JWT"}))
        text = f"{head}.{_base64(orjson.dumps(claims))}"
        r, s = decode_dss_signature(self._key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{text}.{_base64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"
