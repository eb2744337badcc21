"""The key-value store, in memory and in a real redis: the same answers from both."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from wasmlet_wascc.worker.capabilities import keyvalue
from wasmlet_wascc.worker.capabilities.keyvalue import KeyValue
from wasmlet_wascc.worker.capability import BadMessage, Context, HostError

from tests.wascc.servers import Server, redis_server

OPEN: list[socket.socket] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """A store lives as long as its process, and never closes what it has."""
    yield
    while OPEN:
        OPEN.pop().close()


class Plain:
    """A connection without a broker."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), timeout=30)
        OPEN.append(self._socket)

    def secure(self, host: str) -> None:
        raise AssertionError

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def receive(self, *, patient: bool = False) -> bytes:
        return self._socket.recv(65536)

    def cut(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()


def context(settings: dict[str, str] | None = None, env: dict[str, str] | None = None) -> Context:
    def nothing(*_: object) -> None:
        raise AssertionError

    return Context(settings or {}, env or {}, {}, nothing, Plain, nothing, nothing, lambda: 0.0)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with redis_server(tmp_path_factory.mktemp("redis"), password="geheim") as server:
        yield server


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest, redis: Server) -> KeyValue:
    if request.param == "memory":
        return KeyValue(context())
    found = KeyValue(context({"default": f"redis://127.0.0.1:{redis.port}/1"}, {"REDIS_PASSWORD": "geheim"}))
    for key in ("number", "value", "list", "set", "other"):
        found.call("default", "Del", {"key": key})
    return found


def ask(store: KeyValue, operation: str, **message: Any) -> Any:
    return store.call("default", operation, message)


def test_values(store: KeyValue) -> None:
    assert ask(store, "Get", key="value") == {"value": "", "exists": False}
    assert ask(store, "Set", key="value", value="one", expires=0) == {"value": "one"}
    assert ask(store, "Get", key="value") == {"value": "one", "exists": True}
    assert ask(store, "KeyExists", key="value")["exists"] is True
    assert ask(store, "Del", key="value") == {"key": "value"}
    assert ask(store, "KeyExists", key="value")["exists"] is False


def test_numbers(store: KeyValue) -> None:
    assert ask(store, "Add", key="number", value=2) == {"value": 2}
    assert ask(store, "Add", key="number", value=-5) == {"value": -3}
    ask(store, "Set", key="value", value=b"no number")
    with pytest.raises(HostError):
        ask(store, "Add", key="value", value=1)


def test_values_alone_are_taken_too(store: KeyValue) -> None:
    """As older actors send them."""
    assert store.call("default", "Set", ["value", "one", 0]) == {"value": "one"}
    assert store.call("default", "Get", ["value"]) == {"value": "one", "exists": True}
    assert store.call("default", "Add", ["number", 2]) == {"value": 2}
    store.call("default", "Push", ["list", "a"])
    assert store.call("default", "Range", ["list", 0, -1]) == {"values": ["a"]}
    store.call("default", "SetAdd", ["set", "a"])
    assert store.call("default", "SetUnion", [["set"]]) == {"values": ["a"]}


def test_lists(store: KeyValue) -> None:
    for count, value in enumerate(("a", "b", "a", "c"), 1):
        assert ask(store, "Push", key="list", value=value) == {"newCount": count, "new_count": count}
    assert ask(store, "Range", key="list", start=1, stop=-1) == {"values": ["b", "a", "c"]}
    assert ask(store, "Range", key="list", start=-2, stop=100) == {"values": ["a", "c"]}
    assert ask(store, "Range", key="other", start=0, stop=5) == {"values": []}
    assert ask(store, "ListItemDelete", key="list", value="a")["newCount"] == 2
    assert ask(store, "Clear", key="list")["newCount"] == 0
    assert ask(store, "Range", key="list", start=0, stop=-1) == {"values": []}


