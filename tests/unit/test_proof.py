"""The proof's core against a reference that counts with sets, one row at a time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields
from functools import reduce
from itertools import chain, pairwise
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace.governance.marks import KEPT_SPANS, Gone, Longs, Marks, Spans, spans
from headrace.governance.proof import Excuses, Log, Verdict, Window, judge, judge_earlier
from headrace.governance.windows import windows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Pair = tuple[int, int]
SPANS = ("missing", "pending", "doubled", "foreign", "skipped")


def longs(*values: int) -> Longs:
    return np.array(values, np.int64)


def marks(*pairs: Pair) -> Marks:
    return Marks(longs(*(offset for offset, _ in pairs)), longs(*(stamp for _, stamp in pairs)))


def plain(*offsets: int) -> Marks:
    """Marks whose timestamps follow from their offsets."""
    return marks(*((offset, 1_000 + offset) for offset in offsets))


@dataclass(frozen=True)
class Whole:
    """A log with all its events."""

    log: Log
    events: Marks


def log_of(*offsets: int, start: int = 0, end: int = 10, ceiling: int = 12, compacted: bool = False) -> Whole:
    return Whole(Log(start, end, ceiling, compacted), plain(*(offset for offset in offsets if offset >= start)))


def judged(whole: Whole, rows: Marks, excuses: Excuses | None = None) -> Verdict:
    """All of a log in one window."""
    return judge((0, 1), whole.log, [Window(whole.events, rows.ordered())], excuses or Excuses())


def offsets_of(found: Spans) -> list[int]:
    return [offset for first, last in found.kept for offset in range(first, last + 1)]


def found(whole: Whole, rows: Marks, *letters: int, skipped: Sequence[Pair] = ()) -> dict[str, object]:
    """What is not nothing in a verdict, besides the two sums."""
    verdict = judged(whole, rows, Excuses(longs(*sorted(letters)), skipped))
    counts = ("dead_lettered", "beyond_retention", "newer")
    shown: dict[str, object] = {name: getattr(verdict, name) for name in counts if getattr(verdict, name)}
    return shown | {name: offsets_of(getattr(verdict, name)) for name in SPANS if getattr(verdict, name)}


def test_all_events_held_in_any_order() -> None:
    whole = log_of(0, 1, 4)
    verdict = judge((3, 2), whole.log, [Window(whole.events, plain(4, 0, 1).ordered())], Excuses())
    assert verdict.holds
    assert (verdict.partition, verdict.generation, verdict.events, verdict.rows, verdict.held) == (3, 2, 3, 3, 3)


def test_offsets_that_the_log_skips_are_not_missed() -> None:
    assert found(log_of(0, 2, 9), plain(0, 2, 9)) == {}


def test_a_hole_is_missing_and_a_lag_is_pending() -> None:
    assert found(log_of(0, 1, 2, 3, 4), plain(0, 2)) == {"missing": [1], "pending": [3, 4]}
    assert found(log_of(0, 1), plain()) == {"pending": [0, 1]}


def test_compaction_takes_events_away_from_among_the_others() -> None:
    log = log_of(0, 4, 9, compacted=True)
    assert found(log, plain(0, 1, 2, 4, 9)) == {"beyond_retention": 2}
    assert found(log, plain(0, 9)) == {"missing": [4]}
    assert found(log, marks((0, 1_000), (4, 7), (9, 1_009))) == {"missing": [4], "foreign": [4]}
    assert found(log_of(0, 4, 9), plain(0, 1, 2, 4, 9)) == {"foreign": [1, 2]}


def test_a_newer_row_turns_what_lies_before_it_into_missing() -> None:
    assert found(log_of(0, 9), plain(0, 10)) == {"missing": [9], "newer": 1}


def test_every_repeat_is_doubled() -> None:
    doubled = judged(log_of(0, 1), plain(0, 1, 1, 1, 0)).doubled
    assert (doubled.count, doubled.kept) == (3, ((0, 1),))


def test_rows_of_aborted_or_never_written_offsets_are_foreign() -> None:
    assert found(log_of(0, 2), plain(0, 1, 2, 12)) == {"foreign": [1, 12]}


def test_a_foreign_row_does_not_make_a_lag_look_like_a_hole() -> None:
    assert found(log_of(0, 1), plain(500)) == {"foreign": [500], "pending": [0, 1]}


def test_a_row_of_another_topic_is_foreign_though_its_offset_exists() -> None:
    assert found(log_of(0, 1), marks((0, 1_000), (1, 7))) == {"foreign": [1], "pending": [1]}


def test_rows_before_the_log_are_beyond_retention_and_events_before_it_do_not_count() -> None:
    assert found(log_of(3, 5, 6, start=5), plain(1, 2, 5, 6)) == {"beyond_retention": 2}


def test_dead_letters_count_once_and_the_table_wins() -> None:
    assert found(log_of(0, 1, 2, 3), plain(0, 3), 1, 1, 3, 77) == {"dead_lettered": 1, "missing": [2]}


def test_an_empty_log_and_an_empty_table() -> None:
    assert judged(log_of(end=0, ceiling=0), plain()).holds
    assert judge((0, 1), Log(0, 0, 0), [], Excuses()).holds
    assert found(log_of(end=0, ceiling=0), plain(0)) == {"foreign": [0]}


def test_what_was_skipped_on_record_is_not_missing() -> None:
    log = log_of(0, 1, 2, 3, 5)
    assert found(log, plain(0, 5), skipped=[(1, 3)]) == {"skipped": [1, 2], "missing": [3]}
    assert found(log, plain(0, 2, 5), 1, skipped=[(1, 4)]) == {"dead_lettered": 1, "skipped": [3]}
    assert found(log, plain(0), skipped=[(0, 2), (5, 9)]) == {"skipped": [1, 5], "pending": [2, 3]}
    assert judged(log, plain(0, 5), Excuses(skipped=[(1, 4)])).holds


def test_what_kafka_no_longer_keeps_is_told_with_its_holes() -> None:
    verdict = judged(log_of(8, start=8), plain(2, 3, 5, 8))
    assert (verdict.gone, verdict.beyond_retention, verdict.not_known) == (Gone(3, 3, 2, 5), 3, 3)
    assert verdict.holds
    assert judged(log_of(8, start=8), plain(8)).not_known == 8
    assert judged(log_of(0, 1), plain(0, 1)).not_known == 0


def test_a_log_whose_start_has_passed_the_end_counts_each_row_once() -> None:
    assert found(log_of(start=11), plain(9, 10, 11)) == {"beyond_retention": 2, "newer": 1}


def test_of_an_earlier_generation_only_doubles_are_told() -> None:
    verdict = judge_earlier((1, 1), [plain(5, 5), plain(9)])
    assert (verdict.events, verdict.rows, verdict.held, verdict.doubled.kept) == (None, 3, 2, ((5, 5),))
    assert not verdict.holds
    assert judge_earlier((1, 1), [plain(5, 9)]).holds


def test_no_event_ever_had_an_offset_below_zero() -> None:
    """So no row with one, or with none at all, passes for one that Kafka no longer keeps."""
    assert found(log_of(5, 6, start=5), plain(-1, 5, 6)) == {"foreign": [-1]}
    assert found(log_of(0, 2, compacted=True), plain(-7, 0, 1, 2)) == {"foreign": [-7], "beyond_retention": 1}
    verdict = judge_earlier((0, 1), [plain(-1, -1), plain(3)])
    assert (verdict.rows, verdict.held, verdict.foreign.kept, verdict.doubled.kept) == (3, 1, ((-1, -1),), ((-1, -1),))
    assert not verdict.holds


def test_spans() -> None:
    assert list(spans(longs())) == []
    assert list(spans(longs(3, 4, 5, 9))) == [(3, 5), (9, 9)]
    assert list(spans(longs(1, 1, 2))) == [(1, 2)]


def reference(whole: Whole, rows: list[Pair], letters: list[int], skips: Sequence[Pair]) -> dict[str, object]:
    """The definitions of the module's text, word by word, over the whole log at once."""
    log = whole.log
    pairs = zip(whole.events.offsets.tolist(), whole.events.timestamps_ms.tolist(), strict=True)
    events, counted = set(pairs), Counter(rows)
    at = {offset for offset, _ in events}
    gone = {pair for pair in counted if 0 <= pair[0] < log.start}
    inside = {pair for pair in set(counted) - gone if 0 <= pair[0] < log.end}
    compacted = {pair for pair in inside if pair[0] not in at and log.compacted}
    newer = {pair for pair in set(counted) - gone if log.end <= pair[0] < log.ceiling}
    held = events & set(counted)
    foreign = set(counted) - gone - compacted - newer - held
    lettered = {pair for pair in events - held if pair[0] in letters}
    skipped = {pair for pair in events - held - lettered if any(first <= pair[0] < end for first, end in skips)}
    lost = sorted(offset for offset, _ in events - held - lettered - skipped)
    last = max((offset for offset, _ in set(counted) - foreign), default=-1)
    return {
        "events": len(events),
        "rows": len(rows),
        "held": len(held),
        "missing": [offset for offset in lost if offset <= last],
        "pending": [offset for offset in lost if offset > last],
        "doubled": sorted(pair[0] for pair, count in counted.items() for _ in range(count - 1)),
        "foreign": sorted(offset for offset, _ in foreign),
        "skipped": sorted(offset for offset, _ in skipped),
        "dead_lettered": len(lettered),
        "beyond_retention": len(gone) + len(compacted),
        "not_known": log.start - min((offset for offset, _ in gone), default=0) - len({offset for offset, _ in gone}),
        "newer": len(newer),
    }


