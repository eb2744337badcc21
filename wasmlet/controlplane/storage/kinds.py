"""The kinds that this control plane serves: one table, and adding a kind is a row in it.

`store`, `selectors`, `objects.registry`, `http.discovery` and `http.openapi` read this table. What else is special
about a kind is keyed by its plural name, in `objects.defaults`, `objects.validation` and `http.tables`. Kinds of custom
resources are added to a `Catalog` while it is used (`extensions`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs

CRUD = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
CREATE_ONLY = ("create",)
READ_ONLY = ("get", "list")
METRICS = "metrics.k8s.io"
"""The group whose objects are not stored, but made when somebody asks for them."""


@attrs.frozen
class Subresource:
    """A path below an object. `kind` and `group_version` name the kind of its bodies, if it is another one."""

    name: str
    verbs: tuple[str, ...]
    kind: str = ""
    group_version: str = ""


STATUS = Subresource("status", ("get", "patch", "update"))
SCALE = Subresource("scale", ("get", "patch", "update"), kind="Scale", group_version="autoscaling/v1")


@attrs.frozen
class Kind:
    """One resource. `fields` are the field selectors it knows beside metadata.name and metadata.namespace.

    `shares` is the plural of the core kind whose objects this one shows in another form (events.k8s.io).
    `generation` says whether `metadata.generation` counts the changes of `spec`.
    `returns_deleted` says whether a finished delete answers with the object rather than with a Status.
    `custom` says whether a CustomResourceDefinition made it; `named` is the singular name that it gives, and `listed`
    the kind of its lists.
    """

    kind: str
    plural: str
    group: str = ""
    version: str = "v1"
    namespaced: bool = True
    short: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[Subresource, ...] = ()
    fields: tuple[str, ...] = ()
    verbs: tuple[str, ...] = CRUD
    generation: bool = False
    returns_deleted: bool = False
    shares: str = ""
    custom: bool = False
    named: str = ""
    listed: str = ""

    @property
    def key(self) -> str:
        """The key of the kind in the store; all versions of a custom resource have the same."""
        return self.qualified if self.custom else self.plural

    @property
    def list_kind(self) -> str:
        return self.listed or f"{self.kind}List"

    @property
    def head(self) -> bytes:
        """The first bytes of an object of the kind as JSON."""
        return f'{{"apiVersion":"{self.api_version}","kind":"{self.kind}",'.encode()

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def singular(self) -> str:
        return self.named or self.kind.lower()

    @property
    def has_status(self) -> bool:
        return STATUS in self.subresources

    @property
    def stored(self) -> bool:
        """Whether its objects are stored; reviews are only answered, and metrics are made on request."""
        return self.verbs not in (CREATE_ONLY, READ_ONLY)


_EVENT_FIELDS = (
    *(
        f"involvedObject.{x}"
        for x in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
    ),
    "reason",
    "reportingComponent",
    "source",
    "type",
)
_REGARDING_FIELDS = tuple(field.replace("involvedObject.", "regarding.") for field in _EVENT_FIELDS)
_POD_FIELDS = (
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.nominatedNodeName",
)

KINDS: tuple[Kind, ...] = (
    Kind("Binding", "bindings", verbs=CREATE_ONLY),
    Kind("ConfigMap", "configmaps", short=("cm",)),
    Kind("Endpoints", "endpoints", short=("ep",)),
    Kind("Event", "events", short=("ev",), fields=_EVENT_FIELDS),
    Kind(
        "Namespace",
        "namespaces",
        namespaced=False,
        short=("ns",),
        fields=("status.phase",),
        subresources=(STATUS,),
    ),
    Kind(
        "Node",
        "nodes",
        namespaced=False,
        short=("no",),
        fields=("spec.unschedulable",),
        subresources=(Subresource("proxy", ("get",), kind="NodeProxyOptions"), STATUS),
    ),
    Kind(
        "PersistentVolume",
        "persistentvolumes",
        namespaced=False,
        short=("pv",),
        subresources=(STATUS,),
        returns_deleted=True,
    ),
    Kind(
        "PersistentVolumeClaim",
        "persistentvolumeclaims",
        short=("pvc",),
        subresources=(STATUS,),
        returns_deleted=True,
    ),
    Kind(
        "Pod",
        "pods",
        short=("po",),
        categories=("all",),
        fields=_POD_FIELDS,
        generation=True,
        returns_deleted=True,
        subresources=(
            STATUS,
            Subresource("attach", ("create", "get"), kind="PodAttachOptions"),
            Subresource("binding", ("create",), kind="Binding"),
            Subresource("ephemeralcontainers", ("get", "patch", "update")),
            Subresource("eviction", ("create",), kind="Eviction", group_version="policy/v1"),
            Subresource("exec", ("create", "get"), kind="PodExecOptions"),
            Subresource("log", ("get",)),
            Subresource("portforward", ("create", "get"), kind="PodPortForwardOptions"),
            Subresource("resize", ("get", "patch", "update")),
        ),
    ),
    Kind("Secret", "secrets", fields=("type",)),
    Kind(
        "Service",
        "services",
        short=("svc",),
        categories=("all",),
        subresources=(STATUS,),
        returns_deleted=True,
        fields=("spec.clusterIP", "spec.type"),
    ),
    Kind(
        "ServiceAccount",
        "serviceaccounts",
        short=("sa",),
        returns_deleted=True,
        subresources=(
            Subresource("token", ("create",), kind="TokenRequest", group_version="authentication.k8s.io/v1"),
        ),
    ),
    Kind(
        "Deployment",
        "deployments",
        "apps",
        short=("deploy",),
        categories=("all",),
        generation=True,
        subresources=(SCALE, STATUS),
    ),
    Kind(
        "ReplicaSet",
        "replicasets",
        "apps",
        short=("rs",),
        categories=("all",),
        fields=("status.replicas",),
        generation=True,
        subresources=(SCALE, STATUS),
    ),
    Kind(
        "StatefulSet",
        "statefulsets",
        "apps",
        short=("sts",),
        categories=("all",),
        generation=True,
        subresources=(SCALE, STATUS),
    ),
    Kind("ControllerRevision", "controllerrevisions", "apps"),
    Kind(
        "Job",
        "jobs",
        "batch",
        categories=("all",),
        fields=("status.successful",),
        generation=True,
        subresources=(STATUS,),
    ),
    Kind(
        "CustomResourceDefinition",
        "customresourcedefinitions",
        "apiextensions.k8s.io",
        namespaced=False,
        short=("crd", "crds"),
        categories=("api-extensions",),
        generation=True,
        subresources=(STATUS,),
    ),
    Kind("SelfSubjectReview", "selfsubjectreviews", "authentication.k8s.io", namespaced=False, verbs=CREATE_ONLY),
    Kind("TokenReview", "tokenreviews", "authentication.k8s.io", namespaced=False, verbs=CREATE_ONLY),
    Kind("LocalSubjectAccessReview", "localsubjectaccessreviews", "authorization.k8s.io", verbs=CREATE_ONLY),
    Kind(
        "SelfSubjectAccessReview",
        "selfsubjectaccessreviews",
        "authorization.k8s.io",
        namespaced=False,
        verbs=CREATE_ONLY,
    ),
    Kind("SubjectAccessReview", "subjectaccessreviews", "authorization.k8s.io", namespaced=False, verbs=CREATE_ONLY),
    Kind(
        "CertificateSigningRequest",
        "certificatesigningrequests",
        "certificates.k8s.io",
        namespaced=False,
        short=("csr",),
        fields=("spec.signerName",),
        subresources=(STATUS, Subresource("approval", ("get", "patch", "update"))),
    ),
    Kind("Lease", "leases", "coordination.k8s.io"),
    Kind("EndpointSlice", "endpointslices", "discovery.k8s.io", generation=True),
    Kind("Event", "events", "events.k8s.io", short=("ev",), fields=_REGARDING_FIELDS, shares="events"),
    Kind("NodeMetrics", "nodes", METRICS, "v1beta1", namespaced=False, verbs=READ_ONLY),
    Kind("PodMetrics", "pods", METRICS, "v1beta1", verbs=READ_ONLY),
    Kind("RuntimeClass", "runtimeclasses", "node.k8s.io", namespaced=False),
    Kind("StorageClass", "storageclasses", "storage.k8s.io", namespaced=False, short=("sc",), returns_deleted=True),
    Kind(
        "PodDisruptionBudget",
        "poddisruptionbudgets",
        "policy",
        short=("pdb",),
        generation=True,
        subresources=(STATUS,),
    ),
    Kind("ClusterRoleBinding", "clusterrolebindings", "rbac.authorization.k8s.io", namespaced=False),
    Kind("ClusterRole", "clusterroles", "rbac.authorization.k8s.io", namespaced=False),
    Kind("RoleBinding", "rolebindings", "rbac.authorization.k8s.io"),
    Kind("Role", "roles", "rbac.authorization.k8s.io"),
    Kind("PriorityClass", "priorityclasses", "scheduling.k8s.io", namespaced=False, short=("pc",), generation=True),
    Kind("CSIDriver", "csidrivers", "storage.k8s.io", namespaced=False),
)


def core(plural: str) -> Kind:
    """The built-in kind of a plural name; where there are two, the first in the table, which is the core one."""
    return _BY_PLURAL[plural]


_BY_PLURAL = {kind.plural: kind for kind in reversed(KINDS)}


class Catalog:
    """The kinds that one control plane serves: those of the table, and those of custom resources.

    Attributes:
        revision: changes whenever kinds come or go.
    """

    def __init__(self) -> None:
        self._custom: dict[str, tuple[Kind, tuple[Kind, ...]]] = {}
        self._by_path: dict[tuple[str, str, str], Kind] = {}
        self._by_kind: dict[tuple[str, str], Kind] = {}
        self.revision = 0
        self._index()

    def _index(self) -> None:
        self.revision += 1
        self._by_path = {(kind.group, kind.version, kind.plural): kind for kind in self}
        self._by_kind = {(kind.api_version, kind.kind): kind for kind in self if kind.stored}

    def __iter__(self) -> Iterator[Kind]:
        yield from KINDS
        for _, served in self._custom.values():
            yield from served

    def define(self, stored: Kind, served: Sequence[Kind]) -> None:
        """Serve a custom resource in these versions, the preferred one first; objects are stored as `stored`."""
        self._custom[stored.key] = (stored, tuple(served))
        self._index()

    def drop(self, key: str) -> None:
        """Stop serving a custom resource."""
        if self._custom.pop(key, None) is not None:
            self._index()

    def find(self, group: str, version: str, plural: str) -> Kind | None:
        """The kind in a URL path, or None."""
        return self._by_path.get((group, version, plural))

    def called(self, api_version: str, kind: str) -> Kind | None:
        """The stored kind with this apiVersion and kind, or None."""
        return self._by_kind.get((api_version, kind))

    def of_key(self, key: str) -> Kind:
        """The kind that is stored under a key."""
        return self._custom[key][0] if key in self._custom else core(key)

    def stored(self) -> Iterator[Kind]:
        """Every kind whose objects are stored, each once, in the version in which they are stored."""
        yield from (kind for kind in KINDS if kind.stored and not kind.shares)
        yield from (stored for stored, _ in self._custom.values())

    def group_versions(self) -> list[tuple[str, str]]:
        """Every (group, version), the core first."""
        return list(dict.fromkeys((kind.group, kind.version) for kind in self))

    def of_group(self, group: str, version: str) -> Iterator[Kind]:
        """The kinds of one group version."""
        return (kind for kind in self if (kind.group, kind.version) == (group, version))
