"""The messages between the processes of a node: JSON over unix sockets, with file descriptors attached.

All sockets are SOCK_SEQPACKET: a message is one packet, which arrives completely or not at all, together with its
descriptors. A message is one JSON object of at most `MAX_MESSAGE` bytes. Anything that may be larger (a container's
environment, a module) is passed as a descriptor.

Node loop to shim, each with a number `n` that the reply repeats as `re`:

| op | fields | reply |
|---|---|---|
| `hello` | `never_at`: where the node's API is now | `protocol`, `pid`, `confinement`, `groups`, `extensions` |
| `list` | `watch`: go on with a `container` event for each change | an `item` message per container, then `count` |
| `warm` | `zygote`, `network` | nothing; the zygote is there soon, and with `network` true the broker |
| `run` | `id`, `labels`, `log`, `zygote`, and see below; descriptors: spec, compiled module, mounts | `container` |
| `stop` | `id` of a container or exec, `grace` in seconds: interrupted at once, killed after that | `container` |
| `resize` | `id` of a container that runs, `resources` | `container` |
| `given` | `id` of a container that runs | descriptors: what `run` was given |
| `exec` | `id`, `container`, `zygote`; descriptors: stdin, stdout, stderr, and as `run` | `exec`, once it has ended |
| `attach` | `id`, to its output | `token`, `position` in the log |
| `attach` | `id`, `stdin`: true | `token`; descriptor: the end of its stdin to write to, if it has one |
| `detach` | `token` | nothing |
| `forget` | `ids` of containers that have ended, `logs`: whether theirs go, too | `count`, and with `logs` `left` |
| `shutdown` | `force`: also where containers run | nothing |

A reply has `ok` (an object) or `error` (a text). A `zygote` is `{"python": path, "module": path, "version": text}`;
what one version has loaded runs nothing of another's. A `container` is what `records.Record` holds, and so is `exec`.
With `own` true, `exec` runs the module that its container runs, in the version that the container was started with.
With `command` true, its descriptors are stdin, stdout, stderr and its arguments (a JSON list in a memory file): all
else is what its container was given. An older shim does not know that; `extensions` of `hello` has `exec-command` where
it is known. `messages` has a class for each operation, for both sides.
Execs and attaches end with their connection. Both sides ignore fields that they do not know.

`run` has more fields, which may be left out: `log_size` and `log_files` (see `crilog.LogFile`), `dense` (a text: the
container runs on a thread of a worker that it shares with others of the same text and zygote, and has neither stdin nor
a terminal), `within` (for such a worker: absolute paths of directories that other containers' mounts will lie in, which
is all that it may open beside the mounts of the first), and true or false: `stdin` (the guest's stdin is held open for
those who attach, else it is empty), `stdin_once` (it is closed when the first of them leaves), `tty` (its streams are
one terminal's). `message` says where the container leaves its termination message: `mount` (a number from 0, or null)
and `path` in it, and `logs` (whether its output will do). With `make`, a path below `pods/`, the mount of that number
has no descriptor: the shim makes a directory there, with an empty file `path`, both of `user` (a number, or null for
the shim's own). An older shim does not know that; `extensions` of `hello` has `make-message` where it is known.
`network` is a `grants.Grant`: the container gets a control socket, by which its process asks the broker for sockets
(`packets`); without it, it has none. An exec in a container has no control socket. An older shim does not know that;
`extensions` of `hello` has `network` where it is known.
With `wait` true, the reply is the next event of the container: `event`, `container` and `re`. It tells that the guest
has begun or ended, or that it is still starting.

That a container is starting is told only where that takes long (`connections.SLOW_SECONDS`), and before the reply to a
`hello`. So most starts take one message in each direction.

The spec is a JSON object in a memory file, which the shim and the zygote pass on unread: `args`, `env` as pairs,
`memory` in bytes or null, `user` or null (who the guest's process is: `uid`, `gid` and `groups`), and `mounts`, for
each directory in their order its `path` for the guest and whether it is `read_only`. Where the container has a network
it has `network`, too: `addresses` of the pod, and `listeners`, each with `number`, `name` and `protocol`.
"""

from __future__ import annotations

import array
import json
import os
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Any

PROTOCOL = 1
MAX_MESSAGE = 64 * 1024
MAX_DESCRIPTORS = 128
MAX_MOUNTS = 100
MAX_LABELS = 16 * 1024

CODE = os.path.dirname(os.path.abspath(__file__))
"""The directory of the worker's code, which Python runs: `python -I CODE COMMAND`."""

SOCKET = "shim.sock"
"""Name of the shim's socket in the state directory."""

STARTING, RUNNING, ENDED = "starting", "running", "ended"
"""The states of a container; it goes through them in this order and may leave out `RUNNING`."""

START_ERROR = "StartError"
"""Reason of a container that ended before its guest began; exit code `START_ERROR_CODE`, as containerd reports it."""
START_ERROR_CODE = 128

OOM_KILLED = "OOMKilled"
"""Reason of a container that the kernel killed because it took more memory than its limit; its exit code is 137."""

KILLED_CODE, INTERRUPTED_CODE = 137, 143
"""Exit codes of a container that was ended by force, and of one that ended when it was asked to: 128 + the signal."""

LOST = "ContainerStatusUnknown"
"""Reason of a container whose shim died; exit code `LOST_CODE`, as a kubelet reports a container that it lost."""
LOST_CODE = KILLED_CODE

