"""Which credentials are for an image, by the kubelet's rules, and what a pod hears of secrets that are not usable."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from wasmlet.artifacts.credentials import Credential, Keychains, Keyring, auths_of, pull_secrets
from wasmlet.artifacts.errors import ArtifactError
from wasmlet.artifacts.helpers import DockerConfig, docker_config


def users(keyring: Keyring, name: str) -> list[str]:
    return [credential.username for credential in keyring.lookup(name)]


def keyring(*places: str) -> Keyring:
    """One entry for each place; its user is the place."""
    return auths_of({place: {"username": place, "password": "x"} for place in places})


@pytest.mark.parametrize(
    ("place", "name", "matches"),
    [
        ("r.example", "r.example/a", True),
        ("https://r.example", "r.example/a", True),
        ("https://r.example/v1/", "r.example/a", True),
        ("r.example/v2/", "r.example/a", True),
        ("r.example/team", "r.example/team/a", True),
        ("r.example/team", "r.example/other/a", False),
        ("r.example:5000", "r.example:5000/a", True),
        ("r.example", "r.example:5000/a", False),
        ("r.example:5000", "r.example/a", False),
        ("*.example", "r.example/a", True),
        ("*.example", "a.r.example/a", False),
        ("*.r.example:80", "x.r.example:80/a", True),
        ("r*.example", "r12.example/a", True),
        ("other.example", "r.example/a", False),
        ("https://index.docker.io/v1/", "docker.io/library/nginx", True),
        ("docker.io", "docker.io/library/nginx", True),
        ("https://index.docker.io/v1/", "r.example/nginx", False),
        ("http://[", "r.example/a", False),
    ],
)
def test_matching(place: str, name: str, matches: bool) -> None:
    assert bool(users(keyring(place), name)) is matches


def test_the_most_specific_is_first_and_all_are_tried() -> None:
    several = keyring("r.example", "r.example/team/app", "*.example", "r.example/team", "x.example")
    assert users(several, "r.example/team/app") == ["r.example/team/app", "r.example/team", "r.example", "*.example"]


def test_two_secrets_for_one_place_keep_their_order() -> None:
    first, second = Credential("first"), Credential("second")
    assert Keyring((("r.example", first), ("r.example", second))).lookup("r.example/a") == [first, second]


def test_forms_of_an_entry() -> None:
    auth = base64.b64encode(b"user:pass:word").decode()
    found = auths_of(
        {"a": {"auth": auth}, "b": {"identitytoken": "t"}, "c": {"registrytoken": "r"}, "d": {}, "e": {"email": "x@y"}}
    )
    assert [(c.username, c.password, c.identity_token, c.registry_token) for _, c in found.entries] == [
        ("user", "pass:word", "", ""),
        ("", "", "t", ""),
        ("", "", "", "r"),
    ]


LONG = "x" * 120
WRAPPED = base64.encodebytes(f"u:{LONG}".encode()).decode()


@pytest.mark.parametrize(
    ("auth", "password"),
    [
        ("dTpwdw==", "pw"),
        ("dTpwdw", "pw"),
        ("dTpwdw==\n", "pw"),
        ("dTpwdw\r\n", "pw"),
        ("dT\npwd\nw=\n=", "pw"),
        (WRAPPED, LONG),
        (WRAPPED.rstrip("=\n"), LONG),
        ("dTo/Pz8+", "???>"),
        ("dTpw/w", "p\udcff"),
    ],
)
def test_an_auth_is_decoded_as_go_does_it(auth: str, password: str) -> None:
    ((_, found),) = auths_of({"r.example": {"auth": auth}}).entries
    assert (found.username, found.password) == ("u", password)


@pytest.mark.parametrize(
    "auth", ["dTpwdw=", "dTpwdw===", "dTpwd", "dTpwdw==x", "dTo_Pz8-", " dTpwdw==", "dTpw dw", "="]
)
def test_an_auth_that_go_does_not_decode(auth: str) -> None:
    with pytest.raises(
        ArtifactError, match=r"auth of 'r.example' is not USER:PASSWORD in base64 \(the standard alphabet"
    ):
        auths_of({"r.example": {"auth": auth}})


def test_secrets_are_not_shown() -> None:
    assert "hidden" not in repr(Credential("me", "hidden", "hidden", "hidden"))
    with pytest.raises(ArtifactError) as error:
        auths_of({"r.example": {"auth": base64.b64encode(b"hidden").decode()}})
    assert "hidden" not in str(error.value)
    assert base64.b64encode(b"hidden").decode() not in str(error.value)


def secret(kind: str, key: str, content: Any, uid: str = "u1") -> dict[str, Any]:
    data = content if isinstance(content, str) else base64.b64encode(json.dumps(content).encode()).decode()
    return {"type": kind, "metadata": {"uid": uid}, "data": {key: data}}


ENTRY = {"r.example": {"username": "me", "password": "p"}}


def test_both_types_of_secret() -> None:
    found = pull_secrets(
        "ns",
        ["old", "new"],
        {
            "old": secret("kubernetes.io/dockercfg", ".dockercfg", ENTRY),
            "new": secret("kubernetes.io/dockerconfigjson", ".dockerconfigjson", {"auths": ENTRY}, "u2"),
        },
    )
    assert found.warnings == ()
    old, new = (credential.secret for credential in found.keyring.lookup("r.example/a"))
    assert old is not None
    assert new is not None
    assert [(one.namespace, one.name, one.uid) for one in (old, new)] == [("ns", "old", "u1"), ("ns", "new", "u2")]
    assert old.credential == new.credential
    assert len(old.credential) == 64


def test_names_of_fields_are_read_in_any_case() -> None:
    """As Go's encoding/json has it; of two with one name the last counts, and objects are added to each other."""
    auths = {"r.example": {"UserName": "no", "username": "me", "PASSWORD": "p", "password": None}}
    content = {"AUTHS": auths, "auths": {"other.example": {"Auth": base64.b64encode(b"you:q").decode()}}}
    new = secret("kubernetes.io/dockerconfigjson", ".dockerconfigjson", content)
    found = pull_secrets("ns", ["new"], {"new": new})
    assert found.warnings == ()
    shown = [
        (c.username, c.password) for name in ("r.example/a", "other.example/a") for c in found.keyring.lookup(name)
    ]
    assert shown == [("me", "p"), ("you", "q")]


