"""The bodies of requests and answers, and the lines of the stream of changes.

Each change of a pod, each event and each change of the node gets the next number. Numbers count within one process of
the agent (`instance`). The stream tells the present state of each thing, with the number of its last change; it is no
log of all changes. A reader that was away asks for what is newer than the number that it has. It misses only states
that newer ones have replaced meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import attrs
import orjson

from wasmlet.errors import InvalidInput
from wasmlet.model.inputs import HandedImage, Inputs
from wasmlet.model.pod import PodKey, Raw
from wasmlet.model.status import PodStatus
from wasmlet.provider import NodeStatus, PodEvent, ProbeCount
from wasmlet_agent.protocol.codec import dumped, structure, unstructure
from wasmlet_agent.protocol.failures import Failure


@attrs.frozen
class NodeDescription:
    """What an agent is told of the Node that it runs pods for: `NodeContext` without what belongs to one machine."""

    name: str
    ip: str
    max_pods: int
    cluster_dns: tuple[str, ...] = ()
    cluster_domain: str = "cluster.local"


@attrs.frozen
class SessionRequest:
    """`POST /v1/session`: a node loop takes the agent over.

    Attributes:
        claimant: which node loop asks, a name that is made anew by each process.
        previous: the number of the newest session. An agent that has another one answers 412 with that number, and the
            request is made anew with it; so one that was held back on its way never takes an agent over. 0 is right
            where an agent has had none, and a first guess elsewhere.
    """

    node: NodeDescription
    claimant: str
    previous: int = 0


@attrs.frozen
class SessionAnswer:
    """The session is begun, and every older one is over.

    Attributes:
        session: its number; the agent keeps the newest on disk, so that no number is ever used again.
        instance: the random name of this process of the agent.
        provider: the name of the agent's provider.
        version: of wasmlet, at the agent.
        supports: the optional calls that the provider has (`Provider.supports`).
        n: the number of the newest change.
        now: the agent's clock.
    """

    session: int
    instance: str
    provider: str
    version: str
    n: int
    now: datetime
    supports: tuple[str, ...] = ()


@attrs.frozen
class BatchedPod:
    """`POST /v1/pods`: the line before each line with a `PodRequest`.

    Attributes:
        uid: of the pod.
        sequence: the number of the request for this pod, as `SEQUENCE_HEADER` has it elsewhere.
    """

    uid: str
    sequence: int


@attrs.frozen
class BatchedDelete:
    """A line of `POST /v1/deletes`: what `DELETE /v1/pods/{uid}` has in its path, its query and its headers.

    Attributes:
        sequence: the number of the request for this pod, as `SEQUENCE_HEADER` has it elsewhere.
        grace: seconds that the pod has to end by itself.
        keep: its logs stay until it is deleted without.
    """

    uid: str
    sequence: int
    grace: float
    namespace: str = ""
    name: str = ""
    keep: bool = False


@attrs.frozen
class BatchedForget:
    """A line of `POST /v1/forgets`: what `POST /v1/pods/{uid}/forget` has in its path and its headers.

    Attributes:
        sequence: the number of the request for this pod, as `SEQUENCE_HEADER` has it elsewhere.
    """

    uid: str
    sequence: int


@attrs.frozen
class BatchedAnswer:
    """A line of the answer to `POST /v1/pods`, `/v1/deletes` or `/v1/forgets`: what is asked for
    that pod is taken on, or refused.
    """

    uid: str
    failure: Failure | None = None


@attrs.frozen
class PodRequest:
    """`PUT` and `PATCH /v1/pods/{uid}`: the pod as the API has it, and what it refers to."""

    pod: Raw
    inputs: Inputs


@attrs.frozen
class ListedPod:
    """One pod that the agent holds; `GET /v1/pods/{uid}` answers with it, too.

    `digest` is of the body with which it was handed over last (SHA-256, lower-case hex); "" where the agent has not got
    that body, or not all that was in it. `images` are those that were brought for it.
    """

    key: PodKey
    status: PodStatus
    digest: str = ""
    images: Mapping[str, HandedImage] = attrs.field(factory=dict)


@attrs.frozen
class BlobAnswer:
    """`PUT /v1/blobs/{digest}`: a piece of a blob was taken, or passed over because it begins elsewhere.

    Attributes:
        here: how many bytes of the blob are here, which is where the next piece begins.
    """

    here: int


@attrs.frozen
class ImageRequest:
    """`PUT /v1/images`: see `Provider.take_image`."""

    reference: str
    image: HandedImage
    files: bool = False


@attrs.frozen
class ImageAnswer:
    """The digests of blobs that are missing; none once the image is here."""

    missing: tuple[str, ...] = ()


@attrs.frozen
class Accepted:
    """A request was accepted, and there is nothing else to answer."""


@attrs.frozen
class PodList:
    """`GET /v1/pods`. `n` is the number of the newest change that is in it."""

    n: int
    pods: tuple[ListedPod, ...] = ()


@attrs.frozen
class Hello:
    """The first line of a stream. Where `instance` is another than the reader knows, its number means nothing."""

    instance: str
    n: int
    now: datetime


@attrs.frozen
class StatusLine:
    """The pod's status is now this."""

    n: int
    key: PodKey
    status: PodStatus


@attrs.frozen
class EventLine:
    """Something to tell the pod's owner. The agent keeps the newest 1000, and sends none again in a later session."""

    n: int
    event: PodEvent


@attrs.frozen
class NodeLine:
    """What `Provider.node_status` says now."""

    n: int
    node: NodeStatus


@attrs.frozen
class EndedLine:
    """A delete is done: nothing is left of the pod. `status` is its last; None where there was nothing to tell."""

    n: int
    uid: str
    status: PodStatus | None = None


@attrs.frozen
class ProbeResult:
    """How often probes had this kind of result."""

    of: ProbeCount
    times: int


@attrs.frozen
class Beat:
    """The agent is there; `n` is the number of the newest change that was told.

    `trouble` is what `Provider.ping` says against it, or "".
    """

    n: int
    now: datetime
    trouble: str = ""
    probes: tuple[ProbeResult, ...] = ()


Line = Hello | StatusLine | EventLine | NodeLine | EndedLine | Beat

_LINES: Mapping[str, type[Line]] = {
    "hello": Hello,
    "status": StatusLine,
    "event": EventLine,
    "node": NodeLine,
    "ended": EndedLine,
    "beat": Beat,
}
_NAMES = {kind: name for name, kind in _LINES.items()}


def line_out(line: Line) -> bytes:
    """A line of the stream, with its end: an object whose `type` says which it is."""
    body: dict[str, Any] = {"type": _NAMES[type(line)], **unstructure(line)}
    return dumped(body) + b"\n"


def line_in(text: bytes) -> Line | None:
    """What a line says; None for one of a type that this version does not know.

    Raises:
        InvalidInput: it is not of the right form.
    """
    try:
        raw = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"expected a line of JSON, found something else: {error}") from None
    if not isinstance(raw, dict):
        raise InvalidInput("expected a line with an object, found something else")
    name = raw.pop("type", None)
    kind = _LINES.get(name) if isinstance(name, str) else None
    return structure(kind, raw) if kind is not None else None
