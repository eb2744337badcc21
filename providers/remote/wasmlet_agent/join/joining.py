"""An agent joins a host: it shows a token once, and a key of its own from then on."""

from __future__ import annotations

import asyncio
import secrets
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import attrs
import structlog

from wasmlet import files
from wasmlet.clock import Backoff, Clock, Retries, SystemClock
from wasmlet.concurrency import in_thread
from wasmlet.errors import ConfigError, InvalidInput, WasmletError
from wasmlet.options import content_of, option
from wasmlet.tls import client_context, unverified_context
from wasmlet_agent.config import StateConfig
from wasmlet_agent.protocol.addresses import is_host, is_loopback
from wasmlet_agent.protocol.codec import decode, encode
from wasmlet_agent.protocol.failures import error_in
from wasmlet_agent.protocol.joining import AUTHORITIES, JOIN, NAME, TOKEN, JoinAnswer, JoinRequest, hash_of

log = structlog.get_logger(__name__)

RETRIES = Backoff(initial=0.5, cap=30.0, jitter=0.5)
_LOOK_SECONDS = 1.0
"""How often a refused agent looks whether there is another token."""
ANSWER = aiohttp.ClientTimeout(total=30.0, connect=10.0)
_MOST_ANSWER = 64 * 1024
_HASH = "sha256:"
STANDARD_INPUT = Path("-")


@attrs.frozen
class JoinConfig(StateConfig):
    """What an agent joins with, and as whom."""

    node_name: str = option(factory=lambda: socket.gethostname().lower(), help="Name of the Node that it is to be.")
    token: str | None = option(
        None, help="Token of the host, ID.SECRET; as a variable only: others can see the arguments.", repr=False
    )
    token_file: Path | None = option(
        None, help="File with the host's token, - for standard input; needed until the agent has joined."
    )
    ca_hash: str | None = option(None, help="sha256:HEX of the public key of an authority that vouches for the host.")
    ca_file: Path | None = option(None, help="Authorities that vouch for the host; the system's without either.")

    def __attrs_post_init__(self) -> None:
        if not NAME.fullmatch(self.node_name):
            raise ConfigError(
                f"--node-name: expected at most 63 lower-case letters, digits, '-' and '.', found {self.node_name!r}"
            )
        digest = (self.ca_hash or "").removeprefix(_HASH)
        if self.ca_hash is not None and (
            not self.ca_hash.startswith(_HASH) or len(digest) != 64 or set(digest) - set("0123456789abcdef")
        ):
            raise ConfigError(f"--ca-hash: expected sha256: and 64 hexadecimal digits, found {self.ca_hash!r}")

    def secret(self) -> str | None:
        """The token; reads its file, or standard input. Blocks.

        Raises:
            ConfigError: it has another form, or cannot be read.
        """
        if self.token_file is not None:
            standard_input = self.token_file == STANDARD_INPUT
            content = content_of(Path("/dev/stdin") if standard_input else self.token_file, "--token-file")
            text, where = content.decode("ascii", "replace").strip(), f"--token-file {self.token_file}"
        elif self.token is not None:
            text, where = self.token, "WASMLET_TOKEN or --token"
        else:
            return None
        if not TOKEN.fullmatch(text):
            raise ConfigError(f"{where}: expected ID.SECRET, as `wasmlet host token` writes it, found something else")
        return text


@attrs.frozen
class Joined:
    """What an agent keeps of its host, in a file of mode 0600.

    Attributes:
        key: what it shows the host.
        authorities: PEM; "" for the system's.
        taken: the host has the key's hash.
    """

    host: str
    name: str
    key: str = attrs.field(repr=False)
    authorities: str = ""
    taken: bool = False


def base_url(text: str) -> str:
    """The URL of a host, without what it needs not.

    Raises:
        ConfigError: it is none, or of plain HTTP and not on this machine.
    """
    try:
        url = urlsplit(text)
        host, _ = url.hostname, url.port
    except ValueError:
        url, host = urlsplit(""), None
    named = host and is_host(host) and "@" not in url.netloc
    if not host or not named or url.scheme not in ("http", "https") or url.path not in ("", "/") or url.query:
        raise ConfigError(f"expected the URL of a host, as https://host.example:8443, found {text!r}")
    if url.scheme == "http" and not is_loopback(host):
        raise ConfigError(f"{text}: plain http goes to a loopback address only; use https")
    return f"{url.scheme}://{url.netloc}"


