"""uv reaches a package index wherever pip does: certificates, index and proxy come from pip's configuration."""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
import sys
import zipfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import attrs
import pytest
from aiohttp import web

from tests.tools.test_set_up import tool
from wasmlet.controlplane.certificates.pki import Authority

CI = Path(__file__).parents[2] / ".ci"
UV = Path(sys.executable).parent / "uv"
WHEEL = "greeting-1.0-py3-none-any.whl"


@attrs.frozen
class Index:
    """A package index on loopback whose certificate an authority of its own has signed."""

    url: str
    authority: Path


@pytest.fixture
async def index(tmp_path: Path) -> AsyncIterator[Index]:
    authority = Authority("private", datetime.now(UTC))
    serving = authority.server(["127.0.0.1"])
    files = {"ca.pem": authority.pem, "tls.crt": serving.certificate, "tls.key": serving.key}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with zipfile.ZipFile(tmp_path / WHEEL, "w") as wheel:
        wheel.writestr("greeting.py", "")
        wheel.writestr("greeting-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
        wheel.writestr("greeting-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("greeting-1.0.dist-info/RECORD", "greeting.py,,\n")
    content = (tmp_path / WHEEL).read_bytes()
    digest = hashlib.sha256(content).hexdigest()

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/simple/greeting/":
            return web.Response(text=f'<a href="/{WHEEL}#sha256={digest}">{WHEEL}</a>', content_type="text/html")
        return web.Response(body=content) if request.path == f"/{WHEEL}" else web.Response(status=404)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    try:
        yield Index(f"https://127.0.0.1:{runner.addresses[0][1]}/simple", tmp_path / "ca.pem")
    finally:
        await runner.cleanup()


async def install(target: Path, variables: dict[str, str]) -> tuple[int | None, str]:
    """Install the package as `make` installs, with no settings but these; exit code and what was said."""
    mine = ("UV_", "PIP_", "SSL_", "REQUESTS_", "CURL_", "XDG_")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(mine)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, CI / "uv.py", UV, "pip", "install", "--no-cache", "--no-config", "--no-deps",
        "--python", sys.executable, "--target", target, "greeting==1.0",
        env=environment | {"HOME": str(target.parent), "NO_PROXY": "127.0.0.1"} | variables,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(120):
        out, _ = await process.communicate()
    return process.returncode, out.decode()


def _variables(how: str, index: Index, directory: Path) -> dict[str, str]:
    """An environment in which pip knows the index's authority, told one way or another."""
    named = {"PIP_INDEX_URL": index.url}
    other = directory / "other.pem"
    other.write_bytes(Authority("other", datetime.now(UTC)).pem)
    match how:
        case "pip.conf":
            (directory / "pip.conf").write_text(f"[global]\nindex-url = {index.url}\ncert = {index.authority}\n")
            return {"PIP_CONFIG_FILE": str(directory / "pip.conf")}
        case "pip.conf of install":
            text = f"[global]\ncert = {other}\n[install]\nindex-url = {index.url}\ncert = {index.authority}\n"
            (directory / "pip.conf").write_text(text)
            return {"PIP_CONFIG_FILE": str(directory / "pip.conf")}
        case "trusted host":
            return named | {"PIP_TRUSTED_HOST": "127.0.0.1"}
        case "several":
            return named | {"PIP_CERT": str(index.authority), "SSL_CERT_FILE": str(other)}
        case "several, the other way round":
            return named | {"PIP_CERT": str(other), "SSL_CERT_FILE": str(index.authority)}
        case _:
            return named | {how: str(index.authority)}


@pytest.mark.parametrize(
    "how",
    [
        "PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "several", "several, the other way round",
        "pip.conf", "pip.conf of install", "trusted host",
    ],
)  # fmt: skip
async def test_uv_trusts_the_authority_that_pip_trusts(index: Index, tmp_path: Path, how: str) -> None:
    code, said = await install(tmp_path / "target", _variables(how, index, tmp_path))
    assert code == 0, said
    assert (tmp_path / "target" / "greeting.py").exists()


async def test_uv_trusts_nobody_else(index: Index, tmp_path: Path) -> None:
    code, said = await install(tmp_path / "target", {"PIP_INDEX_URL": index.url})
    assert code != 0
    assert "certificate" in said


def test_what_is_set_for_uv_goes_before_what_pip_has() -> None:
    uv = tool("uv")
    pip = uv.settings("global.index-url='https://a/simple'\n:env:.trusted-host='h1 h2'\nglobal.proxy='p:3128'\nnoise\n")
    assert uv.environment(pip, {}) == {
        "UV_SYSTEM_CERTS": "true", "UV_DEFAULT_INDEX": "https://a/simple", "UV_INSECURE_HOST": "h1 h2",
        "HTTP_PROXY": "http://p:3128", "HTTPS_PROXY": "http://p:3128", "http_proxy": "http://p:3128",
        "https_proxy": "http://p:3128",
    }  # fmt: skip
    mine = {"UV_SYSTEM_CERTS": "false", "UV_INDEX_URL": "https://b/simple", "UV_INSECURE_HOST": "x"}
    assert not mine.keys() & uv.environment(pip, mine).keys()
    assert "UV_DEFAULT_INDEX" not in uv.environment(pip, mine)
