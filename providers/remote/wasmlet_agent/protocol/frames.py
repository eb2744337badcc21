"""What exec, attach and port-forward send over a websocket: binary messages whose first byte says what they are.

A caller sends stdin, terminal sizes and the end of stdin; an agent sends stdout, stderr and, last, the result. For a
port-forward, the caller's bytes are stdin and the pod's are stdout; there the agent may send the end of stdout, too.

A caller that leaves sends a close frame; the agent answers it once the provider's call has ended. Each side sends a
ping every `BEAT_SECONDS`, whether or not it reads. A side that waits for a message and gets none, not even a ping, for
`SILENCE_SECONDS` takes the other as gone. (Pongs alone would not do: one that does not read sends none, and a caller
may leave output unread for as long as it likes.)
"""

from __future__ import annotations

from typing import Final, Literal

import attrs

from wasmlet.errors import InvalidInput
from wasmlet_agent.protocol.codec import decode, encode
from wasmlet_agent.protocol.failures import Failure

MOST_FRAME = 1024 * 1024
"""Bytes of a message, its first byte among them."""

STDIN: Final = 0
STDOUT: Final = 1
STDERR: Final = 2
RESULT: Final = 3
RESIZE: Final = 4
END: Final = 255


@attrs.frozen
class Result:
    """How a call has ended: an exit code, or an error."""

    code: int = 0
    failure: Failure | None = None


@attrs.frozen
class Resize:
    """The size of the terminal."""

    columns: int
    rows: int


@attrs.frozen
class Data:
    """Bytes of a stream; none at its end."""

    stream: Literal[0, 1, 2]
    content: bytes


Frame = Data | Result | Resize


def frame_out(frame: Frame) -> bytes:
    """The message for a frame."""
    match frame:
        case Data(stream, b""):
            return bytes([END, stream])
        case Data(stream, content):
            return bytes([stream]) + content
        case Result():
            return bytes([RESULT]) + encode(frame)
        case Resize():
            return bytes([RESIZE]) + encode(frame)


def frame_in(message: bytes) -> Frame:
    """What a message says.

    Raises:
        InvalidInput: nothing that this protocol has.
    """
    if not message:
        raise InvalidInput("expected a message of a stream, found an empty one")
    kind, content = message[0], message[1:]
    if kind in (STDIN, STDOUT, STDERR):
        return Data(kind, content)  # type: ignore[arg-type]
    if kind == END and len(content) == 1 and content[0] in (STDIN, STDOUT, STDERR):
        return Data(content[0], b"")  # type: ignore[arg-type]
    if kind == RESULT:
        return decode(Result, content)
    if kind == RESIZE:
        return decode(Resize, content)
    raise InvalidInput(f"expected a message of a stream, found one of kind {kind}")
