"""Brings a docker-registry where there is none: `get_registry.py DIRECTORY` puts one into that directory.

Tests run it. Does nothing where PATH or the directory has one. The program comes out of Debian's package of that name,
which apt downloads and checks; it is unpacked, not installed, so that neither root is needed nor anything global
changes. Where apt's lists are missing or old, they are fetched into a directory of their own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = "docker-registry"


def works(program: Path) -> bool:
    """Whether that is a registry that runs here."""
    try:
        answer = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0


def download(scratch: Path) -> Path | None:
    """The package's file, if apt can get it: with the lists that are there, or else with fresh ones of our own."""
    lists = scratch / "lists"
    (lists / "partial").mkdir(parents=True)
    (scratch / "cache" / "archives" / "partial").mkdir(parents=True)
    own = [f"-oDir::State::lists={lists}", f"-oDir::Cache={scratch / 'cache'}", "-oAPT::Sandbox::User=root"]
    update = ["apt-get", "-qq", *own, "update"]
    for before, options in ((None, ["-oAPT::Sandbox::User=root"]), (update, own)):
        for command in (before, ["apt-get", "-qq", *options, "download", PACKAGE]):
            if command is not None:
                subprocess.run(command, cwd=scratch, stdin=subprocess.DEVNULL, timeout=600)
        for file in scratch.glob(f"{PACKAGE}_*.deb"):
            return file
    return None


def install(package: Path, target: Path) -> None:
    """Put the program of that package at `target`."""
    unpacked = package.parent / "unpacked"
    subprocess.run(["dpkg-deb", "--extract", package, unpacked], check=True, stdin=subprocess.DEVNULL)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copyfile(unpacked / "usr" / "bin" / PACKAGE, unfinished)
    unfinished.chmod(0o755)
    unfinished.replace(target)


def main(directory: Path) -> int:
    target = directory / PACKAGE
    on_path = shutil.which(PACKAGE)
    for there in (target, Path(on_path) if on_path else None):
        if there is not None and works(there):
            print(f"==> {PACKAGE}: {there}")
            return 0
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        print(f"wasmlet: {PACKAGE} is needed on PATH, and there is no apt here to get it: install it.", file=sys.stderr)
        return 1
    print(f"==> Fetching {PACKAGE} into {directory} (none on PATH)", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        package = download(Path(scratch))
        if package is None:
            print(
                f"wasmlet: apt could not download {PACKAGE}; it says why above. Install it yourself.", file=sys.stderr
            )
            return 1
        install(package, target)
    if not works(target):
        print(f"wasmlet: {target} was fetched and does not run.", file=sys.stderr)
        return 1
    print(f"==> {PACKAGE}: {target}")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: get_registry.py DIRECTORY")
    sys.exit(main(Path(sys.argv[1])))
