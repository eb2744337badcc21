"""For mypy only: checks that `guest` has the functions that the worker calls.

Nothing imports this module, because that would load the engine.
"""

from __future__ import annotations

from wasmlet.runtime import GuestModule

from . import guest

PROCESS: GuestModule = guest