def test_sets(store: KeyValue) -> None:
    for value in ("a", "b", "a"):
        ask(store, "SetAdd", key="set", value=value)
    assert ask(store, "SetAdd", key="other", value="b")["newCount"] == 1
    assert sorted(ask(store, "SetQuery", key="set")["values"]) == ["a", "b"]
    assert sorted(ask(store, "SetUnion", keys=["set", "other"])["values"]) == ["a", "b"]
    assert ask(store, "SetIntersection", keys=["set", "other"]) == {"values": ["b"]}
    assert ask(store, "SetRemove", key="set", value="a")["newCount"] == 1


def test_a_list_or_set_with_nothing_in_it_is_none(store: KeyValue) -> None:
    """As redis has it: its key is free for something else."""
    for key in ("list", "set"):
        assert ask(store, "ListItemDelete", key=key, value="a")["newCount"] == 0
        assert ask(store, "SetRemove", key=key, value="a")["newCount"] == 0
    ask(store, "Push", key="list", value="a")
    ask(store, "SetAdd", key="set", value="a")
    assert ask(store, "ListItemDelete", key="list", value="a")["newCount"] == 0
    assert ask(store, "SetRemove", key="set", value="a")["newCount"] == 0
    assert [ask(store, "KeyExists", key=key)["exists"] for key in ("list", "set")] == [False, False]
    assert ask(store, "Push", key="set", value="b")["newCount"] == 1
    assert ask(store, "SetAdd", key="list", value="b")["newCount"] == 1


def test_a_number_has_at_most_64_bits(store: KeyValue) -> None:
    ask(store, "Add", key="n", value=2**63 - 1)
    with pytest.raises(HostError):
        ask(store, "Add", key="n", value=1)
    assert ask(store, "Get", key="n")["value"] == str(2**63 - 1)


def test_a_key_of_another_kind_is_refused(store: KeyValue) -> None:
    ask(store, "SetAdd", key="set", value="a")
    for operation in ("Get", "Push", "Range"):
        with pytest.raises(HostError):
            ask(store, operation, key="set", value="x", start=0, stop=1)


@pytest.mark.parametrize("message", [None, {}, {"key": 5}, {"key": "a", "value": 5.5}, {"key": "a", "start": "b"}])
@pytest.mark.parametrize("operation", ["Add", "Get", "Set", "Push", "Range", "SetUnion", "SetAdd"])
def test_a_message_that_makes_no_sense_is_refused(operation: str, message: Any) -> None:
    if operation == "Get" and message and "value" in message:
        return  # it has all that this one takes
    if operation == "Get" and message and message.get("key") == "a":
        return
    if message == {"key": "a", "start": "b"} and operation in ("Set", "Push", "SetAdd"):
        return  # without a value it is empty
    with pytest.raises(BadMessage):
        KeyValue(context()).call("default", operation, message)


def test_values_expire() -> None:
    now = [0.0]
    store = keyvalue.Memory(keyvalue.Budget(1000), lambda: now[0])
    store.set("a", b"1", 5)
    now[0] = 4.9
    assert store.get("a") == b"1"
    assert store.add("a", 1) == 2
    now[0] = 5.0
    assert store.get("a") is None


def fill(store: keyvalue.Memory) -> None:
    for number in range(1000):
        store.push("list", b"x" * 10)
        store.set_add("set", str(number).encode())
        store.set(str(number), b"x", 0)


def test_memory_is_bounded_and_comes_back() -> None:
    budget = keyvalue.Budget(10_000)
    store = keyvalue.Memory(budget)
    for _ in range(3):
        with pytest.raises(HostError, match="the store is full"):
            fill(store)
        for key in ["list", "set", *map(str, range(1000))]:
            store.delete(key)
        budget.take(10_000)
        budget.give(10_000)


def test_what_does_not_fit_leaves_nothing_and_letters_count_as_they_are_stored() -> None:
    store = keyvalue.Memory(keyvalue.Budget(1000))
    for fails in (store.push, store.set_add):
        with pytest.raises(HostError, match="the store is full"):
            fails("key", b"x" * 1000)
        assert not store.exists("key")
    with pytest.raises(HostError, match="the store is full"):
        store.set("\N{GRINNING FACE}" * 300, b"", 0)


