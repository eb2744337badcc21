"""The files of configMap, secret, downwardAPI and projected volumes."""

from __future__ import annotations

import posixpath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.model.manifests import pod, secret
from wasmlet.errors import MissingReference, Refused
from wasmlet.model.inputs import Inputs, TokenKey
from wasmlet.model.volumes import VolumeFile, volume_files

INPUTS = Inputs(
    config_maps={
        "settings": {"data": {"b": "two", "a": "one"}, "binaryData": {"raw": "AP8="}},
        "kube-root-ca.crt": {"data": {"ca.crt": "CERT"}},
    },
    secrets={"login": secret(user=b"ann", key=b"\x00\xff")},
    tokens={TokenKey("", 3607): "TOKEN", TokenKey("vault"): "VAULT"},
    node_allocatable={"cpu": "2"},
)


def files(source: dict[str, Any], inputs: Inputs = INPUTS) -> tuple[VolumeFile, ...]:
    volume = {"name": "v", **source}
    made = pod(
        {"name": "main", "resources": {"limits": {"memory": "8Mi"}}},
        metadata={"labels": {"app": "web", "a": "b"}},
        volumes=[{"name": "first", "emptyDir": {}}, volume],
    )
    return volume_files(made, volume, inputs)


def test_every_key_of_a_config_map() -> None:
    assert files({"configMap": {"name": "settings"}}) == (
        VolumeFile("a", b"one", 0o644),
        VolumeFile("b", b"two", 0o644),
        VolumeFile("raw", b"\x00\xff", 0o644),
    )


def test_items_and_modes() -> None:
    items = [{"key": "b", "path": "sub/./dir//two.txt", "mode": 0o600}, {"key": "a", "path": "one.txt"}]
    assert files({"configMap": {"name": "settings", "items": items, "defaultMode": 0o440}}) == (
        VolumeFile("one.txt", b"one", 0o440),
        VolumeFile("sub/dir/two.txt", b"two", 0o600),
    )


def test_mode_zero_is_a_mode() -> None:
    items = [{"key": "a", "path": "a", "mode": 0}]
    assert files({"configMap": {"name": "settings", "items": items}}) == (VolumeFile("a", b"one", 0),)
    assert files({"secret": {"secretName": "login", "defaultMode": 0}})[0].mode == 0


def test_secret_values_are_decoded() -> None:
    assert files({"secret": {"secretName": "login", "defaultMode": 256}}) == (
        VolumeFile("key", b"\x00\xff", 0o400),
        VolumeFile("user", b"ann", 0o400),
    )


def test_no_secret_shows_in_a_repr() -> None:
    assert "ann" not in repr(files({"secret": {"secretName": "login"}}))


def test_downward() -> None:
    items = [
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        {"path": "info/name", "fieldRef": {"fieldPath": "metadata.name"}, "mode": 0o400},
        {"path": "mem", "resourceFieldRef": {"containerName": "main", "resource": "limits.memory", "divisor": "1Mi"}},
        {"path": "cpu", "resourceFieldRef": {"containerName": "main", "resource": "limits.cpu"}},
    ]
    assert files({"downwardAPI": {"items": items, "defaultMode": 0o444}}) == (
        VolumeFile("cpu", b"2", 0o444),
        VolumeFile("info/name", b"web", 0o400),
        VolumeFile("labels", b'a="b"\napp="web"', 0o444),
        VolumeFile("mem", b"8", 0o444),
    )


def test_the_volume_that_admission_adds_for_the_api_server() -> None:
    sources = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]
    assert files({"projected": {"sources": sources, "defaultMode": 420}}) == (
        VolumeFile("ca.crt", b"CERT", 0o644),
        VolumeFile("namespace", b"shop", 0o644),
        VolumeFile("token", b"TOKEN", 0o644),
    )


def test_a_later_source_wins() -> None:
    sources = [
        {"configMap": {"name": "settings", "items": [{"key": "a", "path": "x"}]}},
        {"secret": {"name": "login", "items": [{"key": "user", "path": "./x", "mode": 0o400}]}},
        {"serviceAccountToken": {"audience": "vault", "path": "vault"}},
    ]
    assert files({"projected": {"sources": sources}}) == (
        VolumeFile("vault", b"VAULT", 0o644),
        VolumeFile("x", b"ann", 0o400),
    )


def test_optional_objects_and_keys() -> None:
    items = [{"key": "none", "path": "n"}, {"key": "a", "path": "a"}]
    assert files({"configMap": {"name": "none", "optional": True}}) == ()
    assert files({"configMap": {"name": "none", "optional": True, "items": items}}) == ()
    assert files({"configMap": {"name": "settings", "optional": True, "items": items}})[0].path == "a"
    assert files({"secret": {"secretName": "none", "optional": True}}) == ()
    assert files({"projected": {"sources": [{"secret": {"name": "none", "optional": True}}]}}) == ()


