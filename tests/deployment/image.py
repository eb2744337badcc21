"""The container image, built as `make image` builds it, without a registry: on a Debian that mmdebstrap makes.

Both are kept in the user's cache directory, the image until something changes that is in it. Needs root.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from tests.conftest import need
from tests.shared.pods_as_processes import Image

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wasmlet-tests"
BUILD = CACHE / f"image-{hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]}"
"""Not in the checkout: whoever builds looks through all of that."""
PACKAGES = "ca-certificates,python3,python3-venv"
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
COUNTED = ("Containerfile", "pyproject.toml", "requirements.lock", ".ci/venv.sh", ".ci/uv.py")
TREES = ("wasmlet", "providers", "examples/hello", "examples/web", "charts/wasmlet-operator/crds")
"""What in these changes changes the image; what is only read by people does not count."""
INDEX_OPTIONS = ("index-url", "extra-index-url", "find-links", "proxy", "trusted-host", "default-timeout")
SECONDS = 800


@attrs.frozen
class Built:
    """The image that was built.

    Attributes:
        image: for `PodsAsProcesses`.
        config: as the image has it (OCI image specification).
        base_bytes: of what it was built on.
    """

    image: Image
    config: Mapping[str, Any]
    base_bytes: int


def built() -> Built:
    """The image of this checkout, built unless it is there."""
    for tool in ("mmdebstrap", "buildah"):
        if shutil.which(tool) is None:
            need(tool, f"it builds the container image; Debian: apt install {tool}")
    BUILD.mkdir(parents=True, exist_ok=True)
    with locked(BUILD / "lock"):
        base = debian()
        name = f"wasmlet-{content()}"
        if not (BUILD / name).exists():
            build(base, name)
        config = json.loads(buildah("inspect", "--type", "container", name))["OCIv1"]["config"]
        root = Path(buildah("mount", name).strip())
    return Built(Image.of_config(root, config), config, base.stat().st_size)


def build(base: Path, name: str) -> None:
    """Build the image, and a container of that name, whose files can be looked at; what was built before is removed."""
    shutil.rmtree(BUILD / "storage", ignore_errors=True)
    for mark in BUILD.glob("wasmlet-*"):
        mark.unlink()
    container = buildah("from", "scratch").strip()
    buildah("add", "--quiet", container, str(base), "/")
    buildah("commit", "--quiet", "--rm", container, "localhost/base")
    options = ["--quiet", "--build-arg=BASE=localhost/base", *(f"--volume={path}:{path}:ro" for path in local_paths())]
    settings = BUILD / "pip.conf"
    settings.write_text(pip_conf())
    options.append(f"--volume={settings}:/etc/pip.conf:ro")
    run("make", "image", f"ARGS={' '.join(options)}")
    buildah("from", "--pull-never", "--name", name, f"localhost/wasmlet:{version()}")
    (BUILD / name).touch()


def debian() -> Path:
    """A small Debian with Python, as a tar file."""
    release = platform.freedesktop_os_release()
    suite = release["VERSION_CODENAME"] if release["ID"] == "debian" else "bookworm"
    options = [f"--include={PACKAGES}", *(f"--dpkgopt=path-exclude={path}" for path in LEFT_OUT)]
    key = hashlib.sha256(" ".join((suite, *options)).encode()).hexdigest()[:12]
    file = CACHE / f"debian-{suite}-{key}.tar"
    with locked(CACHE / "lock"):
        if not file.exists():
            unfinished = CACHE / "unfinished.tar"
            run("mmdebstrap", "--quiet", "--variant=minbase", *options, suite, str(unfinished))
            unfinished.rename(file)
    return file


def content() -> str:
    """A name for what the image is made of."""
    digest = hashlib.sha256(PACKAGES.encode())
    paths = [ROOT / name for name in COUNTED]
    paths += [
        path
        for tree in TREES
        for path in sorted((ROOT / tree).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and not any(one.endswith("-info") for one in path.parts)
    ]
    for path in paths:
        digest.update(f"{path.relative_to(ROOT)} {path.stat().st_mode & 0o777}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def version() -> str:
    for line in (ROOT / "pyproject.toml").read_text().splitlines():
        if line.startswith("version = "):
            return line.split('"')[1]
    raise AssertionError("pyproject.toml has no version")


def buildah(*words: str) -> str:
    return run("buildah", *words)


def run(*words: str) -> str:
    """What a command writes; it has storage of its own, and needs no container runtime."""
    settings = BUILD / "storage.conf"
    storage = {"driver": "vfs", "graphroot": BUILD / "storage", "runroot": BUILD / "run"}
    settings.write_text("[storage]\n" + "".join(f'{name} = "{value}"\n' for name, value in storage.items()))
    variables = {"CONTAINERS_STORAGE_CONF": str(settings), "BUILDAH_ISOLATION": "chroot", "BUILDAH_FORMAT": "oci"}
    done = subprocess.run(
        words, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}{done.stderr}"
    return done.stdout


def pip_settings() -> dict[str, str]:
    """How pip is configured here, as the tools of the checkout read it."""
    spec = importlib.util.spec_from_file_location("uv_tool", ROOT / ".ci/uv.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    found: dict[str, str] = tool.settings(listed.stdout)
    authorities = next(
        filter(None, (found.get("cert"), *map(os.environ.get, ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")))), ""
    )
    kept = {name: found[name] for name in INDEX_OPTIONS if name in found}
    return kept | ({"cert": authorities} if authorities else {})


def pip_conf() -> str:
    """The same for the build, whose pip knows nothing of this machine."""
    lines = (f"{name} = {' '.join(value.split())}\n" for name, value in pip_settings().items())
    return "[global]\n" + "".join(lines)


def local_paths() -> list[str]:
    """Files and directories of this machine that pip's settings name."""
    words = (word.removeprefix("file://") for value in pip_settings().values() for word in value.split())
    return [word for word in words if word.startswith("/") and Path(word).exists()]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Alone with what the lock is for, among all processes of the tests."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
