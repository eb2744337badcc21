"""How much a pod may receive and send: what plugins are told, and what comes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.runtime.network.cni.networks import PLUGINS, SAYS, chain, needs_root, network, nothing_left, ptp, request
from tests.runtime.network.spaces import run
from wasmlet.model.pod import Pod
from wasmlet.runtime.network import bandwidth
from wasmlet.runtime.network.network import NetworkError
from wasmlet.runtime.network.requests import request_of


@needs_root
async def test_plugins_are_told_how_much_a_pod_may_receive_and_send(tmp_path: Path) -> None:
    cni = chain(tmp_path, f"cat > {tmp_path}/told; echo '{SAYS}'")
    (tmp_path / "conf" / "1.conflist").write_text(
        json.dumps(
            {"cniVersion": "0.4.0", "name": "n", "plugins": [{"type": "one", "capabilities": {"bandwidth": True}}]}
        )
    )
    pod = Pod(
        {
            "metadata": {
                "name": "p",
                "namespace": "ns",
                "uid": "uid-p",
                "annotations": {"kubernetes.io/ingress-bandwidth": "1M", "kubernetes.io/egress-bandwidth": "1.5Mi"},
            },
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        }
    )
    await cni.add(request_of(pod))
    told = json.loads((tmp_path / "told").read_text())["runtimeConfig"]["bandwidth"]
    most = 2**32 - 1
    assert told == {"ingressRate": 10**6, "ingressBurst": most, "egressRate": 3 * 2**19, "egressBurst": most}
    await cni.remove("uid-p")
    with pytest.raises(NetworkError, match=r"annotation kubernetes\.io/egress-bandwidth: '1' is unreasonably small"):
        await cni.add(request(bandwidth={"egress": "1"}))
    assert await cni.list() == {}
    assert nothing_left(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fast", "expected bits per second as a quantity such as 10M, found 'fast'"),
        ("", "expected bits per second"),
        ("999", r"unreasonably small \(< 1kbit\)"),
        ("-10M", "unreasonably small"),
        ("1001T", r"unreasonably large \(> 1Pbit\)"),
    ],
)
def test_a_bandwidth_that_cannot_be(text: str, words: str) -> None:
    with pytest.raises(NetworkError, match=words):
        bandwidth.as_capability({"ingress": text})


def test_bandwidths_from_1k_to_1p() -> None:
    for text, rate in (("1k", 1000), ("1000", 1000), ("10M", 10**7), ("1P", 10**15), ("1e6", 10**6), ("1000.5", 1001)):
        assert bandwidth.as_capability({"ingress": text}) == {"ingressRate": rate, "ingressBurst": 2**32 - 1}
    assert bandwidth.as_capability({}) == {}


@needs_root
async def test_a_pod_is_held_to_its_bandwidth(space: None, tmp_path: Path) -> None:
    assert PLUGINS is not None
    if not (PLUGINS / "bandwidth").exists():
        pytest.skip("there is no CNI plugin bandwidth")
    ptp(tmp_path / "conf", tmp_path / "data")
    file = tmp_path / "conf" / "10-kindnet.conflist"
    raw = json.loads(file.read_text())
    raw["plugins"].append({"type": "bandwidth", "capabilities": {"bandwidth": True}})
    file.write_text(json.dumps(raw))
    cni = network(tmp_path / "cni", tmp_path / "conf", PLUGINS)
    try:
        found = await cni.add(request(bandwidth={"ingress": "8M", "egress": "4M"}))
    except NetworkError as error:
        if "create qdisc" not in str(error):
            raise
        pytest.skip(f"this kernel cannot limit bandwidth: {error}")
    assert found is not None
    limits = [json.loads(line) for line in run("tc", "-j", "qdisc", "show").splitlines()]
    rates = {one["options"]["rate"] for one in limits[0] if one["kind"] == "tbf"}
    assert rates == {10**6, 5 * 10**5}  # bytes per second
    await cni.remove("uid-p")
    assert nothing_left(tmp_path)
    assert "tbf" not in run("tc", "qdisc", "show")
