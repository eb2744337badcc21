"""Has structlog and httpx loaded without rich, which they would load wherever that is installed.

structlog draws tracebacks with rich, and httpx has a command line; nothing here uses either. rich and its highlighter
are some 6 MiB in each process, of nodes too, and only commands that draw on a terminal use them. `wasmlet` imports this
before all else. It loads nothing: it waits for the two to be imported. A program that has loaded rich or one of the two
before keeps what it has.
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
    """Loads a module; while it does, an import of rich fails as where it is not installed."""

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
    """Finds the two, as those that come after it would."""

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
