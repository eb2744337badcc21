"""imagePullSecrets, a pod's or its account's, open a private registry; one that is missing is told of, no more."""

from __future__ import annotations

import json
from typing import Any

from tests.conformance.conftest import Own
from tests.conformance.harness import Kube
from tests.conformance.images import docker_registry, login, private
from tests.conformance.reading import state

__all__ = ["docker_registry", "private"]


async def keep(kube: Kube, name: str, content: dict[str, Any]) -> None:
    data = {".dockerconfigjson": json.dumps(content)}
    kind = "kubernetes.io/dockerconfigjson"
    await kube.make("secrets", {"metadata": {"name": name}, "type": kind, "stringData": data})


async def test_secrets_of_a_pod(own: Own, private: str) -> None:
    address = private.partition("/")[0]
    async with own(given={"insecure_registries": (address,)}) as kube:
        await keep(kube, "right", login(address))
        await keep(kube, "wrong", login(address, "guess"))
        names: dict[str, list[str]] = {"none": [], "wrong": ["wrong"], "right": ["missing", "right"]}
        for name, secrets in names.items():
            spec = {"imagePullSecrets": [{"name": secret} for secret in secrets]}
            await kube.create("print", "pulled", name=name, image=private, spec=spec)
        assert await kube.output("right") == "pulled\n"
        event = await kube.event("FailedToRetrieveImagePullSecret", "right")
        assert "missing" in event["message"]
        for name in ("none", "wrong"):
            pod = await kube.waiting("ErrImagePull", name)
            assert address in state(pod)["waiting"]["message"]
            assert "guess" not in json.dumps([pod["status"], await kube.events(name)])


async def test_secrets_of_its_account(own: Own, private: str) -> None:
    address = private.partition("/")[0]
    async with own(given={"insecure_registries": (address,)}) as kube:
        await keep(kube, "right", login(address))
        account = {"metadata": {"name": "puller"}, "imagePullSecrets": [{"name": "right"}]}
        await kube.make("serviceaccounts", account)
        await kube.create("print", "pulled", image=private, spec={"serviceAccountName": "puller"})
        assert await kube.output() == "pulled\n"
