"""Is each event of a log in its table exactly once? Arrays in, verdicts out: no Kafka, no table, no clock.

An event and its row belong together if partition, offset *and* timestamp agree: offsets begin at 0 again in a topic
that was made anew, timestamps do not repeat with them.

For one partition and the table's current generation, with the log as it was when the check began:

- each event is held by a row, or dead-lettered, or *missing* (at or before the last row that was committed), or
  *pending* (behind it);
- each row holds an event, or repeats another row (*doubled*), or lies before the log's start or where a compacted log
  has no event any more (*beyond retention*),
  or came while the check ran (*newer*), or is of no event at all (*foreign*).

Both sentences are sums; `Verdict` keeps them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Longs", "Marks", "PartitionLog", "Verdict", "judge", "judge_earlier", "spans"]

Longs: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Marks:
    """Offsets with their timestamps in milliseconds, -1 where there is none: of events or of rows, in any order."""

    offsets: Longs
    timestamps_ms: Longs

    def __len__(self) -> int:
        return len(self.offsets)

    def pick(self, chosen: npt.NDArray[np.bool_]) -> Marks:
        """Return those that are chosen."""
        return Marks(self.offsets[chosen], self.timestamps_ms[chosen])

    def distinct(self) -> Marks:
        """Return each pair once, by offset."""
        order = np.lexsort((self.timestamps_ms, self.offsets))
        offsets, stamps = self.offsets[order], self.timestamps_ms[order]
        first = np.ones(len(order), np.bool_)
        first[1:] = (offsets[1:] != offsets[:-1]) | (stamps[1:] != stamps[:-1])
        return Marks(offsets[first], stamps[first])


@dataclass(frozen=True, slots=True)
class PartitionLog:
    """A partition's log.

    Attributes:
        start: the log's first offset, taken after the events were read.
        end: where the check ends, exclusive; taken before the table was looked at.
        ceiling: the log's end after the table was looked at: no row can honestly lie at or above it.
        events: the committed events below ``end``, by offset; those below ``start`` do not count.
        compacted: whether Kafka takes events away from among the others.
    """

    start: int
    end: int
    ceiling: int
    events: Marks
    compacted: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of one partition in one generation. Arrays hold offsets, sorted.

    ``events == held + dead_lettered + len(missing) + len(pending)`` and
    ``rows == held + len(doubled) + len(foreign) + beyond_retention + newer``. For an earlier generation, whose topic is
    gone, ``events`` is None: nothing is left to compare with, and rows are only checked for doubles.
    """

    partition: int
    generation: int
    events: int | None
    rows: int
    held: int
    missing: Longs
    pending: Longs
    doubled: Longs
    foreign: Longs
    dead_lettered: int
    beyond_retention: int
    newer: int

    @property
    def holds(self) -> bool:
        """Whether nothing is missing, pending, doubled or foreign."""
        return not (len(self.missing) or len(self.pending) or len(self.doubled) or len(self.foreign))


def judge(partition: int, generation: int, log: PartitionLog, rows: Marks, letters: Longs) -> Verdict:
    """Compare a partition's log with the table's rows of the current generation.

    Args:
        partition: the partition.
        generation: the table's current generation.
        log: the log.
        rows: the table's rows.
        letters: offsets of the partition's dead letters, repeats allowed. The table wins if it holds the offset.
    """
    events = log.events.pick(log.events.offsets >= log.start)
    distinct = rows.distinct()
    beyond = distinct.offsets < log.start
    if log.compacted:
        beyond |= (distinct.offsets < log.end) & ~np.isin(distinct.offsets, events.offsets)
    newer = (distinct.offsets >= log.end) & (distinct.offsets < log.ceiling)
    held = _positions(events, distinct)
    found = held >= 0
    foreign = ~(beyond | newer | found)
    in_table = np.zeros(len(events), np.bool_)
    in_table[held[found]] = True
    lettered = ~in_table & np.isin(events.offsets, letters)
    open_offsets = events.offsets[~in_table & ~lettered]
    landed = distinct.offsets[~foreign]
    last = landed[-1] if len(landed) else -1
    return Verdict(
        partition=partition,
        generation=generation,
        events=len(events),
        rows=len(rows),
        held=int(found.sum()),
        missing=open_offsets[open_offsets <= last],
        pending=open_offsets[open_offsets > last],
        doubled=_repeats(rows),
        foreign=distinct.offsets[foreign],
        dead_lettered=int(lettered.sum()),
        beyond_retention=int(beyond.sum()),
        newer=int(newer.sum()),
    )


def judge_earlier(partition: int, generation: int, rows: Marks) -> Verdict:
    """Look at rows of a generation whose topic is gone: only doubles can be told."""
    nothing = np.empty(0, np.int64)
    doubled = _repeats(rows)
    return Verdict(
        partition, generation, None, len(rows), len(rows) - len(doubled), nothing, nothing, doubled, nothing, 0, 0, 0
    )


def spans(offsets: Longs) -> Iterator[tuple[int, int]]:
    """Yield the runs of sorted offsets, first and last: 3, 4, 5, 9 gives (3, 5) and (9, 9). Repeats count once."""
    if not len(offsets):
        return
    breaks = np.flatnonzero(np.diff(offsets) > 1)
    starts = np.concatenate(([0], breaks + 1))
    ends = np.concatenate((breaks, [len(offsets) - 1]))
    for first, last in zip(starts.tolist(), ends.tolist(), strict=True):
        yield int(offsets[first]), int(offsets[last])


def _positions(events: Marks, rows: Marks) -> Longs:
    """Return for each row the position of its event, -1 where there is none. Events are sorted by offset."""
    if not len(events):
        return np.full(len(rows), -1, np.int64)
    places = np.searchsorted(events.offsets, rows.offsets)
    places[places == len(events)] = 0
    same = (events.offsets[places] == rows.offsets) & (events.timestamps_ms[places] == rows.timestamps_ms)
    return np.where(same, places, -1).astype(np.int64)


def _repeats(rows: Marks) -> Longs:
    """Return the offset of every row that another row of the same offset and timestamp precedes, sorted."""
    order = np.lexsort((rows.timestamps_ms, rows.offsets))
    offsets, stamps = rows.offsets[order], rows.timestamps_ms[order]
    repeats: Longs = offsets[1:][(offsets[1:] == offsets[:-1]) & (stamps[1:] == stamps[:-1])]
    return repeats
