"""The module that ships with the examples is what its source beside it says, and the pod asks for what it honours."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from wasmlet_wascc import claims, sections

from tests.guests import components, languages
from tests.guests.components import MODULE, compile_component
from tests.wascc import signing

EXAMPLES = Path(__file__).parents[2] / "examples"
PREBUILT = EXAMPLES / "hello" / "hello.wasm"

# A process of its own, because the guest writes to the process's own streams.
RUN = """
import sys, wasmtime
module, variables, arguments = sys.argv[1], sys.argv[2].split(","), sys.argv[3:]
engine = wasmtime.Engine()
linker = wasmtime.Linker(engine)
linker.define_wasi()
store = wasmtime.Store(engine)
wasi = wasmtime.WasiConfig()
wasi.argv = ["hello", *arguments]
wasi.env = [variable.split("=", 1) for variable in variables if variable]
wasi.inherit_stdout()
wasi.preopen_dir(".", "/here")
store.set_wasi(wasi)
instance = linker.instantiate(store, wasmtime.Module.from_file(engine, module))
try:
    instance.exports(store)["_start"](store)
except wasmtime.ExitTrap as ended:
    sys.exit(ended.code)
"""


def run(module: Path, arguments: Sequence[str] = (), variables: Mapping[str, str] | None = None) -> tuple[str, int]:
    """What that module prints with these arguments and variables, and its exit code."""
    environment = ",".join(f"{name}={value}" for name, value in (variables or {}).items())
    answer = subprocess.run(
        [sys.executable, "-c", RUN, str(module), environment, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    assert answer.stderr == ""
    return answer.stdout, answer.returncode


@pytest.fixture(scope="module")
def rebuilt(compile_guest: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    module: Path = tmp_path_factory.mktemp("hello") / "hello.wasm"
    compile_guest(EXAMPLES / "hello" / "hello.c", module, "-Os", "-s")
    return module


def test_module_is_small_and_wasm() -> None:
    binary = PREBUILT.read_bytes()
    assert binary[:8] == b"\0asm\1\0\0\0"
    assert len(binary) < 40 * 1024


@pytest.mark.parametrize(
    ("arguments", "variables", "output", "code"),
    [
        ([], {}, "Hello, world\nline 1 of 3\nline 2 of 3\nline 3 of 3\nBye\n", 0),
        (["from", "here"], {"HELLO_LINES": "1", "HELLO_PAUSE": "1"}, "Hello, from here\nline 1 of 1\nBye\n", 0),
        (
            [],
            {"POD_NAME": "p", "NODE_NAME": "n", "HELLO_LINES": "0", "HELLO_EXIT": "7"},
            "Hello, world\nI am pod p on node n\nBye\n",
            7,
        ),
    ],
)
def test_prebuilt_and_rebuilt_run_alike(
    rebuilt: Path, arguments: Sequence[str], variables: Mapping[str, str], output: str, code: int
) -> None:
    assert run(rebuilt, arguments, variables) == (output, code)
    assert run(PREBUILT, arguments, variables) == (output, code)


def test_pod_is_what_pod_security_restricted_asks_for() -> None:
    pod = yaml.safe_load((EXAMPLES / "hello.yaml").read_text())
    spec = pod["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert spec["automountServiceAccountToken"] is False
    assert spec["nodeSelector"] == {"kubernetes.io/os": "wasi", "kubernetes.io/arch": "wasm"}


def test_pod_names_the_module_beside_it() -> None:
    (container,) = yaml.safe_load((EXAMPLES / "hello.yaml").read_text())["spec"]["containers"]
    scheme, path = container["image"].split("://")
    assert scheme == "file"
    assert (EXAMPLES / path).resolve() == PREBUILT.resolve()


def test_the_box_of_the_other_examples_is_what_its_source_says(compile_guest: Any, tmp_path: Path) -> None:
    """Built by the command in its README, whose options these are."""
    prebuilt, options = EXAMPLES / "box" / "box.wasm", ("-Os", "-s", "-Wl,-z,stack-size=65536")
    assert " ".join(options) in (EXAMPLES / "box" / "README.md").read_text()
    rebuilt = tmp_path / "box.wasm"
    compile_guest(EXAMPLES / "box" / "box.c", rebuilt, *options)
    assert len(prebuilt.read_bytes()) < 64 * 1024
    for arguments, output, code in (
        (["say", "a", "b", "then", "env", "NAME"], "a b\nNAME=value\n", 0),
        (["has", "/nowhere", "then", "say", "not said"], "", 1),
        (["lacks", "/nowhere", "then", "grow", "1"], "has 1 MiB\n", 0),
    ):
        assert run(rebuilt, arguments, {"NAME": "value"}) == (output, code)
        assert run(prebuilt, arguments, {"NAME": "value"}) == (output, code)


def test_the_box_waits_until_a_file_has_something_in_it(tmp_path: Path) -> None:
    """A file that another pod is about to write is there a moment before its content is."""
    note = tmp_path / "note"
    note.touch()
    module = EXAMPLES / "box" / "box.wasm"
    command = [sys.executable, "-c", RUN, str(module), "", "wait", "/here/note", "then", "cat", "/here/note"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE) as waits:
        with pytest.raises(subprocess.TimeoutExpired):
            waits.wait(2)
        note.write_bytes(b"written\n")
        assert waits.communicate(timeout=60) == (b"written\n", None)


def test_the_server_of_the_example_is_what_its_source_says(compile_guest: Any, tmp_path: Path) -> None:
    """Built by the command in its README; without a port it says what it needs."""
    prebuilt, options = EXAMPLES / "web" / "web.wasm", ("-Os", "-s", "-Wl,-z,stack-size=65536")
    assert " ".join(options) in (EXAMPLES / "web" / "README.md").read_text()
    rebuilt = tmp_path / "web.wasm"
    compile_guest(EXAMPLES / "web" / "web.c", rebuilt, *options)
    assert len(prebuilt.read_bytes()) < 100 * 1024
    assert prebuilt.read_bytes() == rebuilt.read_bytes()


def test_the_component_of_the_example_is_what_its_source_says(tmp_path: Path) -> None:
    """Built by the commands in its README."""
    folder, rebuilt = EXAMPLES / "http", tmp_path / "http.wasm"
    options = (*MODULE, "-Os", "-s", "-Wl,-z,stack-size=65536")
    readme = (folder / "README.md").read_text()
    assert [option for option in options if option not in readme] == []
    compile_component(folder / "http.c", rebuilt, "-Os", "-s", "-Wl,-z,stack-size=65536")
    assert len(rebuilt.read_bytes()) < 100 * 1024
    assert (folder / "http.wasm").read_bytes() == rebuilt.read_bytes()


def test_the_component_in_python_is_built_by_the_command_in_its_readme() -> None:
    readme = " ".join((EXAMPLES / "http" / "README.md").read_text().replace("\\", "").split())
    options = "-d examples/http/http.wit -w asking componentize -p examples/http/python"
    assert f"componentize-py {options} -o examples/http/python/app.wasm app" in readme
    assert components.python().read_bytes()[:8] == b"\0asm\x0d\0\x01\0"


@pytest.mark.timeout(900)  # an engine for JavaScript is made ready, which takes as long as others let it
@pytest.mark.parametrize(
    ("language", "options"),
    [
        ("javascript", "examples/http/javascript/build.mjs .venv/languages/javascript/node_modules"),
        ("go", "GOOS=wasip1 GOARCH=wasm .venv/languages/go/go/bin/go build -C examples/http/go -buildmode=c-shared"),
        ("rust", "--target wasm32-unknown-unknown -C opt-level=s -C panic=abort -C strip=symbols"),
    ],
)
def test_components_in_other_languages_are_built_by_the_commands_in_their_readme(language: str, options: str) -> None:
    """`tests/runtime/network/test_languages.py` runs what comes of them in pods."""
    assert options in " ".join((EXAMPLES / "http" / "README.md").read_text().replace("\\", "").split())
    assert languages.built(language).read_bytes()[:8] == b"\0asm\x0d\0\x01\0"


@pytest.mark.parametrize("name", ["echo", "counter"])
def test_the_actors_are_what_their_sources_say(name: str) -> None:
    """Built by the command in their README, whose options these are; what differs is who has signed them."""
    assert " ".join(signing.FLAGS) in (signing.EXAMPLES / "README.md").read_text()
    prebuilt = (signing.EXAMPLES / f"{name}.wasm").read_bytes()
    assert claims.read(prebuilt).name == name
    assert len(prebuilt) < 8 * 1024
    assert sections.without(prebuilt, sections.tokens(prebuilt)) == signing.unsigned(name)
