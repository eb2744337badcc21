"""The regular expressions of schemas. A cluster uses Go's RE2; here it is Python's `re`, on texts of limited length."""

from __future__ import annotations

import functools
import re

LONGEST = 4096
"""The most characters that are matched: Python's time may grow much faster than a text. A longer one does not match."""


@functools.lru_cache(maxsize=1024)
def compiled(pattern: str) -> re.Pattern[str]:
    """A pattern, compiled.

    Raises:
        ValueError: it is no regular expression.
    """
    try:
        return re.compile(pattern.replace(r"\z", r"\Z"), re.ASCII)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(str(error)) from None


def matches(pattern: str, text: str) -> bool:
    """Whether a pattern is found in a text."""
    return len(text) <= LONGEST and compiled(pattern).search(text) is not None
