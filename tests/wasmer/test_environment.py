"""The interpreter that has wasmer: where it is looked for, what is said where there is none, and how one is made."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
from wasmlet_wasmer import WasmerEngine, WasmerProvider, environment, setup
from wasmlet_wasmer.environment import PYTHON, WASMER, ask, find, interpreters

import wasmlet
from wasmlet.errors import ConfigError
from wasmlet.runtime import RuntimeConfig
from wasmlet.testing import ControlPlane
from wasmlet.worker.guest import confine

PROJECT = Path(__file__).parents[2] / "providers" / "wasmer"
NAME = f"python{PYTHON}"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with nothing, and a virtual environment with nothing."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    return tmp_path


@pytest.fixture
def bare(wasmer: Path) -> Path:
    """A Python of the right version that has no wasmer."""
    base = subprocess.run([wasmer, "-c", "import sys; print(sys.base_prefix)"], capture_output=True, text=True)
    return Path(base.stdout.strip()) / "bin" / NAME


def nothing(home: Path, **more: str) -> Mapping[str, str]:
    """The variables of that user."""
    return {"HOME": str(home), "PATH": str(home / "bin"), **more}


def script(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def stands_for(python: Path, path: Path) -> Path:
    """Another name of an interpreter."""
    return script(path, f'exec "{python}" "$@"')


@pytest.mark.parametrize("place", ["venv/wasmer", ".local/share/wasmlet/wasmer"])
async def test_the_environments_that_setup_makes(home: Path, wasmer: Path, place: str) -> None:
    (home / place).parent.mkdir(parents=True)
    (home / place).symlink_to(wasmer.parents[1])
    assert await find(None, nothing(home)) == home / place / "bin" / "python"


async def test_the_data_directory_may_be_elsewhere(home: Path, wasmer: Path) -> None:
    python = stands_for(wasmer, home / "data" / "wasmlet" / "wasmer" / "bin" / "python")
    assert await find(None, nothing(home, XDG_DATA_HOME=str(home / "data"))) == python


@pytest.mark.parametrize(
    ("place", "variables"),
    [
        (f"bin/{NAME}", {}),
        (f".pyenv/versions/3.10.99/bin/{NAME}", {}),
        (f"pyenv/versions/3.10.1/bin/{NAME}", {"PYENV_ROOT": "pyenv"}),
        (f".local/share/uv/python/cpython-3.10.16-linux-x86_64-gnu/bin/{NAME}", {}),
        (f"uv/cpython-3.10.2-linux/bin/{NAME}", {"UV_PYTHON_INSTALL_DIR": "uv"}),
        (f"data/uv/python/cpython-3.10/bin/{NAME}", {"XDG_DATA_HOME": "data"}),
    ],
)
async def test_interpreters(home: Path, wasmer: Path, place: str, variables: dict[str, str]) -> None:
    environ = nothing(home, **{name: str(home / value) for name, value in variables.items()})
    python = stands_for(wasmer, home / place)
    assert list(interpreters(environ)) == [python]
    assert await find(None, environ) == python


async def test_those_that_will_not_do_are_passed_over(home: Path, wasmer: Path, bare: Path) -> None:
    script(home / "bin" / NAME, f"echo 'pyenv: {NAME}: command not found' >&2; exit 127")
    stands_for(bare, home / ".pyenv" / "versions" / "3.10.99" / "bin" / NAME)
    good = stands_for(wasmer, home / ".pyenv" / "versions" / "3.10.13" / "bin" / NAME)
    (home / ".pyenv" / "versions" / "3.10").symlink_to("3.10.13")
    assert await find(None, nothing(home)) == good
    good.unlink()
    with pytest.raises(ConfigError) as failure:
        await find(None, nothing(home))
    said = str(failure.value)
    for part in (
        f"{home}/venv/wasmer/bin/python (it is not there)",
        f"{home}/.local/share/wasmlet/wasmer/bin/python (it is not there)",
        f"{home}/bin/{NAME} (it is no Python: pyenv: {NAME}: command not found)",
        f"{home}/.pyenv/versions/3.10.99/bin/{NAME} (it has no wasmer: No module named 'wasmer')",
        "To make one: run `wasmlet-wasmer setup`; to use another: --engine-python",
    ):
        assert part in said
    assert "pyenv install" not in said


async def test_without_any_python_one_has_to_be_installed_first(home: Path) -> None:
    with pytest.raises(ConfigError, match=rf"install Python {PYTHON} .*, then run `wasmlet-wasmer setup`"):
        await find(None, nothing(home))


async def test_the_one_that_is_named_is_the_only_one(home: Path, wasmer: Path, bare: Path) -> None:
    stands_for(wasmer, home / "bin" / NAME)
    assert await find(wasmer, nothing(home)) == wasmer
    for given, found in (
        (home / "none", "it is not there"),
        (home, "it does not run: "),
        (Path(sys.executable), "it is Python 3.1[1-9]"),
        (bare, "it has no wasmer: No module named 'wasmer'"),
        (script(home / "chatty", "echo hello"), "it is no Python: hello"),
        (script(home / "mute", ":"), "it is no Python: it says nothing"),
        (script(home / "list", "echo '[]'"), "it is no Python"),
        (
            script(home / "old", f"""echo '{{"python": "{PYTHON}", "wasmer": "1.0.0", "compiler": "1.1.0"}}'"""),
            "it has wasmer 1.0.0 and 1.1.0",
        ),
    ):
        with pytest.raises(ConfigError, match=rf"^--engine-python {given}: expected a Python {PYTHON}.*{found}"):
            await find(given, nothing(home))


def test_one_that_hangs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "SECONDS", 0.1)
    assert "timed out" in ask(script(home / "slow", "exec sleep 100")).lacks


async def test_no_node_without_it(control_plane: ControlPlane, tmp_path: Path) -> None:
    """It is said before anything is registered."""
    config = RuntimeConfig(engine_python=tmp_path / "none")
    settings = wasmlet.NodeConfig(
        kubeconfig=control_plane.kubeconfig, node_name="n", node_ip="127.0.0.1", port=0, state_dir=tmp_path / "state"
    )
    with pytest.raises(ConfigError, match=r"--engine-python .*/none: .* it is not there"):
        async with wasmlet.Node(WasmerProvider(config), settings):
            raise AssertionError("there is a node")
    identity = await wasmlet.kube.load_identity(control_plane.kubeconfig)
    async with wasmlet.kube.Client(identity) as admin:
        assert (await admin.get("/api/v1/nodes"))["items"] == []


async def test_not_without_landlock(wasmer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """wasmer itself lets a guest open any file."""

    def none() -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(confine.landlock, "abi", none)
    with pytest.raises(ConfigError, match=r"it needs landlock for that: off: the kernel \(.*\) has no landlock"):
        await WasmerEngine(wasmer).check()


def command(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    program = "import sys; sys.argv[0] = 'wasmlet-wasmer'; from wasmlet_wasmer import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | variables,
        timeout=100,
    )


def test_what_wasmlet_providers_says(wasmer: Path) -> None:
    for python, verdict in ((str(wasmer), "ready"), ("/none", "not ready: --engine-python /none: expected a Python")):
        answer = subprocess.run(
            [sys.executable, "-c", "from wasmlet.cli import main; main(['providers'])"],
            capture_output=True,
            text=True,
            env=os.environ | {"WASMLET_ENGINE_PYTHON": python},
            timeout=100,
        )
        lines = {name: rest for name, _, rest in (line.split(None, 2) for line in answer.stdout.splitlines())}
        assert lines["wasmer"].startswith(verdict)
        assert lines["wasmtime"] == "ready"
        assert answer.returncode == 0


def test_the_command_is_a_node_and_has_a_setup() -> None:
    assert "--engine-python" in command("--help").stdout
    assert "--directory" in command("setup", "--help").stdout


def test_setup_leaves_what_is_there(wasmer: Path, tmp_path: Path) -> None:
    done = command("setup", "--directory", str(wasmer.parents[1]))
    assert (done.returncode, done.stdout) == (0, f"{wasmer.parents[1]} has wasmer {WASMER} already\n")
    (tmp_path / "letter").write_text("keep this")
    refused = command("setup", "--directory", str(tmp_path))
    assert refused.returncode == 1
    assert refused.stdout.startswith(f"Error: {tmp_path} holds something else than a virtual environment")
    assert (tmp_path / "letter").read_text() == "keep this"


def test_setup_needs_the_right_python(tmp_path: Path) -> None:
    refused = command("setup", "--directory", str(tmp_path / "new"), "--python", sys.executable)
    assert refused.returncode == 1
    assert re.match(rf"Error: no Python {PYTHON} was found \({sys.executable}: it is Python 3", refused.stdout)
    assert not (tmp_path / "new").exists()


def test_setup_without_packages(bare: Path, tmp_path: Path) -> None:
    directory = tmp_path / "new"
    failed = command("setup", "--directory", str(directory), "--python", str(bare), PIP_NO_INDEX="1")
    assert failed.returncode == 1
    assert failed.stdout.splitlines()[-1].startswith("Error: wasmer cannot be installed: ")
    assert "Traceback" not in failed.stdout
    assert ask(directory / "bin" / "python").lacks == "it has no wasmer: No module named 'wasmer'"


def test_the_lock_has_what_the_project_names() -> None:
    engine = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["engine"]
    locked = re.findall(r"^(\S+)==(\S+) ", setup.LOCK.read_text(), re.MULTILINE)
    assert [f"{name}=={version}; python_version < '3.11'" for name, version in locked] == engine
    assert {version for _, version in locked} == {WASMER} == {WasmerEngine().version}


def test_the_engine_does_not_guess() -> None:
    with pytest.raises(ConfigError, match="not known before check"):
        _ = WasmerEngine().python
