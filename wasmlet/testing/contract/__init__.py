"""The contract suite: what the node loop relies on, as checks that an author's provider is held to.

    from wasmlet.testing import ProviderContract

    class TestMine(ProviderContract):
        def make_provider(self):
            return Mine(Mine.Config(endpoint=...))

        def container(self, *, lines=(), exit_code=None, after=0.0, stubborn=False):
            return {"image": "mine", "args": [...]}

pytest runs every check against a provider of its own. The provider is called as the node loop calls it, without an API
server; pytest-asyncio may be in any mode. A check that fails names the method, what was expected, what was found, and
what to do about it. The rules are in the docstrings of `wasmlet.provider`.

`suite` has the hooks, `trial` runs the provider, `turns` sees to one call at a time for a pod, `verdict` words a
failure; the checks are in `lifecycle`, `ending`, `reports`, `restart_policy`,
`restarts`, `optional`, `streams` and `stats`.
"""

from __future__ import annotations

from wasmlet.testing.contract.ending import Ending
from wasmlet.testing.contract.lifecycle import Lifecycle
from wasmlet.testing.contract.optional import Logs, OptionalMethods
from wasmlet.testing.contract.reports import Reports
from wasmlet.testing.contract.restart_policy import RestartPolicy
from wasmlet.testing.contract.restarts import Restarts
from wasmlet.testing.contract.stats import Stats
from wasmlet.testing.contract.streams import Attach, Exec, PortForward
from wasmlet.testing.contract.verdict import ContractBroken

__all__ = ["ContractBroken", "ProviderContract"]


class ProviderContract(
    Lifecycle, Reports, RestartPolicy, Ending, Logs, OptionalMethods, Exec, Attach, PortForward, Stats, Restarts
):
    """Every check there is; subclass it in a test module, under a name that pytest collects (`Test...`).

    Override `make_provider`, and `container` where the default (a shell command) is nothing that your provider can
    run; see `wasmlet.testing.contract.suite.Suite` for what else there is. A check can be switched off by setting its
    name to None in the subclass, with a comment that says why.
    """
