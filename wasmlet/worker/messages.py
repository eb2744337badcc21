"""The requests from a node loop to the shim, and the answers: one class per operation, used by both sides.

`wire` describes the operations. Each class has the fields of its message. `as_message` makes the message, and `of`
parses and checks one. The other side may be an older or newer wasmlet. So unknown fields are ignored, and a missing
field gets the value that means the same as before the field existed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, TypeVar

from . import wire
from .fields import (
    UNLIMITED,
    Resources,
    ZygoteKey,
    at_least,
    check_id,
    check_log,
    group_of,
    name_of,
    within_of,
)
from .grants import Grant, places_of

EXEC_COMMAND = "exec-command"
"""An entry of `Greeting.extensions`: the shim supports `Exec.command`."""
MAKE_MESSAGE = "make-message"
"""An entry of `Greeting.extensions`: the shim supports `make` in `Run.message`."""
NETWORK = "network"
"""An entry of `Greeting.extensions`: the shim supports `Run.network`, so containers may have sockets."""

T = TypeVar("T", bound="Request")


@dataclasses.dataclass(frozen=True)
class Request:
    """What all operations have in common."""

    OPERATION: ClassVar[str]

    def as_message(self) -> wire.Message:
        """The message, without the number that its reply repeats, and without fields that have their default values."""
        message: wire.Message = {"op": self.OPERATION}
        for name, default in _FIELDS[type(self)]:
            value = getattr(self, name)
            if value != default:
                message[name] = _plain(value)
        return message

    @classmethod
    def of(cls: type[T], message: wire.Message) -> T:
        """From a message.

        Raises:
            wire.WireError: it is not of that form.
        """
        return cls()


@dataclasses.dataclass(frozen=True)
class Hello(Request):
    """The first request, answered with a `Greeting`. `never_at`: where the node's API is now; () changes nothing."""

    OPERATION = "hello"
    never_at: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, message: wire.Message) -> Hello:
        try:
            return cls(places_of(message.get("never_at")))
        except (ValueError, TypeError, IndexError) as error:
            raise wire.WireError(f"expected addresses and ports: {error}") from None


@dataclasses.dataclass(frozen=True)
class List(Request):
    """List all containers. `watch`: then send an event for each change."""

    OPERATION = "list"
    watch: bool = False

    @classmethod
    def of(cls, message: wire.Message) -> List:
        return cls(bool(message.get("watch")))


@dataclasses.dataclass(frozen=True)
class Warm(Request):
    """Start this zygote before it is needed; with `network`, also the broker."""

    OPERATION = "warm"
    zygote: ZygoteKey
    network: bool = False

    @classmethod
    def of(cls, message: wire.Message) -> Warm:
        return cls(ZygoteKey.of(message.get("zygote")), message.get("network") is True)


@dataclasses.dataclass(frozen=True)
class Run(Request):
    """Start a container.

    Attributes:
        id: 8 to 64 characters of `0-9a-f`.
        labels: see `records.Record`; at most `wire.MAX_LABELS` bytes.
        log: path of the log file, below `logs/`.
        message: where the termination message is; see `termination`.
        log_size, log_files: see `crilog.LogFile`; None for its defaults.
        dense: containers with the same text share a dense worker; "" for a process of its own.
        within: for a dense worker: the directories that contain the files of all its containers.
        network: the grant; None if the container has no sockets. Execs in it never have any.
        wait: answer with the next event of the container: that its guest has begun or ended, or is still starting where
            that takes long (an older shim answers at once).
    """

    OPERATION = "run"
    id: str
    labels: Mapping[str, Any]
    log: str
    zygote: ZygoteKey
    message: Any = None
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    log_size: int | None = None
    log_files: int | None = None
    resources: Resources = UNLIMITED
    dense: str = ""
    within: tuple[str, ...] = ()
    network: Grant | None = None
    wait: bool = False

    @classmethod
    def of(cls, message: wire.Message) -> Run:
        name, labels, log = check_id(message.get("id")), message.get("labels"), check_log(message.get("log"))
        if not isinstance(labels, Mapping) or not _fit(labels):
            raise wire.WireError(f"expected labels as an object of at most {wire.MAX_LABELS} bytes")
        size, files = message.get("log_size"), message.get("log_files")
        if not at_least(size, 1) or not at_least(files, 2):
            raise wire.WireError(f"expected log files of at least 1 byte and at least 2 of them, found {size}, {files}")
        return cls(
            name,
            labels,
            log,
            ZygoteKey.of(message.get("zygote")),
            message=message.get("message"),
            stdin=message.get("stdin") is True,
            stdin_once=message.get("stdin_once") is True,
            tty=message.get("tty") is True,
            log_size=size,
            log_files=files,
            resources=Resources.of(message.get("resources")),
            dense=group_of(message.get("dense")),
            within=within_of(message.get("within")),
            network=None if message.get("network") is None else Grant.of(message["network"]),
            wait=message.get("wait") is True,
        )