def summed(offsets: list[int]) -> Spans:
    ranges = list(spans(longs(*offsets)))
    return Spans(len(offsets), len(ranges), tuple(ranges[:KEPT_SPANS]), offsets[-1] if offsets else None)


def agree(verdict: Verdict, expected: dict[str, object]) -> None:
    for name, value in expected.items():
        found = getattr(verdict, name)
        assert found == (summed(value) if isinstance(value, list) else value), name
    assert verdict.events == (
        verdict.held + verdict.dead_lettered + verdict.skipped.count + verdict.missing.count + verdict.pending.count
    )
    assert verdict.rows == (
        verdict.held + verdict.doubled.count + verdict.foreign.count + verdict.beyond_retention + verdict.newer
    )


def pieces(of: Marks, edges: list[int]) -> Iterator[Marks]:
    """Cut marks at some offsets; an empty piece here and there does no harm."""
    for edge in sorted(edges):
        piece, of = of.split(edge)
        yield piece
    yield of


small = st.integers(0, 12)
stamps = st.sampled_from([-1, 0, 1])
rows_of = st.lists(st.tuples(st.integers(-2, 12), stamps), max_size=25)
edges = st.lists(small, max_size=5)


@given(
    events=st.dictionaries(small, stamps),
    bounds=st.tuples(small, small, small).map(sorted),
    rows=rows_of,
    letters=st.lists(small, max_size=6),
    skips=st.lists(st.tuples(small, small), max_size=2),
    cuts=st.tuples(edges, edges, st.booleans()),
)
def test_window_by_window_it_says_what_the_reference_says_of_the_whole(
    events: dict[int, int],
    bounds: list[int],
    rows: list[Pair],
    letters: list[int],
    skips: list[Pair],
    cuts: tuple[list[int], list[int], bool],
) -> None:
    """Wherever the two streams are cut, and whether offsets are missing by transactions or by compaction."""
    start, end, ceiling = bounds
    event_cuts, row_cuts, compacted = cuts
    inside = sorted(pair for pair in events.items() if start <= pair[0] < end)
    whole = Whole(Log(start, end, ceiling, compacted), marks(*inside))
    cut = windows(pieces(whole.events, event_cuts), pieces(marks(*rows).ordered(), row_cuts))
    verdict = judge((0, 1), whole.log, cut, Excuses(longs(*sorted(letters)), skips))
    agree(verdict, reference(whole, rows, letters, skips))


