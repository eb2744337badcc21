"""The contract suite finds what is wrong with a provider, by the right check, with a message that names the method.

Every provider of the modules `broken_...` is put through the suite as an author does it: in a project of their own,
whose pytest-asyncio is in strict mode.
"""

from __future__ import annotations

from collections import defaultdict

import pytest

from tests.testing import broken_deletes, broken_optional, broken_providers, broken_restarts, broken_streams
from tests.testing.found_by import FOUND_BY
from wasmlet.testing import ReferenceProvider

pytest_plugins = ["pytester"]

MODULES = (broken_deletes, broken_optional, broken_providers, broken_restarts, broken_streams)
"""Where broken providers are; each puts its own into `FOUND_BY`."""

AUTHOR = """
import functools
import {module}
from tests.testing.test_contract_reference import command, script, serving
from wasmlet.testing import ProviderContract

class TestBroken(ProviderContract):
    survives = True
    accept_seconds = 1.0
    patience_seconds = 2.0
    moment_seconds = 0.05
    many = 6
    container = staticmethod(script)
    command = staticmethod(command)
    serving = staticmethod(serving)

    @functools.cached_property
    def the_one(self):
        return {module}.{name}()

    def make_provider(self):
        return self.the_one

    def refused(self):
        return {{"hostPID": True}}
"""
SETTINGS = "[pytest]\nasyncio_mode = strict\nasyncio_default_fixture_loop_scope = session\nfilterwarnings = error\n"


@pytest.mark.parametrize("provider", FOUND_BY, ids=lambda provider: provider.__name__)
def test_a_fault_is_found(pytester: pytest.Pytester, provider: type[ReferenceProvider]) -> None:
    pytester.makeini(SETTINGS)
    pytester.makepyfile(AUTHOR.format(module=provider.__module__, name=provider.__name__))
    passed, skipped, failed = pytester.inline_run("-p", "no:cacheprovider").listoutcomes()
    assert skipped == []
    messages = defaultdict(list)
    for report in failed:
        assert report.when == "call", report.longreprtext
        crash = report.longrepr.reprcrash.message  # type: ignore[union-attr]
        messages[report.nodeid.rpartition("::")[2].partition("[")[0]].append(crash)
    assert sorted(messages) == sorted(FOUND_BY[provider])
    for check, method in FOUND_BY[provider].items():
        for message in messages[check]:
            error, _, text = message.partition(": ")
            assert error.endswith("ContractBroken")
            assert text.startswith(f"{method}: expected ")
            assert "\n  found: " in text
            assert "\n  to mend: " in text
    assert len(passed) > 30
