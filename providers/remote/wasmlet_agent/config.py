"""The settings of an agent, each of them a flag, a `WASMLET_*` variable and a TOML key."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import attrs

from wasmlet.errors import ConfigError
from wasmlet.options import option
from wasmlet.tls import show, trust
from wasmlet_agent.auth import Guard
from wasmlet_agent.protocol.addresses import is_loopback, listen_address

PORT = 8443


@attrs.frozen
class StateConfig:
    """What an agent keeps, and where."""

    state_dir: Path | None = option(
        None, help="Directory that outlives the machine's restart; /var/lib/wasmlet-agent or the user's without it."
    )
    keep_secrets: bool = option(
        False, help="Keep pods' secrets and tokens on disk, so that these pods start after a reboot by themselves."
    )
    handover: bool = option(False, help="Let a node loop of another Node take this agent over.")

    def directory(self) -> Path:
        """The state directory, made if need be, for its owner alone.

        Raises:
            ConfigError: it cannot be made, or belongs to somebody else.
        """
        if self.state_dir is not None:
            path = self.state_dir
        elif os.geteuid() == 0:
            path = Path("/var/lib/wasmlet-agent")
        else:
            path = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "wasmlet-agent"
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = path.stat()
        except OSError as error:
            raise ConfigError(f"state directory {path}: {error.strerror}; choose another with --state-dir") from None
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise ConfigError(
                f"state directory {path}: expected one of mode 0700 that belongs to this user; "
                "choose another with --state-dir"
            )
        return path.absolute()


@attrs.frozen
class AgentConfig(StateConfig):
    """Where the agent listens, and who may drive it."""

    listen: str = option(f"127.0.0.1:{PORT}", help="ADDRESS:PORT to serve node loops at; port 0 takes a free one.")
    tls_cert_file: Path | None = option(None, help="The agent's certificate, in PEM; plain HTTP without it.")
    tls_key_file: Path | None = option(None, help="The key of the agent's certificate, in PEM.")
    client_ca_file: Path | None = option(None, help="CA of the client certificates that may drive this agent.")
    token_file: Path | None = option(None, help="File with the bearer token that may drive this agent.")

    def __attrs_post_init__(self) -> None:
        address, _ = self.address
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ConfigError("give --tls-cert-file and --tls-key-file both, or neither")
        if self.tls_cert_file is None:
            if self.client_ca_file is not None:
                raise ConfigError("--client-ca-file: certificates are shown over TLS only; give --tls-cert-file, too")
            if not is_loopback(address):
                raise ConfigError(
                    f"--listen {self.listen}: plain HTTP is for loopback only; give --tls-cert-file and "
                    "--tls-key-file (`wasmlet-agent keys DIR` makes them)"
                )
        elif self.client_ca_file is None and self.token_file is None:
            raise ConfigError("who may drive this agent? Give --client-ca-file or --token-file")

    @property
    def address(self) -> tuple[str, int]:
        """Address and port to listen at.

        Raises:
            ConfigError: `listen` has another form.
        """
        return listen_address(self.listen)

    def guard(self) -> Guard:
        """Who may drive the agent.

        Raises:
            ConfigError: a file cannot be read, or has no token.
        """
        token = None
        if self.token_file is not None:
            token = _read(self.token_file, "--token-file").decode("utf-8", "replace").strip()
            if not (token.isascii() and token.isprintable() and len(token) >= 16):
                raise ConfigError(f"--token-file {self.token_file}: expected at least 16 printable characters")
        certificates = self.client_ca_file is not None
        return Guard(token, certificates, open=token is None and not certificates)

    def context(self) -> ssl.SSLContext | None:
        """TLS for the API; None for plain HTTP.

        Raises:
            ConfigError: a file cannot be read, or holds something else.
        """
        if self.tls_cert_file is None or self.tls_key_file is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            show(
                context,
                _read(self.tls_cert_file, "--tls-cert-file"),
                _read(self.tls_key_file, "--tls-key-file"),
            )
            if self.client_ca_file is not None:
                context.verify_mode = ssl.CERT_OPTIONAL  # a client may have the token instead
                trust(context, _read(self.client_ca_file, "--client-ca-file"))
        except ValueError as error:
            raise ConfigError(f"TLS of --listen: {error}") from None
        return context


def _read(file: Path, flag: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{flag} {file}: {error.strerror}") from None
