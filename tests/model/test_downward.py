"""What a pod can learn of itself: fields, resources, and how maps are written."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.model.manifests import pod, with_env
from wasmlet.errors import Refused
from wasmlet.model import downward
from wasmlet.model.downward import Asked, field_value, format_map, resource_value
from wasmlet.model.environment import environment
from wasmlet.model.inputs import Inputs

NODE = Inputs(
    node_name="node-1",
    node_ips=["192.0.2.7", "2001:db8::7"],
    node_allocatable={"cpu": "3500m", "memory": "8Gi", "ephemeral-storage": "10Gi", "hugepages-2Mi": "1Gi"},
)
WEB = pod(
    metadata={"labels": {"app": "web"}, "annotations": {"example.com/note": 'say "hi"'}},
    serviceAccountName="robot",
)


def env_field(path: str, ips: tuple[str, ...] = (), inputs: Inputs = NODE) -> str:
    return field_value(WEB, {"fieldPath": path}, inputs, ips, Asked("env", "f", "main"))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "web"),
        ("metadata.namespace", "shop"),
        ("metadata.uid", "uid-1"),
        ("metadata.labels['app']", "web"),
        ("metadata.labels['none']", ""),
        ("metadata.annotations['example.com/note']", 'say "hi"'),
        ("spec.nodeName", "node-1"),
        ("spec.serviceAccountName", "robot"),
        ("status.hostIP", "192.0.2.7"),
        ("status.hostIPs", "192.0.2.7,2001:db8::7"),
    ],
)
def test_fields_of_variables(path: str, value: str) -> None:
    assert env_field(path) == value


def test_pod_addresses_fall_back_to_the_node() -> None:
    assert env_field("status.podIP") == "192.0.2.7"
    assert env_field("status.podIPs") == "192.0.2.7,2001:db8::7"
    assert env_field("status.podIP", ("10.1.1.1", "fd00::1")) == "10.1.1.1"
    assert env_field("status.podIPs", ("10.1.1.1", "fd00::1")) == "10.1.1.1,fd00::1"
    assert env_field("status.podIP", inputs=Inputs()) == ""


@pytest.mark.parametrize(
    "path",
    [
        "metadata.labels",
        "metadata.annotations",
        "status.phase",
        "spec.restartPolicy",
        "metadata.labels['x",
        "",
        "x['y']",
    ],
)
def test_other_fields_are_refused_with_those_that_there_are(path: str) -> None:
    with pytest.raises(Refused, match=r"f: expected one of metadata\.name.*status\.podIPs \(v1\), found ") as raised:
        env_field(path)
    assert repr(path) in str(raised.value)
    assert raised.value.container == "main"


def test_other_versions_are_refused() -> None:
    selector = {"fieldPath": "metadata.name", "apiVersion": "v2"}
    with pytest.raises(Refused, match=r"'metadata\.name' of version 'v2'"):
        field_value(WEB, selector, NODE, (), Asked("volume", "f"))


def test_volumes_have_whole_maps_and_no_status() -> None:
    def volume_field(path: str) -> str:
        return field_value(WEB, {"fieldPath": path}, NODE, (), Asked("volume", "f"))

    assert volume_field("metadata.labels") == 'app="web"'
    assert volume_field("metadata.annotations") == r'example.com/note="say \"hi\""'
    assert volume_field("metadata.uid") == "uid-1"
    with pytest.raises(Refused, match=r"metadata\.annotations \(v1\), found 'status.podIP'"):
        volume_field("status.podIP")


def test_maps_are_sorted_and_quoted_as_go_does() -> None:
    values = {"b": "tab\tline\nback\\slash", "a": "\x01\x7f\xad\u200b\U000e0001é 日本", "c": ""}
    assert format_map(values) == (
        r'a="\x01\x7f\u00ad\u200b\U000e0001é 日本"' + "\n" + r'b="tab\tline\nback\\slash"' + "\n" + 'c=""'
    )
    assert format_map({}) == ""


def test_a_map_is_formatted_where_it_is_asked_for_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A volume may have many files, and each version of a pod makes them anew; a map may have 256 KiB."""
    formatted, real = list[str](), downward._quote
    monkeypatch.setattr(downward, "_quote", lambda text: formatted.append(text) or real(text))
    downward._formatted.cache_clear()
    for path in ("metadata.name", "metadata.annotations", "metadata.name", "metadata.annotations"):
        field_value(WEB, {"fieldPath": path}, NODE, (), Asked("volume", "f"))
    assert formatted == ['say "hi"']


