"""Has structlog loaded without rich, which it would load wherever that is installed.

structlog draws tracebacks with rich, and nothing here has it do so. rich and its highlighter are some 6 MiB in each
process, of nodes too, and only commands that draw on a terminal use them. `wasmlet` imports this before all else. It
loads nothing: it waits for structlog to be imported. A program that has loaded rich or structlog before keeps what it
has.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType

_NAME = "structlog"


class _WithoutRich(importlib.abc.Loader):
    """Loads a module; while it does, an import of rich fails as where rich is not installed."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader  # what looks at the module later finds it as it always is
        module.__loader__ = self._loader
        if "rich" in sys.modules:
            self._loader.exec_module(module)
            return
        sys.modules["rich"] = None  # type: ignore[assignment]  # an import of it fails
        try:
            self._loader.exec_module(module)
        finally:
            del sys.modules["rich"]


class _Finder(importlib.abc.MetaPathFinder):
    """Finds structlog, as those that come after it would."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _NAME:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _WithoutRich(spec.loader)
        return spec


if _NAME not in sys.modules:
    sys.meta_path.insert(0, _Finder())
