"""For mypy only: checks that `guest`, `plain` and `dense` have the functions that the worker calls.

Nothing imports this module, because that would load the engine.
"""

from __future__ import annotations

from wasmlet.runtime import DenseGuestModule, GuestModule

from . import dense, guest, plain

PROCESS: GuestModule = guest
PLAIN: GuestModule = plain
DENSE: DenseGuestModule = dense
