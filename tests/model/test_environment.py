"""Variables: where they come from, which wins, and what is missing."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.model.manifests import secret, service, with_env
from wasmlet.errors import MissingReference, Refused
from wasmlet.model.environment import environment
from wasmlet.model.inputs import Inputs

KUBERNETES = service("kubernetes", "10.0.0.1", {"name": "https", "port": 443}, namespace="default")
SETTINGS = Inputs(
    config_maps={"settings": {"data": {"color": "blue", "size": "xl"}, "binaryData": {"logo": "AAA="}}},
    secrets={"login": secret(user=b"ann", password=b"s3cret")},
    services=[KUBERNETES],
)


def key_ref(kind: str, name: str, key: str, **rest: Any) -> dict[str, Any]:
    return {"valueFrom": {f"{kind}KeyRef": {"name": name, "key": key, **rest}}}


def test_config_map_and_secret_keys() -> None:
    pod, container = with_env(
        {"name": "COLOR", **key_ref("configMap", "settings", "color")},
        {"name": "PASSWORD", **key_ref("secret", "login", "password")},
    )
    variables = environment(pod, container, SETTINGS).variables
    assert variables["COLOR"] == "blue"
    assert variables["PASSWORD"] == "s3cret"


def test_env_from_with_prefix_takes_text_only() -> None:
    pod, container = with_env(
        env_from=[
            {"configMapRef": {"name": "settings"}},
            {"prefix": "LOGIN_", "secretRef": {"name": "login"}},
        ]
    )
    variables = environment(pod, container, Inputs(SETTINGS.config_maps, SETTINGS.secrets)).variables
    assert variables == {"color": "blue", "size": "xl", "LOGIN_password": "s3cret", "LOGIN_user": "ann"}


def test_precedence_and_order() -> None:
    inputs = Inputs(
        config_maps={"one": {"data": {"A": "one", "B": "one"}}, "two": {"data": {"B": "two", "C": "two"}}},
        services=[KUBERNETES],
    )
    pod, container = with_env(
        {"name": "Z", "value": "$(B) $(C) $(LATER) $(KUBERNETES_SERVICE_HOST)"},
        {"name": "C", "value": "env"},
        {"name": "LATER", "value": "$(C)"},
        {"name": "KUBERNETES_SERVICE_HOST", "value": "mine"},
        {"name": "Z", "value": "$(Z)!"},
        env_from=[{"configMapRef": {"name": "one"}}, {"configMapRef": {"name": "two"}}],
    )
    variables = environment(pod, container, inputs).variables
    assert [name for name in variables if not name.startswith("KUBERNETES_PORT")] == [
        "KUBERNETES_SERVICE_PORT",
        "KUBERNETES_SERVICE_PORT_HTTPS",
        "A",
        "B",
        "C",
        "LATER",
        "KUBERNETES_SERVICE_HOST",
        "Z",
    ]
    assert variables["B"] == "two"
    assert variables["C"] == "env"
    assert variables["LATER"] == "env"
    assert variables["KUBERNETES_SERVICE_HOST"] == "mine"
    assert variables["Z"] == "two two $(LATER) 10.0.0.1!"


names = st.sampled_from(["A", "B", "C", "D"])
settings = st.dictionaries(names, st.sampled_from(["1", "2", "", "$(A)", "$(B)x"]))


@given(st.lists(settings, max_size=3), st.lists(st.tuples(names, st.sampled_from(["1", "$(A)", "$(B)$(C)", "$$(A)"]))))
def test_a_later_source_always_wins(sources: list[dict[str, str]], env: list[tuple[str, str]]) -> None:
    """Against the rule in one line: merge in order, expanding `env` with what is there by then."""
    pod, container = with_env(
        *({"name": name, "value": value} for name, value in env),
        env_from=[{"configMapRef": {"name": str(index)}} for index in range(len(sources))],
    )
    inputs = Inputs(config_maps={str(index): {"data": data} for index, data in enumerate(sources)})
    expected: dict[str, str] = {}
    for data in sources:
        expected |= data
    for name, value in env:
        if value == "$$(A)":
            expected[name] = "$(A)"
        else:
            for known in ("A", "B", "C"):
                mark = f"<{known}>"
                value = value.replace(f"$({known})", mark)
            for known in ("A", "B", "C"):
                value = value.replace(f"<{known}>", expected.get(known, f"$({known})"))
            expected[name] = value
    assert environment(pod, container, inputs).variables == expected


@given(st.lists(names))
def test_env_comes_in_the_order_of_the_manifest(order: list[str]) -> None:
    pod, container = with_env(
        *({"name": name, "value": "1"} for name in order), env_from=[{"configMapRef": {"name": "c"}}]
    )
    inputs = Inputs(config_maps={"c": {"data": {"D": "0", "A": "0"}}})
    last = [name for index, name in enumerate(order) if name not in order[index + 1 :]]
    found = list(environment(pod, container, inputs).variables)
    assert found[len(found) - len(last) :] == last


def test_optional_references_leave_a_variable_as_it_was() -> None:
    pod, container = with_env(
        {"name": "color", **key_ref("configMap", "settings", "none", optional=True)},
        {"name": "NONE", **key_ref("configMap", "none", "none", optional=True)},
        {"name": "NOR", **key_ref("secret", "none", "none", optional=True)},
        {"name": "KEY", **key_ref("secret", "login", "none", optional=True)},
        env_from=[
            {"configMapRef": {"name": "settings"}},
            {"configMapRef": {"name": "none", "optional": True}},
            {"secretRef": {"name": "none", "optional": True}},
        ],
    )
    variables = environment(pod, container, Inputs(SETTINGS.config_maps, SETTINGS.secrets)).variables
    assert variables == {"color": "blue", "size": "xl"}


@pytest.mark.parametrize(
    ("env", "env_from", "message", "field"),
    [
        ([{"name": "X", **key_ref("configMap", "no", "k")}], [], 'configmap "no" not found', "env[0].valueFrom"),
        ([{"name": "X", **key_ref("secret", "no", "k")}], [], 'secret "no" not found', "env[0].valueFrom"),
        ([], [{"configMapRef": {"name": "no"}}], 'configmap "no" not found', "envFrom[0].configMapRef"),
        ([], [{"secretRef": {"name": "no"}}], 'secret "no" not found', "envFrom[0].secretRef"),
        (
            [{"name": "X", **key_ref("configMap", "settings", "logo")}],
            [],
            "couldn't find key logo in ConfigMap shop/settings",
            "env[0].valueFrom.configMapKeyRef",
        ),
        (
            [{"name": "OK", "value": "1"}, {"name": "X", **key_ref("secret", "login", "k")}],
            [],
            "couldn't find key k in Secret shop/login",
            "env[1].valueFrom.secretKeyRef",
        ),
    ],
)
def test_mandatory_references(env: list[Any], env_from: list[Any], message: str, field: str) -> None:
    pod, container = with_env(*env, env_from=env_from)
    with pytest.raises(MissingReference) as raised:
        environment(pod, container, SETTINGS)
    assert str(raised.value) == message
    assert raised.value.field.startswith(f"spec.containers[0].{field}")
    assert raised.value.container == "main"
    assert raised.value.reason == "CreateContainerConfigError"


@pytest.mark.parametrize(
    ("source", "field"),
    [
        ({"fileKeyRef": {"volumeName": "v", "path": "p", "key": "k"}}, "fileKeyRef"),
        ({"moonPhaseRef": {}}, "moonPhaseRef"),
    ],
)
def test_other_sources_are_refused_by_name(source: dict[str, Any], field: str) -> None:
    pod, container = with_env({"name": "X", "valueFrom": source})
    with pytest.raises(Refused, match=rf"env\[0\]\.valueFrom\.{field}: {field} is not supported") as raised:
        environment(pod, container, SETTINGS)
    assert not isinstance(raised.value, MissingReference)
    assert raised.value.container == "main"


def test_unknown_env_from_is_refused_by_name() -> None:
    pod, container = with_env(env_from=[{"prefix": "P", "tableRef": {}}])
    with pytest.raises(Refused, match=r"envFrom\[0\]\.tableRef: tableRef is not supported"):
        environment(pod, container, SETTINGS)
    pod, container = with_env(env_from=[{"prefix": "P"}])
    with pytest.raises(Refused, match=r"envFrom\[0\]: no source is named"):
        environment(pod, container, SETTINGS)


def test_names_that_cannot_be_variables_are_skipped_and_said() -> None:
    data = {"ok": "1", "a.b-c": "2", "1st": "3", "with=": "4", "tab\t": "5", "é": "6"}
    pod, container = with_env(env_from=[{"configMapRef": {"name": "c"}}, {"secretRef": {"name": "s"}}])
    inputs = Inputs(config_maps={"c": {"data": data}}, secrets={"s": secret(**{"=": b"x"})})
    result = environment(pod, container, inputs)
    assert result.variables == {"ok": "1", "a.b-c": "2", "1st": "3"}
    assert result.skipped == (
        "Keys [tab\t, with=, é] from the EnvFrom configMap shop/c were skipped since they are considered invalid "
        "environment variable names.",
        "Keys [=] from the EnvFrom secret shop/s were skipped since they are considered invalid "
        "environment variable names.",
    )


@given(st.binary().filter(lambda value: 0 not in value))
def test_bytes_of_a_secret_survive(value: bytes) -> None:
    pod, container = with_env({"name": "KEY", **key_ref("secret", "s", "k")})
    result = environment(pod, container, Inputs(secrets={"s": secret(k=value)}))
    assert os.fsencode(result.variables["KEY"]) == value
    try:
        value.decode()
    except UnicodeDecodeError:
        assert result.binary == ("KEY",)
    else:
        assert result.binary == ()


def test_nul_is_refused() -> None:
    pod, container = with_env({"name": "KEY", **key_ref("secret", "s", "k")})
    with pytest.raises(Refused, match=r"spec\.containers\[0\]\.env: the value of KEY has a NUL byte"):
        environment(pod, container, Inputs(secrets={"s": secret(k=b"a\0b")}))


def test_a_secret_that_is_not_base64_is_refused() -> None:
    pod, container = with_env({"name": "KEY", **key_ref("secret", "s", "k")})
    with pytest.raises(Refused, match="key k of 's' is not base64"):
        environment(pod, container, Inputs(secrets={"s": {"data": {"k": "%%"}}}))


def test_an_empty_value_is_a_variable() -> None:
    pod, container = with_env({"name": "A"}, {"name": "B", "value": ""})
    assert environment(pod, container, Inputs()).variables == {"A": "", "B": ""}


def test_variables_that_double_over_and_over_are_refused() -> None:
    """Ten lines of a manifest could ask for 100 GB, and the node would try."""
    grown = [{"name": f"B{i}", "value": f"$(B{i - 1})" * 10} for i in range(1, 10)]
    pod, container = with_env({"name": "B0", "value": "x" * 1000}, *grown)
    with pytest.raises(Refused, match=r"env\[4\]: B4 takes the variables above the 2097152 bytes"):
        environment(pod, container, Inputs())
