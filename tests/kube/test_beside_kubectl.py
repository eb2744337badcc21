"""One table of kubeconfigs and surroundings: kubectl is the judge of each, and wasmlet means the same by it."""

from __future__ import annotations

import base64
import http.server
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.kube.judge import (
    V1BETA1,
    At,
    Pki,
    Server,
    credential,
    environment,
    issued,
    jwt,
    kubectl_says,
    plugged,
    wasmlet_says,
)
from wasmlet.kube import load_identity

Row = Callable[[At], Mapping[str, Any] | str | bytes | None]
"""Makes a kubeconfig, or sets up the environment and returns None."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(Pki.made(), tmp_path_factory.mktemp("server")).serving() as serving:
        yield serving


@pytest.fixture(scope="module")
def other() -> Pki:
    return Pki.made()


@pytest.fixture
def at(tmp_path: Path, server: Server, other: Pki) -> At:
    return At(tmp_path, server, other)


def settled(at: At, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of both callers, which becomes this process's."""
    env = environment(at.env, at.directory)
    for name in os.environ.keys() - env.keys():
        monkeypatch.delenv(name)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    return env


async def both(at: At, row: Row, kubectl: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[bool, bool, str]:
    """Whether kubectl and wasmlet reach the server by a row; where both do, the server saw the same caller."""
    made = row(at)
    kubeconfig = at.file("kubeconfig", made) if made is not None else None
    env = settled(at, monkeypatch)
    at.server.seen.clear()
    judged, why = await kubectl_says(kubectl, kubeconfig, env)
    by_kubectl = at.server.seen[-1:]
    at.server.seen.clear()
    if kubeconfig is not None and made is not None:
        at.file("kubeconfig", made)  # kubectl writes what an issuer has given it
    found, error = await wasmlet_says(kubeconfig)
    assert "\n" not in error
    if judged and found:
        assert at.server.seen[-1:] == by_kubectl
    return judged, found, f"kubectl: {why}\nwasmlet: {error}"


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def wrapped(text: str) -> str:
    return "\n".join(text[start : start + 64] for start in range(0, len(text), 64)) + "\n"


def pair(at: At, **more: str) -> dict[str, str]:
    pki = at.server.pki
    return {"client-certificate-data": b64(pki.certificate), "client-key-data": b64(pki.key), **more}


def pair_files(at: At) -> dict[str, str]:
    at.file("c.pem", at.server.pki.certificate)
    at.file("k.pem", at.server.pki.key)
    return {"client-certificate": "c.pem", "client-key": "k.pem"}


def token_file(at: At, content: str | bytes, **more: str) -> dict[str, Any]:
    at.file("secrets/token", content)
    return at.config({"tokenFile": "secrets/token", **more})


def listed(at: At, *parts: str) -> None:
    """KUBECONFIG with these parts, where they are not empty files of the row's directory."""
    at.env["KUBECONFIG"] = ":".join(str(at.directory / part) if part else "" for part in parts)


def split(at: At) -> None:
    full = at.config()
    at.file("one", {name: full[name] for name in ("contexts", "current-context")})
    at.file("two/rest", {name: full[name] for name in ("clusters", "users")})
    listed(at, "one", "two/rest")


def first_wins(at: At) -> None:
    at.file("one", at.config({"token": "good"}))
    at.file("two", at.config({"token": "bad"}, {"server": "https://127.0.0.1:1"}, current_context="nowhere"))
    listed(at, "one", "two", "one")


def relative_to_its_own(at: At) -> None:
    at.file("a/token", "bad")
    at.file("b/token", "good")
    full = at.config({"tokenFile": "token"})
    at.file("a/one", {name: full[name] for name in ("clusters", "contexts", "current-context")})
    at.file("b/two", {"users": full["users"]})
    listed(at, "a/one", "b/two")


def given(at: At, *parts: str, **files: Any) -> None:
    for name, content in files.items():
        at.file(name, content)
    listed(at, *parts)


GOOD: dict[str, Row] = {
    "a token": lambda at: at.config(),
    "a certificate": lambda at: at.config(pair(at)),
    "a certificate in files beside the kubeconfig": lambda at: at.config(pair_files(at)),
    "a certificate and a token": lambda at: at.config(pair(at, token="good")),
    "a key without a certificate is passed over": lambda at: at.config({"token": "good", "client-key": "/nowhere"}),
    "empty data hides no file": lambda at: at.config(
        {**pair_files(at), "client-certificate-data": "", "client-key-data": ""}
    ),
    "null data hides no file": lambda at: at.config(
        {**pair_files(at), "client-certificate-data": None, "client-key-data": None}
    ),
    "an empty CA data hides no CA file": lambda at: at.config(
        None,
        {
            "certificate-authority": str(at.file("ca/ca.pem", at.server.pki.authority)),
            "certificate-authority-data": "",
        },
    ),
    "a relative CA file": lambda at: (
        at.file("ca/ca.pem", at.server.pki.authority),
        at.config(None, {"certificate-authority": "ca/ca.pem", "certificate-authority-data": ...}),
    )[1],
    "base64 with line breaks": lambda at: at.config(
        {name: wrapped(value) for name, value in pair(at).items()},
        {"certificate-authority-data": wrapped(at.authority)},
    ),
    "a CA with text around it and a broken one before it": lambda at: at.config(
        None,
        {
            "certificate-authority-data": b64(
                b"# caf\xc3\xa9\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
                + at.server.pki.authority
            )
        },
    ),
    "the server's own certificate as its CA": lambda at: at.config(
        None, {"certificate-authority-data": b64(at.server.pki.server.partition(b"-----BEGIN PRIVATE")[0])}
    ),
    "a token file": lambda at: token_file(at, "good"),
    "a token file that ends in a newline": lambda at: token_file(at, "good\n"),
    "a token file with CRLF and spaces": lambda at: token_file(at, " \tgood \r\n\r\n"),
    "a token file before a token": lambda at: token_file(at, "good\n", token="bad"),
    "a token where its file is missing": lambda at: at.config({"token": "good", "tokenFile": "/nowhere/token"}),
    "a token where its file is empty": lambda at: token_file(at, "\n", token="good"),
    "a token with a space at its end": lambda at: at.config({"token": "good "}),
    "a name and a password": lambda at: at.config({"username": "alice", "password": "secret"}),
    "a name and a password in the URL": lambda at: at.config(
        {"token": "bad"}, {"server": at.server.url.replace("//", "//alice:secret@")}
    ),
    "as": lambda at: at.config({"token": "good", "as": "system:node:n", "as-groups": ["system:nodes", "b"]}),
    "as with all that belongs to it": lambda at: at.config(
        {
            "token": "good",
            "as": "jane",
            "as-uid": "17",
            "as-groups": ["g"],
            "as-user-extra": {"reason": ["one", "two"], "Acme.com/Project 1%": ["x"]},
        }
    ),
    "tls-server-name": lambda at: at.config(
        None, {"server": at.server.url.replace("127.0.0.1", "localhost"), "tls-server-name": "api.test"}
    ),
    "insecure": lambda at: at.config(
        None,
        {"certificate-authority-data": ..., "insecure-skip-tls-verify": True, "tls-server-name": "other.test"},
    ),
    "HTTPS:// and a slash at the end": lambda at: at.config(
        None, {"server": at.server.url.replace("https", "HTTPS") + "/"}
    ),
    "a path before the API": lambda at: at.config(None, {"server": at.server.url + "/k8s/clusters/c-1/"}),
    "fields that nobody knows": lambda at: at.config(
        {"token": "good", "colour": 1}, {"colour": True}, preferences={"colors": True}, extensions=[], more={"x": 1}
    ),
    "null wherever it may stand": lambda at: at.config(
        {"token": "good", "username": None, "exec": None, "as": None, "as-groups": None, "auth-provider": None},
        {"insecure-skip-tls-verify": None, "tls-server-name": None, "proxy-url": None, "extensions": None},
        preferences=None,
        apiVersion=None,
        kind=None,
    ),
    "no apiVersion and no kind": lambda at: at.config(apiVersion=..., kind=...),
    "JSON": lambda at: json.dumps(at.config()),
    "JSON indented with tabs": lambda at: json.dumps(at.config(), indent="\t"),
    "YAML with tabs where they may stand": lambda at: (
        f"clusters:\n- name: k\n  cluster:\n    server:\t{at.server.url}\t# a comment\n"
        f"    certificate-authority-data: {at.authority}\nusers: [\n\t{{name: u, user: {{token:\tgood}}}}]\n"
        "contexts:\n- name: c\n  context: {cluster: k, user: u}\ncurrent-context: c\n"
    ),
    "the first of two documents": lambda at: json.dumps(at.config()) + "\n---\nclusters: []\n",
    "names that look like dates and times": lambda at: (
        at.config(contexts=[{"name": "c", "context": {"cluster": "k", "user": "u"}}], current_context="c")
        | {
            "contexts": [{"name": "@1", "context": {"cluster": "k", "user": "u"}}],
            "current-context": "@1",
        }
    ),
    "a date and a time as names, without quotes": lambda at: (
        json.dumps(at.config()).replace('"c"', "2024-01-02").replace('"u"', "12:30:45")
    ),
    "an alias": lambda at: (
        f"x: &u {{token: good}}\nclusters: [{{name: k, cluster: {{server: '{at.server.url}', "
        f"certificate-authority-data: {at.authority}}}}}]\nusers: [{{name: u, user: *u}}]\n"
        "contexts: [{name: c, context: {cluster: k, user: u}}]\ncurrent-context: c\n"
    ),
    "a byte order mark": lambda at: b"\xef\xbb\xbf" + json.dumps(at.config()).encode(),
    "UTF-16": lambda at: f"# config\n{json.dumps(at.config())}".encode("utf-16"),
    "other entries that make no sense": lambda at: at.config(
        clusters=[
            *at.config()["clusters"],
            {"name": "empty"},
            {"name": "both", "cluster": {"certificate-authority": "/nowhere"}},
        ],
        users=[*at.config()["users"], {"name": "odd", "user": {"client-certificate": "/nowhere"}}, {"name": "none"}],
        contexts=[*at.config()["contexts"], {"name": "odd", "context": {"cluster": "x"}}, {"name": "none"}],
    ),
    "KUBECONFIG with one file": lambda at: given(at, "good", good=at.config()),
    "KUBECONFIG: parts in two files": split,
    "KUBECONFIG: the first is missing": lambda at: given(at, "nowhere/x", "good", good=at.config()),
    "KUBECONFIG: empty parts": lambda at: given(at, "", "good", "", good=at.config()),
    "KUBECONFIG: an empty file, one of comments, one of spaces": lambda at: given(
        at, "empty", "comments", "spaces", "good", empty="", comments="# nothing\n", spaces=" \n\n", good=at.config()
    ),
    "KUBECONFIG: the first that has a name wins": first_wins,
    "KUBECONFIG: paths are relative to their own file": relative_to_its_own,
    "KUBECONFIG is empty: the file at home": lambda at: (
        given(at, "", **{".kube/config": at.config()}) or at.env.update(KUBECONFIG="")
    ),
    "without KUBECONFIG: the file at home": lambda at: at.file(".kube/config", at.config()) and None,
    "a plugin": lambda at: at.config(plugged(at.says(credential(token="good")))),
    "a plugin beside the kubeconfig": lambda at: at.says(credential(token="good"), "p") and at.config(plugged("./p")),
    "a plugin below the kubeconfig": lambda at: (
        at.says(credential(token="good"), "sub/p") and at.config(plugged("sub/p"))
    ),
    "a plugin above the kubeconfig's directory": lambda at: (
        at.says(credential(token="good"), "p") and at.config(plugged(f"../{at.directory.name}/p"))
    ),
    "a plugin on PATH": lambda at: (
        at.says(credential(token="good"), "bin/some-plugin"),
        at.env.update(PATH=f"{at.directory / 'bin'}:{os.environ['PATH']}"),
        at.config(plugged("some-plugin", env=[{"name": "PATH", "value": os.environ["PATH"]}])),
    )[2],
    "a plugin's arguments and variables": lambda at: at.config(
        plugged(
            at.plugin('[ "$1" = "a b" ] && [ -z "$2" ] && [ "$X" = "y z" ] && cat "$CREDENTIAL"'),
            args=["a b", ""],
            env=[
                {"name": "X", "value": "y z"},
                {"name": "CREDENTIAL", "value": str(at.file("c", json.dumps(credential(token="good"))))},
            ],
        )
    ),
    "a plugin without arguments and variables": lambda at: at.config(
        plugged(at.says(credential(token="good")), args=None, env=None, installHint=None)
    ),
    "a plugin of v1beta1": lambda at: at.config(
        plugged(at.says(credential(V1BETA1, token="good")), apiVersion=V1BETA1, interactiveMode=...)
    ),
    "a plugin that would like a terminal": lambda at: at.config(
        plugged(at.says(credential(token="good")), interactiveMode="IfAvailable")
    ),
    "a plugin's certificate": lambda at: at.config(
        plugged(
            at.says(
                credential(
                    clientCertificateData=at.server.pki.certificate.decode(),
                    clientKeyData=at.server.pki.key.decode(),
                )
            )
        )
    ),
    "a plugin's token and certificate": lambda at: at.config(
        plugged(
            at.says(
                credential(
                    token="good",
                    clientCertificateData=at.server.pki.certificate.decode(),
                    clientKeyData=at.server.pki.key.decode(),
                )
            )
        )
    ),
    "a plugin with much to say": lambda at: at.config(
        plugged(
            at.plugin(
                "head -c 400000 /dev/zero | tr '\\0' x >&2\n"
                f"cat {at.file('answer', json.dumps(credential(token='good')))}\n"
                "head -c 400000 /dev/zero | tr '\\0' x >&2"
            )
        )
    ),
    "a plugin that answers in YAML": lambda at: at.config(
        plugged(at.says(f"kind: ExecCredential\napiVersion: {credential()['apiVersion']}\nstatus: {{token: good}}"))
    ),
    "a plugin whose credentials end later": lambda at: at.config(
        plugged(at.says(credential(token="good", expirationTimestamp="2999-01-01T00:00:00.123456789+02:00")))
    ),
    "a plugin whose credentials have ended": lambda at: at.config(
        plugged(at.says(credential(token="good", expirationTimestamp="2001-01-01T00:00:00Z")))
    ),
    **{
        f"a plugin whose credentials end at {end}": (
            lambda at, end=end: at.config(plugged(at.says(credential(token="good", expirationTimestamp=end))))
        )
        for end in (
            "2030-01-01T00:00:00.5Z",
            "2030-01-01T00:00:00,5Z",
            "2030-01-01T1:00:00Z",
            "2030-01-01T00:00:00+24:00",
            "0001-01-01T00:00:00+02:00",
            "9999-12-31T23:59:59-02:00",
        )
    },
    "a plugin's credentials without an end": lambda at: at.config(
        plugged(at.says(credential(token="good", expirationTimestamp=None)))
    ),
    "a plugin that wants to know the cluster": lambda at: at.config(
        plugged(
            at.plugin(
                f"[ \"$KUBERNETES_EXEC_INFO\" = '{told(at)}' ] || exit 3\n"
                f"cat {at.file('answer', json.dumps(credential(token='good')))}"
            ),
            provideClusterInfo=True,
        ),
        {
            "tls-server-name": "api.test",
            "extensions": [
                {"name": "other", "extension": {"a": 1}},
                {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "x", "number": 1}},
            ],
        },
    ),
    "a plugin that need not know the cluster": lambda at: at.config(
        plugged(
            at.plugin(
                'case "$KUBERNETES_EXEC_INFO" in *\'"spec":{"interactive":false}\'*) '
                f"cat {at.file('answer', json.dumps(credential(token='good')))};; esac"
            )
        )
    ),
    "a plugin beside a token is not asked": lambda at: at.config({"token": "good", **plugged(at.plugin("exit 1"))}),
    "a plugin beside a certificate is not asked": lambda at: at.config({**pair(at), **plugged(at.plugin("exit 1"))}),
    "a provider of tokens beside a token is not asked": lambda at: at.config(
        {
            "token": "good",
            "auth-provider": {"name": "oidc", "config": {"idp-issuer-url": "https://x", "client-id": "wasmlet"}},
        }
    ),
    "an ID token": lambda at: at.config(issued(at, id_token=jwt(2999))),
    "an ID token that has ended is renewed": lambda at: at.config(
        issued(at, id_token=jwt(2001), refresh_token="refresh")
    ),
    "a first ID token": lambda at: at.config(issued(at, refresh_token="refresh", client_secret=...)),
    "an issuer whose CA is in a file": lambda at: at.config(
        issued(
            at,
            refresh_token="refresh",
            idp_certificate_authority=str(at.file("ca.pem", at.server.pki.authority)),
            idp_certificate_authority_data=...,
        )
    ),
    "loopback has no proxy": lambda at: proxied(at, HTTPS_PROXY="http://127.0.0.1:1"),
    "a proxy for servers without TLS": lambda at: proxied(at, HTTP_PROXY="http://127.0.0.1:1"),
    "ALL_PROXY is nobody's": lambda at: proxied(at, ALL_PROXY="http://127.0.0.1:1", all_proxy="http://127.0.0.1:1"),
}


