"""What documents show works as shown, what they name is there, and the tables of the house are the linter's."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tomllib
from pathlib import Path

import pytest

from wasmlet.kube import Client, load_identity
from wasmlet.testing import ControlPlane

pytest_plugins = ["pytester"]

CHECKOUT = Path(__file__).parents[2]
HOUSE = CHECKOUT / "docs/explanation/house.md"
TUTORIAL = CHECKOUT / "docs/tutorials/first-provider.md"
CODE = re.findall(r"```python\n(.*?)```", TUTORIAL.read_text("utf-8"), re.DOTALL)[0]
SETTINGS = "[pytest]\nasyncio_mode = strict\nasyncio_default_fixture_loop_scope = function\npythonpath = .\n"


SUITE = """
from processes import Processes
from wasmlet.testing import ProviderContract

class TestProcesses(ProviderContract):
    moment_seconds = 0.2
    many = 10

    def make_provider(self):
        return Processes()
"""
TO_MEND = """
class TestEndsNow(TestProcesses):
    patience_seconds = 2.0

    def make_provider(self):
        return EndsNow()


class EndsNow(Processes):
    async def pod_status(self, key):
        ends = [attrs.evolve(c, state=self.now(c.state)) for c in (await super().pod_status(key)).containers]
        return wasmlet.PodStatus(tuple(ends))

    def now(self, state):
        ended = isinstance(state, wasmlet.Terminated)
        return attrs.evolve(state, finished_at=datetime.now(UTC)) if ended else state
"""


PATH = re.compile(r"(?:wasmlet|tests|providers|examples|benchmarks|\.ci)(?:/[\w.-]+)+/?|[\w-]+\.(?:md|toml|lock)")
"""A path in the checkout: one below a folder of it, or a file at its top."""
PLACES = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/explanation/house.md",
    "docs/network.md",
    "docs/threat-model.md",
    "providers/wasmer/README.md",
    "examples/custom_provider/README.md",
    "examples/http/README.md",
)


@pytest.mark.parametrize("document", PLACES)
def test_paths_that_documents_name_exist(document: str) -> None:
    text = (CHECKOUT / document).read_text("utf-8")
    # In backquotes the whole word is a path, or not one: `wasmlet.dev/provider` is a taint.
    linked = [target.partition("#")[0] for target in re.findall(r"\]\(([^)]+)\)", text) if "://" not in target]
    quoted = [word for word in re.findall(r"`([^`\n]+)`", text) if PATH.fullmatch(word)]
    assert linked or quoted
    beside = (CHECKOUT / document).parent
    assert [path for path in linked if path and not (beside / path).exists()] == []
    assert [path for path in quoted if not (CHECKOUT / path).exists() and not (beside / path).exists()] == []


def layers(package: str) -> list[set[str]]:
    """The rows of a package, from its top, as import-linter holds them."""
    contracts = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    (contract,) = (contract for contract in contracts if contract.get("containers") == [package])
    return [set(layer.split(" | ")) for layer in contract["layers"]]


@pytest.mark.parametrize("package", ["wasmlet", "wasmlet.runtime", "wasmlet.controlplane", "wasmlet.worker"])
def test_the_tables_of_the_house_are_those_that_the_linter_holds(package: str) -> None:
    house = HOUSE.read_text("utf-8")
    head = "all of it" if package == "wasmlet" else f"`{package.replace('.', '/')}`"
    rows = house.partition(f"| {head} | |\n|---|---|\n")[2].partition("\n\n")[0].splitlines()
    named = [re.findall(r"`([^`]+)`", row.split("|")[1]) for row in rows]
    inside = [row for row in named if not row[0].startswith(("benchmarks", "providers"))]
    assert [{Path(name).stem for name in row} for row in inside] == layers(package)


def test_a_provider_whose_status_is_another_one_each_time_is_told_what_differs(pytester: pytest.Pytester) -> None:
    """The suite ends, names the field, and shows none of its own code."""
    pytester.makeini(SETTINGS)
    head = "import attrs, wasmlet\nfrom datetime import UTC, datetime\n"
    pytester.makepyfile(processes=CODE, test_processes=head + SUITE + TO_MEND)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-k", "EndsNow", timeout=300)
    assert result.parseoutcomes()["failed"] >= 3
    output = result.stdout.str()
    failures = output[output.index("= FAILURES") :]
    assert re.search(r"finished_at was datetime\.datetime\(.*\) and is datetime\.datetime\(", failures)
    assert "to mend: keep finished_at" in failures
    assert "testing/contract/" not in failures
    assert "async def test_" not in failures


async def test_the_provider_of_the_tutorial(control_plane: ControlPlane, kubectl: Path, tmp_path: Path) -> None:
    body = CODE.replace(
        "wasmlet.run(Processes())",
        "import os; from pathlib import Path\n"
        "    wasmlet.run(Processes(), wasmlet.NodeConfig(node_name='n1', node_ip='127.0.0.1', port=0,\n"
        "        state_dir=Path(os.environ['STATE'])))",
    )
    assert len(CODE.strip().splitlines()) < 50
    program = tmp_path / "processes.py"
    program.write_text(body)
    environment = os.environ | {
        "KUBECONFIG": str(control_plane.kubeconfig),
        "STATE": str(tmp_path / "state"),
    }
    node = await asyncio.create_subprocess_exec(sys.executable, program, env=environment)
    try:
        async with Client(await load_identity(control_plane.kubeconfig)) as admin:
            async with asyncio.timeout(30):
                async with admin.stream("/api/v1/nodes", {"watch": "1"}) as content:
                    while b'"Ready"' not in await content.readline():
                        pass

        async def kube(*arguments: str) -> str:
            process = await asyncio.create_subprocess_exec(
                kubectl, *arguments, env=environment, stdout=asyncio.subprocess.PIPE
            )
            out, _ = await process.communicate()
            assert process.returncode == 0, arguments
            return out.decode()

        overrides = '{"spec":{"nodeName":"n1","tolerations":[{"operator":"Exists"}]}}'
        for name, command in (("good", ("true",)), ("bad", ("false",)), ("long", ("sleep", "1000"))):
            await kube(
                "run", name, "--image=none", "--restart=Never", "--command", f"--overrides={overrides}", "--", *command
            )
        await kube("wait", "pod/good", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
        await kube("wait", "pod/bad", "--for=jsonpath={.status.phase}=Failed", "--timeout=60s")
        await kube("wait", "pod/long", "--for=condition=Ready", "--timeout=60s")
        await kube("delete", "pod", "--all", "--timeout=60s")
        assert await kube("get", "pods", "-o", "name") == ""
    finally:
        node.terminate()
        await asyncio.wait_for(node.wait(), 30)
    assert node.returncode == 0
