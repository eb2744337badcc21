"""What `wasmlet demo` says of files that cannot be, and of pods that never run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.demo.harness import POD, wasmlet


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["/nowhere.wasm"], "/nowhere.wasm: there is no such file"),
        (["/nowhere.yaml"], "/nowhere.yaml: there is no such file"),
        (["examples"], "examples: expected a manifest or a module, found a directory"),
        (["examples/hello/hello.wasm", "\udcff"], "expected a name and arguments in UTF-8"),
        (["README.md", "a", "b"], "is a manifest, which takes no arguments; found 'a b'"),
    ],
)
async def test_a_file_that_is_no_module_and_no_manifest(arguments: list[str], expected: str) -> None:
    async with wasmlet("demo", "--port", "0", *arguments) as demo:
        code, output = await demo.end()
    assert code == 1
    assert expected in output
    assert "Traceback" not in output


@pytest.mark.parametrize(("content", "found"), [(b"", "an empty file"), (b"(module)", "b'(mod'")])
async def test_a_file_with_the_name_of_a_module_that_is_none(tmp_path: Path, content: bytes, found: str) -> None:
    """It is said before anything is started."""
    (tmp_path / "app.wasm").write_bytes(content)
    async with wasmlet("demo", "--port", "0", str(tmp_path / "app.wasm")) as demo:
        code, output = await demo.end()
    assert code == 1
    assert f"app.wasm: expected a WebAssembly module, which begins with b'\\x00asm', found {found}" in output
    assert "control plane" not in output


async def test_a_pod_that_never_runs_fails_the_demo_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "pod.yaml").write_text(POD.format(image="file://./nowhere.wasm"))
    async with wasmlet("demo", "--port", "0", str(tmp_path / "pod.yaml")) as demo:
        await demo.line(r"^pod/mine +ErrImagePull: .*nowhere\.wasm")
        code, output = await demo.end()
    assert code == 1
    assert "Error: nothing runs after 30 s" in output
    assert "nowhere.wasm: No such file or directory" in output.rpartition("Error:")[2]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("", ""), "CreateContainerError: module file://./empty.wasm: the module has no _start function"),
        (
            ("  containers:", "  initContainers: [{name: i, image: file://./empty.wasm}]\n  containers:"),
            "has no _start",
        ),
        (("file://./empty.wasm", "file://%%"), "InvalidImageName"),
        (("    image:", "    envFrom: [{configMapRef: {name: none}}]\n    image:"), 'configmap "none" not found'),
        (("tolerations: [{operator: Exists}]", "tolerations: []"), "`runtimeClassName: wasmlet` in its spec"),
    ],
    ids=["a library", "a library in an init container", "an image's name", "a config map", "a taint"],
)
async def test_what_no_waiting_mends_is_said_sooner(tmp_path: Path, change: tuple[str, str], expected: str) -> None:
    (tmp_path / "empty.wasm").write_bytes(b"\0asm\1\0\0\0")
    (tmp_path / "pod.yaml").write_text(POD.format(image="file://./empty.wasm").replace(*change))
    async with wasmlet("demo", "--port", "0", str(tmp_path / "pod.yaml")) as demo:
        code, output = await demo.end()
    assert code == 1
    assert expected in output.partition("\nError: nothing runs; ")[2]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "there is no such file"),
        ("{", "expected YAML or JSON"),
        ("kind: Deployment", "document 1: expected an object with apiVersion, kind and metadata"),
        ("apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: x}", "has no DaemonSet of apps/v1"),
        ("apiVersion: v1\nkind: Pot\nmetadata: {name: x}", "has no Pot of v1; did you mean 'Pod'?"),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}",
            "expected at least one of Pod, Deployment, ReplicaSet, StatefulSet, Job, found 1 other",
        ),
        ("apiVersion: v1\nkind: Pod\nmetadata: {}", "expected metadata.name of the Pod"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: x, annotations: text}", "annotations: expected an object"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: x, labels: {a: !!binary eA==}}", "expected what JSON can hold"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: &a {b: *a}", "expected YAML or JSON"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: x, labels: {1: x}}", "the pod x is not accepted"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: 5}", 'metadata.name: expected text, found 5; write it as "5"'),
        ("apiVersion: v1\nkind: Pod\nmetadata: {generateName: [a]}", "metadata.generateName: expected text, found ["),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: x, namespace: 7}", "metadata.namespace: expected text, found 7"),
        ('apiVersion: v1\nkind: Pod\nmetadata: {name: x, namespace: ".."}', "at both ends, found '..'"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: x, namespace: a/b}", "at both ends, found 'a/b'"),
        ("[" * 100_000, "expected YAML or JSON"),
        ("# nothing\n---\n", "expected at least one of Pod, Deployment, ReplicaSet, StatefulSet, Job, found 0 other"),
        ("a: b\n---\n- 1", "document 1: expected an object"),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: c, image: a, imge: b}]}",
            'unknown field "spec.containers[0].imge"',
        ),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {}", "the pod x is not accepted"),
    ],
)
async def test_a_manifest_that_cannot_be(tmp_path: Path, text: str | None, expected: str) -> None:
    manifest = tmp_path / "pod.yaml"
    if text is not None:
        manifest.write_text(text)
    async with wasmlet("demo", "--port", "0", str(manifest)) as demo:
        code, output = await demo.end()
    assert code == 1
    assert expected in output
    assert "Traceback" not in output
