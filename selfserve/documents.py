"""What the JSON of several commands shares: times, errors, holds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.schemas.errors import HeadraceError
    from headrace.sinks.hold import Hold

__all__ = ["error_json", "hold_json", "time_json"]


def time_json(moment: datetime) -> str:
    """Return a moment as ISO 8601 in UTC, to the second."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def error_json(error: HeadraceError) -> dict[str, str | None]:
    """Return what is wrong, where, and what to do next."""
    return {"what": error.what, "where": error.where, "next": error.hint}


def hold_json(hold: Hold) -> dict[str, str | None]:
    """Return why a product is held, and since when; null: its property does not say."""
    return {"reason": hold.reason, "since": None if hold.since is None else time_json(hold.since)}
