"""A fault: an API server whose own caches are behind, so that it does not know yet that a pod is on a node.

The Node authorizer and the admission plugin NodeRestriction learn of pods from watches of their own. So for a moment
they may refuse a node what a new pod gives it a right to, although the node already knows the pod:

    faults.add(Lag(2), user="system:node:*")                  # twice for each Secret, ConfigMap and token
    faults.add(Lag(2, admission=True), user="system:node:*")  # twice for each token and each delete of a pod
"""

from __future__ import annotations

from collections import Counter

import attrs
from aiohttp import web

from wasmlet.controlplane.faults import Fail, Proceed, Rule
from wasmlet.controlplane.http.paths import Target, parse
from wasmlet.controlplane.storage.kinds import Catalog
from wasmlet.controlplane.storage.status import ApiError

_BUILT_IN = Catalog()
_NAMED = ("configmaps", "secrets", "persistentvolumeclaims")


@attrs.frozen
class Lag:
    """Refuse the first requests for each object, as a lagging API server does; answer all others as usual.

    Args:
        requests: how many, for each object.
        admission: NodeRestriction lags, which answers 404 to a token request and to the delete of a pod; otherwise the
            Node authorizer, which answers 403 to whatever needs a pod that refers to it.
    """

    requests: int = 1
    admission: bool = False
    refused: Counter[str] = attrs.field(factory=Counter, init=False)
    """How often, by the URL."""

    async def apply(self, rule: Rule, request: web.BaseRequest, proceed: Proceed) -> web.StreamResponse:
        fault, url = self._fault(request), _object(request)
        if fault is None or self.refused[url] >= self.requests:
            return await proceed()
        self.refused[url] += 1
        return await fault.apply(rule, request, proceed)

    def _fault(self, request: web.BaseRequest) -> Fail | None:
        """The error for a request; None where no pod is needed for it."""
        try:
            api = request.path.startswith("/api")
            target = parse(_BUILT_IN, request.method, request.path, request.query) if api else None
        except ApiError:
            target = None
        if target is None:
            return None
        token = (target.kind.key, target.sub) == ("serviceaccounts", "token")
        if self.admission:
            ends = (target.kind.key, target.sub, target.verb) == ("pods", "", "delete")
            return Fail(404, "NotFound", "the pod was not found") if token or ends else None
        return Fail(403, message=_no_relationship(target)) if token or target.kind.key in _NAMED else None


def _object(request: web.BaseRequest) -> str:
    """What tells the requests for one object from those for others."""
    return f"{request.path}?{request.query.get('fieldSelector', '')}"


def _no_relationship(target: Target) -> str:
    return f"{target.kind.plural} is forbidden: no relationship found between the node and this object"
