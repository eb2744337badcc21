"""Keys as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wasmlet_wascc import BadKey, PublicKey, Seed
from wasmlet_wascc.nkeys import Kind

KINDS: tuple[Kind, ...] = ("account", "module", "operator")


@given(raw=st.binary(min_size=32, max_size=32), kind=st.sampled_from(KINDS))
def test_a_key_is_the_same_after_it_was_text(raw: bytes, kind: Kind) -> None:
    seed = Seed(kind, raw)
    assert Seed.of(seed.text, kind) == seed
    assert seed.text.startswith("S" + kind[0].upper())
    public = seed.public
    assert PublicKey.of(public.text, kind) == public
    assert public.text.startswith(kind[0].upper())
    assert len(public.text) == 56
    assert len(seed.text) == 58


def test_a_key_that_others_have_made_is_read() -> None:
    key = PublicKey.of("AAGRUXXTGSP4C27RWPTMCHCJF56JD53EQPA2R7RPC5VI4E274KPRMMJ5", "account")
    assert key.text == "AAGRUXXTGSP4C27RWPTMCHCJF56JD53EQPA2R7RPC5VI4E274KPRMMJ5"


@given(text=st.text(max_size=100))
def test_what_is_no_key_is_refused_and_never_shown(text: str) -> None:
    for kind in KINDS:
        with pytest.raises(BadKey) as refused:
            Seed.of(text, kind)
        assert len(text) < 8 or text not in str(refused.value)
        with pytest.raises(BadKey):
            PublicKey.of(text, kind)


def test_a_letter_that_was_mistyped_is_noticed() -> None:
    text = Seed.new("account").public.text
    wrong = text[:20] + ("A" if text[20] != "A" else "B") + text[21:]
    with pytest.raises(BadKey, match="checksum"):
        PublicKey.of(wrong, "account")


def test_a_key_of_another_kind_is_refused() -> None:
    with pytest.raises(BadKey, match="expected the public key of an account"):
        PublicKey.of(Seed.new("module").public.text, "account")
    with pytest.raises(BadKey, match="expected the seed of an module"):
        Seed.of(Seed.new("account").text, "module")


def test_a_seed_is_not_in_its_repr() -> None:
    seed = Seed.new("account")
    assert seed.text not in repr(seed)
    assert repr(seed.raw) not in repr(seed)


def test_a_signature_is_of_one_message_and_one_key() -> None:
    seed, other = Seed.new("account"), Seed.new("account")
    signature = seed.sign(b"message")
    assert seed.public.verify(signature, b"message")
    assert not seed.public.verify(signature, b"another")
    assert not other.public.verify(signature, b"message")
    assert not seed.public.verify(b"", b"message")
