"""The node's state directory: locked for one process at a time, with an id that stays the same across restarts."""

from __future__ import annotations

import fcntl
import os
import secrets
from pathlib import Path

from wasmlet.errors import ConfigError
from wasmlet.kube.keys import write_private


class StateDirectory:
    """Holds a state directory for as long as it is open.

    Attributes:
        path: the directory.
        instance: a name that no other state directory has; it stays the same across restarts.

    Raises:
        ConfigError: another process holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise ConfigError(
                f"state directory {path} is in use by another process; stop it, or choose another with --state-dir"
            ) from None
        self.instance = self._instance()

    def close(self) -> None:
        """Let others have the directory."""
        os.close(self._lock)

    def _instance(self) -> str:
        file = self.path / "instance"
        try:
            if found := file.read_text("ascii").strip():
                return found
        except (FileNotFoundError, UnicodeDecodeError):
            pass
        made = secrets.token_hex(16)
        write_private(file, made.encode())
        return made
