"""What is known of each pod that was handed to a plugin, on disk: a plugin cannot be asked for a list.

There are no values in it, neither of variables nor of files; but it names what a pod consists of, so its files are
their owner's alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs
import structlog
from wasmlet_agent.protocol.codec import decode, encode

from wasmlet import InvalidInput, Pod, PodStatus
from wasmlet.kube.keys import write_private

log = structlog.get_logger(__name__)


@attrs.frozen
class Record:
    """A pod.

    Attributes:
        pod: as `/status` and `/delete` are told of it.
        created: when it was handed over first.
        taken: the plugin has said that it has it. Where not, nobody knows.
        job: what the plugin calls it.
        status: the newest; it is the last where it has a phase.
    """

    pod: Mapping[str, Any]
    created: datetime
    taken: bool = False
    job: str = ""
    status: PodStatus = attrs.field(factory=PodStatus)

    @property
    def of(self) -> Pod:
        """The pod, as far as it is known here."""
        return Pod(self.pod)


class Records:
    """All of them, by UID. Its methods block, but for `get` and `all`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._records: dict[str, Record] = {}

    def load(self) -> None:
        """Read what an earlier process left. What cannot be read is passed over, and said."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        for path in self._directory.glob("*.json"):
            try:
                record = decode(Record, path.read_bytes())
                self._records[record.of.key.uid] = record
            except (OSError, InvalidInput, KeyError, TypeError) as error:
                log.warning("what was kept of a pod cannot be read", file=str(path), error=str(error))

    def get(self, uid: str) -> Record | None:
        """The pod of that UID."""
        return self._records.get(uid)

    def all(self) -> list[Record]:
        """Every pod."""
        return list(self._records.values())

    def put(self, record: Record) -> None:
        """Keep it, instead of an older one of the same pod."""
        uid = record.of.key.uid
        write_private(self._file(uid), encode(record))
        self._records[uid] = record

    def drop(self, uid: str) -> None:
        """Forget it."""
        self._file(uid).unlink(missing_ok=True)
        self._records.pop(uid, None)

    def _file(self, uid: str) -> Path:
        if not uid or "/" in uid or uid.startswith("."):
            raise InvalidInput(f"expected a pod's UID, found {uid!r}")
        return self._directory / f"{uid}.json"
