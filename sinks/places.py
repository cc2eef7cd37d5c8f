"""Where an error came from, without what it says: its message may hold a value."""

from __future__ import annotations

import traceback


def places_of(error: BaseException) -> list[str]:
    """Return the places in the code that an error came through, the innermost last."""
    return [f"{frame.name} {frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
