"""What a log request may ask for, and what it is answered when there is no log: a kubelet's rules."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmlet.kubelet.logs import BadQuery, check_container, log_options
from wasmlet.model.pod import Pod
from wasmlet.model.status import ContainerStatus, PodStatus, Running, Terminated, Waiting

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_nothing_asked_is_everything() -> None:
    options = log_options({}, NOW)
    assert (options.follow, options.previous, options.timestamps) == (False, False, False)
    assert (options.tail_lines, options.limit_bytes, options.since_time) == (None, None, None)


def test_all_of_it() -> None:
    query = {
        "follow": "true",
        "previous": "1",
        "timestamps": "",
        "tailLines": "0",
        "limitBytes": "1",
        "sinceSeconds": "5",
    }
    options = log_options(query, NOW)
    assert (options.follow, options.previous, options.timestamps) == (True, True, True)
    assert (options.tail_lines, options.limit_bytes) == (0, 1)
    assert options.since_time == NOW - timedelta(seconds=5)


@pytest.mark.parametrize(
    "text", ["2026-01-02T03:04:05Z", "2026-01-02T04:04:05+01:00", "2026-01-02T03:04:05.000000000Z"]
)
def test_since_time_in_any_form(text: str) -> None:
    assert log_options({"sinceTime": text}, NOW).since_time == NOW


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"tailLines": "-1"}, 422),
        ({"tailLines": "x"}, 400),
        ({"tailLines": ""}, 400),
        ({"tailLines": "1" * 30}, 400),
        ({"tailLines": "²"}, 400),
        ({"limitBytes": "0"}, 422),
        ({"sinceSeconds": "0"}, 422),
        ({"sinceSeconds": "9" * 18}, 422),
        ({"sinceTime": "yesterday"}, 400),
        ({"sinceTime": "2026-01-02T03:04:05"}, 400),
        ({"sinceTime": "0001-01-01T00:00:00+14:00"}, 400),
        ({"sinceTime": "2026-01-02T03:04:05Z", "sinceSeconds": "1"}, 422),
        ({"follow": "perhaps"}, 400),
        ({"stream": "Stdout"}, 400),
    ],
)
def test_what_cannot_be_is_refused(query: dict[str, str], status: int) -> None:
    with pytest.raises(BadQuery) as raised:
        log_options(query, NOW)
    assert raised.value.status == status


_KEYS = ["follow", "previous", "timestamps", "tailLines", "limitBytes", "sinceSeconds", "sinceTime", "stream", "other"]


@given(st.dictionaries(st.sampled_from(_KEYS), st.text(max_size=30)))
def test_any_query_is_read_or_refused(query: dict[str, str]) -> None:
    try:
        options = log_options(query, NOW)
    except BadQuery as error:
        refused = error.status
    else:
        refused = None
        assert options.tail_lines is None or options.tail_lines >= 0
        assert options.limit_bytes is None or options.limit_bytes >= 1
    assert refused in (None, 400, 422)


POD = Pod({"metadata": {"name": "p", "namespace": "d", "uid": "u"}, "spec": {"containers": [{"name": "c"}]}})
ENDED = Terminated(0)


@pytest.mark.parametrize(
    ("status", "previous", "answer"),
    [
        (None, False, (400, 'container "c" in pod "p" is waiting to start: ContainerCreating')),
        (Waiting("ErrImagePull"), False, (400, 'container "c" in pod "p" is waiting to start: image can\'t be pulled')),
        (Running(NOW), False, None),
        (ENDED, False, None),
        (Running(NOW), True, (400, 'previous terminated container "c" in pod "p" not found')),
    ],
)
def test_a_container_that_has_no_log_yet(status: Any, previous: bool, answer: tuple[int, str] | None) -> None:
    known = PodStatus(containers=(ContainerStatus("c", status),)) if status else None
    if answer is None:
        check_container(POD, known, "c", previous)
        return
    with pytest.raises(BadQuery) as raised:
        check_container(POD, known, "c", previous)
    assert (raised.value.status, str(raised.value)) == answer


def test_a_container_in_backoff_shows_its_last_log_and_a_previous_one() -> None:
    known = PodStatus(containers=(ContainerStatus("c", Waiting("CrashLoopBackOff"), last_state=ENDED),))
    check_container(POD, known, "c", False)
    check_container(POD, known, "c", True)


def test_an_unknown_container() -> None:
    with pytest.raises(BadQuery, match="container x not found in pod p") as raised:
        check_container(POD, None, "x", False)
    assert raised.value.status == 404
