"""How the broker looks up names: what it asks, what it believes, and what becomes of servers that answer badly."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.worker.harness import POD
from tests.worker.network.broker_process import broker
from tests.worker.network.dns_server import AAAA, CNAME, A, Query, answer, dns, zone
from wasmlet.worker import wire
from wasmlet.worker.broker import dns as messages
from wasmlet.worker.broker.dns import Bad, candidates, normal, question, read
from wasmlet.worker.broker.egress import Name
from wasmlet.worker.grants import Grant, Resolver, Rule

ANYBODY = (Rule(name="*"),)
HERE = "127.9.0.8"


def grant(*servers: str, egress: tuple[Rule, ...] = ANYBODY, **resolver: object) -> Grant:
    fields = {"timeout": 0.3, "attempts": 1, **resolver}
    return Grant(addresses=(POD,), egress=egress, resolver=Resolver(servers, **fields))  # type: ignore[arg-type]


def test_names_are_looked_up_as_resolv_conf_says(python: str) -> None:
    known = {"db.default.svc.local": "10.0.0.1", "www.example.org": ["10.0.0.2", "10.0.0.3", "fd00::1"]}
    with dns(zone(known)) as server, broker(python, server.port) as it:
        searches = ("default.svc.local", "svc.local")
        container = it.add(grant(server.address, searches=searches, ndots=2, hosts={"local": ("10.0.0.9",)}))
        assert container.ask("resolve", name="db").fields["addresses"] == ["10.0.0.1"]
        assert container.ask("resolve", name="db.default").fields["addresses"] == ["10.0.0.1"]
        assert list(server.asked) == ["db.default.svc.local", "db.default.default.svc.local"]
        assert container.ask("resolve", name="WWW.example.org.").fields["addresses"] == ["10.0.0.2", "10.0.0.3"]
        assert container.ask("resolve", name="local").fields["addresses"] == ["10.0.0.9"]
        assert container.error("resolve", name="none.example.org") == "ENOENT"
        assert [name for name in server.asked if name.startswith("none")] == [
            "none.example.org",
            "none.example.org.default.svc.local",
            "none.example.org.svc.local",
        ]
        # Each from a port of its own, with a number of its own: nobody guesses both.
        assert len(set(server.sources)) == len(server.sources) > 5
        assert len({query.number for query in server.queries}) > len(server.queries) - 2
        assert {query.kind for query in server.queries} == {A}  # the pod has no address of IPv6


def test_both_families_where_the_pod_has_both(python: str) -> None:
    with dns(zone({"www": ["10.0.0.2", "fd00::1"]})) as server, broker(python, server.port) as it:
        both = grant(server.address)._replace(addresses=(POD, "fd00::7"))
        assert it.add(both).ask("resolve", name="www").fields["addresses"] == ["10.0.0.2", "fd00::1"]


def without_aaaa(query: Query) -> bytes | None:
    return None if query.kind == AAAA else answer(query, [(query.name, A, HERE)])


def test_a_family_that_is_not_answered_is_not_waited_for(python: str) -> None:
    with dns(without_aaaa) as server, broker(python, server.port) as it:
        both = grant(server.address, timeout=20)._replace(addresses=(POD, "fd00::7"))
        began = time.monotonic()
        assert it.add(both).ask("resolve", name="www").fields["addresses"] == [HERE]
        assert time.monotonic() - began < 10


def big(query: Query) -> bytes:
    if not query.tcp:
        return answer(query, [], flags=0x8380)
    return answer(query, [(query.name, A, f"10.0.{number}.1") for number in range(200)])


def test_what_does_not_fit_is_asked_for_over_tcp(python: str) -> None:
    with dns(big) as server, broker(python, server.port) as it:
        found = it.add(grant(server.address)).ask("resolve", name="www").fields["addresses"]
        assert found == [f"10.0.{number}.1" for number in range(messages.MAX_ADDRESSES)]
        assert [query.tcp for query in server.queries] == [False, True]


def alias(query: Query) -> bytes:
    records = [("www", CNAME, "a.cdn"), ("other", A, "10.9.9.9"), ("a.cdn", CNAME, "b.cdn"), ("b.cdn", A, "10.0.0.5")]
    return answer(query, records)


def test_aliases_are_followed(python: str) -> None:
    with dns(alias) as server, broker(python, server.port) as it:
        assert it.add(grant(server.address)).ask("resolve", name="www").fields["addresses"] == ["10.0.0.5"]


def circle(query: Query) -> bytes:
    return answer(query, [("www", CNAME, "a"), ("a", CNAME, "www")])


def forged(query: Query) -> list[bytes]:
    """As somebody would send it who does not know the number or the question."""
    wrong = answer(query._replace(number=query.number ^ 1), [(query.name, A, "10.6.6.6")])
    other = answer(query._replace(name="other"), [("other", A, "10.6.6.6")])
    return [wrong, other, b"", b"x", answer(query, [(query.name, A, HERE)])]


def test_what_is_no_answer_is_passed_over(python: str) -> None:
    with dns(forged) as server, broker(python, server.port) as it:
        assert it.add(grant(server.address)).ask("resolve", name="www").fields["addresses"] == [HERE]


@pytest.mark.parametrize(
    ("respond", "error"),
    [
        (lambda query: None, "EHOSTDOWN"),
        (lambda query: answer(query, [], code=2), "EIO"),
        (lambda query: answer(query, [], code=5), "EIO"),
        (lambda query: [b"rubbish"] * 100, "EHOSTDOWN"),
        (circle, "EHOSTDOWN"),
        (lambda query: answer(query, [], flags=0x8380), "EHOSTDOWN"),
        (lambda query: answer(query, []), "ENOENT"),
        (lambda query: answer(query, [("other", A, HERE)]), "ENOENT"),
        (lambda query: answer(query, [], code=3), "ENOENT"),
    ],
    ids=["silent", "fails", "refuses", "rubbish", "circle", "never fits", "nothing", "of another", "no such name"],
)
def test_servers_that_answer_badly(respond: Callable[[Query], bytes | None], error: str) -> None:
    """The next one is asked, twice round; nobody is asked more than that."""
    with dns(respond) as bad, broker(dns_port=bad.port) as it:
        container = it.add(grant(bad.address, attempts=2))
        assert container.error("resolve", name="www") == error
        assert len([query for query in bad.queries if not query.tcp]) == (1 if error == "ENOENT" else 2)
        if error != "ENOENT":
            with dns(zone({"www": HERE}), "127.9.0.54", bad.port) as good:
                both = it.add(grant(bad.address, good.address))
                assert both.ask("resolve", name="www").fields["addresses"] == [HERE]


def test_a_server_that_is_not_there(python: str) -> None:
    with dns(zone({"www": HERE})) as server, broker(python, server.port) as it:
        container = it.add(grant("127.9.0.99", server.address, timeout=20))
        began = time.monotonic()
        assert container.ask("resolve", name="www").fields["addresses"] == [HERE]
        assert time.monotonic() - began < 10  # the kernel says that nobody listens there
        assert it.add(grant("127.9.0.99")).error("resolve", name="www") == "EHOSTDOWN"


class Rebinding:
    """Says one address first and another one after that."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)

    def __call__(self, query: Query) -> bytes:
        address = self.addresses.pop(0) if len(self.addresses) > 1 else self.addresses[0]
        return answer(query, [(query.name, A, address)])


