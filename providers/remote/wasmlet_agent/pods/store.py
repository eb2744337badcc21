"""What the agent keeps on disk, so that pods go on without a node loop across its own restart.

In the state directory, 0700:

- `pods/UID.json`: the pod and its inputs, as they were handed over last, without secrets and tokens;
- `statuses/UID.json`: its newest status;
- `ends/UID.json`: the last status of a pod that was deleted, until the node loop says that the API has it; at most 24
  hours and 10 000 of them.

Secrets and tokens are in a directory in memory (`wasmlet.runtime.files.memory`), which a reboot clears. With
`keep_secrets` they are on disk, too. Where there is no such directory they are kept nowhere.

Pods and ends are on the disk when a call returns, so that a loss of power takes back nothing that a node loop was told;
that a pod is to end need not be, for a node loop asks for it until it is told the end.
Everything blocks.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import attrs
import structlog

from wasmlet import files
from wasmlet.errors import InvalidInput
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import PodKey, Raw
from wasmlet.model.status import PodStatus
from wasmlet.runtime.files.memory import Memory
from wasmlet_agent.pods.fences import Fence
from wasmlet_agent.protocol.codec import decode, encode

log = structlog.get_logger(__name__)

T = TypeVar("T")

MOST_ENDS = 10_000
END_LIFE = timedelta(hours=24)

UID = "[A-Za-z0-9][A-Za-z0-9_.-]{0,199}"
"""The form of a UID, as a regular expression: it is the name of a file."""


def check_uid(uid: str) -> str:
    """The UID, which is fit to be the name of a file.

    Raises:
        InvalidInput: it is not.
    """
    if not re.fullmatch(UID, uid):
        raise InvalidInput(f"uid: expected at most 200 letters, digits, '-', '_' and '.', found {uid[:40]!r}")
    return uid


@attrs.frozen
class KeptPod:
    """A pod as it was handed over last.

    Attributes:
        digest: of the body that it came in.
        hidden: whether there were secrets or tokens among the inputs.
        complete: whether `inputs` has them.
        ends_at: when its grace is over, by this machine's clock; None while nobody has asked to end it.
        keeps: its logs are to stay once it has ended, until it is deleted.
    """

    pod: Raw
    inputs: Inputs
    digest: str
    fence: Fence
    hidden: bool = False
    complete: bool = True
    ends_at: datetime | None = None
    keeps: bool = False


@attrs.frozen
class KeptStatus:
    """The newest status of a pod."""

    key: PodKey
    status: PodStatus


@attrs.frozen
class KeptEnd:
    """The end of a pod that was deleted, at a time of this machine's clock."""

    status: PodStatus | None
    fence: Fence
    at: datetime


