"""What the API server's admission adds to a new pod, or refuses: service account, priority, RuntimeClass, tolerations.

It runs after `defaults` and before `pod_rules`, and changes the copy that it is given. Like the ServiceAccount
admission plugin, it mounts the account's token volume into every container. So a node gets the same pods as from a
cluster.
"""

from __future__ import annotations

import random

from wasmlet.controlplane.objects.defaults import TOLERATION_SECONDS, containers
from wasmlet.controlplane.storage.kinds import core
from wasmlet.controlplane.storage.status import Object, forbidden
from wasmlet.controlplane.storage.store import Store

SUFFIX = "bcdfghjklmnpqrstvwxz2456789"
"""The letters of generated names: no vowels, no figures that look like letters."""
TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
TOKEN_SECONDS = 3607
ROOT_CA = "kube-root-ca.crt"


def suffix(rng: random.Random) -> str:
    """Five letters that make a generated name unique."""
    return "".join(rng.choices(SUFFIX, k=5))


class PodAdmission:
    """Admission of pods; it looks up accounts and classes in the store."""

    def __init__(self, store: Store, rng: random.Random) -> None:
        self._store = store
        self._rng = rng

    def admit(self, pod: Object) -> None:
        """Complete a new pod.

        Raises:
            ApiError: 403 where a service account, a priority class or a RuntimeClass is missing or contradicted.
        """
        spec = pod["spec"]
        if not isinstance(spec, dict):
            return
        mirror = "kubernetes.io/config.mirror" in (pod["metadata"].get("annotations") or {})
        if not mirror:
            self._service_account(pod, spec)
        self._priority(pod, spec)
        self._runtime_class(pod, spec)
        self.tolerate_for_a_while(spec)

    def _service_account(self, pod: Object, spec: Object) -> None:
        space = pod["metadata"]["namespace"]
        name = spec.setdefault("serviceAccountName", "default") or "default"
        spec["serviceAccountName"] = spec["serviceAccount"] = name
        account = self._store["serviceaccounts"].get(space, str(name))
        if account is None:
            why = f'error looking up service account {space}/{name}: serviceaccount "{name}" not found'
            raise forbidden(core("pods"), pod["metadata"].get("name", ""), why)
        if not spec.get("imagePullSecrets") and account.raw.get("imagePullSecrets"):
            spec["imagePullSecrets"] = list(account.raw["imagePullSecrets"])
        mount = spec.get("automountServiceAccountToken")
        if mount is None:
            mount = account.raw.get("automountServiceAccountToken", True)
        if mount:
            self._token(spec)

    def _token(self, spec: Object) -> None:
        wanting = [
            item
            for item in containers(spec)
            if all(mount.get("mountPath") != TOKEN_PATH for mount in item.get("volumeMounts") or ())
        ]
        if not wanting:
            return
        name = f"kube-api-access-{suffix(self._rng)}"
        for item in wanting:
            mount = {"name": name, "readOnly": True, "mountPath": TOKEN_PATH}
            item["volumeMounts"] = [*(item.get("volumeMounts") or ()), mount]
        sources = [
            {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
            {"configMap": {"name": ROOT_CA, "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {
                "downwardAPI": {
                    "items": [
                        {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
                    ]
                }
            },
        ]
        volume = {"name": name, "projected": {"sources": sources, "defaultMode": 0o644}}
        spec["volumes"] = [*(spec.get("volumes") or ()), volume]

    def _priority(self, pod: Object, spec: Object) -> None:
        name = spec.get("priorityClassName")
        value, preemption = 0, "PreemptLowerPriority"
        if name:
            found = self._store["priorityclasses"].get("", str(name))
            if found is None:
                why = f"no PriorityClass with name {name} was found"
                raise forbidden(core("pods"), pod["metadata"].get("name", ""), why)
            value, preemption = found.raw.get("value", 0), found.raw.get("preemptionPolicy", preemption)
        else:
            for record in self._store["priorityclasses"]:
                if record.raw.get("globalDefault"):
                    spec["priorityClassName"] = record.name
                    value, preemption = record.raw.get("value", 0), record.raw.get("preemptionPolicy", preemption)
        spec["priority"] = value
        spec.setdefault("preemptionPolicy", preemption)

    def _runtime_class(self, pod: Object, spec: Object) -> None:
        name = spec.get("runtimeClassName")
        if not name:
            if spec.get("overhead"):
                why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
                raise forbidden(core("pods"), pod["metadata"].get("name", ""), why)
            return
        found = self._store["runtimeclasses"].get("", str(name))
        who = pod["metadata"].get("name", "")
        if found is None:
            raise forbidden(core("pods"), who, f'pod rejected: RuntimeClass "{name}" not found')
        fixed = (found.raw.get("overhead") or {}).get("podFixed")
        if spec.get("overhead") not in (None, {}, fixed):
            why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"
            raise forbidden(core("pods"), who, why)
        if fixed:
            spec["overhead"] = dict(fixed)
        scheduling = found.raw.get("scheduling") or {}
        chosen = dict(spec.get("nodeSelector") or {})
        for key, value in (scheduling.get("nodeSelector") or {}).items():
            if chosen.get(key, value) != value:
                raise forbidden(
                    core("pods"),
                    who,
                    f"conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; "
                    f"pod.spec.nodeSelector[{key}] = {chosen[key]}",
                )
            chosen[key] = value
        if chosen:
            spec["nodeSelector"] = chosen
        wanted = scheduling.get("tolerations") or ()
        present = spec.get("tolerations") or []
        if wanted:
            spec["tolerations"] = [*present, *(item for item in wanted if item not in present)]

    def tolerate_for_a_while(self, spec: Object) -> None:
        """The DefaultTolerationSeconds plugin. It sees updates too: `kubectl apply` sends lists without these two."""
        present = spec.get("tolerations") or []
        for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
            if not any(_covers(item, key) for item in present if isinstance(item, dict)):
                present = [
                    *present,
                    {
                        "key": key,
                        "operator": "Exists",
                        "effect": "NoExecute",
                        "tolerationSeconds": TOLERATION_SECONDS,
                    },
                ]
        spec["tolerations"] = present


def _covers(toleration: Object, key: str) -> bool:
    """Whether a toleration already says something of that NoExecute taint."""
    return toleration.get("key") in (key, None, "") and toleration.get("effect") in ("NoExecute", None, "")