def test_each_binding_is_a_store_of_its_own() -> None:
    store = KeyValue(context())
    store.call("default", "Set", {"key": "a", "value": "1"})
    assert store.call("other", "Get", {"key": "a"})["exists"] is False
    named = KeyValue(context({"cache": "redis://127.0.0.1:1"}))
    with pytest.raises(HostError, match="there is no binding 'default'; the pod names cache"):
        named.call("default", "Get", {"key": "a"})


def test_a_connection_that_was_lost_is_made_again(redis: Server) -> None:
    store = KeyValue(context({"default": f"redis://127.0.0.1:{redis.port}"}, {"REDIS_PASSWORD": "geheim"}))
    assert ask(store, "Set", key="lost", value="1") == {"value": "1"}
    admin = Plain("127.0.0.1", redis.port)
    admin.send(b"AUTH geheim\r\nCLIENT KILL TYPE normal\r\n")
    assert b"+OK" in admin.receive()
    assert ask(store, "Get", key="lost") == {"value": "1", "exists": True}
    admin.close()


def test_a_binding_may_have_a_password_of_its_own(redis: Server) -> None:
    url = f"redis://127.0.0.1:{redis.port}"
    env = {"REDIS_PASSWORD_MY_CACHE": "geheim"}
    store = KeyValue(context({"my-cache": url, "other": url}, env))
    assert store.call("my-cache", "KeyExists", {"key": "none"})["exists"] is False
    env = {"REDIS_PASSWORD": "geheim"}
    store = KeyValue(context({"my-cache": url, "other": url}, env))  # it is not said to both
    with pytest.raises(HostError, match=r"expects a password; put it .* variable REDIS_PASSWORD_OTHER"):
        store.call("other", "KeyExists", {"key": "none"})
    store = KeyValue(context({"cache": url}, env))
    assert store.call("cache", "KeyExists", {"key": "none"})["exists"] is False


def test_a_wrong_password_is_said_and_not_shown(redis: Server) -> None:
    store = KeyValue(context({"default": f"redis://127.0.0.1:{redis.port}"}, {"REDIS_PASSWORD": "falsch"}))
    with pytest.raises(HostError, match=r"^redis refuses the password of the container's variable REDIS_PASSWORD$"):
        ask(store, "Get", key="a")


def test_a_server_that_repeats_the_password_does_not_show_it_to_the_actor() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def repeat() -> None:
            with listener.accept()[0] as link:
                link.recv(65536)
                link.sendall(b"-ERR unknown command 'AUTH', with args beginning with: 'hunter2'\r\n")

        server = threading.Thread(target=repeat)
        server.start()
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}"
        store = KeyValue(context({"default": url}, {"REDIS_PASSWORD": "hunter2"}))
        with pytest.raises(HostError, match="redis refuses the password") as refused:
            ask(store, "Get", key="a")
        server.join()
    assert "hunter2" not in str(refused.value)


def test_a_database_that_is_not_there_is_never_another_one(redis: Server) -> None:
    store = KeyValue(context({"default": f"redis://127.0.0.1:{redis.port}/999"}, {"REDIS_PASSWORD": "geheim"}))
    for _ in range(2):
        with pytest.raises(HostError, match="redis: ERR DB index is out of range"):
            ask(store, "Set", key="a", value="b")


def test_a_value_that_does_not_fit_leaves_the_one_before_it() -> None:
    store = keyvalue.Memory(keyvalue.Budget(1000))
    store.set("a", b"before", 0)
    with pytest.raises(HostError, match="the store is full"):
        store.set("a", b"x" * 2000, 0)
    assert store.get("a") == b"before"
    assert store.range("none", 0, -5) == []


def test_what_has_expired_makes_room() -> None:
    now = [0.0]
    store = keyvalue.Memory(keyvalue.Budget(10_000), lambda: now[0])
    for number in range(200):
        now[0] += 10.0
        store.set(str(number), b"x" * 100, 5)
