"""What node and shim say to each other: each request survives its way, whatever the other side does not know."""

from __future__ import annotations

import pytest

from wasmlet.worker import messages, wire
from wasmlet.worker.fields import Resources, ZygoteKey
from wasmlet.worker.grants import TCP, UDP, Grant, Port, Resolver, Rule

ZYGOTE = ZygoteKey("/usr/bin/python3", "/engine/guest.py", "1")
ID = "0123456789abcdef"
RUN = {"op": "run", "id": ID, "labels": {}, "log": "logs/x", "zygote": ZYGOTE._asdict()}
REQUESTS = [
    messages.Hello(),
    messages.List(watch=True),
    messages.Warm(ZYGOTE),
    messages.Warm(ZYGOTE, network=True),
    messages.Run(ID, {"a": 1}, "logs/x/0.log", ZYGOTE),
    messages.Run(
        ID,
        {},
        "logs/x/0.log",
        ZYGOTE,
        message={"mount": 0, "path": "log"},
        stdin=True,
        stdin_once=True,
        tty=True,
        log_size=1,
        log_files=2,
        resources=Resources(2**20, 500, 100),
        dense="namespace",
        within=("/pods",),
        network=Grant(
            "/netns/a",
            ("10.1.2.3", "fd00::1"),
            (Port(80, "web", TCP, (("192.0.2.1", 8080),)), Port(53, protocol=UDP)),
            (Rule(name="*.example.org", first=443, last=443), Rule(cidr="10.0.0.0/8")),
            (Rule(name="*"),),
            ("127.0.0.0/8",),
            (("192.0.2.1", 10250),),
            Resolver(("192.0.2.53",), ("svc.cluster.local",), 5, 1.0, 3, {"db": ("10.1.2.4",)}),
        ),
    ),
    messages.Stop(ID, 2.5),
    messages.Resize(ID, Resources(cpu=1)),
    messages.Given(ID),
    messages.Exec(ID, ID, ZYGOTE),
    messages.Exec(ID, ID, own=True),
    messages.Exec(ID, ID, own=True, command=True),
    messages.Attach(ID, stdin=True),
    messages.Detach(7),
    messages.Forget((ID, ID)),
    messages.Shutdown(force=True),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.OPERATION)
def test_each_request_arrives(request_: messages.Request) -> None:
    arrived = wire.unpack(wire.pack({**request_.as_message(), "n": 5, "novel": ["field"]}))
    assert arrived["op"] == request_.OPERATION
    assert messages.request_of(arrived) == request_


def test_every_request_is_among_them() -> None:
    assert {type(request) for request in REQUESTS} == set(messages.REQUESTS)


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        ({}, "expected an operation, found 'None'"),
        ({"op": ["run"]}, "expected an operation"),
        ({"op": "novel"}, "expected an operation, found 'novel'"),
        ({"op": "run", "id": "x"}, "expected a container id"),
        ({"op": "run", "id": ID, "labels": {}, "log": "logs/x", "log_size": 0}, "expected log files"),
        ({"op": "run", "id": ID, "labels": {}, "log": "logs/x", "log_files": True}, "expected log files"),
        (RUN | {"network": {"addresses": ["here"]}}, "expected a grant of network"),
        (RUN | {"network": {"addresses": [], "ports": [{"number": 0}]}}, "expected a port from 1 to 65535, found 0"),
        (RUN | {"network": {"addresses": [], "egress": [7]}}, "expected a grant of network"),
        (RUN | {"network": {"addresses": [], "resolver": {"ndots": 1e999}}}, "expected a grant of network"),
        ({"op": "exec", "id": ID, "container": ID}, "expected a zygote"),
        ({"op": "exec", "id": [ID], "container": ID}, "expected a container id"),
        ({"op": "warm"}, "expected a zygote"),
        ({"op": "stop", "id": ID, "grace": "soon"}, "expected a grace period"),
        ({"op": "stop", "id": ID, "grace": float("inf")}, "expected a grace period"),
        ({"op": "stop", "id": ID, "grace": float("nan")}, "expected a grace period"),
        ({"op": "stop", "id": ID, "grace": -1}, "expected a grace period"),
        ({"op": "resize", "id": ID, "resources": {"cpu": -1}}, "expected resources"),
        ({"op": "detach", "token": "x"}, "expected a token"),
        ({"op": "forget", "ids": [[]]}, "expected ids"),
        ({"op": "forget", "ids": "abc"}, "expected ids"),
    ],
)
def test_what_is_not_of_its_form_is_refused(message: wire.Message, complaint: str) -> None:
    with pytest.raises(wire.WireError, match=complaint):
        messages.request_of(message)


def test_answers_arrive() -> None:
    greeting = messages.Greeting(1, 2, {"landlock": "on"}, {"cpu": {"version": 2}}, (messages.EXEC_COMMAND,))
    assert messages.Greeting.of(wire.unpack(wire.pack(greeting.as_message() | {"novel": 1}))) == greeting
    assert messages.Greeting.of({"protocol": 1, "pid": 2}) == messages.Greeting(1, 2)  # an older shim's
    attached = messages.Attached(7, (1, 200))
    assert messages.Attached.of(wire.unpack(wire.pack(attached.as_message()))) == attached
    assert messages.Attached.of({"token": 7}) == messages.Attached(7)
    for message in ({}, {"token": 7, "position": 1}, {"token": "x"}):
        with pytest.raises(wire.WireError, match="expected a token"):
            messages.Attached.of(message)
    with pytest.raises(wire.WireError, match="expected a protocol"):
        messages.Greeting.of({"protocol": None})
