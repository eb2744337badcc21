"""How registries say whose token they want, and how it is asked for."""

from __future__ import annotations

import base64
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.artifacts.pulls import MANIFEST, pull
from tests.artifacts.registries import Scripted, reply
from wasmlet.artifacts.credentials import Credential, Keyring, auths_of
from wasmlet.artifacts.errors import Absent, Denied
from wasmlet.artifacts.store import Store
from wasmlet.artifacts.tokens import challenges

TWO = ("repository:team/app:pull", "repository:team/base:pull")


@pytest.mark.parametrize("how", [f'scope="{TWO[0]} {TWO[1]}"', f'scope="{TWO[0]}",scope="{TWO[1]}"'])
async def test_several_scopes_are_several_parameters_of_a_get_and_one_of_a_post(
    servers: tuple[Scripted, Scripted], store: Store, how: str
) -> None:
    server, other = servers
    server.answers[MANIFEST] = reply(
        b"", status=401, WWW_Authenticate=f'Bearer realm="http://{other.address}/t?a=b",service="s",{how}'
    )
    other.answers["/t"] = reply(b"", status=403)
    for credential in (Credential("me", "pw"), Credential(identity_token="t")):
        with pytest.raises(Denied, match=f"a token for {TWO[0]} {TWO[1]}"):
            await pull(
                store,
                f"{server.address}/app:v1",
                Keyring(((server.address, credential),)),
                insecure_registries=(server.address,),
            )
    get, post = other.asked
    assert [one for one in parse_qsl(urlsplit(get.path).query) if one[0] in "a scope service"] == [
        ("a", "b"), ("service", "s"), *(("scope", scope) for scope in TWO)
    ]  # fmt: skip
    assert [value for name, value in parse_qsl(post.body.decode()) if name == "scope"] == [" ".join(TWO)]


async def test_a_password_may_have_any_bytes(servers: tuple[Scripted, Scripted], store: Store) -> None:
    server, _ = servers
    server.answers[MANIFEST] = reply(b"", status=401, WWW_Authenticate="Basic realm=x")
    keyring = auths_of({server.address: {"auth": base64.b64encode(b"u:p\xff").decode()}})
    with pytest.raises(Denied):
        await pull(store, f"{server.address}/app:v1", keyring, insecure_registries=(server.address,))
    assert server.asked[-1].headers["authorization"] == f"Basic {base64.b64encode(b'u:p' + bytes([255])).decode()}"


def test_challenges() -> None:
    found = challenges(
        ['Bearer realm="https://a/t?x=1,2",service=b , scope="repository:a\\"b:pull,push", Basic realm=c', "Negotiate"]
    )
    assert [(one.scheme, one.parameters) for one in found] == [
        ("bearer", {"realm": "https://a/t?x=1,2", "service": "b", "scope": 'repository:a"b:pull,push'}),
        ("basic", {"realm": "c"}),
        ("negotiate", {}),
    ]


async def test_of_two_challenges_of_one_scheme_the_first_counts(
    servers: tuple[Scripted, Scripted], store: Store
) -> None:
    server, other = servers
    both = f'Bearer realm="http://{other.address}/first", Bearer realm="http://{other.address}/second"'
    server.answers[MANIFEST] = reply(b"", status=401, WWW_Authenticate=both)
    with pytest.raises(Absent):
        await pull(store, f"{server.address}/app:v1", insecure_registries=(server.address,))
    assert [urlsplit(path).path for path in other.paths()] == ["/first"]


@given(st.lists(st.text(max_size=60) | st.text('Bearer="\\, ', max_size=60), max_size=3))
def test_any_challenge_can_be_read(headers: list[str]) -> None:
    assert all(one.scheme == one.scheme.lower() for one in challenges(headers))
