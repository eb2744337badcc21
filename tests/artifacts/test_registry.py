"""A real registry: plain, with TLS and users, and with a token server; oras pulls what was pushed, and the reverse."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import oras.client
import oras.defaults
import pytest

from tests.artifacts import modules, registries
from tests.artifacts.registries import PASSWORD, USER
from wasmlet.artifacts import push
from wasmlet.artifacts.credentials import Credential, Keyring, auths_of
from wasmlet.artifacts.errors import Absent, ArtifactError, BadContent, Denied
from wasmlet.artifacts.hosts import RegistryConfig
from wasmlet.artifacts.pull import Puller
from wasmlet.artifacts.references import Reference, parse
from wasmlet.artifacts.store import Store
from wasmlet.clock import SystemClock
from wasmlet.controlplane.certificates.pki import Authority

CLOCK = SystemClock()
NOBODY = Keyring()
FORMATS = ("v0", "wasm-to-oci")
WASM = modules.module(700_000)


@pytest.fixture
async def plain(docker_registry: Path, tmp_path: Path) -> AsyncIterator[str]:
    async with registries.registry(docker_registry, tmp_path / "registry") as address:
        yield address


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "thing.wasm"
    path.write_bytes(WASM)
    return path


def insecure(address: str) -> RegistryConfig:
    return RegistryConfig(insecure_registries=(address,))


async def pushed(
    file: Path,
    reference: Reference,
    config: RegistryConfig,
    keychain: Keyring = NOBODY,
    form: push.Format = "v0",
    annotations: dict[str, str] | None = None,
) -> str:
    module = push.load(file)
    what = push.artifact(module, annotations or {}, form)
    return await push.Pusher(keychain=keychain, config=config, clock=CLOCK).push(module, what, reference)


async def pulled(store: Store, reference: Reference, config: RegistryConfig, keychain: Keyring = NOBODY) -> bytes:
    async with Puller(store, config, CLOCK) as puller:
        with (await puller.pull(reference, keychain)).lease as lease:
            return lease.path.read_bytes()


@pytest.mark.parametrize("form", FORMATS)
async def test_what_is_pushed_is_pulled(plain: str, store: Store, file: Path, form: push.Format) -> None:
    reference = parse(f"{plain}/team/thing:v1")
    digest = await pushed(file, reference, insecure(plain), form=form, annotations={"a": "b"})
    assert await pulled(store, reference, insecure(plain)) == WASM
    by_digest = parse(f"{plain}/team/thing@{digest}")
    assert await pulled(store, by_digest, insecure(plain)) == WASM
    with contextlib.closing(store.find(by_digest) or pytest.fail("not kept")) as lease:
        document = json.loads(store.blob(lease.image.digest).read_bytes())
    assert document["annotations"] == {"a": "b"}
    assert await pushed(file, reference, insecure(plain), form=form, annotations={"a": "b"}) == digest


@pytest.mark.parametrize("form", FORMATS)
async def test_oras_pulls_what_was_pushed(plain: str, file: Path, tmp_path: Path, form: push.Format) -> None:
    await pushed(file, parse(f"{plain}/thing:v1"), insecure(plain), form=form)
    client = oras.client.OrasClient(insecure=True)
    outdir = tmp_path / "out"
    found = await asyncio.to_thread(client.pull, target=f"{plain}/thing:v1", outdir=str(outdir))
    assert [Path(path).name for path in found] == ["thing.wasm"]
    assert await asyncio.to_thread((outdir / "thing.wasm").read_bytes) == WASM


@pytest.mark.parametrize(
    ("config", "layer"),
    [
        ("application/vnd.wasm.config.v0+json", "application/wasm"),
        ("application/vnd.wasm.config.v1+json", "application/vnd.wasm.content.layer.v1+wasm"),
        ("application/vnd.module.wasm.config.v1+json", "application/vnd.wasm.content.layer.v1+wasm"),
        ("application/vnd.unknown.config.v1+json", "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm"),
    ],
)
async def test_what_oras_pushed_is_pulled(
    plain: str, store: Store, file: Path, tmp_path: Path, config: str, layer: str
) -> None:
    configuration = tmp_path / "config.json"
    configuration.write_text("{}")
    client = oras.client.OrasClient(insecure=True)
    await asyncio.to_thread(
        client.push,
        target=f"{plain}/thing:v1",
        files=[f"{file}:{layer}"],
        manifest_config=f"{configuration}:{config}",
        disable_path_validation=True,
    )
    assert await pulled(store, parse(f"{plain}/thing:v1"), insecure(plain)) == WASM


@pytest.mark.parametrize("others", [[], ["notes.txt"]], ids=["alone", "with notes"])
async def test_what_oras_pushed_without_a_type_is_pulled(
    plain: str, store: Store, file: Path, tmp_path: Path, others: list[str]
) -> None:
    for name in others:
        (tmp_path / name).write_text("not the module")
    files = [str(file), *(str(tmp_path / name) for name in others)]
    client = oras.client.OrasClient(insecure=True)
    target = f"{plain}/thing:v1"
    await asyncio.to_thread(client.push, target=target, files=files, disable_path_validation=True)
    assert await pulled(store, parse(target), insecure(plain)) == WASM


async def test_what_oras_pushed_without_a_type_and_is_no_module(plain: str, store: Store, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no module at all")
    client = oras.client.OrasClient(insecure=True)
    files, target = [str(tmp_path / "notes.txt")], f"{plain}/thing:v1"
    await asyncio.to_thread(client.push, target=target, files=files, disable_path_validation=True)
    with pytest.raises(BadContent, match=r"expected one WebAssembly layer \(application/wasm\), found: "):
        await pulled(store, parse(target), insecure(plain))


async def test_what_is_not_there(plain: str, store: Store, file: Path) -> None:
    with pytest.raises(Absent, match=f"{plain}/thing:v1: {plain} answered 404 Not Found for thing/manifests/v1: man"):
        await pulled(store, parse(f"{plain}/thing:v1"), insecure(plain))
    with pytest.raises(ArtifactError, match="expected a tag to push to"):
        await pushed(file, parse(f"{plain}/thing@sha256:{'0' * 64}"), insecure(plain))
    with pytest.raises(ArtifactError, match=f"{plain} does not speak TLS; .*--insecure"):
        await pulled(store, parse(f"{plain}/thing:v1"), RegistryConfig())
    assert modules.left_in(store) == []


def keys(address: str, password: str = PASSWORD) -> Keyring:
    return auths_of({address: {"username": USER, "password": password}})


@pytest.fixture
def authority() -> Authority:
    return Authority("registries", datetime.now(UTC))


async def test_tls_and_users(
    docker_registry: Path, authority: Authority, store: Store, file: Path, tmp_path: Path
) -> None:
    there, ca = tmp_path / "registry", tmp_path / "ca.crt"
    ca.write_bytes(authority.pem)
    extra: dict[str, Any] = registries.basic(there) | registries.tls(there, authority.server(["127.0.0.1"]))
    async with registries.registry(docker_registry, there, **extra) as address:
        reference, trusted = parse(f"{address}/thing:v1"), RegistryConfig(registry_ca_file=ca)
        await pushed(file, reference, trusted, keys(address))
        assert await pulled(store, reference, trusted, keys(address)) == WASM
        assert await pulled(store, reference, insecure(address), keys(address)) == WASM
        with pytest.raises(Denied, match="wants a user and a password for repository:thing:pull"):
            await pulled(store, reference, trusted)
        with pytest.raises(Denied, match="answered 401") as denied:
            await pulled(store, reference, trusted, keys(address, "looking-glass"))
        assert "looking-glass" not in str(denied.value)
        with pytest.raises(ArtifactError, match=r"certificate is not trusted .*--registry-ca-file"):
            await pulled(store, reference, RegistryConfig(), keys(address))
        second = Keyring((*keys(address, "wrong").entries, *keys(address).entries))
        assert await pulled(store, reference, trusted, second) == WASM


@contextlib.asynccontextmanager
async def with_tokens(
    program: Path, authority: Authority, directory: Path
) -> AsyncIterator[tuple[registries.TokenServer, str]]:
    """A server of tokens, and the address of a registry that wants them."""
    bundle = directory / "bundle.pem"
    bundle.write_bytes(authority.pem)
    async with (
        registries.token_server(authority.server(["tokens"])) as tokens,
        registries.registry(program, directory / "registry", **tokens.config(bundle)) as address,
    ):
        yield tokens, address


async def test_a_token_server(
    docker_registry: Path, authority: Authority, store: Store, file: Path, tmp_path: Path
) -> None:
    async with with_tokens(docker_registry, authority, tmp_path) as (tokens, address):
        reference, config = parse(f"{address}/thing:v1"), insecure(address)
        await pushed(file, reference, config, keys(address))
        assert {user for _, user in tokens.asked} == {f"{USER}:{PASSWORD}"}
        actions = {frozenset(scope.removeprefix("repository:thing:").split(",")) for scope, _ in tokens.asked}
        assert actions <= {frozenset({"pull"}), frozenset({"pull", "push"})}  # the registry names them in any order
        with pytest.raises(Denied, match="answered 401 Unauthorized for a token for repository:thing:pull: go away"):
            await pulled(store, reference, config)
        by_token = Keyring(((address, Credential(identity_token=PASSWORD)),))
        assert await pulled(store, reference, config, by_token) == WASM
        assert tokens.asked[-1] == ("repository:thing:pull", "by refresh token")


async def test_a_token_serves_until_it_ends(
    docker_registry: Path, authority: Authority, store: Store, file: Path, tmp_path: Path
) -> None:
    async with with_tokens(docker_registry, authority, tmp_path) as (tokens, address):
        tokens.public = True
        reference, config = parse(f"{address}/thing:v1"), insecure(address)
        await pushed(file, reference, config)
        tokens.asked.clear()
        async with Puller(store, config, CLOCK) as puller:
            for _ in range(3):
                (await puller.pull(reference, NOBODY)).lease.close()
        assert tokens.asked == [("repository:thing:pull", "anonymous")]


async def image(address: str, config: bytes, layers: Sequence[tuple[bytes, str]], tmp_path: Path) -> None:
    """Push a container image, as a builder does."""
    files = []
    for number, (data, media_type) in enumerate(layers):
        path = tmp_path / f"layer{number}"
        path.write_bytes(data)
        files.append(f"{path}:{media_type}")
    (tmp_path / "config.json").write_bytes(config)
    client = oras.client.OrasClient(insecure=True)
    await asyncio.to_thread(
        client.push,
        target=f"{address}/image:v1",
        files=files,
        manifest_config=f"{tmp_path / 'config.json'}:{modules.OCI_CONFIG}",
        disable_path_validation=True,
    )


async def test_a_container_image(plain: str, store: Store, tmp_path: Path) -> None:
    wasm, tar = modules.module(5000), "application/vnd.oci.image.layer.v1.tar"
    layers = [modules.tar_of({"bin/app.wasm": wasm}), modules.tar_of({"etc/other": b"x"})]
    await image(
        plain,
        modules.image_config("/bin/app.wasm", layers=layers, Cmd=["--flag"], Env=["A=b"]),
        [(layer, tar) for layer in layers],
        tmp_path,
    )
    async with Puller(store, insecure(plain), CLOCK) as puller:
        with (await puller.pull(parse(f"{plain}/image:v1"), NOBODY)).lease as lease:
            assert lease.path.read_bytes() == wasm
            assert lease.image.command == ("/bin/app.wasm",)
            assert lease.image.arguments == ("--flag",)
            assert lease.image.environment == ("A=b",)
            assert lease.image.size == len(wasm)
    again = store.find(parse(f"{plain}/image:v1"))
    assert again is not None
    with again:
        assert attrs.astuple(again.image) == attrs.astuple(lease.image)
