"""What is written as YAML is read as the same again, by wasmlet and by kubectl."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmlet.kube.documents import read, write

TEXTS = [
    "y", "n", "on", "No", "true", "null", "~", "", "1", "1e3", "0o17", "0x1f", "1_000", "1:30", ".inf", "2001-01-01",
    " x ", "a: b", "- a", "# no comment", "x #", "@x", "*x", "&x", "!x", "%x", "<<", "=", "\"", "'", "a\nb", "\n", "\t",
    "\u00e9\u2028\U0001f600", "x" * 5000, "{a: b}", "e30.e30.signed",
]  # fmt: skip
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text() | st.sampled_from(TEXTS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.sampled_from(TEXTS), inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_what_is_written_is_read_again(value: Any) -> None:
    assert read(write(value)) == value


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: repr(text[:20]))
def test_a_text_stays_one(text: str) -> None:
    assert read(write({text: [text]})) == {text: [text]}


def test_kubectl_reads_the_same(kubectl: Path, tmp_path: Path) -> None:
    users = [{"name": f"u{number}", "user": {"token": text}} for number, text in enumerate(TEXTS) if text]
    file = tmp_path / "kubeconfig"
    file.write_bytes(write({"apiVersion": "v1", "kind": "Config", "users": users}))
    command = [kubectl, "--kubeconfig", file, "config", "view", "--raw", "-o", "json"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)
    assert {user["name"]: user["user"] for user in found["users"]} == {user["name"]: user["user"] for user in users}