def told(at: At) -> str:
    """What a plugin is told of the cluster."""
    cluster = {
        "server": at.server.url,
        "tls-server-name": "api.test",
        "certificate-authority-data": at.authority,
        "config": {"audience": "x", "number": 1},
    }
    spec = {"cluster": cluster, "interactive": False}
    info = {"kind": "ExecCredential", "apiVersion": credential()["apiVersion"], "spec": spec}
    return json.dumps(info, separators=(",", ":")) + "\n"


def proxied(at: At, **env: str) -> dict[str, Any]:
    at.env.update(env)
    return at.config()


BAD: dict[str, Row] = {
    "another CA": lambda at: at.config(None, {"certificate-authority-data": b64(at.other.authority)}),
    "the system's CAs": lambda at: at.config(None, {"certificate-authority-data": ...}),
    "another name": lambda at: at.config(None, {"tls-server-name": "other.test"}),
    "the certificate of another authority": lambda at: at.config(
        {
            "client-certificate-data": b64(at.other.certificate),
            "client-key-data": b64(at.other.key),
        }
    ),
    "the key of another certificate": lambda at: at.config(pair(at) | {"client-key-data": b64(at.other.key)}),
    "a certificate without a key": lambda at: at.config(
        {"token": "good", "client-certificate-data": b64(at.server.pki.certificate)}
    ),
    "a certificate file that is not there": lambda at: at.config(
        {"token": "good", "client-certificate": "/nowhere/c", "client-key": "/nowhere/k"}
    ),
    "a certificate in a file and in data": lambda at: at.config(pair_files(at) | pair(at)),
    "a CA in a file and in data": lambda at: at.config(
        None, {"certificate-authority": str(at.file("ca.pem", at.server.pki.authority))}
    ),
    "a CA file that is not there": lambda at: at.config(
        None, {"certificate-authority": "/nowhere/ca", "certificate-authority-data": ...}
    ),
    "an empty CA file": lambda at: at.config(
        None, {"certificate-authority": str(at.file("ca", "")), "certificate-authority-data": ...}
    ),
    "a CA that is none": lambda at: at.config(None, {"certificate-authority-data": b64(b"no certificate")}),
    "a CA and insecure": lambda at: at.config(None, {"insecure-skip-tls-verify": True}),
    "a CA file and insecure": lambda at: at.config(
        None,
        {
            "certificate-authority": str(at.file("ca.pem", at.server.pki.authority)),
            "certificate-authority-data": ...,
            "insecure-skip-tls-verify": True,
        },
    ),
    **{
        f"insecure-skip-tls-verify: {value!r}": (
            lambda at, value=value: at.config(
                None, {"certificate-authority-data": ..., "insecure-skip-tls-verify": value}
            )
        )
        for value in ("true", "false", "no", "", 0, 1, [], {})
    },
    "base64 that is none": lambda at: at.config(None, {"certificate-authority-data": "!!"}),
    "base64 without padding": lambda at: at.config(pair(at) | {"client-key-data": pair(at)["client-key-data"][:-3]}),
    "base64 with spaces": lambda at: at.config(None, {"certificate-authority-data": " " + at.authority}),
    "data that is no text": lambda at: at.config(None, {"certificate-authority-data": 5}),
    "a token that is a number": lambda at: at.config({"token": 12345}),
    "a token that is a boolean": lambda at: at.config({"token": True}),
    "a token that YAML takes for a number": lambda at: json.dumps(at.config()).replace('"good"', "12e5"),
    "a token with a newline": lambda at: at.config({"token": "good\n"}),
    "a token with a newline inside": lambda at: at.config({"token": "go\nod"}),
    "a token file with a newline inside": lambda at: token_file(at, "go\nod"),
    "an empty token file": lambda at: token_file(at, "\n"),
    "a token file that is not there": lambda at: at.config({"tokenFile": "nowhere"}),
    "a bad token file before a good token": lambda at: token_file(at, "bad", token="good"),
    "a token and a password": lambda at: at.config({"token": "good", "username": "alice", "password": "secret"}),
    "a token file and a password": lambda at: token_file(at, "good", username="alice", password="secret"),
    "groups without a user": lambda at: at.config({"token": "good", "as-groups": ["g"]}),
    "groups that are one text": lambda at: at.config({"token": "good", "as": "a", "as-groups": "g"}),
    "groups with a number": lambda at: at.config({"token": "good", "as": "a", "as-groups": [1]}),
    "a uid that is a number": lambda at: at.config({"token": "good", "as": "a", "as-uid": 7}),
    "extra that is no list": lambda at: at.config({"token": "good", "as": "a", "as-user-extra": {"k": "v"}}),
    "as with a newline": lambda at: at.config({"token": "good", "as": "a\nb"}),
    "no server": lambda at: at.config(None, {"server": ...}),
    "a server that is a number": lambda at: at.config(None, {"server": 1}),
    "a server without a scheme": lambda at: at.config(None, {"server": at.server.url.removeprefix("https://")}),
    "a server of another scheme": lambda at: at.config(None, {"server": "ftp://127.0.0.1:1"}),
    "no current-context": lambda at: at.config(current_context=...),
    "an empty current-context": lambda at: at.config(current_context=""),
    "a current-context that is not there": lambda at: at.config(current_context="other"),
    "a current-context that is a number": lambda at: at.config(current_context=1),
    "a cluster that is not there": lambda at: at.config(clusters=[]),
    "a user that is not there": lambda at: at.config(users=[]),
    "an empty context": lambda at: at.config(contexts=[{"name": "c"}]),
    "an empty cluster": lambda at: at.config(clusters=[{"name": "k"}]),
    "an empty user": lambda at: at.config(users=[{"name": "u"}]),
    "a name twice": lambda at: at.config(users=at.config()["users"] * 2),
    "a name that is a number": lambda at: at.config(contexts=[{"name": 1, "context": {}}]),
    "clusters that are no list": lambda at: at.config(clusters={}),
    "a context that is a text": lambda at: at.config(contexts=[{"name": "c", "context": "k"}]),
    "another apiVersion": lambda at: at.config(apiVersion="v2"),
    "another kind": lambda at: at.config(kind="Pod"),
    "a kind that is a number": lambda at: at.config(kind=3),
    "a namespace that is a number": lambda at: at.config(
        contexts=[{"name": "c", "context": {"cluster": "k", "user": "u", "namespace": 1}}]
    ),
    "another entry with a wrong type": lambda at: at.config(
        users=[*at.config()["users"], {"name": "other", "user": {"token": 1}}]
    ),
    "colors that are a text": lambda at: at.config(preferences={"colors": "true"}),
    "a list": lambda at: "[1, 2]",
    "words": lambda at: "just words",
    "broken YAML": lambda at: "{",
    "a tab before a key": lambda at: "apiVersion: v1\n\tkind: Config\n",
    "an empty file": lambda at: "",
    "KUBECONFIG: nothing is there": lambda at: given(at, "nowhere", "", "neither"),
    "KUBECONFIG: a file beside a good one is broken": lambda at: given(at, "good", "bad", good=at.config(), bad="{"),
    "KUBECONFIG: a directory beside a good file": lambda at: given(
        at, "good", "dir", **{"good": at.config(), "dir/x": ""}
    ),
    "KUBECONFIG: a later file does not help a user of the first": lambda at: given(
        at, "one", "two", one=at.config({}), two=at.config()
    ),
    "nothing at all": lambda at: None,
    "a plugin that is not there": lambda at: at.config(plugged("/nowhere/plugin")),
    "a plugin that is not on PATH": lambda at: at.config(plugged("no-such-plugin")),
    "a plugin that may not be run": lambda at: at.config(plugged(str(at.file("p", "#!/bin/sh\n")))),
    "a plugin that is no program": lambda at: (
        at.file("p", "words").chmod(0o755),
        at.config(plugged("./p")),
    )[1],
    "a plugin without a command": lambda at: at.config(plugged("")),
    "a plugin without a version": lambda at: at.config(plugged(at.says(credential(token="good")), apiVersion=...)),
    "a plugin of v1alpha1": lambda at: at.config(
        plugged(at.says(credential(token="good")), apiVersion=V1BETA1.replace("beta", "alpha"))
    ),
    "a plugin of v1 without interactiveMode": lambda at: at.config(
        plugged(at.says(credential(token="good")), interactiveMode=...)
    ),
    "a plugin of another interactiveMode": lambda at: at.config(
        plugged(at.says(credential(token="good")), interactiveMode="Sometimes")
    ),
    "a plugin that needs a terminal": lambda at: at.config(
        plugged(at.says(credential(token="good")), interactiveMode="Always")
    ),
    "a plugin's variable without a name": lambda at: at.config(
        plugged(at.says(credential(token="good")), env=[{"value": "x"}])
    ),
    "a plugin's argument that is a number": lambda at: at.config(plugged(at.says(credential(token="good")), args=[1])),
    "a plugin's provideClusterInfo that is a text": lambda at: at.config(
        plugged(at.says(credential(token="good")), provideClusterInfo="true")
    ),
    "a plugin that fails": lambda at: at.config(plugged(at.says(credential(token="good")) and at.plugin("exit 3"))),
    "a plugin that is killed": lambda at: at.config(plugged(at.plugin("kill -9 $$"))),
    "a plugin that says nothing": lambda at: at.config(plugged(at.plugin("true"))),
    "a plugin that says no JSON": lambda at: at.config(plugged(at.says("{"))),
    "a plugin that says a list": lambda at: at.config(plugged(at.says("[]"))),
    "a plugin that answers in another version": lambda at: at.config(
        plugged(at.says(credential(V1BETA1, token="good")))
    ),
    "a plugin that answers with another kind": lambda at: at.config(
        plugged(at.says(credential(token="good") | {"kind": "Pod"}))
    ),
    "a plugin without a status": lambda at: at.config(plugged(at.says(credential() | {"status": None}))),
    "a plugin with an empty status": lambda at: at.config(plugged(at.says(credential()))),
    "a plugin's token that is a number": lambda at: at.config(plugged(at.says(credential(token=1)))),
    "a plugin's token with a newline": lambda at: at.config(plugged(at.says(credential(token="good\n")))),
    "a plugin's certificate without its key": lambda at: at.config(
        plugged(at.says(credential(token="good", clientCertificateData=at.server.pki.certificate.decode())))
    ),
    "a plugin's certificate that is none": lambda at: at.config(
        plugged(at.says(credential(token="good", clientCertificateData="x", clientKeyData="y")))
    ),
    "a plugin's end that is a date": lambda at: at.config(
        plugged(at.says(credential(token="good", expirationTimestamp="2999-01-01")))
    ),
    **{
        f"a plugin whose credentials end at {end}": (
            lambda at, end=end: at.config(plugged(at.says(credential(token="good", expirationTimestamp=end))))
        )
        for end in (
            "2030-01-01T00:00:00",
            "2030-01-01t00:00:00z",
            "2030-01-01 00:00:00Z",
            "2030-01-01T00:00:00+0200",
            "2030-13-01T00:00:00Z",
            "2030-01-01T24:00:00Z",
        )
    },
    "a plugin's answer with more behind it": lambda at: at.config(
        plugged(at.says(json.dumps(credential(token="good")) + "{}"))
    ),
    "extensions that are no list": lambda at: at.config({"token": "good", "extensions": {}}),
    "an extension twice": lambda at: at.config(None, {"extensions": [{"name": "a", "extension": {"b": 1}}] * 2}),
    "a space before the server": lambda at: at.config(None, {"server": " " + at.server.url}),
    "a plugin's end that is a number": lambda at: at.config(
        plugged(at.says(credential(token="good", expirationTimestamp=32472144000)))
    ),
    "a plugin's end that is empty": lambda at: at.config(
        plugged(at.says(credential(token="good", expirationTimestamp="")))
    ),
    "a plugin and a provider": lambda at: at.config(
        {**plugged(at.says(credential(token="good"))), "auth-provider": {"name": "oidc", "config": {}}}
    ),
    "a provider that is no more": lambda at: at.config({"auth-provider": {"name": "gcp", "config": {}}}),
    "a provider that nobody knows": lambda at: at.config({"auth-provider": {"name": "x"}}),
    "a provider without its fields": lambda at: at.config({"auth-provider": {"name": "oidc", "config": {}}}),
    "an ID token that has ended and no other": lambda at: at.config(issued(at, id_token=jwt(2001))),
    "an ID token that is none": lambda at: at.config(issued(at, id_token="x.y")),
    "a refresh token that is not accepted": lambda at: at.config(issued(at, refresh_token="other")),
    "an issuer of another authority": lambda at: at.config(
        issued(at, refresh_token="refresh", idp_certificate_authority_data=b64(at.other.authority))
    ),
    "an issuer whom nobody vouches for": lambda at: at.config(
        issued(at, refresh_token="refresh", idp_certificate_authority_data=...)
    ),
    "a proxy of the kubeconfig stands before loopback": lambda at: at.config(None, {"proxy-url": "http://127.0.0.1:1"}),
    "a proxy of the kubeconfig that is no URL": lambda at: at.config(None, {"proxy-url": "127.0.0.1:3128"}),
    "a proxy of the kubeconfig of another scheme": lambda at: at.config(None, {"proxy-url": "gopher://127.0.0.1:1"}),
    "a SOCKS proxy of the kubeconfig that is not there": lambda at: at.config(
        None, {"proxy-url": "socks5://127.0.0.1:1"}
    ),
}


