"""`wasmlet wascc`: what an author types, and what is said."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from wasmlet_wascc import PublicKey, Seed, claims
from wasmlet_wascc.grants import OWN, Asked, decide

from tests.wascc.signing import unsigned
from wasmlet.model.pod import Pod


def wasmlet(*words: object, code: int = 0, most: int | None = None) -> str:
    """What the command says.

    Args:
        most: how many bytes it can write to a file, as on a disk that is full then.
    """
    limit = [] if most is None else ["prlimit", f"--fsize={most}"]
    done = subprocess.run(
        [*limit, str(Path(sys.executable).with_name("wasmlet")), *map(str, words)], capture_output=True, text=True,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    wasmlet("wascc", "keys", tmp_path / "keys")
    return tmp_path / "keys"


@pytest.fixture
def module(tmp_path: Path) -> Path:
    (tmp_path / "echo.wasm").write_bytes(unsigned("echo"))
    return tmp_path / "echo.wasm"


def test_keys_are_secret_and_never_overwritten(keys: Path) -> None:
    before = {name: (keys / name).read_text() for name in ("account.nk", "module.nk")}
    assert [(keys / name).stat().st_mode & 0o777 for name in before] == [0o600, 0o600]
    assert "is there already" in wasmlet("wascc", "keys", keys, code=1)
    assert {name: (keys / name).read_text() for name in before} == before


def test_what_is_signed_is_shown(keys: Path, module: Path, tmp_path: Path) -> None:
    seed = (keys / "account.nk").read_text().strip()
    options = ["--account-key", keys / "account.nk", "--module-key", keys / "module.nk"]
    out = tmp_path / "signed.wasm"
    more = ["-c", "http_server", "-c", "example:clock", "--days", "2", "--tag", "one", "--revision", "3", "-o", out]
    said = wasmlet("wascc", "sign", module, *options, *more)
    assert seed not in said
    assert module.read_bytes() == unsigned("echo")
    found = claims.read(out.read_bytes())
    assert (found.name, found.capabilities, found.tags) == ("echo", ("wascc:http_server", "example:clock"), ("one",))
    assert found.expires is not None
    assert found.expires - time.time() == pytest.approx(2 * 86400, abs=60)
    shown = wasmlet("inspect", out)
    assert "kind       waPC actor" in shown
    assert f"issuer     {Seed.of(seed, 'account').public.text}" in shown
    assert "may use    wascc:http_server, example:clock" in shown
    assert "expires " in shown
    PublicKey.of(found.subject, "module")


def test_a_disk_that_is_full_costs_no_module(keys: Path, module: Path, tmp_path: Path) -> None:
    options = ["--account-key", keys / "account.nk", "--module-key", keys / "module.nk"]
    said = wasmlet("wascc", "sign", module, *options, code=1, most=20)
    assert f"{module} cannot be written: File too large" in said
    assert module.read_bytes() == unsigned("echo")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["echo.wasm", "keys"]
    module.chmod(0o640)
    wasmlet("wascc", "sign", module, *options)
    assert module.stat().st_mode & 0o777 == 0o640


def test_a_disk_that_is_full_leaves_no_part_of_a_key(tmp_path: Path) -> None:
    said = wasmlet("wascc", "keys", tmp_path / "new", code=1, most=20)
    assert f"{tmp_path}/new/account.nk cannot be written: File too large" in said
    wasmlet("wascc", "keys", tmp_path / "new")


def test_a_pod_for_an_actor_is_written(keys: Path, module: Path) -> None:
    options = ["--account-key", keys / "account.nk", "--module-key", keys / "module.nk"]
    claimed = ("http_server", "logging", "keyvalue", "messaging", "blobstore", "acme:clock")
    wasmlet("wascc", "sign", module, *options, *(word for name in claimed for word in ("-c", name)))
    shown = wasmlet("inspect", module)
    assert 'needs      an annotation: wascc.wasmlet.dev/keyvalue: "memory"' in shown
    assert "needs      a port: ports: [{containerPort: 8080}]" in shown
    pod = yaml.safe_load(wasmlet("inspect", "--manifest", module))
    assert pod["spec"]["runtimeClassName"] == "wasmlet-wascc"
    assert pod["metadata"]["annotations"] == {
        "wascc.wasmlet.dev/capabilities": "logging, acme:clock",
        "wascc.wasmlet.dev/keyvalue": "memory",
        "wascc.wasmlet.dev/messaging": "nats://HOST:4222",
        "wascc.wasmlet.dev/subscriptions": "SUBJECT",
        "wasmlet.dev/egress": "HOST:4222",
    }
    (container,) = pod["spec"]["containers"]
    assert container["ports"] == [{"name": "http", "containerPort": 8080}]
    assert container["volumeMounts"] == [{"name": "data", "mountPath": "/data"}]
    asked = Asked.of(Pod(pod), Pod(pod).containers[0])
    granted = decide(claims.read(module.read_bytes()).capabilities, asked.names, {*OWN, "acme:clock"})
    assert (granted.refused, len(granted.granted)) == ({}, len(claimed))


def test_inspect_says_what_is_wrong_with_a_signature(module: Path) -> None:
    assert "refused    the actor is not signed" in wasmlet("inspect", module)


def test_what_is_no_key_or_no_module_is_said(keys: Path, module: Path, tmp_path: Path) -> None:
    options = ["--account-key", keys / "module.nk", "--module-key", keys / "module.nk"]
    said = wasmlet("wascc", "sign", module, *options, code=1)
    assert "expected the seed of an account" in said
    assert (keys / "module.nk").read_text().strip() not in said
    (tmp_path / "text").write_text("this is no module at all")
    good = ["--account-key", keys / "account.nk", "--module-key", keys / "module.nk"]
    wasmlet("wascc", "sign", tmp_path / "text", *good, code=1)
    assert (tmp_path / "text").read_text() == "this is no module at all"
    assert "no name of a capability" in wasmlet("wascc", "sign", module, *good, "-c", "a:b c", code=1)
    assert module.read_bytes() == unsigned("echo")