class Store:
    """The files below one directory.

    Args:
        directory: exists, mode 0700.
        keep_secrets: whether secrets and tokens go to the disk.
    """

    def __init__(self, directory: Path, *, keep_secrets: bool) -> None:
        self._pods, self._statuses, self._ends, on_disk = (
            directory / name for name in ("pods", "statuses", "ends", "secrets")
        )
        for made in (self._pods, self._statuses, self._ends):
            made.mkdir(mode=0o700, exist_ok=True)
        self._memory = Memory(directory)
        self._hidden: Path | None
        if keep_secrets:
            self._hidden = on_disk
        else:
            for left in on_disk.glob("*"):  # of a start with keep_secrets
                left.unlink()
            found = self._memory.find()
            self._hidden = found / "pods" if found != directory else None
        if self._hidden is not None:
            self._hidden.mkdir(mode=0o700, exist_ok=True)

    def keep(self, uid: str, kept: KeptPod, *, durable: bool = True) -> None:
        """Keep a pod; waits for the disk if it is to be `durable`. What is on the disk already is never lost."""
        hidden = bool(kept.inputs.secrets or kept.inputs.tokens)
        if self._hidden is not None:
            if hidden:
                secret = Inputs(secrets=kept.inputs.secrets, tokens=kept.inputs.tokens)
                _replace(_file(self._hidden, uid), encode(secret), durable=durable)
            else:
                _file(self._hidden, uid).unlink(missing_ok=True)
        plain = attrs.evolve(kept.inputs, secrets={}, tokens={})
        content = encode(attrs.evolve(kept, inputs=plain, hidden=hidden, complete=True))
        _replace(_file(self._pods, uid), content, durable=durable)

    def sync(self, uid: str) -> None:
        """Wait until what was kept of a pod is on the disk; does nothing where it was dropped meanwhile."""
        for directory in (self._hidden, self._pods):
            if directory is not None:
                with contextlib.suppress(FileNotFoundError), _file(directory, uid).open("rb") as file:
                    os.fsync(file.fileno())
                    files.sync_directory(directory)

    def drop(self, uid: str) -> None:
        """Keep a pod and its status no longer."""
        for directory in (self._pods, self._statuses, self._hidden):
            if directory is not None:
                _file(directory, uid).unlink(missing_ok=True)

    def pods(self) -> Mapping[str, KeptPod]:
        """Every pod, by UID."""
        return {uid: self._revealed(uid, kept) for uid, kept in _read(self._pods, KeptPod)}

    def keep_statuses(self, statuses: Mapping[str, KeptStatus]) -> Mapping[str, OSError]:
        """Keep the newest status of some pods, by UID; returns which could not be kept, and why.

        Nothing waits for the disk: after a loss of power the provider says what has become of a pod.
        """
        failed: dict[str, OSError] = {}
        for uid, status in statuses.items():
            try:
                files.replace(_file(self._statuses, uid), encode(status), durable=False)
            except OSError as error:
                failed[uid] = error
        return failed

    def statuses(self) -> Mapping[str, KeptStatus]:
        """The newest status of every pod, by UID."""
        return dict(_read(self._statuses, KeptStatus))

    def end(self, uid: str, end: KeptEnd) -> None:
        """Keep how a pod has ended, and the pod no longer."""
        files.replace(_file(self._ends, uid), encode(end))
        self.drop(uid)

    def forget(self, uid: str) -> None:
        """Keep no longer how a pod has ended."""
        _file(self._ends, uid).unlink(missing_ok=True)

    def ends(self) -> Mapping[str, KeptEnd]:
        """How the pods have ended that nobody has forgotten, by UID."""
        return dict(_read(self._ends, KeptEnd))

    def close(self) -> None:
        """Remove the directory in memory if nothing is in it."""
        self._memory.close()

    def _revealed(self, uid: str, kept: KeptPod) -> KeptPod:
        if not kept.hidden:
            return kept
        try:
            if self._hidden is None:
                return attrs.evolve(kept, complete=False)
            secret = decode(Inputs, _file(self._hidden, uid).read_bytes())
        except (OSError, InvalidInput):
            return attrs.evolve(kept, complete=False)
        return attrs.evolve(kept, inputs=attrs.evolve(kept.inputs, secrets=secret.secrets, tokens=secret.tokens))


def _file(directory: Path, uid: str) -> Path:
    return directory / f"{uid}.json"


def _replace(file: Path, content: bytes, *, durable: bool) -> None:
    files.replace(file, content, durable=durable, whole=file.exists())


def _read(directory: Path, kind: type[T]) -> Iterator[tuple[str, T]]:
    """What is in the files, by UID; one that cannot be read (the machine went off while it was written) is removed."""
    for file in sorted(directory.iterdir()):
        if file.suffix != ".json":  # half-written
            file.unlink(missing_ok=True)
            continue
        try:
            yield file.name.removesuffix(".json"), decode(kind, file.read_bytes())
        except (OSError, InvalidInput) as error:
            log.warning(
                "a file of the state directory cannot be read, and is removed", file=file.name, error=str(error)
            )
            file.unlink(missing_ok=True)
