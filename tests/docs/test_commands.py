"""What README and the documentation tell a reader to type works as it is written."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

import wasmlet
from tests.artifacts import registries
from tests.artifacts.conftest import docker_registry
from tests.docs.console import NOT_RUN, PATIENCE, ROOT, Reader, commands, missing
from tests.guests import BUILD
from tests.node.cluster import pod_spec
from wasmlet.kube import Client, load_identity
from wasmlet.testing import ControlPlane, ReferenceProvider

__all__ = ["docker_registry"]

pytestmark = pytest.mark.timeout(PATIENCE + 60)

ELSEWHERE = (
    "docs/clusters.md",  # tests/deployment/test_quickstarts.py
    "examples/custom_capability/README.md",  # its tests are part of every run
)
"""Documents whose commands another test runs."""
RUN = (
    "docs/tutorials/first-pod.md",
    "docs/tutorials/first-provider.md",
    "docs/tutorials/first-component.md",
    "docs/tutorials/fleet.md",  # tests/operator/test_documents.py
    "docs/how-to/credentials.md",
    "docs/how-to/registry.md",
    "docs/how-to/troubleshooting.md",
    "docs/host.md",
    "docs/monitoring.md",
    "docs/operator.md",
    "examples/box/README.md",
    "examples/custom_provider/README.md",
    "examples/hello/README.md",
    "examples/http/README.md",
    "examples/wascc/README.md",
    "examples/web/README.md",
    "providers/remote/README.md",
    "providers/wascc/README.md",
)
"""Documents whose commands are run below."""
PROGRAMS = r"\.venv/bin/|buildah|curl|helm|kubectl|make|oc|pip|python|sudo|wasmlet"
"""With which a command begins."""
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
    (directory / "build").mkdir()
    for path in ROOT.iterdir():
        if path.name not in ("build", "examples", ".git"):
            (directory / path.name).symlink_to(path)
    built = shutil.ignore_patterns("app.wasm", "__pycache__")
    shutil.copytree(ROOT / "examples", directory / "examples", ignore=built)
    programs = f"{Path(sys.executable).parent}:{kubectl.parent}"
    cache = str(BUILD / "zig")  # the compiler's, shared with the tests' guests: it begins with the C library
    own = {"ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache, "XDG_RUNTIME_DIR": str(tmp_path)}
    return Reader(directory, {"PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin", **own})


@pytest.fixture
def administrator(reader: Reader, control_plane: ControlPlane) -> Reader:
    """The reader, who administers a cluster: an API server without nodes."""
    reader.environment["KUBECONFIG"] = str(control_plane.kubeconfig)
    return reader


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text_of(document), re.DOTALL)


@pytest.mark.parametrize("document", [page for page in PAGES if page not in (*RUN, *ELSEWHERE)])
def test_a_command_that_is_not_run_says_so(document: str) -> None:
    assert [one.text for one in commands(text_of(document)) if one.run] == []


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", *PAGES])
def test_each_command_is_in_a_console_block(document: str) -> None:
    """Where these tests find it; what `make` is told to make is there."""
    text = text_of(document)
    assert re.findall(r"```(?:sh|bash|shell)\b", text) == []
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert [line for line in outside.splitlines() if re.match(rf" {{4,}}(?:\$ |(?:{PROGRAMS})\b)", line)] == []
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    made = [word for one in commands(text) for word in re.findall(r"^make ([a-z ]+)", one.bare)]
    assert {target for words in made for target in words.split()} <= targets


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

    `tests/docs/test_web.py` runs the one in Python; `tests/guests/components.py` builds it by the command that is here.
    """
    document = "docs/tutorials/first-component.md"
    text = text_of(document)
    (build,) = (one for one in commands(text) if "componentize-py" in one.text)
    (shown,) = blocks(document, "python")
    assert shown in text_of("examples/http/python/app.py")
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


async def test_a_provider_in_a_distribution_of_its_own(reader: Reader) -> None:
    await reader.follow(text_of("examples/custom_provider/README.md"))


async def test_registries(administrator: Reader, docker_registry: Path, tmp_path: Path) -> None:
    async with registries.registry(docker_registry, tmp_path / "registry") as host:
        administrator.environment.update(REGISTRY=f"{host}/team", WASMLET_INSECURE_REGISTRIES=host)
        await administrator.follow(text_of("docs/how-to/registry.md"))
    directory = administrator.directory
    assert (directory / "copy.wasm").read_bytes() == (ROOT / "examples/hello/hello.wasm").read_bytes()


