"""Docker's own configuration, `config.json`: credentials are in the file itself, or with a credential helper.

A helper is a program `docker-credential-NAME`. It reads the name of a registry from its standard input and prints a
user and a password. This module never puts any of that into arguments, logs or errors.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import orjson

from wasmlet.artifacts.credentials import DOCKER_HUB, Credential, Keyring, auths_of, fields
from wasmlet.artifacts.errors import ArtifactError
from wasmlet.artifacts.references import DEFAULT_REGISTRY
from wasmlet.concurrency import reap

SECONDS = 30.0
_MAX_FILE, _MAX_ANSWER = 4 * 1024 * 1024, 256 * 1024
_NOTHING = ("credentials not found", "no credentials server url", "no credentials username")


@attrs.frozen
class DockerConfig:
    """The credentials that `docker login` has stored.

    Attributes:
        auths: the credentials in the file itself.
        helpers: `credHelpers`: the name of a helper, by registry.
        store: `credsStore`: the name of the helper for every other registry; "" for none.
        seconds: how long a helper may take.
    """

    auths: Keyring = attrs.field(factory=Keyring)
    helpers: Mapping[str, str] = attrs.field(factory=dict)
    store: str = ""
    seconds: float = SECONDS

    async def credentials(self, name: str) -> Sequence[Credential]:
        """The credentials for an image of this name, as `Keychain` asks for them.

        Raises:
            ArtifactError: a helper is not there, fails, or does not answer.
        """
        registry = name.partition("/")[0]
        server = DOCKER_HUB if registry == DEFAULT_REGISTRY else registry
        helper = self.helpers.get(server) or self.helpers.get(registry) or self.store
        if helper and (found := await self._ask(helper, server)) is not None:
            return [found]
        return self.auths.lookup(name)

    async def _ask(self, helper: str, server: str) -> Credential | None:
        program = f"docker-credential-{helper}"
        if not re.fullmatch(r"[A-Za-z0-9._-]+", helper):
            raise ArtifactError(f"credential helper {helper!r}: expected letters, digits, dots and dashes")
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                program, "get", stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL, start_new_session=True
            )
        except OSError as error:
            raise ArtifactError(f"{program} cannot be run: {error.strerror}; is it on PATH?") from None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            async with asyncio.timeout(self.seconds):
                with contextlib.suppress(ConnectionError):
                    process.stdin.write(server.encode())
                    await process.stdin.drain()
                process.stdin.close()
                answer = await _all_of(program, process.stdout)
                await process.wait()
        except TimeoutError:
            raise ArtifactError(f"{program} did not answer within {self.seconds:g} s") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await reap(process)
        if process.returncode:
            if answer.decode("utf-8", "replace").strip().lower().startswith(_NOTHING):
                return None
            raise ArtifactError(f"{program} failed with status {process.returncode} for {server}")
        return _credential(program, answer)


async def _all_of(program: str, stream: asyncio.StreamReader) -> bytes:
    content = b""
    while chunk := await stream.read(_MAX_ANSWER):
        content += chunk
        if len(content) > _MAX_ANSWER:
            raise ArtifactError(f"{program} answered with more than {_MAX_ANSWER} bytes")
    return content


def _credential(program: str, answer: bytes) -> Credential | None:
    try:
        found = fields(orjson.loads(answer))
        username, secret = found["username"], found["secret"]
    except (ValueError, KeyError, AttributeError):
        raise ArtifactError(f"{program} did not answer with a Username and a Secret in JSON") from None
    if not (isinstance(username, str) and isinstance(secret, str)):
        raise ArtifactError(f"{program} did not answer with a Username and a Secret that are text")
    if not secret:
        return None
    return Credential(identity_token=secret) if username == "<token>" else Credential(username, secret)


def docker_config_file() -> Path:
    """Where `docker login` keeps credentials: in $DOCKER_CONFIG, or else in ~/.docker."""
    directory = os.environ.get("DOCKER_CONFIG")
    return (Path(directory) if directory else Path.home() / ".docker") / "config.json"


def docker_config(path: Path | None = None) -> DockerConfig:
    """Read Docker's configuration; an empty one if there is no file. Blocks.

    Args:
        path: the file; None: `docker_config_file`.

    Raises:
        ArtifactError: the file cannot be read, or has the wrong form.
    """
    path = path or docker_config_file()
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE + 1)
    except FileNotFoundError:
        return DockerConfig()
    except OSError as error:
        raise ArtifactError(f"{path}: {error.strerror}") from None
    if len(content) > _MAX_FILE:
        raise ArtifactError(f"{path} has more than {_MAX_FILE} bytes")
    try:
        config: Any = orjson.loads(content)
    except ValueError:
        raise ArtifactError(f"{path} is not JSON") from None
    if not isinstance(config, dict):
        raise ArtifactError(f"{path}: expected an object, as `docker login` writes it")
    found = fields(config)
    auths, helpers, store = found.get("auths") or {}, found.get("credhelpers") or {}, found.get("credsstore") or ""
    if not (isinstance(auths, dict) and isinstance(helpers, dict) and isinstance(store, str)):
        raise ArtifactError(f"{path}: expected auths and credHelpers to be objects, and credsStore to be text")
    try:
        return DockerConfig(auths_of(auths), {str(k): str(v) for k, v in helpers.items()}, store)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from None