@dataclasses.dataclass(frozen=True)
class Stop(Request):
    """Interrupt a container or exec, and kill it after `grace` seconds."""

    OPERATION = "stop"
    id: str
    grace: float = 0.0

    @classmethod
    def of(cls, message: wire.Message) -> Stop:
        grace = message.get("grace", 0)
        if not isinstance(grace, (int, float)) or not 0 <= grace < math.inf:
            raise wire.WireError(f"expected a grace period in seconds, found {str(grace)[:40]!r}")
        return cls(name_of(message), float(grace))


@dataclasses.dataclass(frozen=True)
class Resize(Request):
    """Change the limits of a running container."""

    OPERATION = "resize"
    id: str
    resources: Resources

    @classmethod
    def of(cls, message: wire.Message) -> Resize:
        return cls(name_of(message), Resources.of(message.get("resources")))


@dataclasses.dataclass(frozen=True)
class Given(Request):
    """Ask for the descriptors that a running container was given."""

    OPERATION = "given"
    id: str

    @classmethod
    def of(cls, message: wire.Message) -> Given:
        return cls(name_of(message))


@dataclasses.dataclass(frozen=True)
class Exec(Request):
    """Run a second instance in a container that runs.

    Attributes:
        id: id of the exec, of the same form as a container's.
        container: id of the container.
        zygote: the zygote that makes its process; None for the container's zygote.
        own: use the container's zygote, whatever `zygote` says. (Shims that do not know this field use `zygote`.)
        command: the descriptors are the three streams and a memory file with the arguments (a JSON list). Everything
            else is the same as for the container, and its zygote is used.
    """

    OPERATION = "exec"
    id: str
    container: str
    zygote: ZygoteKey | None = None
    own: bool = False
    command: bool = False

    @classmethod
    def of(cls, message: wire.Message) -> Exec:
        name, container = check_id(message.get("id")), name_of(message, "container")
        command = message.get("command") is True
        own = command or message.get("own") is True
        zygote = None if own else ZygoteKey.of(message.get("zygote"))
        return cls(name, container, zygote, own, command)


@dataclasses.dataclass(frozen=True)
class Attach(Request):
    """Attach to a running container: to its stdin, or to its output. Answered with an `Attached`."""

    OPERATION = "attach"
    id: str
    stdin: bool = False

    @classmethod
    def of(cls, message: wire.Message) -> Attach:
        return cls(name_of(message), message.get("stdin") is True)


@dataclasses.dataclass(frozen=True)
class Detach(Request):
    """Undo an `Attach`; `token` is from its answer."""

    OPERATION = "detach"
    token: int

    @classmethod
    def of(cls, message: wire.Message) -> Detach:
        token = message.get("token")
        if not isinstance(token, int):
            raise wire.WireError(f"expected a token, found {str(token)[:40]!r}")
        return cls(token)


