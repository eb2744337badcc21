"""For tests of capabilities: a test class that every capability has to pass, and a context to make one with."""

from __future__ import annotations

import abc
import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest

from wasmlet_wascc.capability import Capability, Context, HostError, Link
from wasmlet_wascc.worker.messages import decoded, encoded

_RUBBISH: tuple[Any, ...] = ([], 5, "text", b"\0", {"": None}, [[]], True)
_IMPORT = """
import importlib, sys, threading
importlib.import_module(sys.argv[1])
loaded = sorted({name.partition(".")[0] for name in sys.modules} & {"wasmlet", "wasmlet_wascc", "wasmlet_wasmtime"})
sys.exit(f"it imports {', '.join(loaded)}" if loaded else f"it starts threads" if threading.active_count() > 1 else 0)
"""


def context(
    settings: Mapping[str, str] | None = None,
    dial: Callable[[str, int], Link] | None = None,
    log: Callable[[str], None] = print,
) -> Context:
    """A context with these settings, and nothing that can be dialled without `dial`."""

    def refuse(host: str, port: int) -> Link:
        raise HostError(f"{host}:{port}: the pod's egress grant does not name it")

    def nothing(*_: object) -> None:
        """Neither is there an actor to be told anything, nor a thread."""

    return Context(settings or {}, {}, {}, log, dial or refuse, nothing, nothing, lambda: time.monotonic() + 60)


class CapabilityContract(abc.ABC):
    """What every capability has to keep; subclass it in a module of tests.

    Attributes:
        module: the name of the module that has it.
        settings: those of a pod that uses it.
        examples: operations, each with a message that it takes.
    """

    module: ClassVar[str]
    settings: ClassVar[dict[str, str]] = {}
    examples: ClassVar[tuple[tuple[str, Any], ...]]

    @abc.abstractmethod
    def make(self, given: Context) -> Capability:
        """The capability."""

    def test_what_it_answers_can_be_sent(self) -> None:
        """The answer of each example is a message."""
        found = self.make(context(self.settings))
        assert self.examples, "expected at least one example"
        for operation, message in self.examples:
            answer = found.call("default", operation, message)
            assert answer is None or decoded(encoded(answer)) == answer or isinstance(answer, tuple)

    def test_an_operation_that_it_does_not_have_is_refused_with_words(self) -> None:
        """With a ValueError, whose words the actor gets."""
        with pytest.raises(ValueError, match=r"."):
            self.make(context(self.settings)).call("default", "NoSuchOperation", None)

    def test_a_message_that_makes_no_sense_does_no_harm(self) -> None:
        """It is taken or refused with a ValueError, and the next good one is answered."""
        found = self.make(context(self.settings))
        for operation, message in self.examples:
            for rubbish in _RUBBISH:
                with contextlib.suppress(ValueError):
                    found.call("default", operation, rubbish)
            found.call("default", operation, message)

    def test_its_module_loads_little(self) -> None:
        """Each process of an actor has it: nothing of wasmlet, and no threads."""
        done = subprocess.run([sys.executable, "-c", _IMPORT, self.module], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
