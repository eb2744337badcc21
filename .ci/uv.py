"""Runs uv with what pip is configured with: `uv.py UV ARGUMENTS...`.

uv reads neither `pip.conf` nor `PIP_*`, and by default it trusts the certificates that it carries. So whoever reaches
the package index through a proxy that inspects TLS, or has an index with a private CA, would have it work in pip and
fail in uv. Here uv trusts the system's certificates, or those that pip is told to trust, and takes the index, the
proxy and the trusted hosts that pip takes. What is set for uv itself goes first. The standard library does it all.
"""

from __future__ import annotations

import ast
import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

SECTIONS = ("global", "install", ":env:")
"""Where an option of `pip install` may be set; the last one counts."""


def settings(listed: str) -> dict[str, str]:
    """The options of `pip install` in what `pip config list` prints."""
    found: dict[tuple[str, str], str] = {}
    for line in listed.splitlines():
        name, equals, value = line.partition("=")
        section, dot, option = name.rpartition(".")
        if equals and dot and section in SECTIONS:
            try:
                found[section, option] = str(ast.literal_eval(value))
            except (ValueError, SyntaxError):
                continue  # no line of a setting
    return {option: found[where, option] for where in SECTIONS for section, option in found if section == where}


def environment(pip: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """What uv's environment needs besides `given`."""
    out = {}
    if not {"UV_SYSTEM_CERTS", "UV_NATIVE_TLS"} & given.keys():
        out["UV_SYSTEM_CERTS"] = "true"
    if client := pip.get("client-cert"):
        out["SSL_CLIENT_CERT"] = client
    if proxy := pip.get("proxy"):
        address = proxy if "://" in proxy else f"http://{proxy}"
        out |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), address)
    if (hosts := pip.get("trusted-host")) and "UV_INSECURE_HOST" not in given:
        out["UV_INSECURE_HOST"] = " ".join(hosts.split())
    own = {"UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_CONFIG_FILE"}
    if (index := pip.get("index-url")) and not own & given.keys():
        out["UV_DEFAULT_INDEX"] = index
    return out


def certificates(pip: Mapping[str, str], given: Mapping[str, str], directory: Path) -> dict[str, str]:
    """What uv's environment needs to trust all that pip is told to trust, in a place that uv looks at.

    Args:
        directory: where one file is made of them, if there are several.
    """
    named = [pip.get("cert"), *(given.get(name) for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"))]
    paths = list(dict.fromkeys(Path(name).expanduser() for name in named if name))
    files = [path for path in paths if path.is_file()]
    out = {}
    if folders := [str(path) for path in paths if path.is_dir()]:
        out["SSL_CERT_DIR"] = os.pathsep.join([*folders, *filter(None, [given.get("SSL_CERT_DIR")])])
    if len(files) == 1:
        out["SSL_CERT_FILE"] = str(files[0])
    elif files:
        content = b"\n".join(path.read_bytes() for path in files)
        bundle = directory / f"certificates-{hashlib.sha256(content).hexdigest()[:16]}.pem"
        unfinished = bundle.with_suffix(f".{os.getpid()}")
        unfinished.write_bytes(content)
        unfinished.replace(bundle)
        out["SSL_CERT_FILE"] = str(bundle)
    return out


def main(uv: str, *arguments: str) -> None:
    """Becomes uv."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    answer = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if answer.returncode:
        print(f"wasmlet: the configuration of pip cannot be read: {answer.stderr.strip()}", file=sys.stderr)
    pip = settings(answer.stdout)
    trusted = certificates(pip, os.environ, Path(sys.prefix))
    os.execve(uv, [uv, *arguments], os.environ | environment(pip, os.environ) | trusted)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: uv.py UV ARGUMENTS...")
    main(*sys.argv[1:])
