"""Which node loop may give orders to this agent: the one with the newest session.

The number of the newest session is kept on disk, so that no number is ever used twice.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import attrs
import structlog

from wasmlet import files
from wasmlet.concurrency import in_thread
from wasmlet.errors import ConfigError, InvalidInput
from wasmlet_agent.protocol.codec import decode, encode
from wasmlet_agent.protocol.failures import LateDuplicate, OtherNode, SessionOver, Unclaimed
from wasmlet_agent.protocol.messages import NodeDescription, SessionRequest

log = structlog.get_logger(__name__)


@attrs.frozen
class Session:
    """What is on disk: the newest session, who has it, and the Node that is made."""

    number: int = 0
    claimant: str = ""
    node: NodeDescription | None = None


class Sessions:
    """Counts sessions, and tells which one is over.

    Args:
        file: where the newest is kept.
        handover: whether a node loop of another Node may take the agent over.

    Raises:
        ConfigError: the file is there and cannot be read.
    """

    def __init__(self, file: Path, *, handover: bool) -> None:
        self._file = file
        self._handover = handover
        self._claiming = asyncio.Lock()
        self.over = asyncio.Event()
        """Set, and replaced, when streams are to end: another session begins, or the agent stops."""
        try:
            self.newest = decode(Session, file.read_bytes())
        except FileNotFoundError:
            self.newest = Session()
        except (OSError, InvalidInput) as error:
            # To begin again at 1 would let requests of sessions that are over come true.
            raise ConfigError(f"{file}: expected the newest session, found something else ({error})") from None

    def check(self, number: int) -> None:
        """See that a request is of the newest session.

        Raises:
            SessionOver: another node loop has taken the agent over.
            Unclaimed: this session never was, as far as is known here.
        """
        if number < self.newest.number:
            raise SessionOver(f"session {number} is over: the newest is {self.newest.number}")
        if number > self.newest.number:
            raise Unclaimed(f"session {number} is not known here: the newest is {self.newest.number}")

    def admit(self, request: SessionRequest) -> None:
        """See whether this node loop may begin a session.

        Raises:
            OtherNode: the agent belongs to another Node.
            LateDuplicate: the newest session is another one than the request names.
        """
        kept = self.newest
        if kept.node is not None and kept.node.name != request.node.name and not self._handover:
            raise OtherNode(
                f"this agent belongs to node {kept.node.name!r}, not to {request.node.name!r}; "
                "start it with --handover to hand it over"
            )
        if kept.number != request.previous:
            text = f"the newest session is {kept.number}, not {request.previous}; name it to begin the next one"
            raise LateDuplicate(text, kept.number, kept.claimant)

    def end_streams(self) -> None:
        """End what is under way for the session; it may ask for it again unless another has begun."""
        over, self.over = self.over, asyncio.Event()
        over.set()

    async def begin(self, request: SessionRequest) -> int:
        """The number of the new session; every older one is over."""
        async with self._claiming:
            self.admit(request)
            begun = Session(self.newest.number + 1, request.claimant, request.node)
            await in_thread(files.replace, self._file, encode(begun))
            self.newest = begun
            self.end_streams()
        log.info("a session has begun", session=begun.number, node=request.node.name)
        return begun.number
