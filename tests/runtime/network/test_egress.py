"""Whom a pod may dial: the grammar of its annotations and of --egress-max."""

from __future__ import annotations

import ipaddress
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmlet.errors import ConfigError, Refused
from wasmlet.model.pod import Pod
from wasmlet.runtime.network import egress
from wasmlet.runtime.network.config import ceiling_of
from wasmlet.worker.grants import Rule

LABEL = st.from_regex(r"\A[a-z_]([-a-z0-9_]{0,20}[a-z0-9])?\Z")
MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
NAMES = st.lists(LABEL, min_size=1, max_size=6).map(".".join)
HOSTS = st.one_of(
    NAMES.map(lambda name: {"name": name}),
    NAMES.map(lambda name: {"name": f"*.{name}"}),
    st.ip_addresses()
    .flatmap(lambda ip: st.integers(0, ip.max_prefixlen).map(lambda n: ipaddress.ip_network((ip, n), strict=False)))
    .filter(lambda network: not (network.version == 6 and network.subnet_of(MAPPED)))  # rules have the form of IPv4
    .map(lambda network: {"cidr": str(network)}),
    st.just({"name": "*"}),
)
PORTS = st.tuples(st.integers(1, 65535), st.integers(1, 65535)).map(sorted)
RULES = st.builds(lambda host, ports: Rule(**host, first=ports[0], last=ports[1]), HOSTS, PORTS)


def pod_with(**annotations: str) -> Pod:
    names = {"egress": egress.ANNOTATION, "krustlet": egress.KRUSTLET_ANNOTATION}
    found = {names[name]: text for name, text in annotations.items()}
    return Pod({"metadata": {"namespace": "default", "name": "p", "uid": "u", "annotations": found}, "spec": {}})


def entry(rule: Rule) -> str:
    """The text that is read as this rule."""
    if rule == egress.EVERYTHING:
        return "*"
    host = f"[{rule.cidr}]" if ":" in rule.cidr else rule.cidr or rule.name
    if (rule.first, rule.last) == (1, 65535):
        return f"{host}:*"
    return f"{host}:{rule.first}" if rule.first == rule.last else f"{host}:{rule.first}-{rule.last}"


@given(st.lists(RULES, min_size=1, max_size=20))
def test_what_is_written_is_read_again(rules: list[Rule]) -> None:
    assert egress.parse(", ".join(map(entry, rules))) == tuple(rules)


@given(st.text(max_size=200))
def test_any_text_is_rules_or_an_error_in_words(text: str) -> None:
    for read in (egress.parse, egress.parse_origins):
        rules: tuple[Rule, ...] = ()
        said = "expected"
        try:
            rules = read(text)
        except egress.EgressError as error:
            said = str(error)
        assert said.startswith("expected")
        assert all(bool(rule.name) != bool(rule.cidr) and 0 < rule.first <= rule.last < 65536 for rule in rules)


@given(st.lists(st.sampled_from([*"*.:/[]-,0189afx ", "10.0.0.0", "fd00::", "http"]), max_size=12).map("".join))
def test_what_was_read_is_written_as_the_same(text: str) -> None:
    try:
        rules = egress.parse(text)
    except egress.EgressError:
        return
    assert egress.parse(", ".join(map(entry, rules))) == rules


