"""The whole way through: kubectl, the API server, the node loop, wasmtime in a worker process, and back."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import wasmtime
import yaml
from wasmlet_wasmtime import WasmtimeProvider

import wasmlet
from wasmlet.testing import ControlPlane

NODE = "n1"
SLEEPER = """
#include <stdio.h>
#include <unistd.h>
int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) printf("%s\\n", argv[i]);
    fflush(stdout);
    for (;;) sleep(1000);
}
"""
SPINNER = 'int main(void) { __builtin_printf("spinning\\n"); for (volatile int i = 0;; i++) {} }\n'
TRAPPER = "int main(void) { __builtin_trap(); }\n"
EXITER = "#include <stdlib.h>\nint main(int argc, char **argv) { return argc > 1 ? atoi(argv[1]) : 0; }\n"
READER = """
#include <stdio.h>
int main(int argc, char **argv) {
    FILE *file = fopen(argv[1], "r");
    if (file == NULL) return 1;
    for (int c; (c = fgetc(file)) != EOF;) putchar(c);
    return 0;
}
"""


@attrs.define
class Kube:
    """kubectl against the control plane."""

    program: Path
    kubeconfig: Path
    directory: Path

    async def run(self, *arguments: str, code: int | None = 0) -> str:
        """Standard output and error of a kubectl that ends with that exit code."""
        process = await asyncio.create_subprocess_exec(
            self.program,
            "--kubeconfig",
            self.kubeconfig,
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate()
        assert code is None or process.returncode == code, f"kubectl {arguments}: {out.decode()}"
        return out.decode()

    async def apply(self, name: str, image: str | Path, *args: str, **spec: Any) -> None:
        """A pod of one container that runs on the wasmlet node."""
        image = f"file://{image}" if isinstance(image, Path) else image
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "nodeSelector": {"kubernetes.io/arch": "wasm"},
                "tolerations": [{"key": "wasmlet.dev/provider", "operator": "Exists"}],
                "containers": [{"name": "c", "image": image, "args": list(args)}],
            }
            | spec,
        }
        manifest = self.directory / f"{name}.yaml"
        manifest.write_text(yaml.safe_dump(body))
        await self.run("apply", "-f", str(manifest))

    async def wait(self, name: str, path: str, value: str) -> dict[str, Any]:
        """The pod once the value at that JSON path is as wanted."""
        await self.run("wait", f"pod/{name}", f"--for=jsonpath={{{path}}}={value}", "--timeout=60s")
        return await self.get(name)

    async def get(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(await self.run("get", "pod", name, "-o", "json"))
        return found


@pytest.fixture
async def kube(control_plane: ControlPlane, kubectl: Path, tmp_path: Path) -> Kube:
    return Kube(kubectl, control_plane.kubeconfig, tmp_path)


def node_of(control_plane: ControlPlane, directory: Path, *, drain: bool = True, **settings: Any) -> wasmlet.Node:
    """A node whose provider has these settings and keeps its state below that directory."""
    provider = WasmtimeProvider(WasmtimeProvider.Config(shim_idle_exit=1.0, **settings))
    config = wasmlet.NodeConfig(
        kubeconfig=control_plane.node_kubeconfig(NODE),
        node_name=NODE,
        node_ip="127.0.0.1",
        port=0,
        client_ca_file=control_plane.client_ca_file,
        state_dir=directory / "state",
        drain_on_exit=drain,
    )
    return wasmlet.Node(provider, config)


@pytest.fixture
async def node(control_plane: ControlPlane, tmp_path: Path) -> AsyncIterator[wasmlet.Node]:
    async with node_of(control_plane, tmp_path, allow_local_modules=True) as node:
        yield node


@pytest.fixture
def guest(tmp_path: Path, compile_guest: Callable[..., None]) -> Callable[[str, str], Path]:
    """Compile C to a module of that name."""

    def build(name: str, text: str) -> Path:
        source = tmp_path / f"{name}.c"
        source.write_text(text)
        compile_guest(source, tmp_path / f"{name}.wasm", "-O1", "-Wno-main")
        return tmp_path / f"{name}.wasm"

    return build


Guest = Callable[[str, str], Path]
STATE = ".status.containerStatuses[0].state"


@pytest.mark.parametrize(("name", "text"), [("sleeper", SLEEPER), ("spinner", SPINNER)])
async def test_a_running_guest_is_gone_at_once_when_it_is_deleted(
    kube: Kube, node: wasmlet.Node, guest: Guest, name: str, text: str
) -> None:
    await kube.apply(name, guest(name, text))
    await kube.run("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=60s")
    loop = asyncio.get_running_loop()
    before = loop.time()
    await kube.run("delete", "pod", name, "--timeout=60s")
    # The grace period is the default, 30 s; how near to 0 this is, is for benchmarks.
    assert loop.time() - before < 10
    await kube.run("get", "pod", name, code=1)


async def test_logs_as_kubectl_asks_for_them(kube: Kube, node: wasmlet.Node, guest: Guest) -> None:
    await kube.apply("p", guest("sleeper", SLEEPER), "one", "two", "three")
    await kube.run("wait", "pod/p", "--for=condition=Ready", "--timeout=60s")
    follow = asyncio.create_task(kube.run("logs", "--follow", "p"))
    async with asyncio.timeout(30):
        while await kube.run("logs", "p") != "one\ntwo\nthree\n":
            pass
    assert await kube.run("logs", "p", "--limit-bytes=6") == "one\ntw"
    assert await kube.run("logs", "p", "--tail=1") == "three\n"
    assert await kube.run("logs", "p", "--tail=0") == ""
    stamped = await kube.run("logs", "p", "--timestamps")
    assert [line.split(" ")[1] for line in stamped.splitlines()] == ["one", "two", "three"]
    assert await kube.run("logs", "p", "--since-time=2100-01-01T00:00:00Z") == ""
    assert "previous terminated container" in await kube.run("logs", "p", "--previous", code=1)
    await kube.run("delete", "pod", "p")
    assert await follow == "one\ntwo\nthree\n"


@pytest.mark.parametrize(
    ("args", "phase", "code"), [([], "Succeeded", 0), (["3"], "Failed", 3), (["255"], "Failed", 255)]
)
async def test_exit_codes(kube: Kube, node: wasmlet.Node, guest: Guest, args: list[str], phase: str, code: int) -> None:
    await kube.apply("p", guest("exiter", EXITER), *args)
    pod = await kube.wait("p", ".status.phase", phase)
    ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert ended["exitCode"] == code
    assert ended["reason"] == ("Completed" if code == 0 else "Error")
    assert pod["status"]["containerStatuses"][0]["imageID"].startswith("sha256:")


async def test_a_trap_is_an_error_with_a_backtrace(kube: Kube, node: wasmlet.Node, guest: Guest) -> None:
    await kube.apply("p", guest("trapper", TRAPPER))
    pod = await kube.wait("p", ".status.phase", "Failed")
    ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert ended["exitCode"] == 134
    assert "unreachable" in ended["message"]


async def test_a_failing_guest_is_started_again_after_a_pause(kube: Kube, node: wasmlet.Node, guest: Guest) -> None:
    await kube.apply("p", guest("exiter", EXITER), "5", restartPolicy="Always")
    pod = await kube.wait("p", f"{STATE}.waiting.reason", "CrashLoopBackOff")
    status = pod["status"]["containerStatuses"][0]
    assert pod["status"]["phase"] == "Running"
    assert status["lastState"]["terminated"]["exitCode"] == 5
    assert "back-off 10s restarting failed container" in status["state"]["waiting"]["message"]


async def test_variables_from_config_maps_and_the_pod_itself(
    kube: Kube, node: wasmlet.Node, guest: Guest, tmp_path: Path
) -> None:
    program = """
    #include <stdio.h>
    #include <stdlib.h>
    int main(int argc, char **argv) { printf("%s %s %s\\n", getenv("A"), getenv("NAME"), argv[1]); return 0; }
    """
    image = f"file://{guest('printer', program)}"
    env = [
        {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "a"}}},
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    ]
    container = {"name": "c", "image": image, "env": env, "args": ["$(A)-$(NAME)"]}
    await kube.apply("p", "", containers=[container])
    pod = await kube.wait("p", f"{STATE}.waiting.reason", "CreateContainerConfigError")
    assert 'configmap "settings" not found' in pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"]
    settings = tmp_path / "settings.yaml"
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"a": "hello"}}
    settings.write_text(yaml.safe_dump(body))
    await kube.run("apply", "-f", str(settings))
    await kube.wait("p", ".status.phase", "Succeeded")
    assert await kube.run("logs", "p") == "hello p hello-p\n"


BROKEN = {
    "not wasm": b"#!/bin/sh\necho no\n",
    "truncated": bytes.fromhex("0061736d01000000 0184"),
    "empty": b"",
    "import": wasmtime.wat2wasm('(module (import "env" "nowhere" (func)) (func (export "_start")))'),
}


@pytest.mark.parametrize(
    ("kind", "reason", "expected"),
    [
        ("not wasm", "ErrImagePull", "with the bytes 00 61 73 6d"),
        ("truncated", "CreateContainerError", "broken.wasm"),
        ("empty", "ErrImagePull", "is no module that pods may run"),
        ("import", "CreateContainerError", "env.nowhere"),
        ("missing", "ErrImagePull", "is no module that pods may run"),
    ],
)
async def test_a_module_that_cannot_run_is_told_in_the_pod_and_an_event_and_recovers(
    kube: Kube, node: wasmlet.Node, guest: Guest, tmp_path: Path, kind: str, reason: str, expected: str
) -> None:
    path = tmp_path / "broken.wasm"
    if kind in BROKEN:
        path.write_bytes(BROKEN[kind])
    await kube.apply("p", path)
    pod = await kube.wait("p", f"{STATE}.waiting.reason", reason)
    message = pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"]
    assert expected.lower() in message.lower()
    assert "Traceback" not in message
    assert pod["status"]["phase"] == "Pending"
    async with asyncio.timeout(30):
        while expected.lower() not in (await kube.run("get", "events")).lower():
            pass
    # Nothing of it holds up another pod, or its own end.
    await kube.apply("other", guest("exiter", EXITER))
    await kube.wait("other", ".status.phase", "Succeeded")
    await kube.run("delete", "pod", "p", "--timeout=60s")


async def test_local_modules_are_refused_without_the_flag(
    control_plane: ControlPlane, kube: Kube, guest: Guest, tmp_path: Path
) -> None:
    async with node_of(control_plane, tmp_path, drain=False):
        await kube.apply("p", guest("exiter", EXITER))
        async with asyncio.timeout(30):
            while not (state := (await kube.get("p"))["status"].get("containerStatuses")):
                pass
        assert "--allow-local-modules" in state[0]["state"]["waiting"]["message"]
        await kube.run("delete", "pod", "p", "--timeout=60s")


async def test_a_field_that_cannot_be_honoured_is_named(kube: Kube, node: wasmlet.Node, guest: Guest) -> None:
    image = f"file://{guest('exiter', EXITER)}"
    container = {"name": "c", "image": image, "livenessProbe": {"httpGet": {"port": 80}}}
    await kube.apply("p", "", containers=[container])
    pod = await kube.wait("p", f"{STATE}.waiting.reason", "CreateContainerConfigError")
    assert "spec.containers[0].livenessProbe" in pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"]


async def test_the_token_that_admission_mounts_is_there(kube: Kube, node: wasmlet.Node, guest: Guest) -> None:
    token = "/var/run/secrets/kubernetes.io/serviceaccount/token"
    await kube.apply("p", guest("reader", READER), token, automountServiceAccountToken=True)
    pod = await kube.wait("p", ".status.phase", "Succeeded")
    assert pod["spec"]["volumes"]
    header, payload, signature = (await kube.run("logs", "p")).strip().split(".")
    assert header
    assert signature
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert claims["kubernetes.io"]["pod"]["uid"] == pod["metadata"]["uid"]


async def test_guests_go_on_when_the_node_loop_is_restarted(
    control_plane: ControlPlane, kube: Kube, guest: Guest, tmp_path: Path
) -> None:
    async with node_of(control_plane, tmp_path, drain=False, allow_local_modules=True):
        await kube.apply("p", guest("sleeper", SLEEPER), "hello", restartPolicy="Always")
        await kube.run("wait", "pod/p", "--for=condition=Ready", "--timeout=60s")
        before = (await kube.get("p"))["status"]["containerStatuses"][0]
    async with node_of(control_plane, tmp_path, allow_local_modules=True):
        await kube.apply("other", guest("exiter", EXITER))
        await kube.wait("other", ".status.phase", "Succeeded")
        after = (await kube.get("p"))["status"]["containerStatuses"][0]
        assert after == before
        assert await kube.run("logs", "p") == "hello\n"


async def test_ephemeral_containers_are_added(kube: Kube, node: wasmlet.Node, guest: Guest) -> None:
    """As `kubectl debug` adds them; it does not itself take an image that is a file's URL."""
    await kube.apply("web", guest("sleeper", SLEEPER))
    await kube.run("wait", "pod/web", "--for=condition=Ready", "--timeout=60s")
    pod = await kube.get("web")
    added: list[dict[str, Any]] = []
    for number, code in enumerate((0, 7)):
        container = {"name": f"debug-{number}", "image": f"file://{guest('exiter', EXITER)}", "args": [str(code)]}
        added.append({**container, "targetContainerName": "c", "terminationMessagePolicy": "File"})
        pod["spec"]["ephemeralContainers"] = added
        manifest = kube.directory / "debug.json"
        manifest.write_text(json.dumps({**pod, "metadata": {"name": "web", "namespace": "default"}}))
        await kube.run(
            "replace", "--raw", "/api/v1/namespaces/default/pods/web/ephemeralcontainers", "-f", str(manifest)
        )
        where = f".status.ephemeralContainerStatuses[{number}].state.terminated.exitCode"
        pod = await kube.wait("web", where, str(code))
    assert [s["name"] for s in pod["status"]["ephemeralContainerStatuses"]] == ["debug-0", "debug-1"]
    assert pod["status"]["phase"] == "Running"
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0


async def test_a_sidecar_and_its_job(kube: Kube, node: wasmlet.Node, guest: Guest) -> None:
    side = {"name": "side", "image": f"file://{guest('sleeper', SLEEPER)}", "restartPolicy": "Always"}
    await kube.apply("job", guest("exiter", EXITER), "0", initContainers=[side])
    pod = await kube.wait("job", ".status.phase", "Succeeded")
    assert pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 143
