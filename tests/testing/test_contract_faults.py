"""Faults that are named for what they are: a wrong kind of method, and processes that `stop` leaves."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from wasmlet_processes import ProcessProvider

from tests.testing.test_contract_reference import TestReferenceProvider as OfReference
from wasmlet.model.pod import PodKey
from wasmlet.provider import LogOptions, Provider
from wasmlet.testing import ProviderContract, ReferenceProvider
from wasmlet.testing.contract import ContractBroken
from wasmlet.testing.contract.trial import Trial


class GivesText(ReferenceProvider):
    async def logs(self, key: PodKey, container: str, options: LogOptions) -> AsyncGenerator[Any, None]:
        yield "a line\n"


class ReturnsAtOnce(ReferenceProvider):
    async def logs(self, key: PodKey, container: str, options: LogOptions) -> bytes:  # type: ignore[override]
        return b"a line\n"


class IsNoCoroutine(ReferenceProvider):
    def exec(self, *args: object) -> int:  # type: ignore[override]
        return 0


@pytest.mark.parametrize(
    ("provider", "method", "expected"),
    [
        (GivesText, "logs", "logs: expected pieces of bytes\n  found: 'a line.n'\n  to mend: yield bytes"),
        (ReturnsAtOnce, "logs", "logs: expected an asynchronous generator\n  found: coroutine"),
        (
            IsNoCoroutine,
            "exec",
            "exec: expected a coroutine\n  found: int 0\n  to mend: define it with `async def exec",
        ),
    ],
)
async def test_a_method_of_the_wrong_kind(tmp_path: Path, provider: type, method: str, expected: str) -> None:
    suite = OfReference()
    suite.the_one = provider()
    async with Trial(suite, tmp_path / "state") as trial:
        with pytest.raises(ContractBroken, match=f"^{expected}"):
            await suite.test_what_is_left_out_is_unsupported(trial, method)


class Leaves(ProcessProvider):
    async def stop(self) -> None:
        pass


class OfLeaves(ProviderContract):
    accept_seconds = 1.0

    def make_provider(self) -> Provider:
        return Leaves()


async def test_processes_that_stop_leaves_are_found(tmp_path: Path) -> None:
    suite = OfLeaves()
    async with Trial(suite, tmp_path / "state") as trial:
        left = (
            r"^stop: expected no process of a pod left when it returns\n  found: sleep 100000 \(pid \d+\), sleep 100000"
        )
        with pytest.raises(ContractBroken, match=left):
            await suite.test_stop_leaves_no_process_behind(trial)
