"""For mypy: the in-worker modules have what the worker calls. Nothing imports this, since it would load the engine."""

from __future__ import annotations

from wasmlet.runtime import DenseGuestModule, GuestModule

from . import dense, guest

PROCESS: GuestModule = guest
DENSE: DenseGuestModule = dense
