"""For mypy: the in-worker modules have what the worker calls. Nothing imports this, since it would load the engine."""

from __future__ import annotations

from wasmlet.worker.guest.engines import DenseEngine, Engine

from . import dense, guest

PROCESS: Engine = guest
DENSE: DenseEngine = dense
