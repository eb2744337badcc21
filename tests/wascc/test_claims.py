"""What an actor's signature says, and what is wrong with those that are none."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wasmlet_wascc import BadClaims, Claims, Seed, sections
from wasmlet_wascc.claims import read, signed

from tests.wascc.signing import ACCOUNT, MODULE, claims, written
from wasmlet.artifacts.wasm_reader import NotWasm

WASM = written("(i32.const 1)")
NAMES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)


def token(body: dict[str, Any], header: dict[str, Any] | None = None, key: Seed = ACCOUNT) -> bytes:
    """A token that says so, signed."""
    parts = [header if header is not None else {"typ": "jwt", "alg": "Ed25519"}, body]
    text = b".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts)
    return text + b"." + base64.urlsafe_b64encode(key.sign(text)).rstrip(b"=")


def body_of(wasm: bytes = WASM, **more: Any) -> dict[str, Any]:
    """What a token for this module says."""
    found = read(signed(wasm, claims("logging"), ACCOUNT))
    (section,) = sections.tokens(whole := signed(wasm, found, ACCOUNT))
    part = whole[section.body : section.end].split(b".")[1]
    body: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4)))
    own = more.pop("wascap", {})
    return body | more | {"wascap": body["wascap"] | own}


@given(
    name=NAMES,
    tags=st.lists(NAMES, max_size=5).map(tuple),
    expires=st.none() | st.integers(0, 2**40),
    revision=st.none() | st.integers(0, 2**31),
)
def test_what_is_signed_is_read_again(
    name: str, tags: tuple[str, ...], expires: int | None, revision: int | None
) -> None:
    wanted = claims("http_server", "acme:clock", name=name, tags=tags, expires=expires, revision=revision)
    assert read(signed(WASM, wanted, ACCOUNT)) == wanted


def test_a_signature_takes_the_place_of_another() -> None:
    first = signed(WASM, claims("logging"), ACCOUNT)
    second = signed(first, claims("extras"), ACCOUNT)
    assert read(second).capabilities == ("wascc:extras",)
    assert len(sections.tokens(second)) == 1


def test_what_is_not_signed_is_refused() -> None:
    with pytest.raises(BadClaims, match="is not signed: expected a section `jwt`"):
        read(WASM)


def test_code_that_was_changed_is_refused() -> None:
    good = signed(WASM, claims("logging"), ACCOUNT)
    (section,) = sections.tokens(good)
    other = sections.appended(written("(i32.const 0)"), good[section.body : section.end])
    with pytest.raises(BadClaims, match="changed since it was signed"):
        read(other)


@given(at=st.integers(8, len(WASM) - 1), bit=st.integers(0, 7))
def test_no_bit_of_the_code_can_be_changed(at: int, bit: int) -> None:
    good = bytearray(signed(WASM, claims("logging"), ACCOUNT))
    good[at] ^= 1 << bit
    with pytest.raises((BadClaims, NotWasm)):
        read(bytes(good))


def test_a_signature_of_somebody_else_is_refused() -> None:
    stolen = claims("logging", account=Seed.new("account"))
    with pytest.raises(BadClaims, match="not that of their issuer"):
        read(signed(WASM, stolen, ACCOUNT))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"iss": MODULE.public.text}, "the issuer of the actor's claims is no account"),
        ({"iss": 5}, "`iss` of the actor's claims is 5, expected a text"),
        ({"sub": ACCOUNT.public.text}, "the subject of the actor's claims is no module"),
        ({"exp": "soon"}, "`exp` of the actor's claims is 'soon', expected a whole number"),
        ({"exp": True}, "expected a whole number"),
        ({"wascap": {"caps": "all"}}, "`caps` of the actor's claims is no list"),
        ({"wascap": {"caps": ["wascc:a\nb"]}}, "expected a text"),
        ({"wascap": {"caps": ["everything"]}}, "is no name of a capability"),
        ({"wascap": {"caps": ["a:b"] * 65}}, "at most 64"),
        ({"wascap": {"prov": True}}, "is a capability provider, not an actor"),
        ({"wascap": {"hash": None}}, "`hash` of the actor's claims is None"),
    ],
)
def test_claims_that_make_no_sense_are_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(BadClaims, match=words):
        read(sections.appended(WASM, token(body_of(**change))))


@pytest.mark.parametrize(
    ("section", "words"),
    [
        (b"", "no JSON Web Token"),
        (b"a.b", "three parts"),
        (b"a.b.c.d", "three parts"),
        (b"!.b.c", "not base64"),
        (b"YQ.YQ.YQ", "no JSON object"),
        (token({"iss": "x"}, {"alg": "none"}), "signed by 'none', expected Ed25519"),
        (token({"iss": "x"}, {"alg": "HS256"}), "expected Ed25519"),
        (b"x" * (10 * 2**20), "have 10485760 bytes, expected at most 65536"),
        (base64.urlsafe_b64encode(b"[" * 40_000) + b".YQ.YQ", "no JSON object"),
    ],
)
def test_what_is_no_token_is_named(section: bytes, words: str) -> None:
    with pytest.raises(BadClaims, match=words):
        read(sections.appended(WASM, section))


def test_two_signatures_are_none() -> None:
    good = signed(WASM, claims("logging"), ACCOUNT)
    (section,) = sections.tokens(good)
    with pytest.raises(BadClaims, match="2 sections"):
        read(sections.appended(good, good[section.body : section.end]))


@given(data=st.binary(max_size=200))
def test_bytes_that_are_no_module_are_refused(data: bytes) -> None:
    with pytest.raises((BadClaims, NotWasm)):
        read(b"\0asm\1\0\0\0" + data)


def test_claims_hold_for_a_time() -> None:
    now = time.time()
    claims().check_time(now)
    claims(expires=int(now) + 10, not_before=int(now) - 10).check_time(now)
    with pytest.raises(BadClaims, match="have expired at 1970-01-01T00:00:05Z: sign it again"):
        claims(expires=5).check_time(5.0)
    with pytest.raises(BadClaims, match="not valid before"):
        claims(not_before=int(now) + 3600).check_time(now)
    claims(not_before=int(now) + 30).check_time(now)  # clocks differ by as much


def test_an_issuer_is_trusted_by_name() -> None:
    found: Claims = claims()
    found.check_issuer(())
    found.check_issuer([ACCOUNT.public.text])
    with pytest.raises(BadClaims, match="not among the issuers"):
        attrs.evolve(found, issuer=Seed.new("account").public.text).check_issuer([ACCOUNT.public.text])
