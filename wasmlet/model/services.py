"""The variables that tell a container where services are.

For every service of the pod's namespace that has a cluster IP, the kubelet sets `{SVC}_SERVICE_HOST`,
`{SVC}_SERVICE_PORT` (also one per named port) and the older `{SVC}_PORT_...` family that Docker links had. With
`enableServiceLinks: false` only the API server's own service is left. Variables that the manifest itself sets replace
these (`wasmlet.model.environment`).
"""

from __future__ import annotations

from collections.abc import Iterator

from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod, Raw


def service_variables(pod: Pod, inputs: Inputs) -> dict[str, str]:
    """The service variables for that pod's containers, sorted by service name.

    `kubernetes` of the namespace `default` is always among them; one of that name in the pod's own namespace hides it.
    """
    links = pod.spec.get("enableServiceLinks")
    shown: dict[str, Raw] = {}
    for service in inputs.services:
        metadata = service["metadata"]
        if (service.get("spec") or {}).get("clusterIP") in (None, "", "None"):
            continue
        if metadata["namespace"] == "default" and metadata["name"] == "kubernetes":
            shown.setdefault("kubernetes", service)
        elif metadata["namespace"] == pod.namespace and links is not False:
            shown[metadata["name"]] = service
    return {name: value for _, service in sorted(shown.items()) for name, value in _variables(service)}


def _variables(service: Raw) -> Iterator[tuple[str, str]]:
    prefix = _variable_name(service["metadata"]["name"])
    address = str(service["spec"]["clusterIP"])
    host = f"[{address}]" if ":" in address else address
    ports = service["spec"].get("ports") or ()
    yield f"{prefix}_SERVICE_HOST", address
    if ports:
        yield f"{prefix}_SERVICE_PORT", str(ports[0]["port"])
    for port in ports:
        if port.get("name"):
            yield f"{prefix}_SERVICE_PORT_{_variable_name(port['name'])}", str(port["port"])
    for index, port in enumerate(ports):
        protocol = port.get("protocol") or "TCP"
        number = port["port"]
        url = f"{protocol.lower()}://{host}:{number}"
        link = f"{prefix}_PORT_{number}_{protocol.upper()}"
        if index == 0:
            yield f"{prefix}_PORT", url
        yield link, url
        yield f"{link}_PROTO", protocol.lower()
        yield f"{link}_PORT", str(number)
        yield f"{link}_ADDR", address


def _variable_name(name: str) -> str:
    return name.replace("-", "_").upper()
