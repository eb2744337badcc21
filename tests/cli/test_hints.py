"""What `wasmlet demo --keep` tells to type fits the machine that it runs on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from wasmlet.cli.demo.hints import to_type

POD = {"kind": "Pod", "metadata": {"name": "p"}}


def hints(kubeconfig: Path) -> list[str]:
    lines: list[str] = []
    to_type(kubeconfig, [POD], lines.append, pool=False)
    return lines


def test_where_kubectl_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On PATH, beside this Python as `make kubectl` puts it, or nowhere."""
    there, program = tmp_path / "there", tmp_path / "beside/kubectl"
    for directory in (there, program.parent):
        directory.mkdir()
    monkeypatch.setenv("PATH", str(there))
    monkeypatch.setattr(sys, "executable", str(program.with_name("python")))
    kubeconfig = tmp_path / "admin.kubeconfig"
    assert any("kubectl is not on PATH: https://kubernetes.io" in line for line in hints(kubeconfig))
    program.touch(0o755)
    assert f"  export PATH={program.parent}:$PATH" in hints(kubeconfig)
    (there / "kubectl").touch(0o755)
    assert not any("PATH" in line for line in hints(kubeconfig))
    assert f"  export KUBECONFIG={kubeconfig}" in hints(kubeconfig)
