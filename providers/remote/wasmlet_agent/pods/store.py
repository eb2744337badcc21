"""What the agent keeps on disk, so that pods go on without a node loop across its own restart.

In the state directory, 0700, is one file, `journal` (see `journal`), with records of these names:

- `pod/UID`: the pod and its inputs, as they were handed over last, without secrets and tokens;
- `ending/UID`: that it is to end, and when its grace is over;
- `status/UID`: its newest status;
- `end/UID`: the last status of a pod that was deleted, until the node loop says that the API has it; at most 24 hours
  and 10 000 of them.

Secrets and tokens are in a directory in memory (`wasmlet.runtime.files.memory`), which a reboot clears; each pod's are
a file, which is removed with the pod. With `keep_secrets` the directory is on disk. Where there is no such directory
they are kept nowhere.

Pods and ends are on the disk when their commit is durable, so that a loss of power takes back nothing that a node loop
was told; that a pod is to end need not be, for a node loop asks for it until it is told the end.

Earlier versions had files instead of records: `pods/UID.json`, `statuses/UID.json` and `ends/UID.json`. They are taken
over. One that cannot be read stays, as `UID.unreadable`. What there is of a pod that cannot be read stays, its secrets
too, until a node loop hands the pod over anew or ends it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

import attrs
import structlog

from wasmlet import files
from wasmlet.clock import Clock
from wasmlet.concurrency import in_thread
from wasmlet.errors import InvalidInput
from wasmlet.failures import described
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import PodKey, Raw
from wasmlet.model.status import PodStatus
from wasmlet.runtime.files.memory import Memory
from wasmlet_agent.pods.fences import Fence
from wasmlet_agent.pods.journal import Journal
from wasmlet_agent.pods.writing import Commit, Writing, settled
from wasmlet_agent.protocol.codec import decode, encode

log = structlog.get_logger(__name__)

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
class _KeptEnding:
    """That a pod is to end; what `KeptPod` has of that."""

    ends_at: datetime
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


@attrs.frozen
class Kept:
    """All that was kept, by UID.

    Attributes:
        strays: the pods of which something is there that counts no more: the machine went off while they were dropped.
    """

    pods: Mapping[str, KeptPod]
    statuses: Mapping[str, KeptStatus]
    ends: Mapping[str, KeptEnd]
    strays: Set[str]


_EARLIER: Mapping[str, tuple[str, type[object]]] = {
    "pods": ("pod", KeptPod),
    "statuses": ("status", KeptStatus),
    "ends": ("end", KeptEnd),
}
"""What the directories of earlier versions have: the kind of a record, and its type."""


class Store:
    """The records of one directory. Use within the event loop, while `run` runs; making it blocks.

    Args:
        directory: exists, mode 0700.
        keep_secrets: whether secrets and tokens go to the disk.

    Raises:
        OSError: the directory cannot be read or written.
    """

    def __init__(self, directory: Path, *, keep_secrets: bool, clock: Clock) -> None:
        self._directory = directory
        on_disk = directory / "secrets"
        self._memory = Memory(directory)
        self._durable = keep_secrets
        self._hidden: Path | None
        if keep_secrets:
            self._hidden = on_disk
        else:
            for left in on_disk.glob("*"):  # of a start with keep_secrets
                left.unlink()
            found = self._memory.find()
            self._hidden = found / "pods" if found != directory else None
        self._secret: set[str] = set()
        """UIDs of pods whose secrets are there."""
        self._unread: set[str] = set()
        """UIDs of pods that `load` could not read."""
        if self._hidden is not None:
            self._hidden.mkdir(mode=0o700, exist_ok=True)
            self._secret = {file.name.removesuffix(".json") for file in self._hidden.glob("*.json")}
        self._journal = Journal(directory / "journal")
        self._writing = Writing(self._journal, clock)

    async def run(self) -> None:
        """Write what is to be kept, until cancelled."""
        await self._writing.run()

    async def close(self) -> None:
        """Write what is left, once `run` has ended; and remove the directory in memory if nothing is in it."""
        await in_thread(self._close)

    def load(self) -> Kept:
        """All that was kept. Blocks; nothing else may be asked for meanwhile.

        Raises:
            OSError: it cannot be read, or what an earlier version has kept cannot be taken over.
        """
        self._unread = self._take_over()
        pods: dict[str, KeptPod] = {}
        endings: dict[str, _KeptEnding] = {}
        statuses: dict[str, KeptStatus] = {}
        ends: dict[str, KeptEnd] = {}
        for name, content in self._journal.records():
            kind, _, uid = name.partition("/")
            try:
                match kind:
                    case "pod":
                        pods[uid] = self._revealed(uid, decode(KeptPod, content))
                    case "ending":
                        endings[uid] = decode(_KeptEnding, content)
                    case "status":
                        statuses[uid] = decode(KeptStatus, content)
                    case "end":
                        ends[uid] = decode(KeptEnd, content)
            except InvalidInput as error:
                log.warning("a record of the state directory cannot be read", record=name, error=str(error))
                if kind == "pod":
                    self._unread.add(uid)
        for uid, ending in endings.items():
            if uid in pods:
                pods[uid] = attrs.evolve(pods[uid], ends_at=ending.ends_at, keeps=ending.keeps)
        if self._hidden is not None:
            known = {f"{uid}.json" for uid in pods.keys() | self._unread}
            for left in {file.name for file in self._hidden.iterdir()} - known:
                (self._hidden / left).unlink()
        self._secret &= pods.keys() | self._unread
        strays = (endings.keys() | statuses.keys()) - pods.keys() - self._unread
        return Kept(pods, statuses, ends, strays)

    async def keep(self, uid: str, kept: KeptPod) -> Commit:
        """Keep a pod, and wait until the commit is written or durable. What is kept of it already is never lost.

        Raises:
            OSError: its secrets and tokens cannot be written.
        """
        secret = Inputs(secrets=kept.inputs.secrets, tokens=kept.inputs.tokens)
        hidden = bool(secret.secrets or secret.tokens)
        if hidden:
            await self._hide(uid, secret)
        else:
            await self._unhide(uid)
        plain = attrs.evolve(kept.inputs, secrets={}, tokens={})
        lean = attrs.evolve(kept, inputs=plain, hidden=hidden, complete=True)
        # Config maps may be large.
        content = await in_thread(encode, lean) if plain.config_maps else encode(lean)
        return self._writing.put({f"pod/{uid}": content, f"ending/{uid}": None}, durable=True)

    def keep_ending(self, uid: str, ends_at: datetime, *, keeps: bool) -> Commit:
        """Keep that a pod is to end. With `keeps`, somebody waits for the disk."""
        return self._writing.put({f"ending/{uid}": encode(_KeptEnding(ends_at, keeps))}, durable=keeps)

    async def drop_unread(self, uid: str) -> None:
        """Keep a pod no longer if it is one that `load` could not read."""
        if uid in self._unread:
            await self.drop(uid)

    async def drop(self, uid: str) -> Commit:
        """Keep a pod and its status no longer."""
        commit = self._writing.put(_nothing_of(uid))
        self._unread.discard(uid)
        await self._unhide(uid)
        return commit

    def keep_status(self, uid: str, status: KeptStatus) -> None:
        """Keep the newest status of a pod.

        Nothing waits for the disk: after a loss of power the provider says what has become of a pod.
        """
        self._writing.put({f"status/{uid}": encode(status)})

    async def end(self, uid: str, end: KeptEnd) -> None:
        """Keep how a pod has ended, and the pod no longer; it is on the disk then.

        Raises:
            OSError: it cannot be written now. It is as soon as it can.
        """
        commit = self._writing.put({f"end/{uid}": encode(end), **_nothing_of(uid)}, durable=True)
        try:
            await settled(commit.durable)
        finally:
            await self._unhide(uid)

    def forget(self, uid: str) -> Commit:
        """Keep no longer how a pod has ended."""
        return self._writing.put({f"end/{uid}": None})

    def _take_over(self) -> set[str]:
        """Take over what an earlier version has kept; returns the UIDs of the pods that cannot be read.

        The files go when all of them are on the disk as records, so a start that fails or is killed loses nothing.
        """
        changes: dict[str, bytes | None] = {}
        over: list[Path] = []
        unread: set[str] = set()
        for directory, (kind, of) in _EARLIER.items():
            for file in sorted((self._directory / directory).glob("*")):
                uid = file.stem
                if file.suffix == ".json":
                    try:
                        changes[f"{kind}/{uid}"] = encode(decode(of, file.read_bytes()))
                        over.append(file)
                        continue
                    except (OSError, InvalidInput) as error:
                        file = file.rename(file.with_suffix(".unreadable"))
                        log.warning("a file of an earlier version cannot be read", file=str(file), error=str(error))
                if file.suffix != ".unreadable":
                    over.append(file)  # half-written
                elif kind == "pod":
                    unread.add(uid)
        if changes:
            self._journal.append(changes)
            self._journal.sync()
            log.info("the state directory of an earlier version was taken over", files=len(over))
        for file in over:
            file.unlink()
        for emptied in {file.parent for file in over}:
            files.sync_directory(emptied)  # so that none comes back, with a pod that has ended meanwhile
        for directory in _EARLIER:
            with suppress(OSError):  # it is not there, or something stays in it
                (self._directory / directory).rmdir()
        return unread

    def _close(self) -> None:
        try:
            self._writing.finish()
        except OSError as error:
            log.warning("the state directory cannot be written", **described(error))
        self._journal.close()
        self._memory.close()

    async def _hide(self, uid: str, secret: Inputs) -> None:
        if self._hidden is not None:
            self._secret.add(uid)
            await in_thread(files.replace, _file(self._hidden, uid), encode(secret), durable=self._durable)

    async def _unhide(self, uid: str) -> None:
        if self._hidden is not None and uid in self._secret:
            await in_thread(_file(self._hidden, uid).unlink, missing_ok=True)
            self._secret.discard(uid)

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


def _nothing_of(uid: str) -> Mapping[str, bytes | None]:
    return dict.fromkeys((f"pod/{uid}", f"ending/{uid}", f"status/{uid}"))
