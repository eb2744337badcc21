"""The protocol `/v1` between a node loop and an agent: its paths, headers, messages, errors and frames. No I/O.

- `messages`: the bodies, as attrs classes;
- `codec`: attrs classes to JSON and back;
- `failures`: errors to HTTP answers and back;
- `frames`: what exec, attach and port-forward send over a websocket.

JSON leaves out what has its default and ignores keys that it does not know, so that versions understand each other.
"""

from __future__ import annotations

PREFIX = "/v1"

SESSION_HEADER = "Wasmlet-Session"
"""The number of the session that a request belongs to; every request but those of `/v1/session` has it.
An agent answers one with a smaller number than its newest with 409 SessionOver, one with a larger number with 409
Unclaimed: the agent's disk is gone, and the node loop begins a session anew."""
SEQUENCE_HEADER = "Wasmlet-Sequence"
"""The number of a request that changes something, growing within its session. An agent refuses, for each pod, what is
not newer than the newest that it has seen; so a request that was held back on its way changes nothing any more."""

MOST_BODY = 32 * 1024 * 1024
"""Bytes of a request's body, after it is unpacked: a pod may refer to many config maps and secrets of 1 MiB."""
MOST_PATH = 68 * 1024
"""Bytes of the first line of a request: the command of an exec is in it. httpx makes none that is longer."""
MOST_BATCH = 64
"""Pods that one request may create, end or forget."""
BATCHES, BATCHED_DELETES, BATCHED_FORGETS = "batches", "batched_deletes", "batched_forgets"
"""An agent has these among `SessionAnswer.supports` if it creates, if it ends, and if it forgets several pods in one
request. One that has not is asked for each pod."""
BLOB_PIECE = 256 * 1024
"""Bytes of a blob that are sent at once: even a slow link passes them within the time that a request has."""
MOST_LINE = 4 * 1024 * 1024
"""Bytes of one line of the stream of changes: the status of one pod, or of the node."""
LARGE = 256 * 1024
"""A body or line with at least this many bytes is decoded in a thread: decoding takes longer than the switch to it."""

BEAT_SECONDS = 5.0
"""How often an agent says on the stream that it is there."""
SILENCE_SECONDS = 13.0
"""After so long without a line, the node loop counts the agent as away. Its Node then shows that within 15 seconds."""
