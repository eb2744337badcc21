"""Times as the API writes them."""

from __future__ import annotations

from datetime import UTC, datetime


def rfc3339(moment: datetime) -> str:
    """`metav1.Time`: RFC 3339 in UTC with whole seconds."""
    # A fifth of the time of strftime; a node writes some twenty for each pod.
    return f"{moment.astimezone(UTC).isoformat(timespec='seconds')[:19]}Z"


def rfc3339_micro(moment: datetime) -> str:
    """`metav1.MicroTime`: the same with six decimals, as leases have it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse(text: str) -> datetime:
    """Read either form, with any number of decimals and any offset.

    Raises:
        ValueError: the text is not an RFC 3339 time.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} is not an RFC 3339 time: it has no offset")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{text!r} is no time that can be told in UTC") from None
