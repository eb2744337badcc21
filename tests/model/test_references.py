"""Every place where a pod can name a config map, a secret or a token."""

from __future__ import annotations

from tests.model.manifests import pod
from wasmlet.model.inputs import TokenKey
from wasmlet.model.references import References, references


def test_a_pod_that_refers_to_nothing() -> None:
    assert references(pod()) == References()


def test_every_place() -> None:
    found = references(
        pod(
            {
                "name": "main",
                "env": [
                    {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "env-map", "key": "k"}}},
                    {"name": "B", "valueFrom": {"secretKeyRef": {"name": "env-secret", "key": "k", "optional": True}}},
                    {"name": "C", "value": "plain"},
                    {"name": "D", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                ],
                "envFrom": [{"configMapRef": {"name": "from-map", "optional": True}}],
            },
            initContainers=[{"name": "init", "envFrom": [{"secretRef": {"name": "init-secret"}}]}],
            ephemeralContainers=[{"name": "debug", "envFrom": [{"configMapRef": {"name": "debug-map"}}]}],
            imagePullSecrets=[{"name": "pull"}, {"name": ""}, {}],
            volumes=[
                {"name": "a", "configMap": {"name": "volume-map"}},
                {"name": "b", "secret": {"secretName": "volume-secret", "optional": True}},
                {"name": "c", "emptyDir": {}},
                {
                    "name": "d",
                    "projected": {
                        "sources": [
                            {"configMap": {"name": "projected-map", "optional": True}},
                            {"secret": {"name": "projected-secret"}},
                            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
                            {"serviceAccountToken": {"path": "vault", "audience": "vault"}},
                            {"downwardAPI": {"items": []}},
                        ]
                    },
                },
            ],
        )
    )
    assert found.config_maps == {"env-map", "from-map", "debug-map", "volume-map", "projected-map"}
    assert found.required_config_maps == {"env-map", "debug-map", "volume-map"}
    assert found.secrets == {"env-secret", "init-secret", "pull", "volume-secret", "projected-secret"}
    assert found.required_secrets == {"init-secret", "projected-secret"}
    assert found.tokens == {TokenKey("", 3607), TokenKey("vault", 3600)}


def test_one_mandatory_reference_among_optional_ones_makes_it_required() -> None:
    found = references(
        pod(
            {"name": "a", "envFrom": [{"configMapRef": {"name": "x", "optional": True}}]},
            {"name": "b", "envFrom": [{"configMapRef": {"name": "x"}}]},
        )
    )
    assert found.config_maps == found.required_config_maps == {"x"}
