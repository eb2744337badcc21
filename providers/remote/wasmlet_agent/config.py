"""The settings of an agent, each of them a flag, a `WASMLET_*` variable and a TOML key."""

from __future__ import annotations

import os
from pathlib import Path

import attrs

from wasmlet.errors import ConfigError
from wasmlet.options import content_of, option, state_directory
from wasmlet_agent.auth import Guard
from wasmlet_agent.protocol.listening import ListenConfig


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
        """The state directory, made if need be. Blocks.

        Raises:
            ConfigError: as `state_directory`.
        """
        if self.state_dir is not None:
            path = self.state_dir
        elif os.geteuid() == 0:
            path = Path("/var/lib/wasmlet-agent")
        else:
            path = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "wasmlet-agent"
        return state_directory(path, closed=0o077)


@attrs.frozen
class AgentConfig(StateConfig, ListenConfig):
    """Where the agent listens, and who may drive it."""

    client_ca_file: Path | None = option(None, help="CA of the client certificates that may drive this agent.")
    token_file: Path | None = option(None, help="File with the bearer token that may drive this agent.")

    def __attrs_post_init__(self) -> None:
        if self.tls_cert_file is None and self.client_ca_file is not None:
            raise ConfigError("--client-ca-file: certificates are shown over TLS only; give --tls-cert-file, too")
        self.check_listening()
        if self.tls_cert_file is not None and self.client_ca_file is None and self.token_file is None:
            raise ConfigError("who may drive this agent? Give --client-ca-file or --token-file")

    def guard(self) -> Guard:
        """Who may drive the agent.

        Raises:
            ConfigError: a file cannot be read, or has no token.
        """
        token = None
        if self.token_file is not None:
            token = content_of(self.token_file, "--token-file").decode("utf-8", "replace").strip()
            if not (token.isascii() and token.isprintable() and len(token) >= 16):
                raise ConfigError(f"--token-file {self.token_file}: expected at least 16 printable characters")
        certificates = self.client_ca_file is not None
        open_to_all = token is None and not certificates
        return Guard(token, certificates, open=open_to_all, loopback=open_to_all)