@pytest.mark.parametrize(
    ("source", "message", "field"),
    [
        ({"configMap": {"name": "none"}}, 'configmap "none" not found', "configMap"),
        ({"secret": {"secretName": "none"}}, 'secret "none" not found', "secret"),
        (
            {"configMap": {"name": "settings", "items": [{"key": "k", "path": "p"}]}},
            "configmap references non-existent config key: k",
            "configMap.items[0].key",
        ),
        (
            {"projected": {"sources": [{"secret": {"name": "login", "items": [{"key": "k", "path": "p"}]}}]}},
            "references non-existent secret key: k",
            "projected.sources[0].secret.items[0].key",
        ),
        (
            {"projected": {"sources": [{"serviceAccountToken": {"path": "t", "audience": "other"}}]}},
            'failed to fetch token: there is none yet for audience "other"',
            "projected.sources[0].serviceAccountToken",
        ),
    ],
)
def test_what_is_missing_keeps_the_pod_creating(source: dict[str, Any], message: str, field: str) -> None:
    with pytest.raises(MissingReference) as raised:
        files(source)
    assert str(raised.value) == f'MountVolume.SetUp failed for volume "v" : {message}'
    assert raised.value.field == f"spec.volumes[1].{field}"
    assert raised.value.reason == "ContainerCreating"
    assert raised.value.container is None


@pytest.mark.parametrize("kind", ["clusterTrustBundle", "podCertificate", "moon"])
def test_other_sources_are_refused_by_name(kind: str) -> None:
    with pytest.raises(Refused, match=rf"spec\.volumes\[1\]\.projected\.sources\[0\]\.{kind}: {kind} is not supported"):
        files({"projected": {"sources": [{kind: {"path": "p"}}]}})
    with pytest.raises(Refused, match=r"sources\[0\]: no source is named"):
        files({"projected": {"sources": [{}]}})


def test_downward_refuses_what_only_variables_have() -> None:
    item = {"path": "ip", "fieldRef": {"fieldPath": "status.podIP"}}
    with pytest.raises(Refused, match=r"^spec\.volumes\[1\]\.downwardAPI\.items\[0\]\.fieldRef: expected one of"):
        files({"downwardAPI": {"items": [item]}})
    with pytest.raises(Refused, match="expected fieldRef or resourceFieldRef, found neither"):
        files({"downwardAPI": {"items": [{"path": "x"}]}})


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("", "names no file"),
        (".", "names no file"),
        ("./", "names no file"),
        ("/etc/passwd", "must be relative"),
        ("../up", "must not contain '..'"),
        ("a/../../b", "must not contain '..'"),
        ("..", "must not contain '..'"),
        ("..data", "must not start with '..'"),
        ("..2026/x", "must not start with '..'"),
        ("a" * 256, "longer than 255 bytes"),
        ("é" * 128, "longer than 255 bytes"),
        ("a/" * 2048 + "b", "longer than 4096 bytes"),
        ("a\0b", "NUL"),
    ],
)
def test_paths_that_lead_elsewhere_are_refused_by_field(path: str, wrong: str) -> None:
    items = [{"key": "a", "path": path}]
    with pytest.raises(Refused, match=wrong) as raised:
        files({"configMap": {"name": "settings", "items": items}})
    assert raised.value.field == "spec.volumes[1].configMap.items[0].path"
    assert not isinstance(raised.value, MissingReference)
    assert len(str(raised.value)) < 300


def test_keys_are_paths_too() -> None:
    hostile = Inputs(config_maps={"settings": {"data": {"../../etc/passwd": "x"}}})
    with pytest.raises(Refused, match=r"spec\.volumes\[1\]\.configMap: invalid path"):
        files({"configMap": {"name": "settings"}}, hostile)


@given(st.text(alphabet="ab./\0é", min_size=0, max_size=12))
def test_no_path_ever_leaves_the_volume(path: str) -> None:
    items = [{"key": "a", "path": path}]
    try:
        (file,) = files({"configMap": {"name": "settings", "items": items}})
    except Refused:
        return
    inside = posixpath.normpath(posixpath.join("/volume", file.path))
    assert inside.startswith("/volume/")
    assert inside == f"/volume/{file.path}"
    assert not file.path.startswith("..")


def test_a_path_cannot_be_file_and_directory() -> None:
    items = [{"key": "a", "path": "x"}, {"key": "b", "path": "x/y/z"}]
    with pytest.raises(Refused, match=r"spec\.volumes\[1\]\.configMap: 'x' would be a file and, for 'x/y/z'"):
        files({"configMap": {"name": "settings", "items": items}})


def test_other_volumes_have_no_files_here() -> None:
    with pytest.raises(ValueError, match="volume 'v' is of none of the kinds configMap, downwardAPI"):
        files({"emptyDir": {}})
