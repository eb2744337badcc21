"""`wasmlet demo --provider NAME`: any provider that is installed, with its own options.

The providers are those of this environment; `processes` is that of `examples/custom_provider`, a distribution of its
own.
"""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.cli.demo import harness
from tests.cli.demo.harness import wasmlet

POD = """
apiVersion: v1
kind: Pod
metadata: {name: mine}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  tolerations:
  - {key: wasmlet.dev/provider, operator: OPERATOR}
  containers:
  - name: c
    image: none
    command: [sh, -c, "SCRIPT"]
"""
LINES = "for i in 1 2 3 4 5 6 7 8 9; do echo $i of nine; sleep 0.1; done"


def pod(directory: Path, operator: str = "Exists", script: str = "echo hello from sh") -> str:
    file = directory / "pod.yaml"
    file.write_text(POD.replace("OPERATOR", operator).replace("SCRIPT", script))
    return str(file)


@pytest.mark.parametrize("operator", ["Exists", "Equal, value: wasmtime"])
async def test_a_provider_of_another_distribution_runs_its_pods(tmp_path: Path, operator: str) -> None:
    async with wasmlet("demo", "--port", "0", "--provider", "processes", pod(tmp_path, operator)) as demo:
        code, output = await demo.end()
    assert code == 0, output
    assert "node           wasmlet-demo is Ready, provider processes " in output
    assert re.findall(r"^pod/mine +(\w+)$", output, re.MULTILINE) == ["Pending", "Running", "Succeeded"]
    assert "  | hello from sh\n" in output


@pytest.mark.parametrize("by", ["an option", "a variable"])
async def test_it_takes_settings_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    """With logs of one byte, only the last two lines are kept: each begins a file, and a log has two files."""
    if by == "a variable":
        monkeypatch.setitem(harness.OWN, "WASMLET_PROVIDER", "processes")
        monkeypatch.setitem(harness.OWN, "WASMLET_MAX_LOG_BYTES", "1")
    given = ("--provider", "processes", "--max-log-bytes", "1") if by == "an option" else ()
    async with wasmlet("demo", "--port", "0", "--keep", pod(tmp_path, script=LINES), *given) as demo:
        directory = Path((await demo.line(r"^kubeconfig +(\S+)$"))[1]).parent
        await demo.line("^up until Ctrl-C")
        kept = "".join(file.read_text() for file in directory.rglob("processes/**/*") if file.is_file())
    assert re.findall(r"(\d) of nine", kept) != []
    assert "1 of nine" not in kept


async def test_without_a_file_there_is_a_node_for_the_users_pods() -> None:
    async with wasmlet("demo", "--port", "0", "--provider", "processes") as demo:
        code, output = await demo.end()
    assert code == 0, output
    assert "no pods        give a manifest: wasmlet demo --provider processes FILE.yaml\nstopped\n" in output


async def test_an_engine_of_another_distribution_shows_what_every_engine_runs() -> None:
    async with wasmlet("demo", "--port", "0", "--provider", "wasmer") as demo:
        code, output = await demo.end()
    if "wasmlet-wasmer setup" in output:  # its Python is not here, which is said, with what makes it
        assert (code, "Traceback" in output, "none was found. Looked at" in output) == (1, False, True), output
        return
    assert code == 0, output
    assert "  | Hello, from WebAssembly in namespace default\n" in output
    assert "service/web" not in output


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["--provider", "nope"], 2, r"there is no provider 'nope' \(installed: .*processes, remote, .*wasmtime\)"),
        (["--provider=proceses"], 2, "did you mean 'processes'"),
        (["--max-log-bytes", "1"], 2, "No such option '?--max-log-bytes"),
        (["--provider", "processes", "--max-log-bytes", "x"], 2, "'--max-log-bytes'.*: 'x' is not a valid integer"),
        (["--provider", "processes", "--pool"], 2, "--pool is of nodes with provider wasmtime, found --provider proc"),
    ],
)
async def test_what_a_user_gets_wrong(arguments: list[str], code: int, expected: str) -> None:
    """It is said before a control plane is made."""
    async with wasmlet("demo", "--port", "0", *arguments) as demo:
        assert (await demo.end())[0] == code, demo.lines
    output = " ".join("".join(demo.lines).split())
    assert re.search(expected, output), output
    assert "control plane" not in output
    assert "Traceback" not in output


async def test_a_provider_says_which_of_its_settings_it_needs() -> None:
    async with wasmlet("demo", "--port", "0", "--provider", "interlink") as demo:
        code, output = await demo.end()
    assert (code, "Error: which plugin? Give --endpoint URL" in output) == (1, True), output


async def test_what_follows_a_module_is_the_modules(printing: Path) -> None:
    async with wasmlet("demo", "--port", "0", str(printing), "--provider", "nope") as demo:
        code, output = await demo.end()
    assert code == 0, output
    assert re.search(r"^  \| .*--provider.*nope", output, re.MULTILINE | re.DOTALL), output
    assert "Note: the module has --provider among its arguments" in output


async def test_help_has_the_options_of_the_provider() -> None:
    async with wasmlet("demo", "--provider", "processes", "--help") as demo:
        code, output = await demo.end()
    assert code == 0
    assert "--max-log-bytes N" in output
    async with wasmlet("demo", "--help") as demo:
        assert "--max-log-bytes" not in (await demo.end())[1]


PROVIDERS = """
import asyncio
import attrs
from wasmlet.options import option
from wasmlet.testing import ReferenceProvider

class Hang(ReferenceProvider):
    name = "hang"
    async def start(self, context):
        await asyncio.Event().wait()

@attrs.frozen
class Settings:
    file: str = option("a", help="Of the name of an argument of the demo.")
    lamp: str = option("b", help="Another.")

class Named(ReferenceProvider):
    name = "named"
    Config = Settings
"""


@pytest.fixture
def odd_providers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution with providers that are unlike others."""
    (tmp_path / "odd_providers.py").write_text(PROVIDERS)
    announced = tmp_path / "odd_providers-1.0.dist-info"
    announced.mkdir()
    (announced / "METADATA").write_text("Metadata-Version: 2.1\nName: odd-providers\nVersion: 1.0\n")
    points = "[wasmlet.providers]\nhang = odd_providers:Hang\nnamed = odd_providers:Named\n"
    (announced / "entry_points.txt").write_text(points)
    monkeypatch.setitem(harness.OWN, "PYTHONPATH", str(tmp_path))


@pytest.mark.usefixtures("odd_providers")
async def test_one_that_does_not_start_can_be_left() -> None:
    async with wasmlet("demo", "--port", "0", "--provider", "hang") as demo:
        await demo.line("^control plane")
        demo.process.send_signal(signal.SIGINT)
        code, output = await demo.end()
    assert "Traceback" not in output
    assert code in (0, 130), output


@pytest.mark.usefixtures("odd_providers")
async def test_a_setting_may_have_the_name_of_an_argument_of_the_demo() -> None:
    """It keeps its default; the other settings are options."""
    async with wasmlet("demo", "--port", "0", "--provider", "named", "--lamp", "c") as demo:
        code, output = await demo.end()
    assert code == 0, output
    assert "wasmlet-demo is Ready, provider named" in output