async def test_signed_actors(reader: Reader) -> None:
    output = await reader.follow(text_of("examples/wascc/README.md"))
    assert re.search(r"^capabilit|http_server", output, re.MULTILINE)
    assert "HTTP 200 OK" in output


async def test_the_page_of_the_provider_of_actors(reader: Reader) -> None:
    shutil.copy(ROOT / "examples/wascc/counter.wasm", reader.directory / "actor.wasm")
    output = await reader.follow(text_of("providers/wascc/README.md"))
    assert "keyvalue" in output


@pytest.mark.parametrize("example", ["box", "hello", "web"])
async def test_an_example_is_built_again(reader: Reader, example: str) -> None:
    module = reader.directory / f"examples/{example}/{example}.wasm"
    module.unlink()
    await reader.follow(text_of(f"examples/{example}/README.md"))
    assert module.read_bytes()[:4] == b"\0asm"


async def test_a_component_in_c(reader: Reader) -> None:
    (reader.directory / "examples/http/http.wasm").unlink()
    output = await reader.follow(text_of("examples/http/README.md"))
    assert re.search(r"^Hello from http-\S+: /hello$", output, re.MULTILINE)


async def test_a_host_of_agents(administrator: Reader) -> None:
    """What an administrator types once; `tests/remote` runs the host and its agents."""
    await administrator.follow(text_of("docs/host.md"))
    assert (administrator.directory / "keys/agent.crt").exists()
    assert (administrator.directory / "token").read_text().strip()


async def test_the_page_of_the_remote_provider(reader: Reader) -> None:
    await reader.follow(text_of("providers/remote/README.md"))
    assert {"ca.crt", "client.crt", "client.key"} <= {path.name for path in (reader.directory / "keys").iterdir()}


async def test_a_node_gets_its_certificate_by_a_bootstrap_token(reader: Reader, tmp_path: Path) -> None:
    async with ControlPlane(approve=()) as plane:
        identity = await load_identity(plane.kubeconfig)
        shutil.copy(plane.client_ca_file, reader.directory / "ca.crt")
        reader.environment.update(KUBECONFIG=str(plane.kubeconfig), WASMLET_NODE_IP="127.0.0.1", WASMLET_PORT="0")
        reader.stands_for.update({
            "https://SERVER:6443": identity.server,
            "SIXTEEN-LETTERS": "0123456789abcdef",
            "/var/lib/wasmlet": str(tmp_path / "state"),
        })  # fmt: skip
        output = await reader.follow(text_of("docs/how-to/credentials.md"))
    assert re.search(r"node-csr-\w+ approved$", output, re.MULTILINE)


async def test_what_to_look_at_first(administrator: Reader, control_plane: ControlPlane, tmp_path: Path) -> None:
    config = wasmlet.NodeConfig(
        kubeconfig=control_plane.node_kubeconfig("n1"), node_name="n1", node_ip="127.0.0.1", port=0,
        client_ca_file=control_plane.client_ca_file, state_dir=tmp_path / "n1", serving_csr=False,
    )  # fmt: skip
    administrator.environment.update(WASMLET_NODE_NAME="n1", WASMLET_STATE_DIR=str(tmp_path / "state"))
    administrator.stands_for.update({"node NODE": "node n1", "pod POD": "pod p"})
    identity = await load_identity(control_plane.kubeconfig)
    async with Client(identity) as admin, wasmlet.Node(ReferenceProvider(), config):
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": pod_spec()}
        await admin.create("/api/v1/namespaces/default/pods", body)
        output = await administrator.follow(text_of("docs/how-to/troubleshooting.md"))
    assert "reach: the API server reaches node n1" in output
    assert re.search(r"^Node: +n1/", output, re.MULTILINE)


async def test_monitoring(administrator: Reader, control_plane: ControlPlane) -> None:
    async with Client(await load_identity(control_plane.kubeconfig)) as admin:
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "monitoring"}}
        await admin.create("/api/v1/namespaces", body)
    await administrator.follow(text_of("docs/monitoring.md"))


async def test_the_page_of_the_operator(administrator: Reader) -> None:
    """Beside what the tutorial has: there the operator runs, and here is only what it is given."""
    text = text_of("docs/operator.md")
    tutorial = {one.bare for one in commands(text_of("docs/tutorials/fleet.md"))}
    told = re.findall(r"<!-- (.*?) -->\n```console\n(.*?)```", text, re.DOTALL)
    from_there = [block for why, block in told if "the tutorial has these" in why]
    assert {one.bare for block in from_there for one in commands(f"```console\n{block}```")} <= tutorial
    before = "".join(f"```console\n{block}```\n" for block in from_there[:1])
    await administrator.follow(before + text)