PROXIED = [
    # server, NO_PROXY, whether the proxy is used
    ("https://192.0.2.7:6443", "", True),
    ("https://192.0.2.7:6443", "192.0.2.7", False),
    ("https://192.0.2.7:6443", "192.0.2.8", True),
    ("https://192.0.2.7:6443", "192.0.2.0/24", False),
    ("https://192.0.2.7:6443", "192.0.2.99/24", False),
    ("https://192.0.2.7:6443", "10.0.0.0/8, 192.0.2.4/30", False),
    ("https://192.0.2.7:6443", "192.0.2.8/29", True),
    ("https://192.0.2.7:6443", "0.0.0.0/0", False),
    ("https://192.0.2.7:6443", "::ffff:192.0.2.7", False),
    ("https://192.0.2.7:6443", "192.0.2.0/255.255.255.0", True),
    ("https://192.0.2.7:6443", "192.0.2.0/33", True),
    ("https://192.0.2.7:6443", "192.0.2.", True),
    ("https://192.0.2.7:6443", ".0.2.7", True),
    ("https://192.0.2.7:6443", "192.0.2.*", True),
    ("https://192.0.2.7:6443", "192.0.2.7:6443", False),
    ("https://192.0.2.7:6443", "192.0.2.7:", False),
    ("https://192.0.2.7:6443", "192.0.2.7:443", True),
    ("https://192.0.2.7", "192.0.2.7:443", False),
    ("https://192.0.2.7:6443", ":6443", True),
    ("https://192.0.2.7:6443", "*", False),
    ("https://192.0.2.7:6443", "x, * ,y", False),
    ("https://[2001:db8::7]:6443", "2001:db8::/32", False),
    ("https://[2001:db8::7]:6443", "2001:DB8:0::7", False),
    ("https://[2001:db8::7]:6443", "[2001:db8::7]:6443", False),
    ("https://[2001:db8::7]:6443", "[2001:db8::7]:443", True),
    ("https://[2001:db8::7]:6443", "[2001:db8::7]", True),
    ("https://[2001:db8::7]:6443", "10.0.0.0/8", True),
    ("https://api.k8s.invalid:6443", "k8s.invalid", False),
    ("https://api.k8s.invalid:6443", ".k8s.invalid", False),
    ("https://api.k8s.invalid:6443", "*.k8s.invalid", False),
    ("https://api.k8s.invalid:6443", "API.K8S.invalid:6443", False),
    ("https://api.k8s.invalid:6443", "api.k8s.invalid:443", True),
    ("https://api.k8s.invalid:6443", ".api.k8s.invalid", True),
    ("https://api.k8s.invalid:6443", "*.api.k8s.invalid", True),
    ("https://api.k8s.invalid:6443", "8s.invalid", True),
    ("https://api.k8s.invalid:6443", "*k8s.invalid", True),
    ("https://api.k8s.invalid:6443", "0.0.0.0/0", True),
    ("https://api.k8s.invalid:6443", "k8s.invalid other.invalid", True),
    ("https://api.k8s.invalid:6443", ". , .., *.,", True),
    ("https://127.9.9.9:6443", "", False),
    ("https://[::1]:6443", "", False),
    ("https://[::ffff:127.0.0.1]:6443", "", False),
    ("https://localhost:6443", "", False),
    ("https://api.localhost:6443", "", True),
]


