"""Variables that name the namespace's services; without enableServiceLinks, the API server's alone."""

from __future__ import annotations

from typing import Any

from tests.conformance.harness import Kube

NAMES = ("WEB_APP_SERVICE_HOST", "WEB_APP_SERVICE_PORT", "WEB_APP_SERVICE_PORT_HTTP", "WEB_APP_PORT")
SCRIPT = [word for name in NAMES for word in ("env", name)]


async def test_service_links(kube: Kube) -> None:
    ports = [{"name": "http", "port": 8080, "protocol": "TCP", "targetPort": 8080}]
    made: dict[str, Any] = await kube.make(
        "services", {"metadata": {"name": "web-app"}, "spec": {"ports": ports, "selector": {"app": "web"}}}
    )
    address = made["spec"]["clusterIP"]
    async with kube.patience():
        for turn in range(1000):
            await kube.create(*SCRIPT, name=f"p{turn}")
            text = await kube.output(f"p{turn}")
            if "is not set" not in text:
                break
    assert text.splitlines() == [
        f"WEB_APP_SERVICE_HOST={address}",
        "WEB_APP_SERVICE_PORT=8080",
        "WEB_APP_SERVICE_PORT_HTTP=8080",
        f"WEB_APP_PORT=tcp://{address}:8080",
    ]
    await kube.create(*("env", "KUBERNETES_SERVICE_HOST", *SCRIPT[:2]), name="none", spec={"enableServiceLinks": False})
    kubernetes, own = (await kube.output("none")).splitlines()
    assert kubernetes.startswith("KUBERNETES_SERVICE_HOST=")
    assert own == "WEB_APP_SERVICE_HOST is not set"
