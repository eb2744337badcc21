"""Brings what makes components of JavaScript and of Rust for tests: `get_languages.py DIRECTORY` puts it there.

componentize-js comes by npm, each package as `.ci/javascript/package-lock.json` has it with its hash, which
`get_languages.py --lock` writes; among them is WASI's public adapter for modules of preview 1, too. Rust's compiler and
its standard library for WebAssembly come from Debian's packages, which are unpacked and not installed. What cannot be
had is named, and the tests that need it are skipped; nothing global changes.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from get_program import download

JAVASCRIPT = Path(__file__).with_name("javascript")
WANTED, LOCK = "package.json", "package-lock.json"
NPM = ("--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
REMARKS = ("deprecated", "engines", "funding", "license")
"""What npm writes of a package beside what it needs itself."""
RUST = ("rustc", "libstd-rust-dev-wasm32")
"""Debian's packages, beside those with a version in their names."""


def run(*command: str) -> str:
    """What a command says.

    Raises:
        OSError, subprocess.SubprocessError: it does not run, or fails.
    """
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=900, stdin=subprocess.DEVNULL)
    answer.check_returncode()
    return answer.stdout


def needed(package: str, name: str) -> str:
    """The package that this one needs, as apt's lists have it.

    Args:
        name: of the other one, a regular expression.

    Raises:
        OSError: the lists do not have it, or there is no apt.
    """
    try:
        found = re.findall(f"Depends: ({name})$", run("apt-cache", "depends", package), re.MULTILINE)
    except subprocess.CalledProcessError:
        found = []
    if len(found) != 1:
        raise FileNotFoundError(f"apt does not say what {package} needs; its lists are missing or old: apt-get update")
    return str(found[0])


def get_javascript(directory: Path) -> None:
    """Install componentize-js, without running anything that its packages would run.

    It imports preview2-shim, which it does not name among what it needs: package.json does.
    """
    if shutil.which("npm") is None:
        raise FileNotFoundError("npm is not here (Debian: npm)")
    unfinished = directory.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for name in (WANTED, LOCK):
        shutil.copyfile(JAVASCRIPT / name, unfinished / name)
    run("npm", "ci", *NPM, "--prefix", str(unfinished))
    unfinished.rename(directory)


def lock_javascript() -> None:
    """Write the lock again: a line for each package, without the address of a registry. Versions stay what they are."""
    with tempfile.TemporaryDirectory() as scratch:
        for name in (WANTED, LOCK):
            if (JAVASCRIPT / name).exists():
                shutil.copyfile(JAVASCRIPT / name, Path(scratch) / name)
        run("npm", "install", *NPM, "--package-lock-only", "--omit-lockfile-registry-resolved", "--prefix", scratch)
        found = json.loads((Path(scratch) / LOCK).read_text())
    lines = []
    for name, package in found["packages"].items():
        kept = {key: value for key, value in package.items() if key not in REMARKS}
        lines.append(f"    {json.dumps(name)}: {json.dumps(kept)}")
    head = f'{{\n  "lockfileVersion": {found["lockfileVersion"]},\n  "requires": true,\n  "packages": {{\n'
    (JAVASCRIPT / LOCK).write_text(head + ",\n".join(lines) + "\n  }\n}\n")


def get_rust(directory: Path) -> None:
    """Unpack Rust's compiler, its linker and its libraries."""
    library = needed("libstd-rust-dev", r"libstd-rust-[\d.]+")
    llvm = needed(library, r"libllvm\d+")
    unfinished = directory.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        for package in (*RUST, library, llvm, llvm.replace("libllvm", "lld-")):
            place = Path(scratch) / package
            place.mkdir()
            file = download(package, place)
            if file is None:
                raise FileNotFoundError(f"apt could not download {package}")
            run("dpkg-deb", "--extract", str(file), str(unfinished))
    unfinished.rename(directory)


def main(directory: Path) -> int:
    missing = False
    for name, get in (("javascript", get_javascript), ("rust", get_rust)):
        if (directory / name).is_dir():
            continue
        print(f"==> Fetching what makes components of {name} into {directory}", flush=True)
        try:
            get(directory / name)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            print(f"wasmlet: {name}: {error}; the tests that need it are skipped.", file=sys.stderr)
            missing = True
    return missing


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: get_languages.py DIRECTORY | --lock")
    if sys.argv[1] == "--lock":
        lock_javascript()
    else:
        sys.exit(main(Path(sys.argv[1])))
