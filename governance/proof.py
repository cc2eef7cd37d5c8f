"""Is each event of a log in its table exactly once? Arrays in, verdicts out: no Kafka, no table, no clock.

An event and its row belong together if partition, offset *and* timestamp agree: offsets begin at 0 again in a topic
that was made anew, timestamps do not repeat with them.

For one partition and the table's current generation, with the log as it was when the check began:

- each event is held by a row, or dead-lettered, or *skipped* (an operator's record accepts its loss), or *missing* (at
  or before the last row that was committed), or *pending* (behind it);
- each row holds an event, or repeats another row (*doubled*), or lies before the log's start or where a compacted log
  has no event any more (*beyond retention*), or came while the check ran (*newer*), or is of no event at all
  (*foreign*): no event ever had an offset below 0, which is what a row without an offset has here.

Both sentences are sums; `Verdict` keeps them.

A log is judged window by window, and a verdict of any length is as small as that of a window: `Verdict.then` puts
verdicts of ranges of offsets that follow each other together, in any grouping, to what one window over all of them
would have found.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from headrace.governance.marks import NO_OFFSETS, Gone, Longs, Marks, Spans

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

__all__ = ["NO_LOG", "Excuses", "Log", "Verdict", "Window", "judge", "judge_earlier"]


@dataclass(frozen=True, slots=True)
class Log:
    """What a partition's log is, besides its events.

    Attributes:
        start: the log's first offset when its events began to be read.
        end: where the check ends, exclusive; taken before the table was looked at.
        ceiling: the log's end after the table was looked at: no row can honestly lie at or above it.
        compacted: whether Kafka takes events away from among the others.
    """

    start: int
    end: int
    ceiling: int
    compacted: bool = False


NO_LOG = Log(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Window:
    """All that topic and table have in a range of offsets of one partition, each sorted by offset.

    Attributes:
        events: the committed events from the log's start to where the check ends.
        rows: the table's rows, repeats included; those of one offset by timestamp.
    """

    events: Marks
    rows: Marks


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of one partition in one generation.

    ``events == held + dead_lettered + skipped.count + missing.count + pending.count`` and
    ``rows == held + doubled.count + foreign.count + beyond_retention + newer``. For an earlier generation, whose topic
    is gone, ``events`` is None: nothing is left to compare with, and rows are only checked by themselves.

    Attributes:
        start: the log's first offset: below it nothing can be compared.
        gone: the rows below it.
        compacted_away: rows whose events a compacted log has no more.
        landed: whether there is a row that is not foreign: all open events before it are missing, not pending.
    """

    partition: int
    generation: int
    events: int | None
    rows: int = 0
    held: int = 0
    dead_lettered: int = 0
    newer: int = 0
    compacted_away: int = 0
    start: int = 0
    landed: bool = False
    missing: Spans = field(default_factory=Spans)
    pending: Spans = field(default_factory=Spans)
    doubled: Spans = field(default_factory=Spans)
    foreign: Spans = field(default_factory=Spans)
    skipped: Spans = field(default_factory=Spans)
    gone: Gone = field(default_factory=Gone)

    @property
    def holds(self) -> bool:
        """Whether nothing is missing, pending, doubled or foreign."""
        return not (self.missing or self.pending or self.doubled or self.foreign)

    @property
    def beyond_retention(self) -> int:
        """How many rows have no event any more, because Kafka deleted or compacted it."""
        return self.gone.rows + self.compacted_away

    @property
    def not_known(self) -> int:
        """How many offsets below the log's start, from the first row on, have no row: if they had events, none can say.

        Without any row there, all of them.
        """
        return self.start - (self.gone.first or 0) - self.gone.offsets

    def then(self, later: Verdict) -> Verdict:
        """Return the verdict of this range of offsets and of one that follows it."""
        missing, pending = self.missing.then(later.missing), self.pending.then(later.pending)
        if later.landed:
            missing, pending = self.missing.then(self.pending).then(later.missing), later.pending
        return Verdict(
            partition=self.partition,
            generation=self.generation,
            events=None if self.events is None or later.events is None else self.events + later.events,
            rows=self.rows + later.rows,
            held=self.held + later.held,
            dead_lettered=self.dead_lettered + later.dead_lettered,
            newer=self.newer + later.newer,
            compacted_away=self.compacted_away + later.compacted_away,
            start=self.start,
            landed=self.landed or later.landed,
            missing=missing,
            pending=pending,
            doubled=self.doubled.then(later.doubled),
            foreign=self.foreign.then(later.foreign),
            skipped=self.skipped.then(later.skipped),
            gone=self.gone.then(later.gone),
        )


@dataclass(frozen=True, slots=True)
class Excuses:
    """What excuses an event that is not in the table.

    Attributes:
        letters: offsets of dead letters, sorted; repeats allowed. The table wins if it holds the offset.
        skipped: ranges that an operator accepted as lost: first offset and the one behind the last.
    """

    letters: Longs = field(default_factory=lambda: NO_OFFSETS)
    skipped: Sequence[tuple[int, int]] = ()


