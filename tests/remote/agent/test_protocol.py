"""What both sides of the remote runtime speak: values survive the way there and back; rubbish is refused by name."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC
from typing import Any, get_args

import attrs
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wasmlet_agent.protocol import codec, failures, frames, messages
from wasmlet_agent.protocol.failures import (
    LateDuplicate,
    OtherNode,
    SessionOver,
    Stale,
    Starting,
    TooLarge,
    Unauthorized,
    Unclaimed,
)

from wasmlet.errors import InvalidInput, MissingReference, NotFound, Refused, Rejected, Unsupported, WasmletError
from wasmlet.model.inputs import Inputs, TokenKey
from wasmlet.model.pod import PodKey
from wasmlet.model.status import Condition, ContainerStatus, PodStatus, Running, Terminated, Waiting
from wasmlet.provider import Address, NodeImage, NodeStatus, PodEvent, ProbeCount, Taint

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
TIMES = st.datetimes(timezones=st.just(UTC))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
RAW = st.dictionaries(TEXT, JSON, max_size=3)
KEYS = st.builds(PodKey, TEXT, TEXT, TEXT)
TERMINATED = st.builds(
    Terminated,
    st.integers(0, 255),
    TEXT,
    TEXT,
    st.none() | st.integers(1, 64),
    st.none() | TIMES,
    st.none() | TIMES,
    TEXT,
)
STATES = st.builds(Waiting, TEXT, TEXT) | st.builds(Running, TIMES) | TERMINATED
CONTAINERS = st.builds(
    ContainerStatus,
    name=TEXT,
    state=STATES,
    last_state=st.none() | TERMINATED,
    ready=st.none() | st.booleans(),
    started=st.none() | st.booleans(),
    restart_count=st.integers(0, 1000),
    resources=st.none() | RAW,
)
CONDITIONS = st.builds(Condition, TEXT, st.sampled_from(["True", "False", "Unknown"]), TEXT, TEXT)
STATUSES = st.builds(
    PodStatus,
    containers=st.lists(CONTAINERS, max_size=2).map(tuple),
    init_containers=st.lists(CONTAINERS, max_size=1).map(tuple),
    phase=st.sampled_from([None, "Pending", "Failed"]),
    message=TEXT,
    pod_ips=st.lists(TEXT, max_size=2).map(tuple),
    conditions=st.lists(CONDITIONS, max_size=2).map(tuple),
    start_time=st.none() | TIMES,
)
INPUTS = st.builds(
    Inputs,
    config_maps=st.dictionaries(TEXT, RAW, max_size=2),
    secrets=st.dictionaries(TEXT, RAW, max_size=2),
    tokens=st.dictionaries(st.builds(TokenKey, TEXT, st.integers(600, 7200)), TEXT, max_size=2),
    services=st.lists(RAW, max_size=2).map(tuple),
    node_name=TEXT,
    node_ips=st.lists(TEXT, max_size=2).map(tuple),
    runtime_handler=st.none() | TEXT,
    node_allocatable=st.dictionaries(TEXT, TEXT, max_size=2),
)
NODES = st.builds(
    NodeStatus,
    capacity=st.dictionaries(TEXT, TEXT, max_size=2),
    allocatable=st.none() | st.dictionaries(TEXT, TEXT, max_size=2),
    conditions=st.lists(CONDITIONS, max_size=2).map(tuple),
    addresses=st.lists(st.builds(Address, st.just("ExternalIP"), TEXT), max_size=2).map(tuple),
    taints=st.lists(st.builds(Taint, TEXT, TEXT), max_size=2).map(tuple),
    runtime_handlers=st.lists(TEXT, max_size=2).map(tuple),
    images=st.lists(st.builds(NodeImage, st.lists(TEXT, max_size=2).map(tuple), st.integers(0, 2**40)), max_size=2).map(
        tuple
    ),
)
NUMBERS = st.integers(0, 2**53)
EVENTS = st.builds(PodEvent, KEYS, TEXT, TEXT, st.sampled_from(["Normal", "Warning"]), TEXT)
PROBES = st.builds(
    messages.ProbeResult,
    st.builds(ProbeCount, KEYS, TEXT, st.sampled_from(["Startup", "Liveness", "Readiness"]), TEXT),
    NUMBERS,
)
LINES = st.one_of(
    st.builds(messages.Hello, TEXT, NUMBERS, TIMES),
    st.builds(messages.StatusLine, NUMBERS, KEYS, STATUSES),
    st.builds(messages.EventLine, NUMBERS, EVENTS),
    st.builds(messages.NodeLine, NUMBERS, NODES),
    st.builds(messages.EndedLine, NUMBERS, TEXT, st.none() | STATUSES),
    st.builds(messages.Beat, NUMBERS, TIMES, TEXT, st.lists(PROBES, max_size=2).map(tuple)),
)


@settings(max_examples=60, deadline=None)
@given(st.one_of(STATUSES, INPUTS, NODES, st.builds(messages.PodRequest, RAW, INPUTS)))
def test_a_value_survives_the_way_there_and_back(value: Any) -> None:
    assert codec.decode(type(value), codec.encode(value)) == value


@settings(max_examples=60, deadline=None)
@given(LINES)
def test_a_line_survives_the_way_there_and_back(line: messages.Line) -> None:
    text = messages.line_out(line)
    assert text.count(b"\n") == 1
    assert messages.line_in(text) == line


def test_every_line_is_tried_above() -> None:
    assert len(get_args(messages.Line)) == 6


@settings(max_examples=100, deadline=None)
@given(JSON)
def test_rubbish_is_refused_by_name_or_read(raw: Any) -> None:
    for kind in (PodStatus, Inputs, NodeStatus, messages.PodRequest, messages.PodList, messages.SessionRequest):
        with suppress(InvalidInput):
            assert isinstance(codec.decode(kind, orjson.dumps(raw)), kind)


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (b"[" * 100_000, "JSON"),
        (b'{"containers": "no"}', "containers"),
        (b'{"containers": [{"name": 3}]}', "expected str, found int"),
        (b'{"containers": [{"name": "a", "restart_count": true}]}', "expected int, found bool"),
        (b'{"containers": [{"name": "a", "state": {"flying": {}}}]}', "flying"),
        (b'{"containers": [{"name": "a", "state": {"running": {"started_at": "2026-01-01T00:00:00"}}}]}', "zone"),
        (b'{"phase": "Happy"}', "phase"),
    ],
)
def test_what_is_wrong_with_a_status_is_named(body: bytes, names: str) -> None:
    with pytest.raises(InvalidInput, match=names):
        codec.decode(PodStatus, body)


def test_keys_of_a_later_version_are_passed_over() -> None:
    assert codec.decode(PodStatus, b'{"later": 1, "message": "m"}') == PodStatus(message="m")
    assert messages.line_in(b'{"type": "later", "n": 1}') is None


def test_what_has_its_default_is_left_out() -> None:
    assert codec.encode(PodStatus(containers=(ContainerStatus("a"),))) == b'{"containers":[{"name":"a"}]}'


def test_text_that_is_no_unicode_is_told_as_well_as_it_can_be() -> None:
    status = PodStatus(message="caf\udce9", containers=(ContainerStatus("a", image="\ud800"),))
    assert codec.decode(PodStatus, codec.encode(status)).message == "caf?"
    line = messages.line_in(messages.line_out(messages.StatusLine(1, PodKey("d", "a", "u"), status)))
    assert isinstance(line, messages.StatusLine)
    assert line.status.containers[0].image == "?"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotFound("no pod"), 404),
        (InvalidInput("bad"), 400),
        (Unsupported("no exec"), 501),
        (Refused("spec.x", "cannot", container="a", reason="CreateContainerError"), 422),
        (MissingReference("spec.y", 'secret "s" not found'), 422),
        (Rejected("OutOfcpu", "full"), 422),
        (Stale("old"), 409),
        (SessionOver("taken over"), 409),
        (LateDuplicate("newer one", 7), 412),
        (Unclaimed("no session 7"), 409),
        (OtherNode("of another"), 409),
        (Unauthorized("no token"), 401),
        (TooLarge("40 MiB"), 413),
        (Starting("not yet"), 503),
    ],
)
def test_an_error_survives_the_way_there_and_back(error: WasmletError, status: int) -> None:
    code, failure = failures.failure_of(error)
    again = failures.error_in(code, codec.encode(failure))
    assert (code, type(again), str(again)) == (status, type(error), str(error))
    for name in ("field", "container", "reason", "session"):
        assert getattr(again, name, None) == getattr(error, name, None)


def test_any_other_error_is_a_500_with_its_text() -> None:
    code, failure = failures.failure_of(RuntimeError("disk on fire"))
    assert (code, failure.error, failure.message) == (500, "Failed", "disk on fire")
    assert str(failures.error_in(code, codec.encode(failure))) == "disk on fire"
    assert str(failures.error_in(502, b"<html>")) == "expected an answer of an agent, found HTTP 502"


FRAMES = st.one_of(
    st.builds(frames.Data, st.sampled_from([0, 1, 2]), st.binary(max_size=20)),
    st.builds(frames.Result, st.integers(0, 255)),
    st.builds(frames.Result, st.just(0), st.builds(failures.Failure, TEXT, TEXT)),
    st.builds(frames.Resize, st.integers(0, 65535), st.integers(0, 65535)),
)


@given(FRAMES)
def test_a_frame_survives_the_way_there_and_back(frame: frames.Frame) -> None:
    assert frames.frame_in(frames.frame_out(frame)) == frame


@given(st.binary(max_size=12))
def test_any_message_is_a_frame_or_refused(message: bytes) -> None:
    with suppress(InvalidInput):
        assert attrs.has(type(frames.frame_in(message)))
