"""`wasmlet push`, `pull` and `inspect` as a user runs them, against a real registry."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import wasmtime
import yaml

from tests.artifacts import registries
from tests.artifacts.conftest import docker_registry
from tests.artifacts.modules import module, sha
from tests.cli.terminal import on_a_terminal
from tests.guests import components

__all__ = ["docker_registry"]
HELLO = Path(__file__).parents[2] / "examples" / "hello" / "hello.wasm"


@pytest.fixture
async def address(docker_registry: Path, tmp_path: Path) -> AsyncIterator[str]:
    async with registries.registry(docker_registry, tmp_path / "registry") as found:
        yield found


def wasmlet(tmp_path: Path, *arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")} | {
        "DOCKER_CONFIG": str(tmp_path / "docker")
    }
    command = [sys.executable, "-c", "from wasmlet.cli import main; main()", *arguments]
    answer = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=100
    )
    assert answer.returncode == code, answer.stderr
    assert "Traceback" not in answer.stderr
    return answer


def test_push_pull_and_inspect(address: str, tmp_path: Path) -> None:
    image = f"{address}/team/hello:v1"
    pushed = wasmlet(tmp_path, "push", "--insecure", "--annotation", "org.example.a=b=c", HELLO, image)
    assert pushed.stdout.startswith("sha256:")
    assert pushed.stderr == f"pushed {HELLO} (preview 1 command, 25.93 KiB) as {image}\n"
    pulled = wasmlet(tmp_path, "pull", "--insecure-registries", address, image)
    assert pulled.stdout == pushed.stdout
    assert (tmp_path / "hello.wasm").read_bytes() == HELLO.read_bytes()
    again = wasmlet(tmp_path, "pull", "--insecure", image, code=1)
    assert again.stderr == "Error: hello.wasm is there already; name a file to write to with -o\n"
    wasmlet(tmp_path, "pull", "--insecure", image, "-o", "hello.wasm")
    shown = wasmlet(tmp_path, "inspect", "--insecure", image).stdout
    assert f"manifest   {pushed.stdout}" in shown
    assert "kind       preview 1 command\n" in shown
    assert "  function      wasi_snapshot_preview1 fd_write\n" in shown
    local = wasmlet(tmp_path, "inspect", "hello.wasm").stdout
    assert local.splitlines()[2:] == shown.splitlines()[3:]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hello.wasm", "registry"]


def test_inspect_as_json(address: str, tmp_path: Path) -> None:
    image = f"{address}/hello:v1"
    digest = wasmlet(tmp_path, "push", "--insecure", HELLO, image).stdout.strip()
    found = json.loads(wasmlet(tmp_path, "inspect", "--insecure", "-o", "json", image).stdout)
    assert (found["reference"], found["manifest"], found["kind"]) == (image, digest, "preview 1 command")
    local = json.loads(wasmlet(tmp_path, "inspect", "-o", "json", HELLO).stdout)
    assert local.pop("file") == str(HELLO)
    assert local.items() <= found.items()
    assert {"kind": "function", "module": "wasi_snapshot_preview1", "name": "fd_write"} in local["imports"]
    refused = wasmlet(tmp_path, "inspect", "-o", "json", "--manifest", HELLO, code=2)
    assert "--manifest writes YAML" in refused.stderr


def test_inspect_a_directory(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "web.wasm").write_bytes(components.web().read_bytes())
    (tmp_path / "hello.wasm").write_bytes(HELLO.read_bytes())
    (tmp_path / "text").write_text("text")
    lines = wasmlet(tmp_path, "inspect", ".").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["below/web.wasm", "hello.wasm"]
    assert lines[0].endswith("component (HTTP handler), needs a port, needs a grant")
    assert lines[1].endswith("25.93 KiB  preview 1 command")
    (tmp_path / "bad.wasm").write_text("text")
    some = wasmlet(tmp_path, "inspect", tmp_path, code=1)
    assert some.stdout.startswith("bad.wasm        not WebAssembly")
    assert some.stderr == f"Error: {tmp_path}: 1 of 3 files cannot be run\n"
    told = json.loads(wasmlet(tmp_path, "inspect", "-o", "json", tmp_path, code=1).stdout)
    assert "not WebAssembly" in told[0]["problem"]
    assert told[2]["kind"] == "preview 1 command"
    (tmp_path / "empty").mkdir()
    assert "found no file that ends in .wasm" in wasmlet(tmp_path, "inspect", "empty", code=1).stderr
    assert "takes one module" in wasmlet(tmp_path, "inspect", "--manifest", ".", code=1).stderr


def seen(directory: Path, *arguments: str | Path, **variables: str) -> str:
    """What the command writes to standard error where that is a terminal."""
    environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")} | {"TERM": "xterm"}
    return on_a_terminal(*arguments, environment=environment | variables, directory=directory)


def test_progress_has_a_rate_on_a_terminal(address: str, tmp_path: Path) -> None:
    big, image = tmp_path / "big.wasm", f"{address}/big:v1"
    big.write_bytes(module(3_000_000))
    pushed = seen(tmp_path, "push", "--insecure", big, image, NO_COLOR="1")
    assert "pushing big.wasm" in pushed
    pulled = seen(tmp_path, "pull", "--insecure", image, "-o", "copy.wasm")
    assert re.search(r"\d+(\.\d+)?/\d+\.\d (MiB|KiB)", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", pulled)), pulled
    assert not re.search(r"[kM]B/s", pushed + pulled), "rates have the units of sizes"
    assert re.search(r"\x1b\[3[0-9]", pulled)
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", pushed)  # no colours
    plain = seen(tmp_path, "pull", "--insecure", image, "-o", "again.wasm", TERM="dumb")
    assert plain.startswith("pulled ")


async def test_a_wrong_password_is_said_as_such(docker_registry: Path, tmp_path: Path) -> None:
    closed = registries.basic(tmp_path / "registry")
    async with registries.registry(docker_registry, tmp_path / "registry", **closed) as address:
        image = f"{address}/hello:v1"

        async def refused(*arguments: str | Path) -> str:
            return (await asyncio.to_thread(wasmlet, tmp_path, *arguments, code=1)).stderr

        none = f"Error: {address} wants a user and a password for hello, or has no such repository; "
        for arguments in (("push", "--insecure", HELLO, image), ("pull", "--insecure", image)):
            assert (await refused(*arguments)).startswith(f"{none}try: docker login {address}\n")
        log_in(tmp_path, address, f"{registries.USER}:looking-glass")
        wrong = f"Error: {address} does not accept user 'alice': the password is wrong, or no longer valid; "
        for arguments in (("push", "--insecure", HELLO, image), ("inspect", "--insecure", image)):
            said = await refused(*arguments)
            assert said.startswith(f"{wrong}try: docker login {address}\n")
            assert "looking-glass" not in said
        log_in(tmp_path, address, f"{registries.USER}:{registries.PASSWORD}")
        await asyncio.to_thread(wasmlet, tmp_path, "push", "--insecure", HELLO, image)


def log_in(tmp_path: Path, address: str, both: str) -> None:
    """Leave what `docker login` leaves."""
    (tmp_path / "docker").mkdir(exist_ok=True)
    auths = {address: {"auth": base64.b64encode(both.encode()).decode()}}
    (tmp_path / "docker" / "config.json").write_text(json.dumps({"auths": auths}))


def test_both_formats(address: str, tmp_path: Path) -> None:
    (tmp_path / "m.wasm").write_bytes(module(10))
    digests = set()
    for form in ("v0", "wasm-to-oci"):
        image = f"{address}/m:{form}"
        digests.add(wasmlet(tmp_path, "push", "--insecure", "--format", form, "m.wasm", image).stdout)
        wasmlet(tmp_path, "pull", "--insecure", image, "-o", f"{form}.wasm")
        assert (tmp_path / f"{form}.wasm").read_bytes() == module(10)
    assert len(digests) == 2


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("push", "none.wasm", "localhost:1/x:v1"), "none.wasm: there is no such file"),
        (("push", ".", "localhost:1/x:v1"), ".: expected a file"),
        (("push", "text", "localhost:1/x:v1"), "text: not WebAssembly"),
        (("push", "m.wasm", "Not:a:Reference"), "expected [REGISTRY"),
        (("push", "m.wasm", f"localhost:1/x@{sha(b'')}"), "expected a tag to push to"),
        (("push", "--annotation", "x", "m.wasm", "localhost:1/x:v1"), "--annotation: expected KEY=VALUE, found 'x'"),
        (("pull", "localhost:1/x:v1", "-o", "none/here"), "cannot write to"),
        (("inspect", "UPPER"), "neither a file that is there nor a reference"),
        (("inspect", "./none"), "there is no such file"),
        (
            ("inspect", "127.0.0.1:1/none"),
            "(there is no file '127.0.0.1:1/none' here, so it was looked for in a registry)",
        ),
        (("inspect", "none.wasm"), "none.wasm: there is no such file"),
        (("pull", "https://localhost:1/x:v1"), "leave out https://"),
        (("push", "--insecure", "m.wasm", "127.0.0.1:1/x:v1"), "127.0.0.1:1 cannot be reached: Connection refused"),
        (("pull", "--registry-ca-file", "m.wasm", "localhost:1/x:v1"), "registry CA file m.wasm"),
        (("pull", "--registry-mirrors", "x", "localhost:1/x:v1"), "expected REGISTRY=https://"),
        (("demo", "--insecure-registries", "a/b"), "insecure registries: expected HOST[:PORT], found 'a/b'"),
    ],
)
def test_what_a_user_gets_wrong(tmp_path: Path, arguments: tuple[str, ...], why: str) -> None:
    (tmp_path / "text").write_text("text")
    (tmp_path / "m.wasm").write_bytes(module())
    code = 2 if arguments[1] in ("--registry-mirrors", "--insecure-registries") else 1
    assert why in wasmlet(tmp_path, *arguments, code=code).stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.wasm", "text"]


def test_what_a_component_needs(tmp_path: Path) -> None:
    web = components.web()
    shown = wasmlet(tmp_path, "inspect", web).stdout
    assert "component (HTTP handler)" in shown
    assert "needs      a port: ports: [{containerPort: 8080}]" in shown
    assert "needs      a grant: annotation wasmlet.dev/egress" in shown
    pod = yaml.safe_load(wasmlet(tmp_path, "inspect", "--manifest", web).stdout)
    (container,) = pod["spec"]["containers"]
    assert container["image"] == f"file://{web}"
    assert container["ports"] == [{"name": "http", "containerPort": 8080}]
    assert "wasmlet.dev/egress" in pod["metadata"]["annotations"]
    assert "needs      a grant" in wasmlet(tmp_path, "inspect", components.net()).stdout
    asks = tmp_path / "asks.wasm"
    asks.write_bytes(wasmtime.wat2wasm('(module (import "wasi_experimental_http" "close" (func (param i32))))'))
    assert "needs      a grant" in wasmlet(tmp_path, "inspect", asks).stdout
    assert "needs" not in wasmlet(tmp_path, "inspect", HELLO).stdout
    plain = yaml.safe_load(wasmlet(tmp_path, "inspect", "--manifest", HELLO).stdout)
    assert plain["spec"]["containers"] == [{"name": "hello", "image": f"file://{HELLO}"}]
    assert (plain["metadata"]["name"], plain["spec"]["restartPolicy"]) == ("hello", "Never")
    assert "restartPolicy" not in pod["spec"]


def test_imports_that_no_engine_has(tmp_path: Path) -> None:
    asks = tmp_path / "asks.wasm"
    asks.write_bytes(wasmtime.wat2wasm('(module (import "env" "foo" (func)) (func (export "_start")))'))
    shown = wasmlet(tmp_path, "inspect", asks).stdout
    assert re.search(
        r"^refused .*wasmtime.*: the module imports what does not exist here: env\.foo", shown, re.MULTILINE
    )
    assert "refused" not in wasmlet(tmp_path, "inspect", HELLO).stdout
