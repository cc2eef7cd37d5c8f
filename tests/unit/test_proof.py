"""The proof's core against a reference that counts with sets, one row at a time."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace.governance.proof import Longs, Marks, PartitionLog, Verdict, judge, judge_earlier, spans

Pair = tuple[int, int]


def longs(*values: int) -> Longs:
    return np.array(values, np.int64)


def marks(*pairs: Pair) -> Marks:
    return Marks(longs(*(offset for offset, _ in pairs)), longs(*(stamp for _, stamp in pairs)))


def plain(*offsets: int) -> Marks:
    """Marks whose timestamps follow from their offsets."""
    return marks(*((offset, 1_000 + offset) for offset in offsets))


def log_of(*offsets: int, start: int = 0, end: int = 10, ceiling: int = 12) -> PartitionLog:
    return PartitionLog(start, end, ceiling, plain(*offsets))


def found(log: PartitionLog, rows: Marks, *letters: int) -> dict[str, object]:
    """What is not nothing in a verdict, besides the two sums."""
    verdict = judge(0, 1, log, rows, longs(*letters))
    counts = ("dead_lettered", "beyond_retention", "newer")
    arrays = ("missing", "pending", "doubled", "foreign")
    shown: dict[str, object] = {name: getattr(verdict, name) for name in counts if getattr(verdict, name)}
    return shown | {name: getattr(verdict, name).tolist() for name in arrays if len(getattr(verdict, name))}


def test_all_events_held_in_any_order() -> None:
    verdict = judge(3, 2, log_of(0, 1, 4), plain(4, 0, 1), longs())
    assert verdict.holds
    assert (verdict.partition, verdict.generation, verdict.events, verdict.rows, verdict.held) == (3, 2, 3, 3, 3)


def test_offsets_that_the_log_skips_are_not_missed() -> None:
    assert found(log_of(0, 2, 9), plain(0, 2, 9)) == {}


def test_a_hole_is_missing_and_a_lag_is_pending() -> None:
    assert found(log_of(0, 1, 2, 3, 4), plain(0, 2)) == {"missing": [1], "pending": [3, 4]}
    assert found(log_of(0, 1), plain()) == {"pending": [0, 1]}


def test_compaction_takes_events_away_from_among_the_others() -> None:
    log = replace(log_of(0, 4, 9), compacted=True)
    assert found(log, plain(0, 1, 2, 4, 9)) == {"beyond_retention": 2}
    assert found(log, plain(0, 9)) == {"missing": [4]}
    assert found(log, marks((0, 1_000), (4, 7), (9, 1_009))) == {"missing": [4], "foreign": [4]}
    assert found(log_of(0, 4, 9), plain(0, 1, 2, 4, 9)) == {"foreign": [1, 2]}


def test_a_newer_row_turns_what_lies_before_it_into_missing() -> None:
    assert found(log_of(0, 9), plain(0, 10)) == {"missing": [9], "newer": 1}


def test_every_repeat_is_doubled() -> None:
    assert found(log_of(0, 1), plain(0, 1, 1, 1, 0)) == {"doubled": [0, 1, 1]}


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
    assert judge(0, 1, log_of(end=0, ceiling=0), plain(), longs()).holds
    assert found(log_of(end=0, ceiling=0), plain(0)) == {"foreign": [0]}


def test_of_an_earlier_generation_only_doubles_are_told() -> None:
    verdict = judge_earlier(1, 1, plain(5, 5, 9))
    assert (verdict.events, verdict.rows, verdict.held, verdict.doubled.tolist()) == (None, 3, 2, [5])
    assert not verdict.holds
    assert judge_earlier(1, 1, plain(5, 9)).holds


def test_spans() -> None:
    assert list(spans(longs())) == []
    assert list(spans(longs(3, 4, 5, 9))) == [(3, 5), (9, 9)]
    assert list(spans(longs(1, 1, 2))) == [(1, 2)]


def reference(log: PartitionLog, rows: list[Pair], letters: list[int]) -> dict[str, object]:
    """The definitions of the module's text, word by word."""
    pairs = zip(log.events.offsets.tolist(), log.events.timestamps_ms.tolist(), strict=True)
    events = {pair for pair in pairs if pair[0] >= log.start}
    counted = Counter(rows)
    beyond = {pair for pair in counted if pair[0] < log.start}
    newer = {pair for pair in counted if log.end <= pair[0] < log.ceiling}
    held = events & set(counted)
    foreign = set(counted) - beyond - newer - held
    lettered = {pair for pair in events - held if pair[0] in letters}
    lost = sorted(offset for offset, _ in events - held - lettered)
    last = max((offset for offset, _ in set(counted) - foreign), default=-1)
    return {
        "events": len(events),
        "rows": len(rows),
        "held": len(held),
        "missing": [offset for offset in lost if offset <= last],
        "pending": [offset for offset in lost if offset > last],
        "doubled": sorted(pair[0] for pair, count in counted.items() for _ in range(count - 1)),
        "foreign": sorted(offset for offset, _ in foreign),
        "dead_lettered": len(lettered),
        "beyond_retention": len(beyond),
        "newer": len(newer),
    }


def as_mapping(verdict: Verdict) -> dict[str, object]:
    names = ("events", "rows", "held", "dead_lettered", "beyond_retention", "newer")
    arrays = ("missing", "pending", "doubled", "foreign")
    return {name: getattr(verdict, name) for name in names} | {name: getattr(verdict, name).tolist() for name in arrays}


small = st.integers(0, 12)
rows_of = st.lists(st.tuples(small, st.sampled_from([-1, 0, 1])), max_size=25)


@given(
    events=st.dictionaries(small, st.sampled_from([-1, 0, 1])),
    bounds=st.tuples(small, small, small).map(sorted),
    rows=rows_of,
    letters=st.lists(small, max_size=6),
)
def test_it_says_what_the_reference_says(
    events: dict[int, int], bounds: list[int], rows: list[Pair], letters: list[int]
) -> None:
    start, end, ceiling = bounds
    log = PartitionLog(start, end, ceiling, marks(*sorted(pair for pair in events.items() if pair[0] < end)))
    verdict = judge(0, 1, log, marks(*rows), longs(*letters))
    assert as_mapping(verdict) == reference(log, rows, letters)
    assert verdict.events == verdict.held + verdict.dead_lettered + len(verdict.missing) + len(verdict.pending)
    assert verdict.rows == verdict.held + len(verdict.doubled) + len(verdict.foreign) + (
        verdict.beyond_retention + verdict.newer
    )


@given(st.sets(st.integers(-5, 60)))
def test_spans_hold_every_offset_once(offsets: set[int]) -> None:
    ordered = longs(*sorted(offsets))
    ranges = list(spans(ordered))
    assert [offset for first, last in ranges for offset in range(first, last + 1)] == ordered.tolist()
    assert all(later[0] > earlier[1] + 1 for earlier, later in pairwise(ranges))
