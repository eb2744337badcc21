"""The fields of the bodies that kubectl sends as protobuf, by their numbers in the `generated.proto` files."""

from __future__ import annotations

from typing import Any

Fields = dict[int, tuple[str, Any]]
"""A message: field numbers with the name in JSON and the type: "text", "bytes", "int", "bool", "time", "map" (of text),
"data" (a map of bytes), "int-or-text", another message, or a list of one of these for a repeated field."""

_META: Fields = {
    1: ("name", "text"),
    2: ("generateName", "text"),
    3: ("namespace", "text"),
    5: ("uid", "text"),
    6: ("resourceVersion", "text"),
    11: ("labels", "map"),
    12: ("annotations", "map"),
    14: ("finalizers", ["text"]),
}
_CONDITION: Fields = {
    1: ("type", "text"),
    2: ("reason", "text"),
    3: ("message", "text"),
    4: ("lastUpdateTime", "time"),
    5: ("lastTransitionTime", "time"),
    6: ("status", "text"),
}
_REQUEST: Fields = {
    1: ("request", "bytes"),
    5: ("usages", ["text"]),
    7: ("signerName", "text"),
    8: ("expirationSeconds", "int"),
}
_RESOURCE: Fields = {
    1: ("namespace", "text"),
    2: ("verb", "text"),
    3: ("group", "text"),
    4: ("version", "text"),
    5: ("resource", "text"),
    6: ("subresource", "text"),
    7: ("name", "text"),
}
_PATH: Fields = {1: ("path", "text"), 2: ("verb", "text")}
_BOUND: Fields = {1: ("kind", "text"), 2: ("apiVersion", "text"), 3: ("name", "text"), 4: ("uid", "text")}
_TOKEN: Fields = {1: ("audiences", ["text"]), 3: ("boundObjectRef", _BOUND), 4: ("expirationSeconds", "int")}

_CONTAINER: Fields = {
    1: ("name", "text"),
    2: ("image", "text"),
    3: ("command", ["text"]),
    4: ("args", ["text"]),
    6: ("ports", [{1: ("name", "text"), 3: ("containerPort", "int"), 4: ("protocol", "text")}]),
}
_TEMPLATE: Fields = {
    1: ("metadata", _META),
    2: ("spec", {2: ("containers", [_CONTAINER]), 3: ("restartPolicy", "text")}),
}
_PORT: Fields = {
    1: ("name", "text"),
    2: ("protocol", "text"),
    3: ("port", "int"),
    4: ("targetPort", "int-or-text"),
    5: ("nodePort", "int"),
    6: ("appProtocol", "text"),
}
_SERVICE: Fields = {
    1: ("ports", [_PORT]),
    2: ("selector", "map"),
    3: ("clusterIP", "text"),
    4: ("type", "text"),
    10: ("externalName", "text"),
}

_SELECTOR: Fields = {
    1: ("matchLabels", "map"),
    2: ("matchExpressions", [{1: ("key", "text"), 2: ("operator", "text"), 3: ("values", ["text"])}]),
}
_POLICY: Fields = {
    1: ("verbs", ["text"]),
    2: ("apiGroups", ["text"]),
    3: ("resources", ["text"]),
    4: ("resourceNames", ["text"]),
    5: ("nonResourceURLs", ["text"]),
}
_ROLE: Fields = {1: ("metadata", _META), 2: ("rules", [_POLICY])}
_BINDING: Fields = {
    1: ("metadata", _META),
    2: ("subjects", [{1: ("kind", "text"), 2: ("apiGroup", "text"), 3: ("name", "text"), 4: ("namespace", "text")}]),
    3: ("roleRef", {1: ("apiGroup", "text"), 2: ("kind", "text"), 3: ("name", "text")}),
}
_DELETE: Fields = {
    1: ("gracePeriodSeconds", "int"),
    2: ("preconditions", {1: ("uid", "text"), 2: ("resourceVersion", "text")}),
    4: ("propagationPolicy", "text"),
    5: ("dryRun", ["text"]),
}

KINDS: dict[tuple[str, str], Fields] = {
    ("certificates.k8s.io/v1", "CertificateSigningRequest"): {
        1: ("metadata", _META),
        2: ("spec", _REQUEST),
        3: ("status", {1: ("conditions", [_CONDITION]), 2: ("certificate", "bytes")}),
    },
    ("authorization.k8s.io/v1", "SelfSubjectAccessReview"): {
        1: ("metadata", _META),
        2: ("spec", {1: ("resourceAttributes", _RESOURCE), 2: ("nonResourceAttributes", _PATH)}),
    },
    ("authentication.k8s.io/v1", "SelfSubjectReview"): {1: ("metadata", _META)},
    ("authentication.k8s.io/v1", "TokenRequest"): {1: ("metadata", _META), 2: ("spec", _TOKEN)},
    ("v1", "ConfigMap"): {
        1: ("metadata", _META),
        2: ("data", "map"),
        3: ("binaryData", "data"),
        4: ("immutable", "bool"),
    },
    ("v1", "Secret"): {
        1: ("metadata", _META),
        2: ("data", "data"),
        3: ("type", "text"),
        4: ("stringData", "map"),
        5: ("immutable", "bool"),
    },
    ("v1", "Namespace"): {1: ("metadata", _META)},
    ("v1", "Service"): {1: ("metadata", _META), 2: ("spec", _SERVICE)},
    ("apps/v1", "Deployment"): {
        1: ("metadata", _META),
        2: ("spec", {1: ("replicas", "int"), 2: ("selector", {1: ("matchLabels", "map")}), 3: ("template", _TEMPLATE)}),
    },
    ("batch/v1", "Job"): {1: ("metadata", _META), 2: ("spec", {6: ("template", _TEMPLATE)})},
    ("v1", "ServiceAccount"): {1: ("metadata", _META)},
    ("rbac.authorization.k8s.io/v1", "Role"): _ROLE,
    ("rbac.authorization.k8s.io/v1", "ClusterRole"): {
        **_ROLE,
        3: ("aggregationRule", {1: ("clusterRoleSelectors", [_SELECTOR])}),
    },
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): _BINDING,
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"): _BINDING,
    ("policy/v1", "Eviction"): {1: ("metadata", _META), 2: ("deleteOptions", _DELETE)},
    ("policy/v1", "PodDisruptionBudget"): {
        1: ("metadata", _META),
        2: (
            "spec",
            {
                1: ("minAvailable", "int-or-text"),
                2: ("selector", _SELECTOR),
                3: ("maxUnavailable", "int-or-text"),
                4: ("unhealthyPodEvictionPolicy", "text"),
            },
        ),
    },
    ("scheduling.k8s.io/v1", "PriorityClass"): {
        1: ("metadata", _META),
        2: ("value", "int"),
        3: ("globalDefault", "bool"),
        4: ("description", "text"),
        5: ("preemptionPolicy", "text"),
    },
}
"""The table of each kind, by its apiVersion and name."""
