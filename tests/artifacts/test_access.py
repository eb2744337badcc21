"""Who may run an image without asking its registry, by the kubelet's rule and its policies."""

from __future__ import annotations

import pytest

from tests.artifacts.modules import sha
from wasmlet.artifacts.access import Access, Rule
from wasmlet.artifacts.credentials import Credential, Secret
from wasmlet.artifacts.store import Store
from wasmlet.errors import ConfigError

NAME, DIGEST = "r.example/team/app", sha(b"manifest")
MINE = Secret("mine", "pull", "u1", "hash 1")
THEIRS = Secret("theirs", "pull", "u2", "hash 2")


async def test_another_namespace_has_to_ask(store: Store) -> None:
    access = Access(store, Rule())
    assert not access.allowed(NAME, DIGEST, [MINE])
    await access.pulled(NAME, DIGEST, Credential("me", "p", secret=MINE))
    assert access.allowed(NAME, DIGEST, [MINE])
    assert not access.allowed(NAME, DIGEST, [])
    assert not access.allowed(NAME, DIGEST, [THEIRS])
    assert not access.allowed("r.example/other", DIGEST, [MINE])
    await access.pulled(NAME, DIGEST, Credential("they", "q", secret=THEIRS))
    assert access.allowed(NAME, DIGEST, [THEIRS])
    assert access.allowed(NAME, DIGEST, [MINE])
    assert Access(store, Rule()).allowed(NAME, DIGEST, [MINE])


async def test_the_same_credential_elsewhere_and_the_same_secret_with_another(store: Store) -> None:
    access = Access(store, Rule())
    await access.pulled(NAME, DIGEST, Credential("me", "p", secret=MINE))
    assert access.allowed(NAME, DIGEST, [Secret("third", "x", "u3", "hash 1")])
    assert access.allowed(NAME, DIGEST, [Secret("mine", "pull", "u1", "hash 9")])
    assert not access.allowed(NAME, DIGEST, [Secret("mine", "pull", "u9", "hash 9")])


@pytest.mark.parametrize("credential", [None, Credential("node", "p")])
async def test_what_needs_no_secret_is_everybodys(store: Store, credential: Credential | None) -> None:
    access = Access(store, Rule())
    await access.pulled(NAME, DIGEST, Credential("me", "p", secret=MINE))
    await access.pulled(NAME, DIGEST, credential)
    assert access.allowed(NAME, DIGEST, [])
    await access.pulled(NAME, DIGEST, Credential("me", "p", secret=MINE))
    assert access.allowed(NAME, DIGEST, [])


@pytest.mark.parametrize(
    "damage", [b"", b"[]", b'{"r.example/team/app": 7}', b'{"r.example/team/app": {"secrets": [1]}}']
)
async def test_a_damaged_record_allows_nobody(store: Store, damage: bytes) -> None:
    store.access_path(DIGEST).write_bytes(damage.replace(b"%s", NAME.encode()))
    access = Access(store, Rule())
    assert not access.allowed(NAME, DIGEST, [MINE])
    await access.pulled(NAME, DIGEST, Credential("me", "p", secret=MINE))
    assert access.allowed(NAME, DIGEST, [MINE])


@pytest.mark.parametrize(
    ("rule", "allowed"),
    [
        (Rule("NeverVerify"), True),
        (Rule("AlwaysVerify"), False),
        (Rule("NeverVerifyPreloadedImages"), False),
        (Rule("NeverVerifyAllowlistedImages"), False),
        (Rule("NeverVerifyAllowlistedImages", (NAME,)), True),
        (Rule("NeverVerifyAllowlistedImages", ("r.example/*",)), True),
        (Rule("NeverVerifyAllowlistedImages", ("r.example/team",)), False),
        (Rule("AlwaysVerify", (NAME,)), False),
    ],
)
def test_policies(store: Store, rule: Rule, allowed: bool) -> None:
    assert Access(store, rule).allowed(NAME, DIGEST, []) is allowed


@pytest.mark.parametrize(
    "arguments", [("Sometimes",), ("NeverVerify", ("",)), ("NeverVerify", ("a*b",)), ("NeverVerify", ("/*",))]
)
def test_rules_that_are_none(arguments: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        Rule(*arguments)  # type: ignore[arg-type]
