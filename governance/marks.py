"""Marks of events and rows, and what is kept of many: counts, and the first of their places. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice, pairwise
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["KEPT_SPANS", "NO_MARKS", "NO_OFFSETS", "Gone", "Longs", "Marks", "Spans", "spans"]

Longs: TypeAlias = npt.NDArray[np.int64]

# So many places of each kind of finding are kept of a partition. Who has more to look at counts, and fixes a cause.
KEPT_SPANS = 1_000


@dataclass(frozen=True, slots=True)
class Marks:
    """Offsets with their timestamps in milliseconds, -1 where there is none: of events or of rows."""

    offsets: Longs
    timestamps_ms: Longs

    def __len__(self) -> int:
        return len(self.offsets)

    def pick(self, chosen: npt.NDArray[np.bool_]) -> Marks:
        """Return those that are chosen."""
        return Marks(self.offsets[chosen], self.timestamps_ms[chosen])

    def ordered(self) -> Marks:
        """Return them by offset, then by timestamp; what is in order already is not copied."""
        if (self.offsets[1:] > self.offsets[:-1]).all():
            return self
        order = np.lexsort((self.timestamps_ms, self.offsets))
        return Marks(self.offsets[order], self.timestamps_ms[order])

    def split(self, edge: int | None) -> tuple[Marks, Marks]:
        """Cut them, sorted by offset, into those below an offset and the others; None: all are below."""
        place = len(self) if edge is None else int(np.searchsorted(self.offsets, edge))
        return (
            Marks(self.offsets[:place], self.timestamps_ms[:place]),
            Marks(self.offsets[place:], self.timestamps_ms[place:]),
        )


NO_OFFSETS: Longs = np.empty(0, np.int64)
NO_MARKS = Marks(NO_OFFSETS, NO_OFFSETS)


@dataclass(frozen=True, slots=True)
class Spans:
    """Offsets in ascending order as a count and the first thousand of their runs, whatever there is of them.

    Attributes:
        count: how many; a doubled row counts each time that it is there too often.
        runs: in how many runs of consecutive offsets they lie.
        kept: the first of these runs, first and last offset.
        last: the highest offset; None: there is none.
    """

    count: int = 0
    runs: int = 0
    kept: tuple[tuple[int, int], ...] = ()
    last: int | None = None

    def __bool__(self) -> bool:
        return self.count > 0

    @classmethod
    def of(cls, offsets: Longs) -> Spans:
        """Return sorted offsets as spans; repeats are allowed."""
        if not len(offsets):
            return cls()
        runs = int(np.count_nonzero(np.diff(offsets) > 1)) + 1
        return cls(len(offsets), runs, tuple(islice(spans(offsets), KEPT_SPANS)), int(offsets[-1]))

    def then(self, later: Spans) -> Spans:
        """Return these and others, all of which are higher."""
        if self.last is None or later.last is None:
            return self if later.last is None else later
        joined = later.kept[0][0] == self.last + 1
        kept = self.kept
        if self.runs <= KEPT_SPANS:
            ahead = later.kept
            if joined:
                kept, ahead = kept[:-1], ((kept[-1][0], ahead[0][1]), *ahead[1:])
            kept = (*kept, *ahead)[:KEPT_SPANS]
        return Spans(self.count + later.count, self.runs + later.runs - joined, kept, later.last)


@dataclass(frozen=True, slots=True)
class Gone:
    """Rows below the log's start: Kafka has their events no more, and nobody can compare them.

    Attributes:
        rows: how many, repeats not counted.
        offsets: how many offsets they have. Fewer than rows: rows of two topics.
        first: the lowest of these offsets; None: there are no such rows.
        last: the highest.
    """

    rows: int = 0
    offsets: int = 0
    first: int | None = None
    last: int | None = None

    @classmethod
    def of(cls, rows: Marks) -> Gone:
        """Return rows, by offset and without repeats, as a summary."""
        if not len(rows):
            return cls()
        offsets = 1 + int(np.count_nonzero(np.diff(rows.offsets)))
        return cls(len(rows), offsets, int(rows.offsets[0]), int(rows.offsets[-1]))

    def then(self, later: Gone) -> Gone:
        """Return these and others, all of which have higher offsets."""
        if self.first is None or later.first is None:
            return self if later.first is None else later
        return Gone(self.rows + later.rows, self.offsets + later.offsets, self.first, later.last)


def spans(offsets: Longs) -> Iterator[tuple[int, int]]:
    """Yield the runs of sorted offsets, first and last: 3, 4, 5, 9 gives (3, 5) and (9, 9). Repeats count once."""
    if not len(offsets):
        return
    breaks = (np.flatnonzero(np.diff(offsets) > 1) + 1).tolist()
    for first, end in pairwise([0, *breaks, len(offsets)]):
        yield int(offsets[first]), int(offsets[end - 1])
