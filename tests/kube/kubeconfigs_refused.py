"""Kubeconfigs that kubectl refuses."""

from __future__ import annotations

import json

from tests.kube.judge import (
    V1BETA1,
    credential,
    issued,
    jwt,
    plugged,
)
from tests.kube.kubeconfigs import Row, b64, given, pair, pair_files, token_file

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
