"""Whatever is wrong with a kubeconfig is said in one line that names the file."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kube.server import write_kubeconfig
from wasmlet.errors import ConfigError
from wasmlet.kube import load_identity


def variant(path: Path, **changes: Any) -> Path:
    config = yaml.safe_load(write_kubeconfig(path.parent, "https://127.0.0.1:1", token="t").read_text())
    for key, value in changes.items():
        config[key.replace("_", "-")] = value
    path.write_text(yaml.safe_dump(config))
    return path


async def test_a_good_one_gives_server_and_credentials(tmp_path: Path) -> None:
    identity = await load_identity(write_kubeconfig(tmp_path, "https://127.0.0.1:1/", token="t"))
    assert identity.server == "https://127.0.0.1:1"
    assert await identity.headers() == {"Authorization": "Bearer t"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        ("{", "cannot be used"),
        ("[1, 2]", "cannot be used"),
        ("just words", "cannot be used"),
        ("apiVersion: v1\nkind: Config\n", "cannot be used"),
        ("\x00\x01", "cannot be used"),
    ],
)
async def test_not_a_kubeconfig(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(ConfigError, match=expected) as raised:
        await load_identity(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


async def test_no_file_and_a_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no such file.*--kubeconfig"):
        await load_identity(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"directory"):
        await load_identity(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"current_context": "other"},
        {"clusters": []},
        {"users": []},
        {"clusters": [{"name": "k", "cluster": {}}]},
        {"clusters": [{"name": "k", "cluster": {"server": "ftp://x"}}]},
        {"clusters": [{"name": "k", "cluster": {"server": "https://x", "certificate-authority-data": "!!"}}]},
        {
            "clusters": [
                {
                    "name": "k",
                    "cluster": {
                        "server": "https://x",
                        "certificate-authority-data": base64.b64encode(b"no certificate").decode(),
                    },
                }
            ]
        },
        {"clusters": [{"name": "k", "cluster": {"server": "https://x", "certificate-authority": "/nowhere/ca"}}]},
        {"users": [{"name": "u", "user": {"client-certificate": "/nowhere/c", "client-key": "/nowhere/k"}}]},
        {"users": [{"name": "u", "user": {"exec": {"command": "/nowhere/plugin", "apiVersion": "x"}}}]},
    ],
)
async def test_a_part_that_is_wrong(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = variant(tmp_path / "config", **changes)
    with pytest.raises(ConfigError) as raised:
        await load_identity(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


async def test_a_credential_plugin_that_is_not_there(tmp_path: Path) -> None:
    user = {"exec": {"command": "no-such-plugin", "apiVersion": "x", "installHint": "Get it\n from example.com."}}
    path = variant(tmp_path / "config", users=[{"name": "u", "user": user}])
    said = r"its credential plugin 'no-such-plugin' cannot be run: No such file or directory; Get it from example.com."
    with pytest.raises(ConfigError, match=said):
        await load_identity(path)


async def test_the_environment_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path, "http://127.0.0.1:2")))
    assert (await load_identity()).server == "http://127.0.0.1:2"


async def test_a_proxy_of_the_environment_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert (await load_identity(write_kubeconfig(tmp_path, "https://api.example"))).proxy == "http://proxy.example:3128"
    assert (await load_identity(write_kubeconfig(tmp_path, "https://127.0.0.1:1"))).proxy is None