def test_names_of_fields_of_the_file_are_read_in_any_case(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"Auths": ENTRY, "CredHelpers": {"h.example": "h"}, "CREDSSTORE": "s"}))
    config = docker_config(file)
    assert (users(config.auths, "r.example/a"), config.helpers, config.store) == (["me"], {"h.example": "h"}, "s")


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (secret("Opaque", ".dockercfg", ENTRY), "found Opaque"),
        (secret("kubernetes.io/dockercfg", "other", ENTRY), "no key .dockercfg"),
        (secret("kubernetes.io/dockercfg", ".dockercfg", "%"), "not JSON in base64"),
        (secret("kubernetes.io/dockercfg", ".dockercfg", "aGlkZGVu"), "not JSON in base64"),
        (secret("kubernetes.io/dockercfg", ".dockercfg", [1]), "no object"),
        (secret("kubernetes.io/dockerconfigjson", ".dockerconfigjson", {"auths": [1]}), "no object"),
        (secret("kubernetes.io/dockercfg", ".dockercfg", {"r.example": "hidden"}), "no object with username"),
    ],
)
def test_a_secret_that_cannot_be_used_is_a_warning_and_the_rest_is_used(raw: Any, why: str) -> None:
    good = secret("kubernetes.io/dockercfg", ".dockercfg", ENTRY)
    found = pull_secrets("ns", ["bad", "good", "none"], {"good": good, "bad": raw})
    assert found.missing == ("none",)
    assert users(found.keyring, "r.example/a") == ["me"]
    (warning,) = found.warnings
    assert why in warning
    assert "ns/bad" in warning
    assert "hidden" not in warning


def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    program = tmp_path / "docker-credential-test"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


async def test_a_helper_is_asked_for_its_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(tmp_path, monkeypatch, 'read -r server; printf \'{"Username":"of %s","Secret":"s"}\' "$server"')
    config = DockerConfig(keyring("r.example", "other.example"), {"r.example": "test"})
    assert await config.credentials("r.example/a") == [Credential("of r.example", "s")]
    assert [c.username for c in await config.credentials("other.example/a")] == ["other.example"]
    everywhere = DockerConfig(store="test")
    assert await everywhere.credentials("docker.io/library/a") == [Credential("of https://index.docker.io/v1/", "s")]


async def test_a_helper_that_has_nothing_leaves_it_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(tmp_path, monkeypatch, "echo credentials not found in native keychain; exit 1")
    config = DockerConfig(keyring("r.example"), store="test")
    assert [c.username for c in await config.credentials("r.example/a")] == ["r.example"]


async def test_a_helper_that_answers_in_small_letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(tmp_path, monkeypatch, 'echo \'{"username":"me","SECRET":"s"}\'')
    assert await DockerConfig(store="test").credentials("r.example/a") == [Credential("me", "s")]


async def test_a_helper_that_has_an_identity_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(tmp_path, monkeypatch, 'echo \'{"Username":"<token>","Secret":"s"}\'')
    assert await DockerConfig(store="test").credentials("r.example/a") == [Credential(identity_token="s")]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("echo hidden; exit 3", "failed with status 3"),
        ("echo hidden", "did not answer with a Username"),
        ("echo '[1]'", "did not answer with a Username"),
        ('echo \'{"Username":1,"Secret":"hidden"}\'', "that are text"),
        ("exec sleep 1000", "did not answer within"),
        ("exec cat /dev/zero", "more than 262144 bytes"),
    ],
)
async def test_a_helper_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, why: str) -> None:
    helper(tmp_path, monkeypatch, body)
    with pytest.raises(ArtifactError, match=why) as error:
        await DockerConfig(store="test", seconds=1 if "sleep" in body else 30).credentials("r.example/a")
    assert "hidden" not in str(error.value)


async def test_a_helper_that_is_not_there() -> None:
    with pytest.raises(ArtifactError, match="docker-credential-nonesuch cannot be run"):
        await DockerConfig(store="nonesuch").credentials("r.example/a")
    with pytest.raises(ArtifactError, match="expected letters"):
        await DockerConfig(store="../evil").credentials("r.example/a")


async def test_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert docker_config() == DockerConfig()
    content = {"auths": ENTRY, "credHelpers": {"h.example": "h"}, "credsStore": "", "HttpHeaders": {"a": "b"}}
    (tmp_path / "config.json").write_text(json.dumps(content))
    config = docker_config()
    assert [c.username for c in await Keychains((config,)).credentials("r.example/a")] == ["me"]
    assert config.helpers == {"h.example": "h"}


@pytest.mark.parametrize(
    ("content", "why"),
    [("x", "is not JSON"), ("[]", "expected an object"), ('{"auths":[1]}', "auths"), ('{"auths":{"a":1}}', "'a'")],
)
def test_a_file_that_is_wrong_is_named(tmp_path: Path, content: str, why: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(content)
    with pytest.raises(ArtifactError, match=why) as error:
        docker_config(file)
    assert str(file) in str(error.value)
