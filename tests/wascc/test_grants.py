"""Which capabilities an actor is granted."""

from __future__ import annotations

from typing import Any

import pytest
from wasmlet_wascc import grants

from wasmlet.errors import Refused
from wasmlet.model.pod import Pod


def asked(annotations: dict[str, str] | None = None, **container: Any) -> grants.Asked:
    named = {f"{grants.PREFIX}{key}": value for key, value in (annotations or {}).items()}
    pod = Pod(
        {
            "metadata": {"name": "a", "namespace": "b", "uid": "c", "annotations": {"other/one": "x"} | named},
            "spec": {"containers": [{"name": "main", "image": "x"} | container]},
        }
    )
    return grants.Asked.of(pod, pod.containers[0])


def test_a_pod_asks_by_annotations_ports_and_volumes() -> None:
    assert asked().names == ()
    assert asked({"capabilities": "logging, wascc:extras acme:clock wok:echoProvider"}).names == (
        "wascc:logging", "wascc:extras", "acme:clock", "wok:echoProvider",
    )  # fmt: skip
    assert asked(ports=[{"containerPort": 80}]).names == (grants.HTTP,)
    assert asked(ports=[{"containerPort": 80, "protocol": "UDP"}]).names == ()
    token = {"name": "kube-api-access-x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
    assert asked(volumeMounts=[token]).names == ()
    one = asked(volumeMounts=[token, {"name": "data", "mountPath": "/data"}])
    assert (one.names, one.bindings) == ((grants.BLOBS,), {"data": "/data", "default": "/data"})
    again = {"name": "kube-api-access-x", "mountPath": f"{token['mountPath']}/"}
    assert asked(volumeMounts=[again, {"name": "data", "mountPath": "data//"}]).bindings == one.bindings
    two = asked(volumeMounts=[{"name": "a", "mountPath": "/a"}, {"name": "b", "mountPath": "/b"}])
    assert two.bindings == {"a": "/a", "b": "/b"}


def test_a_capability_has_settings() -> None:
    found = asked(
        {"keyvalue": "redis://db:1/2 cache=redis://cache", "messaging": "nats://bus", "subscriptions": "a.b, c.>",
         "acme.clock": '{"zone": "UTC"}'}
    )  # fmt: skip
    assert found.settings == {
        "wascc:keyvalue": {"default": "redis://db:1/2", "cache": "redis://cache"},
        "wascc:messaging": {"url": "nats://bus", "subscriptions": "a.b, c.>"},
        "acme:clock": {"zone": "UTC"},
    }
    assert asked({"keyvalue": "memory"}).settings == {"wascc:keyvalue": {}}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("keyvalue", "mysql://db", "expected redis://HOST"),
        ("keyvalue", "redis://", "expected redis://HOST"),
        ("keyvalue", "redis://db/x", "expected redis://HOST"),
        ("keyvalue", "redis://db:99999999", "expected redis://HOST"),
        ("keyvalue", "redis://u:geheim@db", "REDIS_PASSWORD"),
        ("keyvalue", "redis://u:geheim@db:99999", "REDIS_PASSWORD"),
        ("keyvalue", "http://token:geheim@db", "REDIS_PASSWORD"),
        ("keyvalue", "redis://db?password=geheim", "REDIS_PASSWORD"),
        ("keyvalue", "redis://:geheim#geheim@db", "REDIS_PASSWORD"),
        ("keyvalue", "redis://u:geheim,geheim@db", "REDIS_PASSWORD"),
        ("keyvalue", "redis://db cache=redis://:geheim@db", "REDIS_PASSWORD"),
        ("keyvalue", "redis://u:geheim", "expected redis://HOST"),
        ("keyvalue", "geheim", "expected redis://HOST"),
        ("messaging", "nats:geheim", "expected nats://HOST"),
        ("acme.clock", '{"token": "geheim"', "expected a JSON object"),
        ("keyvalue", "redis://db#1", "expected redis://HOST"),
        ("keyvalue", "a=redis://x a=redis://y", "each once"),
        ("messaging", "nats://bus/1", "expected nats://HOST"),
        ("subscriptions", "a..b", "expected subjects"),
        ("subscriptions", "a.>.b", "expected subjects"),
        ("subscriptions", "a.b*", "expected subjects"),
        ("subscriptions", "a.b", "names the server"),
        ("acme.clock", "[]", "expected a JSON object"),
        ("acme.clock", '{"a": 1}', "expected a JSON object"),
        ("acme.clock", "[" * 4000, "expected a JSON object"),
        ("messaging", "nats://u:geheim@bus", "NATS_TOKEN"),
        ("messaging", "nats://geheim@bus:x", "NATS_TOKEN"),
        ("capabilities", "messaging", "names the server"),
        ("capabilities", " ".join(f"x:{n}" for n in range(65)), "more than 64 capabilities"),
        ("wascc.keyvalue", "{}", "expected capabilities, keyvalue"),
        ("nonsense", "1", "expected capabilities, keyvalue"),
    ],
)
def test_an_annotation_that_is_no_grant_is_named(key: str, value: str, words: str) -> None:
    with pytest.raises(Refused, match=words) as refused:
        asked({key: value})
    assert refused.value.field == f"metadata.annotations[{grants.PREFIX}{key}]"
    assert "geheim" not in str(refused.value)


def test_capabilities_are_counted_over_all_annotations() -> None:
    annotations = {f"acme.c{n}": '{"token": "geheim"}' for n in range(64)}
    assert len(asked(annotations).names) == 64
    with pytest.raises(Refused, match="more than 64 capabilities") as refused:
        asked(annotations | {"acme.more": '{"token": "geheim"}'})
    assert refused.value.field == f"metadata.annotations[{grants.PREFIX}acme.more]"
    assert "geheim" not in str(refused.value)


def test_granted_is_what_is_claimed_and_asked_for() -> None:
    found = grants.decide(
        ["wascc:logging", "wascc:extras", "wascc:graphdb"], ["wascc:logging", "wascc:keyvalue"], grants.OWN
    )
    assert found.granted == ("wascc:logging",)
    assert found.refused == {
        "wascc:extras": "its pod does not ask for it (annotation wascc.wasmlet.dev/capabilities does)",
        "wascc:graphdb": "this node does not have it",
        "wascc:keyvalue": "its signature does not claim it",
    }
    assert found.unclaimed == ("wascc:keyvalue",)


def test_what_is_claimed_twice_is_granted_once() -> None:
    """Otherwise an actor would be told of each message twice."""
    decision = grants.decide([grants.MESSAGING, grants.MESSAGING], [grants.MESSAGING], grants.OWN)
    assert decision.granted == (grants.MESSAGING,)


def test_an_actor_that_claims_to_serve_needs_no_asking() -> None:
    assert grants.decide([grants.HTTP], [], grants.OWN) == grants.Decision((grants.HTTP,), {}, ())
    assert grants.decide([], [grants.HTTP], grants.OWN).unclaimed == (grants.HTTP,)
