"""What the sources say: how modules import each other, for typing too, what docstrings lack, how long files are, and
how many a folder has."""

from __future__ import annotations

import ast
import inspect
import os
import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def modules(root: Path, package: str) -> dict[str, Path]:
    """The modules of a package below `root`, by their dotted names."""
    found = {}
    for path in sorted(root.joinpath(*package.split(".")).rglob("*.py")):
        name = ".".join(path.relative_to(root).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


def imports(name: str, path: Path) -> Iterator[tuple[str, str]]:
    """Every import of a module: the module, and the name that is taken from it ("" for the module itself)."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, ""
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
                parts = above[: len(above) - node.level + 1]
                base = ".".join([*parts, node.module] if node.module else parts)
            for alias in node.names:
                yield base, alias.name


def graph(known: Mapping[str, Path]) -> dict[str, set[str]]:
    """For each module, those of the same package that it imports."""
    result: dict[str, set[str]] = {name: set() for name in known}
    for name, path in known.items():
        for base, taken in imports(name, path):
            target = f"{base}.{taken}" if f"{base}.{taken}" in known else base
            if target in known and target != name:
                result[name].add(target)
    return result


def circles(known: Mapping[str, Path]) -> list[list[str]]:
    """Groups of modules that import each other, directly or over others of the group (Tarjan's algorithm)."""
    edges, found = graph(known), []
    numbers: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []

    def visit(name: str) -> None:
        numbers[name] = lowest[name] = len(numbers)
        stack.append(name)
        for target in edges[name]:
            if target not in numbers:
                visit(target)
                lowest[name] = min(lowest[name], lowest[target])
            elif target in stack:
                lowest[name] = min(lowest[name], numbers[target])
        if lowest[name] == numbers[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in edges:
        if name not in numbers:
            visit(name)
    return found


def public_functions(exported: Any) -> Iterator[Any]:
    """An exported function; of a class its public methods that are written in it."""
    if inspect.isfunction(exported):
        yield inspect.unwrap(exported)
    elif inspect.isclass(exported):
        for name, value in vars(exported).items():
            function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
            if inspect.isfunction(function) and not name.startswith("_"):
                yield inspect.unwrap(function)


def lacks(function: Any, owner: Any = None) -> list[str]:
    """What the docstring of a function does not say: anything at all, or an error that the function itself raises.

    Args:
        owner: the class that it is a method of; a docstring of a class above counts, too.
    """
    above = [vars(base).get(function.__name__) for base in getattr(owner, "__mro__", ())]
    said = next((one.__doc__ for one in (function, *above) if one is not None and one.__doc__), None)
    if said is None:
        return ["a docstring"]
    section = said.partition("Raises:")[2]
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    return sorted(f"{name} under Raises" for name in _raised(tree) if not re.search(rf"\b{name}:", section))


def _raised(tree: ast.AST) -> set[str]:
    """The names of the errors that `raise Name(...)` or `raise Name.made(...)` raises."""
    calls = (node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call))
    names = {part for call in calls for part in ast.unparse(call.func).split(".") if part[:1].isupper()}
    return names - {"NotImplementedError", "AssertionError"}


def modules_in_folders(root: Path) -> dict[str, int]:
    """How many Python files each folder below `root` has itself, by its path from there; made ones do not count."""
    return Counter(Path(path).parent.as_posix() for path in lengths(root))


_NOT_SOURCES = {"build", "dist", "__pycache__"}


def lengths(root: Path) -> dict[str, int]:
    """How many lines each Python file below `root` has, by its path from there. What is made is no source: hidden
    folders other than `.ci`, and those that builds write."""
    found = {}
    for folder, below, names in os.walk(root):
        below[:] = [name for name in below if name == ".ci" or not (name.startswith(".") or name in _NOT_SOURCES)]
        for path in (Path(folder, name) for name in names if name.endswith(".py")):
            found[path.relative_to(root).as_posix()] = len(path.read_bytes().splitlines())
    return found