def test_the_address_that_was_looked_at_is_dialled() -> None:
    """A name that changes between the look and the dial, or that leads where nobody dials, gains nothing."""
    granted = (Rule(name="evil.example"),)
    evil = Rebinding(HERE, "169.254.169.254", "127.9.3.1", "127.9.3.1")
    with socket.create_server((HERE, 0)) as allowed, dns(evil) as server, broker(dns_port=server.port) as it:
        port = allowed.getsockname()[1]
        container = it.add(grant(server.address, egress=granted)._replace(never=("127.9.3.0/24",)))
        answered = container.ask("connect", host="evil.example", port=port)
        assert answered.fields["peer"] == [HERE, port]
        wire.close(answered.fds)
        assert server.asked == {"evil.example": 1}
        assert container.error("connect", host="evil.example", port=port) == "EACCES"
        assert container.error("connect", host="evil.example", port=port) == "EACCES"
        assert container.ask("resolve", name="evil.example").fields["addresses"] == []
        assert it.hear_refused() == f"evil.example:{port}"
        assert container.error("connect", host="127.9.3.1", port=port) == "EACCES"


def test_what_is_never_dialled_is_not_dialled_inside_of_another_address(python: str) -> None:
    with broker(python) as it:
        container = it.add(grant(egress=(Rule(name="*"),))._replace(never=("127.9.3.0/24",)))
        for host in ("::ffff:127.9.3.1", "64:ff9b::169.254.169.254", "64:ff9b:1::127.9.3.1", "64:ff9b:1:2::0.0.0.0"):
            assert container.error("connect", host=host, port=80) == "EACCES", host


