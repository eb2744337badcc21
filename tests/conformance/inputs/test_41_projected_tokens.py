"""Projected volumes with the service account's token: the pod's own, for an audience, beside CA and namespace."""

from __future__ import annotations

import base64
import json
from typing import Any

from tests.conformance.harness import Kube


def claims(token: str) -> dict[str, Any]:
    """What a token says, unverified."""
    part = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


async def test_a_token_of_the_pods_own(kube: Kube) -> None:
    await kube.exists("serviceaccounts", "default")
    sources: list[dict[str, Any]] = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 600, "audience": "vault"}},
        {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
    ]
    spec = {"volumes": [{"name": "v", "projected": {"sources": sources}}]}
    mounts = [{"name": "v", "mountPath": "/v"}]
    pod = await kube.create("cat", "/v/token", "print", "", "cat", "/v/name", spec=spec, volumeMounts=mounts)
    token, name = (await kube.output()).split()
    assert name == "p"
    said = claims(token)
    assert said["sub"] == f"system:serviceaccount:{kube.namespace}:default"
    assert said["aud"] == ["vault"]
    assert said["exp"] - said["iat"] == 600
    assert said["kubernetes.io"]["pod"] == {"name": "p", "uid": pod["metadata"]["uid"]}
    review = await kube.admin.create(
        "/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": token, "audiences": ["vault"]}}
    )
    assert review["status"]["authenticated"] is True


async def test_the_volume_that_an_api_server_adds(kube: Kube) -> None:
    """`kube-api-access-*`: token, ca.crt and namespace where every client looks for them."""
    await kube.exists("serviceaccounts", "default")
    await kube.exists("configmaps", "kube-root-ca.crt")
    directory = "/var/run/secrets/kubernetes.io/serviceaccount"
    sources: list[dict[str, Any]] = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {
            "downwardAPI": {
                "items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]
            }
        },
    ]
    spec = {"volumes": [{"name": "kube-api-access-x", "projected": {"sources": sources, "defaultMode": 420}}]}
    mounts = [{"name": "kube-api-access-x", "mountPath": directory, "readOnly": True}]
    script = [word for name in ("namespace", "ca.crt", "token") for word in ("cat", f"{directory}/{name}", "print", "")]
    await kube.create(*script, spec=spec, volumeMounts=mounts)
    text = await kube.output()
    assert text.startswith(kube.namespace + "\n")
    assert "-----BEGIN CERTIFICATE-----" in text
    assert claims(text.split()[-1])["sub"] == f"system:serviceaccount:{kube.namespace}:default"