@pytest.fixture(scope="module")
def proxy() -> Iterator[tuple[str, list[str]]]:
    """HOST:PORT of a proxy that refuses everybody, and whom it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            asked.append(self.path)
            self.send_error(502)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"127.0.0.1:{serving.server_port}", asked
        serving.shutdown()
        thread.join()


@pytest.mark.parametrize(("server_url", "no_proxy", "expected"), PROXIED)
async def test_who_is_reached_by_way_of_the_proxy(
    server_url: str,
    no_proxy: str,
    expected: bool,
    at: At,
    kubectl: Path,
    proxy: tuple[str, list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address, asked = proxy
    kubeconfig = at.file("kubeconfig", at.config(None, {"server": server_url}))
    at.env.update(HTTPS_PROXY=address, https_proxy="http://127.0.0.1:1", no_proxy=no_proxy)
    env = settled(at, monkeypatch)
    asked.clear()
    await kubectl_says(kubectl, kubeconfig, env, seconds=1)
    assert bool(asked) is expected
    assert ((await load_identity(kubeconfig)).proxy is not None) is expected


@pytest.mark.parametrize("name", GOOD)
async def test_what_kubectl_accepts(name: str, at: At, kubectl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged, found, why = await both(at, GOOD[name], kubectl, monkeypatch)
    assert (judged, found) == (True, True), why


@pytest.mark.parametrize("name", BAD)
async def test_what_kubectl_refuses(name: str, at: At, kubectl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged, found, why = await both(at, BAD[name], kubectl, monkeypatch)
    assert (judged, found) == (False, False), why