@given(st.text())
def test_quoting_can_be_undone(text: str) -> None:
    quoted = format_map({"k": text}).removeprefix("k=")
    assert quoted.isprintable()

    def char(match: re.Match[str]) -> str:
        escape = match[1]
        if escape[0] in "xuU":
            return chr(int(escape[1:], 16))
        return {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}.get(escape, escape)

    assert re.sub(r"\\(x..|u....|U........|.)", char, quoted[1:-1]) == text


def resource(name: str, divisor: Any = None, inputs: Inputs = NODE, container: str = "", **resources: Any) -> str:
    other = {"name": "other", "resources": {"limits": {"memory": "5Mi"}}}
    made = pod({"name": "main", "resources": resources}, other, resources={"limits": {"memory": "1Gi"}})
    selector = {"resource": name, "containerName": container, **({"divisor": divisor} if divisor else {})}
    return resource_value(made, selector, inputs, field="f", container=made.containers[0])


@pytest.mark.parametrize(
    ("name", "divisor", "value"),
    [
        ("limits.cpu", None, "2"),
        ("limits.cpu", "0", "2"),
        ("limits.cpu", "1m", "1500"),
        ("requests.cpu", "1m", "251"),
        ("requests.cpu", "1", "1"),
        ("limits.memory", "1Mi", "64"),
        ("limits.memory", "1M", "68"),
        ("requests.memory", None, "0"),
        ("requests.ephemeral-storage", "1k", "1"),
        ("limits.hugepages-2Mi", "1Mi", "4"),
        ("requests.hugepages-1Gi", None, "0"),
    ],
)
def test_resources(name: str, divisor: str | None, value: str) -> None:
    limits = {"cpu": "1500m", "memory": "64Mi", "hugepages-2Mi": "4Mi"}
    requests = {"cpu": "250.5m", "ephemeral-storage": 1000}
    assert resource(name, divisor, limits=limits, requests=requests) == value


def test_limits_default_to_the_pod_then_to_the_node() -> None:
    assert resource("limits.memory", "1Mi") == "1024"
    assert resource("limits.memory", "1Mi", limits={"memory": "0"}) == "1024"
    assert resource("limits.cpu", "1m") == "3500"
    assert resource("limits.ephemeral-storage", "1Gi") == "10"
    assert resource("limits.hugepages-2Mi") == "0"
    assert resource("requests.memory") == "0"
    assert resource("limits.cpu", inputs=Inputs()) == "0"


def test_another_container_may_be_named() -> None:
    assert resource("limits.memory", "1Mi", container="other", limits={"memory": "64Mi"}) == "5"
    with pytest.raises(Refused, match=r"f\.containerName: container nobody not found"):
        resource("limits.memory", container="nobody")


@pytest.mark.parametrize("name", ["limits.gpu", "cpu", "limits", "", "max.cpu"])
def test_other_resources_are_refused_by_name(name: str) -> None:
    with pytest.raises(Refused, match=rf"f\.resource: expected limits.*found {name!r}"):
        resource(name)


def test_a_wrong_divisor_is_refused() -> None:
    with pytest.raises(Refused, match="f: 'many' is not a quantity"):
        resource("limits.cpu", "many")


@given(st.integers(0, 10**18), st.integers(1, 10**9))
def test_memory_is_rounded_up(amount: int, divisor: int) -> None:
    value = int(resource("limits.memory", str(divisor), limits={"memory": str(amount)}, inputs=Inputs()) or 0)
    if amount:
        assert (value - 1) * divisor < amount <= value * divisor


@given(st.integers(1, 10**12), st.sampled_from(["", "m", "u", "n"]), st.sampled_from(["1", "1m"]))
def test_cpu_is_whole_milli_first(amount: int, suffix: str, divisor: str) -> None:
    scale = {"": Fraction(1), "m": Fraction(1, 10**3), "u": Fraction(1, 10**6), "n": Fraction(1, 10**9)}[suffix]
    milli = -(-amount * scale * 1000 // 1)
    expected = milli if divisor == "1m" else -(-milli // 1000)
    assert resource("limits.cpu", divisor, limits={"cpu": f"{amount}{suffix}"}) == str(int(expected))


def test_variables_from_fields_and_resources() -> None:
    made, container = with_env(
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        {"name": "BOTH", "value": "$(IP)/$(CPU)"},
        resources={"limits": {"cpu": "2"}},
    )
    assert environment(made, container, NODE, ["10.1.1.1"]).variables == {
        "IP": "10.1.1.1",
        "CPU": "2",
        "BOTH": "10.1.1.1/2",
    }
    made, container = with_env({"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "status.phase"}}})
    with pytest.raises(Refused, match=r"^spec\.containers\[0\]\.env\[0\]\.valueFrom\.fieldRef: expected one of"):
        environment(made, container, NODE)
