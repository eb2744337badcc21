"""Files of variables, as `fileKeyRef` reads them (KEP-3721, in the form that Kubernetes has had since 1.35).

A variable is NAME='value': nothing around the "=", single quotes, and everything between them as it stands, line breaks
too. Blank lines, comments, and a comment after the value are passed over; a value left out, or kept apart from its "="
by a space, is empty.
"""

from __future__ import annotations

import re

_PASSED_OVER = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|\Z)")
_VARIABLE = re.compile(r"[ \t]*([^\s=#][^\s=]*)=(?:'([^']*)'[ \t]*(?:#[^\n]*)?|[ \t][^\n]*|)(?:\n|\Z)")


def find(text: str, key: str) -> str | None:
    """The value of the first variable of that name; None where there is none.

    Raises:
        ValueError: a line before it is not of this form; the message has its number, and nothing of what is in it.
    """
    text, at = text.replace("\r\n", "\n"), 0
    while at < len(text):
        if (passed := _PASSED_OVER.match(text, at)) is not None:
            at = passed.end()
            continue
        variable = _VARIABLE.match(text, at)
        if variable is None:
            line = text.count("\n", 0, at) + 1
            raise ValueError(f"line {line}: expected NAME='value', without spaces around \"=\"")
        if variable[1] == key:
            return variable[2] or ""
        at = variable.end()
    return None