BAD_ARTIFACT = "BadArtifact"
"""`fault` of a container whose compiled module could not be loaded: compile it again."""

Message = dict[str, Any]

_encode = json.JSONEncoder(separators=(",", ":")).encode
_decode = json.JSONDecoder().raw_decode

# Python's own constants are members of enums, and slow: each use in a child takes memory of the child's own, too.
_NOSIGNAL, _CLOEXEC = int(socket.MSG_NOSIGNAL), int(socket.MSG_CMSG_CLOEXEC)
_CUT, _NO_ROOM = int(socket.MSG_TRUNC), int(socket.MSG_CTRUNC)
_LEVEL, _RIGHTS = int(socket.SOL_SOCKET), int(socket.SCM_RIGHTS)
_ITEM = array.array("i").itemsize
_SPACE = socket.CMSG_SPACE(MAX_DESCRIPTORS * _ITEM)


class WireError(Exception):
    """A message that breaks the rules above; the connection that it came on is closed."""


class LostDescriptors(WireError):
    """Not all descriptors of a message have come: there were too many, or this process may have no more of them.

    Attributes:
        message: what came with them.
    """

    def __init__(self, message: Message) -> None:
        super().__init__("a message carries too many descriptors")
        self.message = message


def pack(message: Message) -> bytes:
    """The message as bytes.

    Raises:
        WireError: it is longer than `MAX_MESSAGE`.
    """
    return checked(encoded(message))


def pack_with(message: Message, name: str, data: bytes) -> bytes:
    """As `pack`, for a message with one more field, whose value is JSON already.

    Raises:
        WireError: it is longer than `MAX_MESSAGE`.
    """
    return checked(b'%s,"%s":%s}' % (encoded(message)[:-1], name.encode(), data))


def encoded(value: Mapping[str, Any]) -> bytes:
    """This as JSON, without spaces."""
    return _encode(value).encode()


def checked(data: bytes) -> bytes:
    """The message that these bytes are.

    Raises:
        WireError: it is longer than `MAX_MESSAGE`.
    """
    if len(data) > MAX_MESSAGE:
        raise WireError(f"a message of {len(data)} bytes is longer than {MAX_MESSAGE}")
    return data


def unpack(data: bytes) -> Message:
    """The message that these bytes are.

    Raises:
        WireError: they are not one JSON object.
    """
    try:
        text = data.decode()
        message, end = _decode(text)
    except (ValueError, RecursionError) as error:  # the latter: what a guest sends may be nested without end
        raise WireError(f"expected a JSON object, found {data[:40]!r}") from error
    if not isinstance(message, dict) or end != len(text):
        raise WireError(f"expected a JSON object, found {data[:40]!r}")
    return message


def send(sock: socket.socket, data: bytes, descriptors: tuple[int, ...] = ()) -> None:
    """Send a packed message, and descriptors with it.

    Raises:
        BlockingIOError: the socket does not block and is full.
        OSError: the other side is gone.
    """
    ancillary = []
    if descriptors:
        ancillary.append((_LEVEL, _RIGHTS, array.array("i", descriptors)))
    sock.sendmsg([data], ancillary, _NOSIGNAL)


def write(sock: socket.socket, data: bytes) -> None:
    """Send a packed message without descriptors: as `send`, for a process that has no sendmsg(2) (`seccomp`)."""
    os.write(sock.fileno(), data)


def receive(sock: socket.socket, unpack: Callable[[bytes], Message] = unpack) -> tuple[Message, list[int]] | None:
    """The next message and the descriptors that came with it (the caller closes them); None when the other side left.

    Args:
        unpack: a quicker one, where there is one.

    Raises:
        BlockingIOError: the socket does not block and there is none.
        WireError: the message breaks the rules, or is a `LostDescriptors`; its descriptors have been closed.
    """
    data, ancillary, flags, _ = sock.recvmsg(MAX_MESSAGE, _SPACE, _CLOEXEC)
    descriptors = array.array("i")
    for level, kind, payload in ancillary:
        if level == _LEVEL and kind == _RIGHTS:
            descriptors.frombytes(payload[: len(payload) - len(payload) % _ITEM])
    try:
        if flags & _CUT:
            raise WireError("a message is too long")
        if flags & _NO_ROOM:
            raise LostDescriptors(unpack(data))
        if not data:
            if descriptors:
                raise WireError("descriptors came without a message")
            return None
        return unpack(data), descriptors.tolist()
    except WireError:
        close(descriptors)
        raise


def close(descriptors: Any) -> None:
    """Close every descriptor of an iterable; one that is closed already is passed over."""
    for descriptor in descriptors:
        try:  # noqa: SIM105 - each object of `suppress` takes memory of a child's own
            os.close(descriptor)
        except OSError:
            pass


def peer(sock: socket.socket) -> tuple[int, int]:
    """Process id and user id of the process at the other end, as the kernel knows them."""
    pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return pid, uid


def connect(state_dir: str) -> socket.socket:
    """A socket that does not block, connected to the shim of this state directory.

    The address goes through /proc/self/fd, because a unix socket's address has room for 107 bytes only.

    Raises:
        OSError: no shim listens there (`FileNotFoundError`, `ConnectionRefusedError`).
    """
    directory = os.open(state_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.connect(f"/proc/self/fd/{directory}/{SOCKET}")
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
        return sock
    finally:
        os.close(directory)