def judge(place: tuple[int, int], log: Log, windows: Iterable[Window], excuses: Excuses) -> Verdict:
    """Compare a partition's log with the table's rows of the current generation.

    Args:
        place: partition, and the table's current generation.
        log: the log.
        windows: all its events and rows, window by window in the order of offsets; taken one at a time.
        excuses: what excuses an event that is not in the table.
    """
    nothing = Verdict(*place, events=0, start=log.start)
    return reduce(Verdict.then, (_judge(place, log, window, excuses) for window in windows), nothing)


def judge_earlier(place: tuple[int, int], rows: Iterable[Marks]) -> Verdict:
    """Look at rows of a generation whose topic is gone: only doubles, and offsets that no event has, can be told.

    Args:
        place: partition and generation.
        rows: the rows by offset and timestamp, in pieces that follow each other.
    """
    return reduce(Verdict.then, (_judge_earlier(place, piece) for piece in rows), Verdict(*place, events=None))


def _judge(place: tuple[int, int], log: Log, window: Window, excuses: Excuses) -> Verdict:
    events, (distinct, repeats) = window.events, _distinct(window.rows)
    possible = distinct.offsets >= 0
    gone = possible & (distinct.offsets < log.start)
    compacted = np.zeros(len(distinct), np.bool_)
    if log.compacted:
        compacted = possible & ~gone & (distinct.offsets < log.end) & ~_among(distinct.offsets, events.offsets)
    newer = ~gone & (distinct.offsets >= log.end) & (distinct.offsets < log.ceiling)
    held = _positions(events, distinct)
    found = held >= 0
    foreign = ~(gone | compacted | newer | found)
    open_ = np.ones(len(events), np.bool_)
    open_[held[found]] = False
    lettered = open_ & _among(events.offsets, excuses.letters)
    skipped = open_ & ~lettered & _within(events.offsets, excuses.skipped)
    open_offsets = events.offsets[open_ & ~lettered & ~skipped]
    landed = distinct.offsets[~foreign]
    last = int(landed[-1]) if len(landed) else -1
    return Verdict(
        *place,
        events=len(events),
        rows=len(window.rows),
        held=int(found.sum()),
        dead_lettered=int(lettered.sum()),
        newer=int(newer.sum()),
        compacted_away=int(compacted.sum()),
        start=log.start,
        landed=len(landed) > 0,
        missing=Spans.of(open_offsets[open_offsets <= last]),
        pending=Spans.of(open_offsets[open_offsets > last]),
        doubled=Spans.of(repeats),
        foreign=Spans.of(distinct.offsets[foreign]),
        skipped=Spans.of(events.offsets[skipped]),
        gone=Gone.of(distinct.pick(gone)),
    )


def _judge_earlier(place: tuple[int, int], rows: Marks) -> Verdict:
    distinct, repeats = _distinct(rows)
    foreign = distinct.offsets[distinct.offsets < 0]
    return Verdict(
        *place,
        events=None,
        rows=len(rows),
        held=len(distinct) - len(foreign),
        doubled=Spans.of(repeats),
        foreign=Spans.of(foreign),
    )


def _distinct(rows: Marks) -> tuple[Marks, Longs]:
    """Return each pair of ordered rows once, and the offset of every row that repeats one."""
    first = np.ones(len(rows), np.bool_)
    first[1:] = (rows.offsets[1:] != rows.offsets[:-1]) | (rows.timestamps_ms[1:] != rows.timestamps_ms[:-1])
    return rows.pick(first), rows.offsets[~first]


def _positions(events: Marks, rows: Marks) -> Longs:
    """Return for each row the position of its event, -1 where there is none. Events are sorted by offset."""
    if not len(events):
        return np.full(len(rows), -1, np.int64)
    places = np.searchsorted(events.offsets, rows.offsets)
    places[places == len(events)] = 0
    same = (events.offsets[places] == rows.offsets) & (events.timestamps_ms[places] == rows.timestamps_ms)
    return np.where(same, places, -1).astype(np.int64)


def _among(offsets: Longs, known: Longs) -> npt.NDArray[np.bool_]:
    """Tell which offsets are known. Both are sorted."""
    if not len(known):
        return np.zeros(len(offsets), np.bool_)
    places = np.minimum(np.searchsorted(known, offsets), len(known) - 1)
    among: npt.NDArray[np.bool_] = known[places] == offsets
    return among


def _within(offsets: Longs, ranges: Sequence[tuple[int, int]]) -> npt.NDArray[np.bool_]:
    """Tell which sorted offsets lie in one of the ranges."""
    within = np.zeros(len(offsets), np.bool_)
    for first, end in ranges:
        low, high = np.searchsorted(offsets, (first, end))
        within[low:high] = True
    return within