def test_the_forms() -> None:
    text = "api.example.com:443, *.Example.org.:443 ,db.default.svc:5432,10.0.0.0/8:*, [fd00::/8]:443, 10.1.2.3:80-90"
    assert egress.parse(text) == (
        Rule("api.example.com", "", 443, 443),
        Rule("*.example.org", "", 443, 443),
        Rule("db.default.svc", "", 5432, 5432),
        Rule("", "10.0.0.0/8", 1, 65535),
        Rule("", "fd00::/8", 443, 443),
        Rule("", "10.1.2.3/32", 80, 90),
    )
    assert egress.parse("*") == (Rule("*"),)
    assert egress.parse("*:443") == (Rule("*", "", 443, 443),)
    assert egress.parse("[::1]:*") == (Rule("", "::1/128"),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "found an empty entry"),
        ("a.example.com:443,", "found an empty entry"),
        ("api.example.com", "expected HOST:PORT"),
        ("https://api.example.com", "leave the scheme out"),
        ("api.example.com:https", "expected a port from 1 to 65535"),
        ("api.example.com:0", "expected a port from 1 to 65535"),
        ("api.example.com:65536", "expected a port from 1 to 65535"),
        ("api.example.com:90-80", "expected a port from 1 to 65535"),
        ("api.*.com:443", "expected a DNS name"),
        ("*example.com:443", "expected a DNS name"),
        ("*.*.com:443", "expected a DNS name"),
        ("exämple.com:443", "xn--"),
        ("a..b:443", "expected a DNS name"),
        (f"{'a' * 64}.com:443", "expected a DNS name"),
        ("10.0.0.1/8:443", "host bits set"),
        ("10.0.0:443", "expected a network"),
        ("1.2.3.4.:80", "expected a network"),
        ("0x7f000001:80", "expected a network"),
        ("10.0.0.0/0.255.255.255:80", "expected a network"),
        ("[::ffff:10.0.0.0/104]:80", "expected a network of IPv6"),
        ("\u212aube.example:80", "xn--"),
        ("256.1.1.1:443", "expected a network"),
        ("fd00::/8:443", "expected HOST:PORT"),
        ("[10.0.0.0/8]:443", "expected a network of IPv6"),
        ("[fe80::1%eth0]:443", "expected a network of IPv6"),
        ("[api.example.com]:443", "expected a network of IPv6"),
        ("[]:443", "expected a network of IPv6"),
        ("deny:*.*", "expected a port"),
        (",".join(["a:1"] * 257), "at most 256 entries, found 257"),
        ("a" * 4097, "at most 4096 bytes, found 4097"),
    ],
)
def test_what_is_no_grant_says_what_was_expected(text: str, words: str) -> None:
    with pytest.raises(egress.EgressError) as raised:
        egress.parse(text)
    assert words in str(raised.value)
    assert len(str(raised.value)) < 400
    with pytest.raises(Refused) as refused:
        egress.of_pod(pod_with(egress=text))
    assert refused.value.field == "metadata.annotations[wasmlet.dev/egress]"
    with pytest.raises(ConfigError, match="--egress-max"):
        ceiling_of(text)


def test_the_owners_ceiling() -> None:
    assert ceiling_of(None) is None
    assert ceiling_of("none") == ()
    assert ceiling_of("10.0.0.0/8:*") == (Rule("", "10.0.0.0/8"),)


def test_origins_of_krustlet() -> None:
    origins = ["https://api.example.com", "http://X:8080/", "http://10.0.0.1", "https://[fd00::1]:8443"]
    assert egress.parse_origins(json.dumps(origins)) == (
        Rule("api.example.com", "", 443, 443),
        Rule("x", "", 8080, 8080),
        Rule("", "10.0.0.1/32", 80, 80),
        Rule("", "fd00::1/128", 8443, 8443),
    )
    assert egress.parse_origins('["insecure:allow-all"]') == egress.parse_origins("insecure:allow-all") == (Rule("*"),)
    assert egress.parse_origins("[]") == ()
    both = egress.of_pod(pod_with(egress="a:1, b:2", krustlet='["http://a:1"]'))
    assert both == (Rule("a", "", 1, 1), Rule("b", "", 2, 2))
    assert egress.of_pod(pod_with()) == ()


@pytest.mark.parametrize(
    "text",
    [
        "https://api.example.com",
        '{"a": 1}',
        "[1]",
        '["api.example.com"]',
        '["ftp://api.example.com"]',
        '["https://api.example.com/path"]',
        '["https://user@api.example.com"]',
        '["https://*"]',
        '["https://*.example.com"]',
        '["https://"]',
        '["https://a:99999"]',
        "[" * 3000,
        json.dumps(["https://a"] * 257),
    ],
)
def test_what_are_no_origins(text: str) -> None:
    with pytest.raises(Refused) as refused:
        egress.of_pod(pod_with(krustlet=text))
    assert refused.value.field == "metadata.annotations[alpha.wasi.krustlet.dev/allowed-domains]"
    assert "expected" in str(refused.value)
