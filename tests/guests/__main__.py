"""`python -m tests.guests`: builds what tests run, before one of them has to wait for a compiler that is new here."""

from __future__ import annotations

from tests.guests import SOURCES, build, compile_c, components

for source in sorted(SOURCES.glob("*.c")):
    print(build(source.stem, compile_c))
print(components.files(), components.web(), components.net(), sep="\n")
