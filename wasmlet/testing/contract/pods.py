"""The pods that a trial hands to a provider, as the API server hands them over: with all defaults filled in."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod, PodKey

NODE_IP = "127.0.0.1"


def pod_of(containers: Sequence[dict[str, Any]], name: str, uid: str | None = None, restart: str = "Never") -> Pod:
    """A pod around these containers.

    Args:
        uid: None gives the pod a new one.
        restart: its restart policy.
    """
    defaults = {
        "imagePullPolicy": "IfNotPresent",
        "resources": {},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
    }
    spec: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "containers": [defaults | container for container in containers],
        "dnsPolicy": "ClusterFirst",
        "enableServiceLinks": True,
        "nodeName": "contract",
        "preemptionPolicy": "PreemptLowerPriority",
        "priority": 0,
        "restartPolicy": restart,
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "serviceAccount": "default",
        "serviceAccountName": "default",
        "terminationGracePeriodSeconds": 30,
        "tolerations": [{"operator": "Exists"}],
    }
    metadata = {
        "name": name,
        "namespace": "default",
        "uid": uid or str(uuid.uuid4()),
        "resourceVersion": "1",
        "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    status = {"phase": "Pending", "qosClass": "BestEffort"}
    return Pod({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status})


def unknown() -> PodKey:
    """A pod that no provider has ever heard of."""
    return PodKey("default", "contract-unknown", str(uuid.uuid4()))


def inputs() -> Inputs:
    """The inputs of a pod that refers to nothing."""
    return Inputs(node_name="contract", node_ips=(NODE_IP,), node_allocatable={"cpu": "4", "memory": "4Gi"})
