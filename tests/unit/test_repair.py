"""Which ledger a table's rows prove."""

from __future__ import annotations

from headrace.sinks.repair import rebuilt
from headrace.streams.admin import Watermarks
from headrace.streams.history import LastRows
from headrace.streams.ledger import Accepted, Ledger, Position, Range

MARKS = {0: Watermarks(0, 100), 1: Watermarks(30, 100)}


def test_each_partition_goes_on_behind_its_last_row() -> None:
    assert rebuilt("t", LastRows(1, {0: 9, 1: 49}), None, MARKS) == Ledger(
        "t", 1, {0: Position(10, 9), 1: Position(50, 49)}, {}, {}
    )


def test_a_partition_without_rows_starts_where_its_log_does() -> None:
    assert rebuilt("t", LastRows(1, {0: 9}), None, MARKS) == Ledger(
        "t", 1, {0: Position(10, 9), 1: Position(30)}, {}, {1: 30}
    )


def test_a_partition_stays_where_the_known_ledger_agrees_with_its_rows() -> None:
    """What was refused behind the last row is not refused again."""
    known = Ledger("t", 1, {0: Position(20, 9), 1: Position(40)}, {0: Range(5, 20, 9)}, {1: 7})
    after = rebuilt("t", LastRows(1, {0: 9}), known, MARKS)
    assert after == Ledger("t", 1, {0: Position(20, 9), 1: Position(40)}, {}, {1: 7})


def test_a_known_ledger_that_contradicts_the_rows_does_not_count() -> None:
    known = Ledger("t", 1, {0: Position(20, 19), 1: Position(60, 59)}, {}, {1: 7})
    after = rebuilt("t", LastRows(1, {0: 9}), known, MARKS)
    assert after.positions == {0: Position(10, 9), 1: Position(30)}
    assert after.origin == {1: 30}


def test_a_position_behind_the_log_s_end_is_not_believed() -> None:
    known = Ledger("t", 1, {0: Position(500, 9), 1: Position(500)}, {}, {})
    assert rebuilt("t", LastRows(1, {0: 9}), known, MARKS).positions == {0: Position(10, 9), 1: Position(30)}


def test_generation_and_accepted_gaps_stay_known() -> None:
    accepted = {0: (Accepted(3, 5, 1_000),)}
    known = Ledger("t", 4, {}, {}, {}, accepted)
    assert rebuilt("t", LastRows(4, {0: 9}), known, MARKS).generation == 4
    assert rebuilt("t", LastRows(1, {}), known, MARKS).generation == 4
    assert rebuilt("t", LastRows(1, {}), known, MARKS).accepted == accepted
