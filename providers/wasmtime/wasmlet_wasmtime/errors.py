"""The texts of wasmtime's errors for users, and the exit code of a guest that traps."""

from __future__ import annotations

TRAPPED = 134
NO_THREADS = "a guest has one thread here: build it without threads (target wasm32-wasip1)"
_SHARED = "shared memory support is disabled"


class EngineError(Exception):
    """An error of the engine, as `wasmtime.WasmtimeError`, where wasmtime's Python API is not loaded."""


class EngineTrap(Exception):
    """A trap, as `wasmtime.Trap`, where wasmtime's Python API is not loaded."""


class BadArtifact(Exception):
    """The compiled module cannot be loaded; `wasmlet.worker.guest.child` looks at the attribute."""

    bad_artifact = True


def trap_text(error: Exception) -> str:
    """A trap with its backtrace, without advice to set variables of an environment that nobody can set here."""
    return "\n".join(line for line in str(error).splitlines() if not line.lstrip().startswith("note:")).strip()


def causes(error: Exception) -> str:
    """An error of wasmtime's on one line."""
    text = " ".join(str(error).split())
    return f"it has a memory for threads to share; {NO_THREADS}" if _SHARED in text else text


_IS_OFF = ("proposal", "feature", "not enabled", "is disabled", "not supported")
"""Words in wasmtime's error when a valid module or component needs a feature that is switched off or missing."""


def refusal(kind: str, error: Exception) -> str:
    """Why wasmtime does not compile a `module` or `component`."""
    text = causes(error)
    if any(words in text for words in _IS_OFF):
        return f"wasmtime cannot run this {kind}: it needs what this engine does not have ({text})"
    return f"not a valid WebAssembly {kind}: {text}"