def test_addresses_that_a_container_was_told() -> None:
    granted = (Rule(name="one.example", first=1, last=65535), Rule(name="two.example", first=443, last=443))
    with (
        socket.create_server((HERE, 0)) as server,
        dns(zone({"one.example": HERE, "two.example": "127.9.0.9"})) as names,
    ):
        port = server.getsockname()[1]
        with broker(dns_port=names.port) as it:
            container, other = (it.add(grant(names.address, egress=granted)) for _ in range(2))
            assert container.error("connect", host=HERE, port=port) == "EACCES"
            for name in ("one.example", "two.example"):
                container.ask("resolve", name=name)
            assert container.error("connect", host=HERE, port=port) == ""
            assert container.error("connect", host="127.9.0.9", port=port) == "EACCES"  # not at that port
            assert container.error("connect", host="127.9.0.9", port=443) == "ECONNREFUSED"
            assert other.error("connect", host=HERE, port=port) == "EACCES"  # it was not told
            # Another broker is told the names by whoever asked for them.
            it.replace()
            assert container.error("connect", host=HERE, port=port) == ""


def test_a_guest_that_does_not_ask_another_broker_again() -> None:
    """It is not waited for: what it was told is forgotten then."""
    with broker() as it:
        container = it.add(grant(egress=(Rule(name="one.example"),)))
        assert container.error("resolve", name="one.example") == "EHOSTDOWN"
        it.replace()
        container.raw(b'{"n": 7, "ask": "connect", "host": "127.9.0.8", "port": 9}')
        assert container.next() == {"restarted": True}
        denied = container.next()
        assert (denied["re"], denied["error"]) == (7, "EACCES")


def test_only_the_last_addresses_are_remembered() -> None:
    def respond(query: Query) -> bytes:
        number = int(query.name.partition(".")[0])
        return answer(query, [(query.name, A, f"127.8.{number // 250}.{number % 250 + 1}")])

    with dns(respond) as server, broker(dns_port=server.port) as it:
        container = it.add(grant(server.address, egress=(Rule(name="*.example"),)))
        for number in range(300):
            assert container.error("resolve", name=f"{number}.example") == ""
        assert container.error("connect", host="127.8.1.50", port=9) == "ECONNREFUSED"
        assert container.error("connect", host="127.8.0.1", port=9) == "EACCES"


@pytest.mark.parametrize(
    ("rule", "asked", "fits"),
    [
        ("api.example.com", "api.example.com", True),
        ("api.example.com", "API.example.com.", True),
        ("api.example.com", "b.example.com", False),
        ("api.example.com", "api.example.com.evil.org", False),
        ("*.example.org", "a.example.org", True),
        ("*.example.org", "a.b.example.org", True),
        ("*.example.org", "example.org", False),
        ("*.example.org", "evilexample.org", False),
        ("*", "anything", True),
        ("db.default.svc", "db.default.svc", True),
        ("db.default.svc", "db", True),
        ("db.default.svc.cluster.local", "db.default.svc", True),
        ("db.default.svc", "db.other.svc", False),
        ("db", "db.default.svc", True),
        ("db", "db.other.svc", False),
        ("db.default", "db", True),  # with the second of the domains, in whichever form that is written
    ],
)
def test_which_names_a_rule_means(rule: str, asked: str, fits: bool) -> None:
    searches = ("default.svc.cluster.local", "SVC.Cluster.local.", "cluster.local")
    with dns(lambda query: answer(query, [(query.name, A, HERE)])) as server, broker(dns_port=server.port) as it:
        container = it.add(grant(server.address, egress=(Rule(name=rule),), searches=searches, ndots=5))
        assert (container.error("resolve", name=asked) == "") is fits
        assert bool(server.queries) is fits  # what was not granted is not asked for, either