@dataclasses.dataclass(frozen=True)
class Forget(Request):
    """Drop the records of containers that have ended.

    Attributes:
        logs: remove their logs, too, and the directories that are empty then. The answer's `left` has the ids for which
            that is not certain: the log has more files, or belongs to another container, too. (Shims that do not know
            this field remove nothing.)
    """

    OPERATION = "forget"
    ids: tuple[str, ...]
    logs: bool = False

    @classmethod
    def of(cls, message: wire.Message) -> Forget:
        ids = message.get("ids") or []
        if not isinstance(ids, list) or not all(isinstance(name, str) for name in ids):
            raise wire.WireError(f"expected ids of containers, found {str(ids)[:80]!r}")
        return cls(tuple(ids), message.get("logs") is True)


@dataclasses.dataclass(frozen=True)
class Shutdown(Request):
    """End the shim. `force`: even if containers run."""

    OPERATION = "shutdown"
    force: bool = False

    @classmethod
    def of(cls, message: wire.Message) -> Shutdown:
        return cls(bool(message.get("force")))


REQUESTS = (Hello, List, Warm, Run, Stop, Resize, Given, Exec, Attach, Detach, Forget, Shutdown)
_BY_NAME: Mapping[str, type[Request]] = {request.OPERATION: request for request in REQUESTS}
_FIELDS: Mapping[type[Request], tuple[tuple[str, Any], ...]] = {
    request: tuple((field.name, field.default) for field in dataclasses.fields(request)) for request in REQUESTS
}
"""The fields of each request, with their default values."""


def _fit(labels: Mapping[str, Any]) -> bool:
    """Whether they are not too long as JSON, where no character takes more than twelve bytes."""
    return 12 * len(str(labels)) <= wire.MAX_LABELS or len(wire.encoded(labels)) <= wire.MAX_LABELS


def _plain(value: Any) -> Any:
    if isinstance(value, Grant):
        return value.as_message()
    return value._asdict() if hasattr(value, "_asdict") else value


def request_of(message: wire.Message) -> Request:
    """Parse a message into the request that it is.

    Raises:
        wire.WireError: the operation is not known, or the message does not have its form.
    """
    operation = message.get("op")
    known = _BY_NAME.get(operation) if isinstance(operation, str) else None
    if known is None:
        raise wire.WireError(f"expected an operation, found {str(operation)[:40]!r}")
    return known.of(message)


class Greeting(NamedTuple):
    """The answer to `Hello`.

    Attributes:
        pid: pid of the shim.
        confinement: the state of each part of the confinement of guests (`guest.confine`): "on" with details, or
            "off: " and the reason. Empty from an older shim, which does not report it.
        groups: for each available controller of control groups, its `version` and `directory`.
        extensions: abilities of the shim that older ones with the same protocol version do not have.
    """

    protocol: int
    pid: int
    confinement: Mapping[str, str] = {}
    groups: Mapping[str, Any] = {}
    extensions: tuple[str, ...] = ()

    def as_message(self) -> wire.Message:
        return self._asdict()

    @classmethod
    def of(cls, message: wire.Message) -> Greeting:
        """Raises `wire.WireError` where it is not of that form."""
        protocol, pid = message.get("protocol"), message.get("pid")
        if not isinstance(protocol, int) or not isinstance(pid, int):
            raise wire.WireError(f"expected a protocol and a pid, found {str(message)[:80]!r}")
        extensions = tuple(map(str, message.get("extensions") or ()))
        return cls(protocol, pid, message.get("confinement") or {}, message.get("groups") or {}, extensions)


class Attached(NamedTuple):
    """The answer to `Attach`.

    Attributes:
        token: for `Detach`.
        position: for output: the number of the log file, and the offset in it, at which to begin to read.
    """

    token: int
    position: tuple[int, int] = (0, 0)

    def as_message(self) -> wire.Message:
        return self._asdict()

    @classmethod
    def of(cls, message: wire.Message) -> Attached:
        """Raises `wire.WireError` where it is not of that form."""
        try:
            token, (file, offset) = int(message["token"]), message.get("position", (0, 0))
            return cls(token, (int(file), int(offset)))
        except (KeyError, TypeError, ValueError):
            raise wire.WireError(f"expected a token and a position, found {str(message)[:80]!r}") from None
