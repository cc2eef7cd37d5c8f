"""Two streams of marks of one partition, events and rows, cut at the same offsets. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.governance.marks import NO_MARKS
from headrace.governance.proof import Window

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from headrace.governance.marks import Marks

__all__ = ["windows"]


def windows(events: Iterable[Marks], rows: Iterable[Marks]) -> Iterator[Window]:
    """Yield windows that hold each event and each row once, in the order of offsets.

    Only one piece of each stream is held at a time.

    Args:
        events: pieces sorted by offset that follow each other; no offset twice.
        rows: pieces sorted by offset and timestamp; all rows of one offset lie in the same piece.
    """
    event_pieces, row_pieces = _filled(events), _filled(rows)
    some_events, some_rows = next(event_pieces, None), next(row_pieces, None)
    while some_events is not None or some_rows is not None:
        # Below the lower one of the two pieces' ends nothing can come any more, in neither stream.
        edge = min(int(marks.offsets[-1]) + 1 for marks in (some_events, some_rows) if marks is not None)
        events_now, events_left = (some_events or NO_MARKS).split(edge)
        rows_now, rows_left = (some_rows or NO_MARKS).split(edge)
        yield Window(events_now, rows_now)
        some_events = events_left if len(events_left) else next(event_pieces, None)
        some_rows = rows_left if len(rows_left) else next(row_pieces, None)


def _filled(pieces: Iterable[Marks]) -> Iterator[Marks]:
    return (marks for marks in pieces if len(marks))