@pytest.mark.parametrize(
    ("ceiling", "asked", "led_to", "fits"),
    [
        # Whoever makes Services in a namespace says where these lead.
        ("example.com", "example.com", "example.com.default.svc.cluster.local", False),
        ("example.com", "example.com", "example.com.svc.cluster.local", False),
        ("*.example.com", "a.example.com", "a.example.com.default.svc.cluster.local", False),
        ("db", "db", "db.default.svc.cluster.local", False),
        ("example.com", "example.com", "example.com", True),
        ("*.example.com", "a.example.com", "a.example.com", True),
        ("db.default.svc", "db", "db.default.svc.cluster.local", True),
        ("db.default.svc", "db.default.svc", "db.default.svc.cluster.local", True),
        ("db.default.svc.cluster.local", "db", "db.default.svc.cluster.local", True),
        ("intranet", "intranet", "intranet.corp.example", True),
    ],
)
def test_a_name_of_a_ceiling_is_the_one_that_is_looked_up(ceiling: str, asked: str, led_to: str, fits: bool) -> None:
    """Search domains and `ndots` are the cluster's, and still a pod's author has a part in where they lead."""
    searches = ("default.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example")
    with dns(zone({led_to: HERE})) as server, broker(dns_port=server.port) as it:
        bounded = grant(server.address, searches=searches, ndots=5)._replace(ceiling=(Rule(name=ceiling),))
        container = it.add(bounded)
        assert (container.error("connect", host=asked, port=9) == "ECONNREFUSED") is fits
        assert (container.error("connect", host=HERE, port=9) == "EACCES") is True
        container.ask("resolve", name=asked)
        assert (container.error("connect", host=HERE, port=9) == "ECONNREFUSED") is fits


@pytest.mark.parametrize(
    "text",
    ["", ".", "a..b", "a b", "127.1", "0x7f000001", "1", "a." + "b" * 64, "x" * 300, "a/b", "é.org", "a\0b", "[::1]"],
)
def test_what_is_no_name(text: str) -> None:
    assert normal(text) is None
    assert candidates(text, ("example.org",), 1) == []


def test_candidates_in_their_order() -> None:
    assert candidates("a.b", ("x", "y."), 2) == [Name("a.b", "a.b.x"), Name("a.b", "a.b.y"), Name("a.b", "a.b")]
    assert candidates("a.b", ("x",), 1) == [Name("a.b", "a.b"), Name("a.b", "a.b.x")]
    assert candidates("a.b.", ("x",), 5) == [Name("a.b", "a.b")]
    assert candidates("a" * 60, ("b" * 60 + "." + "c" * 60 + "." + "d" * 60 + "." + "e" * 60, "x y"), 5) == [
        Name("a" * 60, "a" * 60)
    ]


WHOLE = answer(Query(77, "www.example.org", A, False), [("www.example.org", CNAME, "b"), ("b", A, "10.0.0.1")])


@given(st.binary(max_size=600))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for tail in (data, WHOLE[:12] + data, WHOLE[:-20] + data):
        try:
            found = read(tail, 77, "www.example.org", A)
        except Bad:
            continue
        assert len(found.addresses) <= messages.MAX_ADDRESSES


@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=8))
def test_a_whole_answer_with_wrong_bytes(changes: list[tuple[int, int]]) -> None:
    data = bytearray(WHOLE)
    for at, value in changes:
        data[at] = value
    with contextlib.suppress(Bad):
        read(bytes(data), 77, "www.example.org", A)
    assert read(WHOLE, 77, "www.example.org", A).addresses


@given(st.text(max_size=80))
def test_any_text_is_a_name_or_none(text: str) -> None:
    for name in candidates(text, ("example.org",), 2):
        number = 5
        assert read(answer(Query(number, name.full, A, False), []), number, name.full, A).addresses == ()
        assert question(number, name.full, A)
