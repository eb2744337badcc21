"""From nothing to a wasm pod that answers, and to nothing again, with the chart as it is: a pod of a cluster, from the
image, that is a node.

On a cluster made for tests: `pytest tests/deployment/test_cluster.py --kubeconfig FILE --node-credentials COMMAND
--client-ca-file FILE` (`tests.node.real`).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.deployment.conftest import Deployed
from tests.deployment.test_rendering import rendered

pytestmark = [
    pytest.mark.needs_root("an image is built, and run in namespaces"),
    pytest.mark.timeout(1200),
]

WASM = json.dumps({"spec": {"runtimeClassName": "wasmlet"}})
SERVER = json.dumps({"spec": {"runtimeClassName": "wasmlet", "hostNetwork": True}})


async def test_the_chart_with_its_default_values(deployed: Deployed, tmp_path: Path) -> None:
    before = await deployed.objects()
    chart = tmp_path / "chart.yaml"
    chart.write_text(yaml.safe_dump_all(rendered().values()))
    await deployed.sh("kubectl create namespace wasmlet")
    await deployed.sh("kubectl label namespace wasmlet pod-security.kubernetes.io/enforce=restricted")
    said = await deployed.sh(f"kubectl apply --server-side --dry-run=server -f {chart}")
    assert "Warning" not in said
    await deployed.sh(f"kubectl apply -f {chart}")
    await deployed.node_ready()
    facts = json.loads(await deployed.sh("kubectl get node wasmlet-0 -o json"))
    node_pod = json.loads(await deployed.sh("kubectl -n wasmlet get pod wasmlet-0 -o json"))
    assert facts["status"]["addresses"][0] == {"type": "InternalIP", "address": node_pod["status"]["podIP"]}
    assert facts["metadata"]["labels"]["node.kubernetes.io/exclude-from-external-load-balancers"] == "true"

    await deployed.sh("wasmlet push examples/hello/hello.wasm $REGISTRY/hello:1")
    await deployed.sh("wasmlet push examples/web/web.wasm $REGISTRY/web:1")
    await deployed.sh(f"kubectl run hello --image=$REGISTRY/hello:1 --restart=Never --overrides='{WASM}'")
    await deployed.sh("kubectl wait --for=jsonpath='{.status.phase}'=Succeeded pod/hello --timeout=120s")
    assert "Hello, world" in await deployed.sh("kubectl logs hello")

    await deployed.sh(f"kubectl run web --image=$REGISTRY/web:1 --port=8080 --overrides='{SERVER}'")
    await deployed.sh("kubectl wait --for=condition=Ready pod/web --timeout=120s")
    # The guest is reached where its node is: as any other pod of the cluster reaches it, and through a Service.
    ip = (await deployed.sh("kubectl get pod web -o jsonpath={.status.podIP}")).strip()
    assert ip == node_pod["status"]["podIP"]
    assert "Hello from wasmlet-0: /a" in await deployed.sh(f"curl --silent --fail http://{ip}:8080/a")

    await deployed.sh("kubectl delete pod hello web")
    await deployed.sh(f"kubectl delete -f {chart} --wait")
    await deployed.sh("kubectl delete namespace wasmlet --wait")
    await deployed.sh("kubectl delete node wasmlet-0")
    assert await deployed.gone(before) == set()


async def test_a_node_may_do_what_a_node_may_and_no_more(deployed: Deployed) -> None:
    """The account of the nodes' pods: it is a node by another name, and nothing in its own right."""
    await deployed.sh("kubectl apply -k examples/deploy")
    try:
        who = "--as=system:serviceaccount:wasmlet:wasmlet"
        for question, answer in (
            ("impersonate users/system:node:wasmlet-0", "yes"),
            ("impersonate groups/system:nodes", "yes"),
            ("impersonate users/system:node:wasmlet-1", "no"),
            ("impersonate users/admin", "no"),
            ("impersonate groups/system:masters", "no"),
            ("get secrets", "no"),
            ("list pods", "no"),
            ("create nodes", "no"),
        ):
            said = await deployed.sh(f"kubectl auth can-i {question} {who}", check=False)
            assert said.split()[-1] == answer, question
    finally:
        await deployed.sh("kubectl delete -k examples/deploy --ignore-not-found")
        await deployed.sh("kubectl delete node wasmlet-0 --ignore-not-found")
