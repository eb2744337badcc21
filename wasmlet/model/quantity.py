"""Kubernetes quantities ("100m", "1Gi", "2e3"), exact.

The grammar is that of `resource.Quantity` in the Kubernetes API: a decimal number and one suffix, binary (Ki to Ei),
decimal (n, u, m, k to E) or an exponent. Values are kept as `Decimal`, so sums do not drift.
"""

from __future__ import annotations

import functools
import re
from decimal import ROUND_CEILING, Decimal

import attrs

_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}
_DECIMAL = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "E": Decimal(10**18),
}
_FORM = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(?:([KMGTPE]i|[numkMGTPE])|[eE]([+-]?[0-9]{1,3}))?")


@functools.total_ordering
@attrs.frozen(eq=False)
class Quantity:
    """An amount of a resource; cpu in cores, memory in bytes, pods in pods."""

    value: Decimal

    @classmethod
    def parse(cls, text: str | int | float) -> Quantity:
        """Read a quantity as a manifest writes it.

        Raises:
            ValueError: the text is not a quantity; the message says what was found.
        """
        return cls(_parse(str(text)))

    def __eq__(self, other: object) -> bool:
        return self.value == other.value if isinstance(other, Quantity) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.value)

    def __lt__(self, other: Quantity) -> bool:
        return self.value < other.value

    def __add__(self, other: Quantity) -> Quantity:
        return Quantity(self.value + other.value)

    def __sub__(self, other: Quantity) -> Quantity:
        return Quantity(self.value - other.value)

    def __bool__(self) -> bool:
        return bool(self.value)

    def units(self, divisor: Quantity | None = None) -> int:
        """How many of `divisor` (default 1) this is, rounded up, as the downward API does."""
        share = self.value / divisor.value if divisor else self.value
        return int(share.to_integral_value(rounding=ROUND_CEILING))

    def __str__(self) -> str:
        """The shortest exact form: a whole number with its largest whole binary suffix, else milli, micro or nano."""
        whole = self.value.to_integral_value()
        if whole == self.value:
            number = int(whole)
            for suffix, factor in reversed(_BINARY.items()):
                if number and number % factor == 0:
                    return f"{number // factor}{suffix}"
            return str(number)
        for suffix in "mun":
            scaled = self.value / _DECIMAL[suffix]
            if scaled == scaled.to_integral_value():
                return f"{int(scaled)}{suffix}"
        return f"{self.units(Quantity(_DECIMAL['n']))}n"


@functools.lru_cache(maxsize=4096)
def _parse(text: str) -> Decimal:
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a quantity: expected a number and a suffix such as 100m, 2, 64Mi or 1e3")
    number, suffix, exponent = match.groups()
    if exponent is not None:
        return Decimal(number).scaleb(int(exponent))
    if suffix in _BINARY:
        return Decimal(number) * _BINARY[suffix]
    return Decimal(number) * _DECIMAL[suffix or ""]