@given(st.lists(rows_of, min_size=3, max_size=3), edges, st.data())
def test_verdicts_may_be_put_together_in_any_grouping(
    parts: list[list[Pair]], some: list[int], data: st.DataObject
) -> None:
    verdicts = []
    for number, rows in enumerate(parts):
        shifted = marks(*((offset + 20 * number, stamp) for offset, stamp in rows)).ordered()
        events = plain(*sorted({edge + 20 * number for edge in data.draw(edges)}))
        window = Window(events, shifted)
        verdicts.append(judge((0, 1), Log(0, 50, 55), [window], Excuses(longs(*sorted(some)))))
    first, second, third = verdicts
    assert first.then(second).then(third) == first.then(second.then(third))


@given(st.lists(st.integers(0, 9), max_size=8), st.integers(0, 3))
def test_of_many_spans_the_first_are_kept_and_all_are_counted(lengths: list[int], width: int) -> None:
    """Runs of offsets in batches, more of them than are kept, joined where one batch ends and the next begins."""
    batches, at = [], 0
    for length in lengths:
        starts = range(at, at + length * 100 * (width + 2), width + 2)
        offsets = [start + step for start in starts for step in range(width + 1)]
        at = offsets[-1] + 1 if offsets else at
        batches.append(offsets)
    folded = reduce(Spans.then, (Spans.of(longs(*batch)) for batch in batches), Spans())
    assert folded == summed([offset for batch in batches for offset in batch])
    assert len(folded.kept) <= KEPT_SPANS


@given(rows_of, rows_of, edges, edges)
def test_windows_hold_everything_once_and_in_order(
    events: list[Pair], rows: list[Pair], event_cuts: list[int], row_cuts: list[int]
) -> None:
    sorted_events, sorted_rows = marks(*sorted(dict(events).items())), marks(*rows).ordered()
    cut = list(windows(pieces(sorted_events, event_cuts), pieces(sorted_rows, row_cuts)))
    for name, whole in (("events", sorted_events), ("rows", sorted_rows)):
        for column in fields(Marks):
            parts = [getattr(getattr(window, name), column.name).tolist() for window in cut]
            assert list(chain.from_iterable(parts)) == getattr(whole, column.name).tolist()
    reach = [[*window.events.offsets.tolist(), *window.rows.offsets.tolist()] for window in cut]
    assert all(max(earlier) < min(later) for earlier, later in pairwise(reach))


@given(st.sets(st.integers(-5, 60)))
def test_spans_hold_every_offset_once(offsets: set[int]) -> None:
    ordered = longs(*sorted(offsets))
    ranges = list(spans(ordered))
    assert [offset for first, last in ranges for offset in range(first, last + 1)] == ordered.tolist()
    assert all(later[0] > earlier[1] + 1 for earlier, later in pairwise(ranges))
