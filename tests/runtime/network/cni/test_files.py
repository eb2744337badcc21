"""Files of CNI configuration and results of plugins: what is read of them, and what is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wasmlet.errors import ConfigError
from wasmlet.runtime.network.conflist import find, parse
from wasmlet.runtime.network.plugins import addresses


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "expected JSON"),
        ("[]", "expected an object"),
        ('{"name": "n", "plugins": []}', "expected plugins"),
        ('{"name": "n", "plugins": [{"type": "../x"}]}', "the name of a program"),
        ('{"name": "n", "cniVersion": "9.0", "plugins": [{"type": "x"}]}', "expected cniVersion"),
        ('{"plugins": [{"type": "x"}]}', "expected a name"),
        ('{"name": "a\\n", "plugins": [{"type": "x"}]}', "expected a name"),
        ('{"name": "n", "plugins": [{"type": "x", "capabilities": [1]}]}', "expected the capabilities of x"),
    ],
)
def test_a_file_that_is_no_network(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "1.conf").write_text(content)
    with pytest.raises(ConfigError, match=words) as failed:
        find(tmp_path)
    assert str(tmp_path / "1.conf") in str(failed.value)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "1.conflist")
    with pytest.raises(ConfigError, match="expected a regular file"):
        find(tmp_path)


def test_the_first_file_counts_and_one_plugin_is_a_list(tmp_path: Path) -> None:
    (tmp_path / "20.conflist").write_text("{")
    (tmp_path / "10.conf").write_text('{"name": "n", "cniVersion": "1.0.0", "type": "x", "mtu": 1400}')
    (tmp_path / "00.txt").write_text("{")
    found = find(tmp_path)
    assert found is not None
    assert found.config(found.plugins[0], {}, None) == {
        "name": "n", "cniVersion": "1.0.0", "type": "x", "mtu": 1400
    }  # fmt: skip
    assert parse(found.as_raw()) == parse({"name": "n", "cniVersion": "1.0.0", "plugins": list(found.plugins)})
    assert find(tmp_path / "nothing") is None


def test_capabilities_say_what_a_plugin_is_told() -> None:
    found = parse({"name": "n", "cniVersion": "0.4.0", "plugins": [
        {"type": "a", "capabilities": {"portMappings": True}}, {"type": "b"}]})  # fmt: skip
    runtime = {"portMappings": [{"hostPort": 1}], "bandwidth": {}}
    first, second = (found.config(plugin, runtime, {"ips": []}) for plugin in found.plugins)
    assert first["runtimeConfig"] == {"portMappings": [{"hostPort": 1}]}
    assert "capabilities" not in first
    assert "runtimeConfig" not in second
    assert second["prevResult"] == {"ips": []}


def test_addresses_of_the_pods_own_interfaces() -> None:
    result = {
        "interfaces": [{"name": "veth", "sandbox": ""}, {"name": "eth0", "sandbox": "/run/x"}],
        "ips": [{"interface": 0, "address": "10.0.0.1/24"}, {"interface": 1, "address": "10.0.0.2/24"},
                {"address": "fd00::2/64"}],
    }  # fmt: skip
    assert addresses(result) == ("10.0.0.2", "fd00::2")
