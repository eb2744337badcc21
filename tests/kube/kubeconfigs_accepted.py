"""Kubeconfigs that kubectl accepts."""

from __future__ import annotations

import json
import os

from tests.kube.judge import (
    V1BETA1,
    credential,
    issued,
    jwt,
    plugged,
)
from tests.kube.kubeconfigs import (
    Row,
    b64,
    first_wins,
    given,
    pair,
    pair_files,
    proxied,
    relative_to_its_own,
    split,
    token_file,
    told,
    wrapped,
)

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
