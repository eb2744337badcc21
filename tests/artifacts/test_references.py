"""References are read as Docker and every Kubernetes runtime read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmlet.artifacts.errors import InvalidReference
from wasmlet.artifacts.references import Reference, parse

D = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.25", "docker.io/library/nginx:1.25"),
        ("someone/thing", "docker.io/someone/thing:latest"),
        ("docker.io/thing", "docker.io/library/thing:latest"),
        ("index.docker.io/a/b:c", "docker.io/a/b:c"),
        ("localhost/thing", "localhost/thing:latest"),
        ("localhost:5000/thing:v1", "localhost:5000/thing:v1"),
        ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c:latest"),
        ("[::1]:5000/thing", "[::1]:5000/thing:latest"),
        ("registry.example/thing", "registry.example/thing:latest"),
        ("Registry/thing", "Registry/thing:latest"),
        ("r.example/a__b-c--d.e/f_g", "r.example/a__b-c--d.e/f_g:latest"),
        (f"r.example/thing@{D}", f"r.example/thing@{D}"),
        (f"r.example:80/thing:tag@{D}", f"r.example:80/thing:tag@{D}"),
        (f"thing:5000@{D}", f"docker.io/library/thing:5000@{D}"),
        ("thing:5000", "docker.io/library/thing:5000"),
        ("a@sha512:" + "a" * 128, "docker.io/library/a@sha512:" + "a" * 128),
    ],
)
def test_what_was_left_out_is_filled_in(text: str, complete: str) -> None:
    assert str(parse(text)) == complete


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "small letters"),
        ("Thing", "small letters"),
        ("r.example/Thing", "small letters"),
        ("r.example/", "small letters"),
        ("/thing", "small letters"),
        ("r.example//thing", "small letters"),
        ("a/../b", "small letters"),
        ("r.example/a___b", "small letters"),
        ("thing:", "the tag"),
        ("thing:-x", "the tag"),
        ("thing:" + "x" * 129, "the tag"),
        ("thing@", "no digest"),
        ("thing@sha256:abc", "no digest"),
        ("thing@sha256:" + "A" * 64, "no digest"),
        ("thing@md5:" + "a" * 32, "no digest"),
        (f"thing@{D}@{D}", "no digest"),
        ("-r.example/thing", "registry's host"),
        ("r.example:99999/thing", "registry's host"),
        ("user@r.example/thing", "no digest"),
        ("http://r.example/thing", "leave out http://"),
        ("a" * 64, "an image's id"),
        ("r.example/" + "a/" * 130 + "b", "255"),
        ("thing\n", "small letters"),
        ("thing:tag\n", "the tag"),
        (f"thing@{D}\n", "no digest"),
    ],
)
def test_what_is_no_reference_says_why(text: str, why: str) -> None:
    with pytest.raises(InvalidReference, match=why):
        parse(text)


def test_a_digest_counts_before_a_tag() -> None:
    assert parse(f"thing:v1@{D}").wanted == D
    assert parse("thing:v1").wanted == "v1"
    assert str(parse("thing:v1").at(D)) == f"docker.io/library/thing@{D}"


words = st.text("abz09", min_size=1, max_size=5)
parts = st.builds("{}{}{}".format, words, st.sampled_from([".", "_", "__", "-", "---", "0"]), words)
registries = st.builds("{}-x.{}{}".format, words, words, st.sampled_from(["", ":80", ":65535"]))
tags = st.text("aZ0_.-", min_size=1, max_size=20).map(lambda tag: f"_{tag}")


@given(
    st.builds(
        Reference,
        registries,
        st.lists(parts, min_size=1, max_size=4).map("/".join),
        tags,
        st.sampled_from([None, D]),
    )
)
def test_what_is_written_is_read_again(reference: Reference) -> None:
    assert parse(str(reference)) == reference


@given(st.text(max_size=80) | st.text(alphabet="aA0.:/@-_[]", max_size=40))
def test_any_text_is_a_reference_or_an_error(text: str) -> None:
    try:
        reference = parse(text)
    except InvalidReference:
        return
    assert parse(str(reference)) == reference
