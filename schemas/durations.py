"""Spans of time as contracts write them: a number and a unit. Pure."""

from __future__ import annotations

import re

__all__ = ["UNIT_MS", "seconds_of"]

# The standard names days and years; the shorter units follow the same pattern. A bare "m" could be a month.
UNIT_MS = {
    **dict.fromkeys(("ms", "millisecond", "milliseconds"), 1),
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1_000),
    **dict.fromkeys(("min", "minute", "minutes"), 60_000),
    **dict.fromkeys(("h", "hour", "hours"), 3_600_000),
    **dict.fromkeys(("d", "day", "days"), 86_400_000),
    **dict.fromkeys(("y", "yr", "year", "years"), 365 * 86_400_000),
}
_SPAN = re.compile(r"([1-9][0-9]{0,8}) ?([a-z]{1,12})")
# Longer than any table lives; it keeps sums of such spans exact.
_MOST_S = 100 * 365 * 86_400


def seconds_of(text: str) -> float | None:
    """Return a span such as ``90s``, ``1 min`` or ``3d`` in seconds; None: it is none, or of more than a century."""
    found = _SPAN.fullmatch(text.strip())
    if found is None or found[2] not in UNIT_MS:
        return None
    seconds = int(found[1]) * UNIT_MS[found[2]] / 1_000
    return seconds if seconds <= _MOST_S else None
