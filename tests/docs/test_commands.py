"""What README and the documentation tell a reader to type works as it is written."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.artifacts import registries
from tests.artifacts.conftest import docker_registry
from tests.docs.console import NOT_RUN, PATIENCE, ROOT, Reader, commands, missing
from wasmlet.testing import ControlPlane

__all__ = ["docker_registry"]

pytestmark = pytest.mark.timeout(PATIENCE + 60)

ELSEWHERE = (
    "docs/clusters.md",  # tests/deployment/test_quickstarts.py
    "examples/custom_provider/README.md",  # tests/test_readme.py
    "examples/custom_capability/README.md",  # its tests are part of every run
)
"""Documents whose commands another test runs."""
RUN = (
    "docs/tutorials/first-pod.md",
    "docs/tutorials/first-provider.md",
    "docs/tutorials/first-component.md",
    "docs/how-to/registry.md",
    "docs/host.md",
    "examples/wascc/README.md",
)
"""Documents whose commands are run below."""
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("docs/**/*.md", "providers/*/README.md", "examples/*/README.md")
    for path in ROOT.glob(pattern)
)


def text_of(document: str) -> str:
    return (ROOT / document).read_text("utf-8")


@pytest.fixture
def reader(tmp_path: Path, kubectl: Path) -> Reader:
    """A checkout of the reader's own, as far as commands change it: the examples."""
    directory = tmp_path / "checkout"
    directory.mkdir()
    for path in ROOT.iterdir():
        if path.name not in ("examples", ".git"):
            (directory / path.name).symlink_to(path)
    built = shutil.ignore_patterns("app.wasm", "__pycache__")
    shutil.copytree(ROOT / "examples", directory / "examples", ignore=built)
    programs = f"{Path(sys.executable).parent}:{kubectl.parent}"
    return Reader(directory, {"PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin", "XDG_RUNTIME_DIR": str(tmp_path)})


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text_of(document), re.DOTALL)


@pytest.mark.parametrize("document", [page for page in PAGES if page not in (*RUN, *ELSEWHERE)])
def test_a_command_that_is_not_run_says_so(document: str) -> None:
    assert [one.text for one in commands(text_of(document)) if one.run] == []


def test_readme_shows_what_the_demo_prints(reader: Reader) -> None:
    """`make demo` itself is run by the first tutorial; here is what README shows of it."""
    (demo,) = (one for one in commands(text_of("README.md")) if one.bare == "make demo")
    assert len(demo.printed) > 10
    for unlike in ("pod/hello      Failed", "control plane  https://127.0.0.1"):
        assert missing([unlike], "\n".join(demo.printed)) == [unlike]


def test_what_readme_tells_to_type_is_run_by_a_tutorial() -> None:
    typed = {one.bare for document in RUN for one in commands(text_of(document)) if one.run} | {"make test"}
    told = [one.bare for one in commands(text_of("README.md")) if one.run]
    assert "make demo" in told
    assert [command for command in told if command not in typed] == []
    assert len(text_of("README.md").splitlines()) <= 150


async def test_first_pod(reader: Reader) -> None:
    document = "docs/tutorials/first-pod.md"
    (manifest,) = blocks(document, "yaml")
    (reader.directory / "mine.yaml").write_text(manifest)
    output = await reader.follow(text_of(document))
    (demo,) = (one for one in commands(text_of("README.md")) if one.bare == "make demo")
    assert missing(demo.printed, output) == []
    assert re.search(r"^Hello from web-\S+: /hello$", output, re.MULTILINE)


async def test_first_component(reader: Reader) -> None:
    """With the same server in C in the place of what componentize-py builds, which takes its node long to compile.

    `tests/test_web.py` runs the one in Python, which `tests/guests/components.py` builds by the command that is here.
    """
    document = "docs/tutorials/first-component.md"
    text = text_of(document)
    (build,) = (one for one in commands(text) if "componentize-py" in one.text)
    assert build.bare in " ".join(text_of("examples/http/README.md").replace("\\", "").split())
    shutil.copy(ROOT / "examples/http/http.wasm", reader.directory / "examples/http/python/app.wasm")
    output = await reader.follow(text.replace(build.text, f"{build.bare}    # {NOT_RUN}"))
    assert re.search(r"^Hello from python-\S+: /hello$", output, re.MULTILINE)


async def test_first_provider(reader: Reader) -> None:
    document = "docs/tutorials/first-provider.md"
    provider, suite, _ = blocks(document, "python")
    settings = (
        "import os\n    from pathlib import Path\n\n    config = wasmlet.NodeConfig(node_ip='127.0.0.1', port=0, "
        f"state_dir=Path({str(reader.directory / 'state')!r}))\n    wasmlet.run(Processes(), config)"
    )
    (reader.directory / "processes.py").write_text(provider.replace("wasmlet.run(Processes())", settings))
    (reader.directory / "test_processes.py").write_text(suite)
    output = await reader.follow(text_of(document))
    assert re.search(r"^date +0/1 +Completed +0", output, re.MULTILINE)
    passed = re.search(r"^(\d+) passed", output, re.MULTILINE)
    assert passed is not None
    assert int(passed[1]) > 35


async def test_registries(reader: Reader, docker_registry: Path, tmp_path: Path) -> None:
    async with registries.registry(docker_registry, tmp_path / "registry") as host:
        reader.environment.update(REGISTRY=f"{host}/team", WASMLET_INSECURE_REGISTRIES=host)
        await reader.follow(text_of("docs/how-to/registry.md"))
    assert (reader.directory / "copy.wasm").read_bytes() == (ROOT / "examples/hello/hello.wasm").read_bytes()


async def test_signed_actors(reader: Reader) -> None:
    output = await reader.follow(text_of("examples/wascc/README.md"))
    assert re.search(r"^capabilit|http_server", output, re.MULTILINE)
    assert "HTTP 200 OK" in output


async def test_a_host_of_agents(reader: Reader, control_plane: ControlPlane) -> None:
    """What an administrator types once; `tests/remote` runs the host and its agents."""
    reader.environment["KUBECONFIG"] = str(control_plane.kubeconfig)
    await reader.follow(text_of("docs/host.md"))
    assert (reader.directory / "keys/agent.crt").exists()
    assert (reader.directory / "token").read_text().strip()
