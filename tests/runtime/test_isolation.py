"""What isolates guests is said where an administrator looks: on the Node, and by `wasmlet providers`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.runtime.harness import Runtime
from tests.shared.machine import as_nobody, may_limit
from wasmlet.runtime import isolation
from wasmlet.runtime.files.pod_users import Range

PARTS = {"cgroup", "landlock", "no_new_privs", "seccomp", "user"}


async def said(runtime: Runtime) -> dict[str, str]:
    status = await runtime.provider.node_status()
    parts: dict[str, str] = json.loads(status.annotations[isolation.ANNOTATION])
    return parts


async def test_the_node_says_what_is_on(runtime: Runtime) -> None:
    parts = await said(runtime)
    assert set(parts) == PARTS
    assert parts["no_new_privs"] == "on"
    held = "" if parts["cgroup"].startswith("off: ") else parts["cgroup"]
    assert ("memory" in held) == may_limit("memory")


async def test_the_node_says_what_is_off(ungrouped: Runtime) -> None:
    assert (await said(ungrouped))["cgroup"].startswith("off: ")


async def test_what_is_lacking_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "impossible", lambda users: "not root")
    assert "user is off: not root" in await isolation.lacking(Range(1000, 2000))
    assert not any(words.startswith("user ") for words in await isolation.lacking(None))


async def test_a_worker_that_cannot_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(isolation, "WORKER", tmp_path / "none")
    with pytest.raises(isolation.ConfigError, match=r"cannot run .*/none: expected a JSON object, found none"):
        await isolation.lacking(None)


@pytest.mark.needs_root("only root becomes another user")
def test_wasmlet_providers_says_what_is_lacking(tmp_path: Path) -> None:
    """Also where a directory that its settings name is root's alone, as /etc/cni/net.d may be: it is not looked at."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    variable = f"import os; os.environ['WASMLET_CNI_CONF_DIR'] = {str(closed)!r}; "
    said = as_nobody(variable + "from wasmlet.cli import main; main(['providers'])")
    (line,) = [line for line in said.splitlines() if line.startswith("wasmtime ")]
    assert "  ready, but " in line
    assert "user is off: " in line
