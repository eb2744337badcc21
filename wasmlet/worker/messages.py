"""What a node loop asks the shim, and what is answered: a class for each operation, for both sides.

`wire` says what the operations do. Each class has the fields of its message; `as_message` gives the message, and `of`
checks one. Fields that are not known are passed over, and those that are not there have the values of before there were
such fields: the other side may be of an older or newer wasmlet.
"""

from __future__ import annotations

import dataclasses
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
"""Of `Greeting.extensions`: the shim takes `Exec.command`."""
NETWORK = "network"
"""The same: the shim takes `Run.network`, and containers may have sockets."""

T = TypeVar("T", bound="Request")


@dataclasses.dataclass(frozen=True)
class Request:
    """What all operations have in common."""

    OPERATION: ClassVar[str]

    def as_message(self) -> wire.Message:
        """The message, without the number that its reply repeats."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**{name: _plain(value) for name, value in fields.items()}, "op": self.OPERATION}

    @classmethod
    def of(cls: type[T], message: wire.Message) -> T:
        """From a message.

        Raises:
            wire.WireError: it is not of that form.
        """
        return cls()


@dataclasses.dataclass(frozen=True)
class Hello(Request):
    """Answered with a `Greeting`. `never_at`: where the node's own API is now (`Grant.never_at`); () says nothing."""

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
    """`watch`: go on with an event for each change."""

    OPERATION = "list"
    watch: bool = False

    @classmethod
    def of(cls, message: wire.Message) -> List:
        return cls(bool(message.get("watch")))


@dataclasses.dataclass(frozen=True)
class Warm(Request):
    """Have this zygote ready, and with `network` the broker."""

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
        dense: with whom it shares a worker; "" for a process of its own.
        within: directories that the files of such a worker's containers are in.
        network: what it may ask of the broker; None where it has no sockets. Execs in it have none in any case.
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

    def as_message(self) -> wire.Message:
        """See `Request`. What is at its default is left out."""
        message = super().as_message()
        for field in dataclasses.fields(self):
            if field.default is not dataclasses.MISSING and getattr(self, field.name) == field.default:
                del message[field.name]
        return message

    @classmethod
    def of(cls, message: wire.Message) -> Run:
        name, labels, log = check_id(message.get("id")), message.get("labels"), check_log(message.get("log"))
        if not isinstance(labels, Mapping) or len(wire.pack(dict(labels))) > wire.MAX_LABELS:
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
        )


@dataclasses.dataclass(frozen=True)
class Stop(Request):
    """`id` of a container or exec; `grace` in seconds."""

    OPERATION = "stop"
    id: str
    grace: float = 0.0

    @classmethod
    def of(cls, message: wire.Message) -> Stop:
        grace = message.get("grace", 0)
        if not isinstance(grace, (int, float)):
            raise wire.WireError(f"expected a grace period in seconds, found {str(grace)[:40]!r}")
        return cls(name_of(message), float(grace))


@dataclasses.dataclass(frozen=True)
class Resize(Request):
    """`id` of a container that runs."""

    OPERATION = "resize"
    id: str
    resources: Resources

    @classmethod
    def of(cls, message: wire.Message) -> Resize:
        return cls(name_of(message), Resources.of(message.get("resources")))


@dataclasses.dataclass(frozen=True)
class Given(Request):
    """`id` of a container that runs, whose descriptors are wanted."""

    OPERATION = "given"
    id: str

    @classmethod
    def of(cls, message: wire.Message) -> Given:
        return cls(name_of(message))


@dataclasses.dataclass(frozen=True)
class Exec(Request):
    """Run a second instance in a container that runs.

    Attributes:
        id: of the exec, as that of a container.
        zygote: whose child it is; None for the container's own.
        own: it is the container's own, whatever `zygote` says, which is for shims that do not know this field.
        command: the descriptors are the three streams and the arguments (a JSON list in a memory file); all else is
            what the container was given. The zygote is the container's own.
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
    """`id` of a container that runs; to its stdin, or to its output. Answered with an `Attached`."""

    OPERATION = "attach"
    id: str
    stdin: bool = False

    @classmethod
    def of(cls, message: wire.Message) -> Attach:
        return cls(name_of(message), message.get("stdin") is True)


@dataclasses.dataclass(frozen=True)
class Detach(Request):
    """`token` of an `Attached`."""

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
    """`ids` of containers that have ended."""

    OPERATION = "forget"
    ids: tuple[str, ...]

    @classmethod
    def of(cls, message: wire.Message) -> Forget:
        ids = message.get("ids") or []
        if not isinstance(ids, list) or not all(isinstance(name, str) for name in ids):
            raise wire.WireError(f"expected ids of containers, found {str(ids)[:80]!r}")
        return cls(tuple(ids))


@dataclasses.dataclass(frozen=True)
class Shutdown(Request):
    """`force`: also where containers run."""

    OPERATION = "shutdown"
    force: bool = False

    @classmethod
    def of(cls, message: wire.Message) -> Shutdown:
        return cls(bool(message.get("force")))


REQUESTS = (Hello, List, Warm, Run, Stop, Resize, Given, Exec, Attach, Detach, Forget, Shutdown)
_BY_NAME: Mapping[str, type[Request]] = {request.OPERATION: request for request in REQUESTS}


def _plain(value: Any) -> Any:
    if isinstance(value, Grant):
        return value.as_message()
    return value._asdict() if hasattr(value, "_asdict") else value


def request_of(message: wire.Message) -> Request:
    """The request that a message is.

    Raises:
        wire.WireError: it is no operation, or not of its form.
    """
    operation = message.get("op")
    known = _BY_NAME.get(operation) if isinstance(operation, str) else None
    if known is None:
        raise wire.WireError(f"expected an operation, found {str(operation)[:40]!r}")
    return known.of(message)


class Greeting(NamedTuple):
    """The answer to `Hello`.

    Attributes:
        pid: of the shim.
        confinement: what keeps guests in, part by part: "on" and what there is to say, or "off: " and why. An older
            shim does not say it: empty.
        groups: for each controller of control groups that is there its `version` and `directory`.
        extensions: what the shim can do that older ones with this protocol cannot.
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
        position: of output, the file and offset in the log at which to begin.
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