class Joining:
    """Makes an agent known to its host.

    Args:
        host: its URL.
        directory: the agent's state directory.
    """

    def __init__(self, config: JoinConfig, host: str, directory: Path, clock: Clock | None = None) -> None:
        self._config = config
        self._host = base_url(host)
        self._file = directory / "joined.json"
        self._token: str | None = None
        self._tried: tuple[int, int] | None = None
        """Which version of the token's file was read last."""
        self._clock = clock or SystemClock()

    async def joined(self) -> Joined:
        """What the agent shows its host; it joins where it has not. Waits while the host is away.

        Raises:
            ConfigError: the host refuses, it is not the one that is meant, or there is no token.
        """
        found = await in_thread(self._load)
        if found is not None and found.taken:
            return found
        token = await self._secret()
        if token is None:
            raise ConfigError(
                f"this agent has not joined {self._host}: give --token-file, which `wasmlet host token` writes"
            )
        retries, first = Retries(RETRIES, self._clock), True
        while True:
            try:
                if found is None:
                    authorities = await self._authorities()
                    found = Joined(self._host, self._config.node_name, secrets.token_urlsafe(32), authorities)
                    await in_thread(self._save, found)
                pool = await self._join(found, token)
                break
            except (OSError, aiohttp.ClientError) as error:
                if isinstance(error, aiohttp.ClientConnectorCertificateError):
                    raise ConfigError(
                        f"{self._host} is not vouched for: {error}; see --ca-hash and --ca-file"
                    ) from None
                if first:
                    log.warning("the host cannot be joined, trying again", host=self._host, error=str(error))
                first = False
            await retries.wait()
        log.info("the agent has joined", host=self._host, node=found.name, pool=pool)
        found = attrs.evolve(found, taken=True)
        await in_thread(self._save, found)
        return found

    async def again(self, joined: Joined) -> bool:
        """Join once more with the same key, where the host does not know it any more; whether that was done.

        It takes a token that is good: who takes an agent's key back takes back what it might join with, too.
        """
        try:
            token = await self._secret()
            if token is None:
                return False
            await self._join(joined, token)
        except (WasmletError, OSError, aiohttp.ClientError) as error:
            log.warning("the agent cannot join again", host=self._host, error=str(error))
            return False
        log.info("the agent has joined again", host=self._host, node=joined.name)
        return True

    async def mended(self) -> None:
        """Wait until the file has another token than the one that was tried last; for ever where there is no file."""
        file = self._config.token_file
        if file is None or file == STANDARD_INPUT:
            await asyncio.Event().wait()
            return
        while await in_thread(_version, file) == self._tried:
            await self._clock.sleep(_LOOK_SECONDS)

    async def _secret(self) -> str | None:
        """The token. A file is read again, since another may be in it; standard input cannot be."""
        if self._config.token_file is not None:
            self._tried = await in_thread(_version, self._config.token_file)
        token = self._token or await in_thread(self._config.secret)
        if self._config.token_file == STANDARD_INPUT:
            self._token = token
        return token

    async def _join(self, joined: Joined, token: str) -> str:
        body = encode(JoinRequest(joined.name, token, hash_of(joined.key)))
        url = joined.host + JOIN
        async with (
            session(joined) as client,
            client.post(url, data=body, timeout=ANSWER, allow_redirects=False) as response,
        ):
            content = await _content(response)
        if response.status == 200:
            return decode(JoinAnswer, content).pool
        if response.status == 429 or response.status >= 500:
            raise aiohttp.ClientError(f"HTTP {response.status}")
        raise ConfigError(f"{joined.host} refuses this agent: {error_in(response.status, content)}")

    async def _authorities(self) -> str:
        """Who vouches for the host; where only a hash is known, the host says, and is held to it."""
        config = self._config
        if config.ca_file is not None:
            return await in_thread(_trusted, config.ca_file)
        if config.ca_hash is None or self._host.startswith("http:"):
            return ""
        connector = aiohttp.TCPConnector(ssl=unverified_context())
        async with (
            aiohttp.ClientSession(connector=connector) as client,
            client.get(self._host + AUTHORITIES, timeout=ANSWER, allow_redirects=False) as response,
        ):
            content = await _content(response)
        from wasmlet_agent.authorities import meant  # 8 MiB, which an agent that has joined does without

        return meant(content, config.ca_hash)

    def _load(self) -> Joined | None:
        try:
            found = decode(Joined, self._file.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, InvalidInput) as error:
            raise ConfigError(f"{self._file} cannot be read: {error}; without it, the agent has to join anew") from None
        if found.host == self._host and found.name == self._config.node_name:
            return found
        if found.taken and self._config.token is None and self._config.token_file is None:
            raise ConfigError(
                f"this agent has joined {found.host} as {found.name}: give --token-file to join {self._host} as "
                f"{self._config.node_name}"
            )
        return None

    def _save(self, joined: Joined) -> None:
        try:
            files.replace(self._file, encode(joined))
        except OSError as error:
            raise ConfigError(f"{self._file} cannot be written: {error.strerror}") from None


def _version(file: Path) -> tuple[int, int] | None:
    """What is another number when there is other content in the file; None where it is not there."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _trusted(file: Path) -> str:
    """The certificates in a file, in PEM.

    Raises:
        ConfigError: it has none, or cannot be read.
    """
    try:
        text = file.read_bytes().decode("utf-8", "replace")
        client_context(text.encode())
    except (OSError, ValueError) as error:
        raise ConfigError(f"--ca-file {file}: expected certificates in PEM: {error}") from None
    return text


async def _content(response: aiohttp.ClientResponse) -> bytes:
    """The body of an answer; the beginning of one that is too long."""
    found = bytearray()
    async for piece in response.content.iter_any():
        found += piece
        if len(found) >= _MOST_ANSWER:
            break
    return bytes(found[:_MOST_ANSWER])


@asynccontextmanager
async def session(joined: Joined) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of the host."""
    context: ssl.SSLContext | bool = True
    if joined.host.startswith("https:"):
        try:
            context = client_context(joined.authorities.encode() or None)
        except ValueError as error:
            raise WasmletError(f"authorities of {joined.host}: {error}") from None
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context, limit=0)) as client:
        yield client
