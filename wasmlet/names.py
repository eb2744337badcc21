"""Messages about a name that is not known: they suggest the nearest known name, and nothing else.

The name that the user typed never becomes part of advice such as `pip install wasmlet-NAME`: it may be mistyped, and
anybody may have registered a distribution of that name.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

OWN = {"provider": ("remote", "wascc", "wasmer", "wasmtime"), "engine": ("wascc", "wasmer", "wasmtime")}
"""The providers and engines that this project publishes, each as the distribution `wasmlet-NAME`."""


def did_you_mean(word: str, known: Iterable[str], likeness: float = 0.6) -> str:
    """The words "; did you mean 'NAME'?" with the known name nearest to `word`; "" where none is near.

    Args:
        likeness: how like a name has to be, from 0 to 1, as `difflib` counts it.
    """
    by_folded = {name.casefold(): name for name in sorted(known)}
    near = difflib.get_close_matches(word.casefold(), by_folded, n=1, cutoff=likeness)
    return f"; did you mean {by_folded[near[0]]!r}?" if near else ""


def not_installed(what: str, word: str, installed: Iterable[str]) -> str:
    """The message about a provider or an engine that is not installed: which ones are, and what to try.

    Args:
        what: "provider" or "engine".
        word: the name that was given.
        installed: the names of those that are installed.
    """
    there = sorted(installed)
    listed = f"installed: {', '.join(there) or 'none'}"
    if word in OWN[what] and word not in there:
        return f"{what} {word!r} is not installed ({listed}); try: pip install wasmlet-{word}"
    text = f"there is no {what} {word!r} ({listed})"
    if near := did_you_mean(word, {*there, *OWN[what]}, 0.75):
        missing = [name for name in OWN[what] if name not in there and repr(name) in near]
        return text + near + "".join(f" It is not installed; try: pip install wasmlet-{name}" for name in missing)
    return text if there else f"{text}; try: pip install wasmlet-wasmtime"
