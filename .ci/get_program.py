"""Brings programs of a Debian package where there are none: `get_program.py PACKAGE DIRECTORY` puts them there.

Tests run them. Does nothing where PATH or the directory has them. apt downloads the package and checks it; it is
unpacked, not installed, so that root is not needed, nothing global changes and no service is started. Where apt's lists
are missing or old, they are fetched into a directory of their own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

PROGRAMS = {"docker-registry": ("docker-registry",), "prometheus": ("prometheus", "promtool")}
"""The packages that this can fetch, and what is in each."""


def works(program: Path) -> bool:
    """Whether that is a program that runs here."""
    try:
        answer = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0


def download(package: str, scratch: Path) -> Path | None:
    """The package's file, if apt can get it: with the lists that are there, or else with fresh ones of our own."""
    lists = scratch / "lists"
    (lists / "partial").mkdir(parents=True)
    (scratch / "cache" / "archives" / "partial").mkdir(parents=True)
    own = [f"-oDir::State::lists={lists}", f"-oDir::Cache={scratch / 'cache'}", "-oAPT::Sandbox::User=root"]
    update = ["apt-get", "-qq", *own, "update"]
    for before, options in ((None, ["-oAPT::Sandbox::User=root"]), (update, own)):
        for command in (before, ["apt-get", "-qq", *options, "download", package]):
            if command is not None:
                subprocess.run(command, cwd=scratch, stdin=subprocess.DEVNULL, timeout=600)
        for file in scratch.glob(f"{package}_*.deb"):
            return file
    return None


def install(package: Path, directory: Path, programs: Sequence[str]) -> None:
    """Put these programs of the package into the directory."""
    unpacked = package.parent / "unpacked"
    subprocess.run(["dpkg-deb", "--extract", package, unpacked], check=True, stdin=subprocess.DEVNULL)
    directory.mkdir(parents=True, exist_ok=True)
    for name in programs:
        unfinished = directory / f".{name}.{os.getpid()}"
        shutil.copyfile(unpacked / "usr" / "bin" / name, unfinished)
        unfinished.chmod(0o755)
        unfinished.replace(directory / name)


def found(name: str, directory: Path) -> Path | None:
    """Where that program is and runs: in the directory, or on PATH."""
    on_path = shutil.which(name)
    places = (directory / name, Path(on_path) if on_path else None)
    return next((there for there in places if there is not None and works(there)), None)


def main(package: str, directory: Path) -> int:
    programs = PROGRAMS[package]
    if not all(found(name, directory) for name in programs):
        if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            print(
                f"wasmlet: {' and '.join(programs)}: needed on PATH, and there is no apt here to get it: install it.",
                file=sys.stderr,
            )
            return 1
        print(f"==> Fetching {package} into {directory} (none on PATH)", flush=True)
        with tempfile.TemporaryDirectory() as scratch:
            file = download(package, Path(scratch))
            if file is None:
                print(
                    f"wasmlet: apt could not download {package}; it says why above. Install it yourself.",
                    file=sys.stderr,
                )
                return 1
            install(file, directory, programs)
    for name in programs:
        if (there := found(name, directory)) is None:
            print(f"wasmlet: {directory / name} was fetched and does not run.", file=sys.stderr)
            return 1
        print(f"==> {name}: {there}")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in PROGRAMS:
        sys.exit(f"usage: get_program.py {'|'.join(PROGRAMS)} DIRECTORY")
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
