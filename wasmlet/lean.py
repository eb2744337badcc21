"""Keeps rich out of memory: structlog and httpx are imported as if rich were not installed.

structlog can draw tracebacks with rich, and httpx has a command line that uses it. wasmlet needs neither. rich and its
highlighter (pygments) take about 6 MiB in each process, also in nodes, and only commands that draw on a terminal use
them. `wasmlet` imports this module first. The module itself imports neither of the two: it installs an import hook,
which acts when one of them is imported. If rich or one of the two was imported before, it stays as it is.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType

_FOR = frozenset({"structlog", "httpx"})
_WITHOUT = ("rich", "pygments")


class _WithoutRich(importlib.abc.Loader):
    """Loads a module. Meanwhile an import of rich fails, as if it were not installed."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader  # what looks at the module later finds it as it always is
        module.__loader__ = self._loader
        hidden = [name for name in _WITHOUT if name not in sys.modules]
        for name in hidden:
            sys.modules[name] = None  # type: ignore[assignment]  # an import of it fails
        try:
            self._loader.exec_module(module)
        finally:
            for name in hidden:
                del sys.modules[name]


class _Finder(importlib.abc.MetaPathFinder):
    """Import hook: finds structlog and httpx as Python itself does, and wraps their loader in `_WithoutRich`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _FOR:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _WithoutRich(spec.loader)
        return spec


if _FOR - sys.modules.keys():
    sys.meta_path.insert(0, _Finder())
