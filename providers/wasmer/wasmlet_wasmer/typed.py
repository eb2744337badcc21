"""For mypy: the in-worker module has what the worker calls. Nothing imports this, since it would load the engine."""

from __future__ import annotations

from wasmlet.runtime import GuestModule

from . import guest

PROCESS: GuestModule = guest
