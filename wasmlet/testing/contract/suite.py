"""What an author tells the contract suite: how a provider is made, and what its containers look like.

`Suite` is the base of the classes that have the checks; `trial` is what they run a provider with.
"""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import pytest_asyncio

from wasmlet.provider import Provider
from wasmlet.testing.contract.trial import Trial
from wasmlet.testing.contract.verdict import broken

__tracebackhide__ = True  # pytest hides this module's calls in tracebacks, so that those of the provider are seen


class Suite:
    """Hooks and settings. A subclass overrides `make_provider`; the rest has defaults.

    pytest makes an instance of the class for each check. A hook that needs a fixture of pytest gets it from an autouse
    fixture of the subclass, which sets an attribute.

    Attributes:
        survives: whether pods go on when the provider is stopped or its process is killed, and another instance with
            the same state directory finds them.
        accept_seconds: seconds that a call may take that only has to be accepted or answered.
        patience_seconds: seconds that something may take that happens in its own time: a container starts, runs, ends.
        moment_seconds: seconds that a container runs which is to be seen running before it ends. It has to be longer
            than the provider takes to notice a start. Twice as long is the grace period of a container that does not
            end when it is asked to.
        block_seconds: seconds that the event loop may be blocked.
        many: how many pods are created and deleted at once.
    """

    # Named explicitly, so that the suite runs in a project whose asyncio_mode is strict and whatever its loop scope is.
    pytestmark = pytest.mark.asyncio(loop_scope="function")

    survives: ClassVar[bool] = False
    accept_seconds: ClassVar[float] = 5.0
    patience_seconds: ClassVar[float] = 30.0
    moment_seconds: ClassVar[float] = 0.5
    block_seconds: ClassVar[float] = 0.5
    many: ClassVar[int] = 50

    def make_provider(self) -> Provider:
        """A provider that has not been started. Called again in one check where a new process would make one."""
        broken(
            f"{type(self).__name__}.make_provider",
            "a provider that has not been started",
            "the hook is not overridden",
            "define make_provider in the subclass of ProviderContract: return Mine(Mine.Config(...))",
        )

    def container(
        self, *, lines: Sequence[str] = (), exit_code: int | None = None, after: float = 0.0, stubborn: bool = False
    ) -> dict[str, Any]:
        """A container, as `spec.containers` has it, without its name. The default is a command for a POSIX shell.

        Args:
            lines: what it writes to standard output at once.
            exit_code: what it ends with by itself; None: it runs until it is ended.
            after: seconds that it runs before it ends.
            stubborn: it does not end when it is asked to, and so uses its grace period up. To be ignored where a
                container has no say in that.
        """
        steps = ["trap '' TERM"] if stubborn else []
        steps += [f"echo {shlex.quote(line)}" for line in lines]
        if exit_code is None:
            steps.append("while :; do sleep 0.2; done" if stubborn else "exec sleep 100000")
        else:
            steps += [f"sleep {after}"] if after else []
            steps.append(f"exit {exit_code}")
        return {"image": "none", "command": ["sh", "-c", "; ".join(steps)]}

    def command(
        self, *, says: str = "", complains: str = "", copies: bool = False, stays: bool = False, exit_code: int = 0
    ) -> list[str]:
        """A command for exec. The default is one for a POSIX shell.

        Args:
            says: a line that it writes to standard output.
            complains: a line that it writes to standard error.
            copies: it copies standard input to standard output, to its end.
            stays: it goes on until it is ended.
            exit_code: what it ends with.
        """
        steps = [f"echo {shlex.quote(says)}"] if says else []
        steps += [f"echo {shlex.quote(complains)} >&2"] if complains else []
        steps += ["cat"] if copies else []
        steps.append("exec sleep 100000" if stays else f"exit {exit_code}")
        return ["sh", "-c", "; ".join(steps)]

    def serving(self) -> tuple[dict[str, Any], int] | None:
        """A container that sends back what comes to a TCP port, and that port; None where none can be made.

        Nothing may listen at the port that differs in its last bit.
        """
        return None

    def refused(self) -> dict[str, Any] | None:
        """Fields of a pod's `spec` that the provider cannot honour and must refuse by name, or None to leave it out.

        `{"hostNetwork": True}`, for one; what it has under `containers` is merged into the pod's container.
        """
        return None

    @pytest_asyncio.fixture(loop_scope="function")
    async def trial(self, tmp_path: Path) -> AsyncIterator[Trial]:
        """The provider, started, with what the checks need around it; its pods are gone when the check is over."""
        async with Trial(self, tmp_path / "state") as trial:
            yield trial
