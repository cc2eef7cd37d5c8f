"""The ledger: what it says after a batch, how it is read back, and what it never believes."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.schemas.errors import DamagedLedger, ProductStopped
from headrace.streams.ledger import (
    MAX_BYTES,
    SUMMARY_KEY,
    Accepted,
    Ledger,
    Position,
    Range,
    gaps,
)
from headrace.streams.walk import Walk, trusted_property, walk

EXAMPLES = settings(max_examples=100, deadline=None)
OFFSETS = st.integers(0, 2**62)
ROWS = st.none() | OFFSETS
PARTITIONS = st.integers(0, 500)
LAST_S = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp())
ACCEPTED = st.lists(
    st.builds(Accepted, OFFSETS, OFFSETS, st.integers(0, LAST_S)),
    min_size=1,
    max_size=3,
    unique_by=lambda gap: gap.first,
)
LEDGERS = st.builds(
    Ledger,
    topic_id=st.text(max_size=22),
    generation=st.integers(1, 50),
    positions=st.dictionaries(PARTITIONS, st.builds(Position, OFFSETS, ROWS), max_size=5),
    added=st.dictionaries(PARTITIONS, st.builds(Range, OFFSETS, OFFSETS, ROWS), max_size=5),
    origin=st.dictionaries(PARTITIONS, OFFSETS, max_size=3),
    accepted=st.dictionaries(
        PARTITIONS, ACCEPTED.map(lambda gaps: tuple(sorted(gaps, key=lambda gap: gap.first))), max_size=3
    ),
)
ONE = Ledger("topic", 1, {0: Position(5, 4)}, {0: Range(0, 5, 4)}, {})


@EXAMPLES
@given(LEDGERS, st.none() | st.integers(1, 2**62))
def test_what_is_written_is_read(ledger: Ledger, snapshot_id: int | None) -> None:
    text = ledger.to_json(snapshot_id=snapshot_id)
    assert Ledger.from_json(text) == ledger
    assert text.isascii()
    assert " " not in text.replace(json.dumps(ledger.topic_id), "")
    assert json.loads(text).get("snapshot") == snapshot_id


def test_the_same_ledger_is_always_the_same_text() -> None:
    forth = Ledger("t", 1, {0: Position(1), 10: Position(2), 2: Position(3)}, {}, {})
    back = Ledger("t", 1, {2: Position(3), 10: Position(2), 0: Position(1)}, {}, {})
    assert forth.to_json() == back.to_json()


def test_the_first_ledger_begins_where_the_log_does() -> None:
    ledger = Ledger.begin("topic", {0: 0, 1: 40})
    assert (ledger.generation, ledger.added, ledger.origin) == (1, {}, {1: 40})
    assert [ledger.next(partition) for partition in (0, 1, 2)] == [0, 40, 0]
    later = ledger.advanced({1: Range(40, 50, 49), 0: Range(0, 3, 2)})
    assert later.origin == {1: 40}
    assert later.at_origin() == ledger


@EXAMPLES
@given(LEDGERS, st.dictionaries(PARTITIONS, st.builds(Range, OFFSETS, OFFSETS, ROWS), max_size=4))
def test_a_batch_moves_its_partitions_and_no_other(ledger: Ledger, ranges: dict[int, Range]) -> None:
    after = ledger.advanced(ranges)
    assert after.added == ranges
    assert (after.topic_id, after.generation, after.origin) == (ledger.topic_id, ledger.generation, ledger.origin)
    assert after.accepted == ledger.accepted
    for partition, covered in ranges.items():
        assert after.next(partition) == covered.end
        before = ledger.positions.get(partition, Position(0))
        expected = before.last_row if covered.last_row is None else covered.last_row
        assert after.positions[partition].last_row == expected
    untouched = set(ledger.positions) - set(ranges)
    assert {p: after.positions[p] for p in untouched} == {p: ledger.positions[p] for p in untouched}
    assert set(after.positions) == set(ledger.positions) | set(ranges)


def large(partitions: int) -> Ledger:
    places = range(partitions)
    return Ledger(
        "a" * 22,
        1,
        {p: Position(10**12 + p, 10**12) for p in places},
        {p: Range(10**12, 10**12 + p, 10**12) for p in places},
        {},
    )


def test_a_ledger_of_hundreds_of_partitions_fits() -> None:
    assert len(large(300).to_json(snapshot_id=2**62)) < MAX_BYTES


def test_a_ledger_that_is_too_large_stops_the_product() -> None:
    with pytest.raises(ProductStopped, match="larger than 32,768 bytes") as caught:
        large(2_000).to_json()
    assert caught.value.hint


DAMAGED = [
    "",
    "{",
    "null",
    "[]",
    "5",
    '"text"',
    "{}",
    '{"v":1}',
    '{"v":1,"topic":"t","generation":1,"positions":{}}',
    '{"v":1,"topic":5,"generation":1,"positions":{},"added":{}}',
    '{"v":1,"topic":"t","generation":"1","positions":{},"added":{}}',
    '{"v":1,"topic":"t","generation":1,"positions":[],"added":{}}',
    '{"v":1,"topic":"t","generation":1,"positions":{"x":[1,null]},"added":{}}',
    '{"v":1,"topic":"t","generation":1,"positions":{"0":[1]},"added":{}}',
    '{"v":1,"topic":"t","generation":1,"positions":{"0":[1,2,3]},"added":{}}',
    '{"v":1,"topic":"t","generation":1,"positions":{"0":["1",null]},"added":{}}',
    '{"v":1,"topic":"t","generation":1,"positions":{"0":[1.5,null]},"added":{}}',
    '{"v":1,"topic":"t","generation":1,"positions":{"0":[-1,null]},"added":{}}',
    '{"v":1,"topic":"t","generation":1,"positions":{"0":[true,null]},"added":{}}',
    '{"v":1,"topic":"t","generation":1,"positions":{"0":[null,null]},"added":{}}',
    '{"v":1,"topic":"t","generation":1,"positions":{"0":[1,"2"]},"added":{}}',
    '{"v":1,"topic":"t","generation":1,"positions":{},"added":{"0":[1,2]}}',
    '{"v":1,"topic":"t","generation":1,"positions":{},"added":{},"origin":[]}',
    '{"v":1,"topic":"t","generation":1,"positions":{},"added":{},"origin":{"0":"x"}}',
    '{"v":1,"topic":"t","generation":1,"positions":{},"added":{},"accepted":[]}',
    '{"v":1,"topic":"t","generation":1,"positions":{},"added":{},"accepted":{"0":[5]}}',
    '{"v":1,"topic":"t","generation":1,"positions":{},"added":{},"accepted":{"0":[[5,7]]}}',
    '{"v":1,"topic":"t","generation":1,"positions":{},"added":{},"accepted":{"0":[[5,7,"x"]]}}',
    '{"v":1,"topic":"t","generation":1,"positions":{},"added":{},"accepted":{"0":[[5,7,253402300800]]}}',
    '{"v":1,"topic":"t","generation":1,"positions":{"0":[9223372036854775808,null]},"added":{}}',
    "[" * 100_000,
]


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_ledger_stops_the_product(text: str) -> None:
    with pytest.raises(DamagedLedger, match="cannot be read") as caught:
        Ledger.from_json(text)
    assert "headrace ledger repair" in str(caught.value.hint)


@EXAMPLES
@given(st.data())
def test_no_damage_raises_anything_else(data: st.DataObject) -> None:
    text = Ledger("t", 1, {0: Position(5, 4)}, {0: Range(0, 5, 4)}, {0: 3}).to_json()
    start = data.draw(st.integers(0, len(text)))
    stop = data.draw(st.integers(start, len(text)))
    put = data.draw(st.text('{}[]":,019ntruel-.', max_size=3))
    with contextlib.suppress(ProductStopped):
        Ledger.from_json(text[:start] + put + text[stop:])


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_a_ledger_of_another_format_is_not_guessed_at(version: Any) -> None:
    document = {**json.loads(ONE.to_json()), "v": version}
    with pytest.raises(ProductStopped, match="has format") as caught:
        Ledger.from_json(json.dumps(document))
    assert "upgrade" in str(caught.value.hint)
    assert not isinstance(caught.value, DamagedLedger), "a ledger of a newer headrace must not be offered for repair"


# --- the walk ---


@dataclass
class Snapshot:
    snapshot_id: int
    parent_snapshot_id: int | None
    sequence_number: int | None
    ledger: Ledger | None = None
    summary: Any = field(init=False)

    def __post_init__(self) -> None:
        properties = {SUMMARY_KEY: self.ledger.to_json()} if self.ledger else {}
        self.summary = SimpleNamespace(additional_properties=properties)


def walked(*snapshots: Snapshot) -> Walk:
    by_id = {snapshot.snapshot_id: snapshot for snapshot in snapshots}
    return walk(snapshots[0] if snapshots else None, by_id.get)


def test_a_table_without_snapshots_is_at_its_start() -> None:
    assert walked() == Walk(None, whole=True)


def test_the_first_ledger_on_the_way_counts() -> None:
    older = Ledger("topic", 1, {0: Position(1)}, {}, {})
    assert walked(Snapshot(2, 1, 2, ONE), Snapshot(1, None, 1, older)) == Walk(ONE, whole=True, snapshot_id=2)
    passed = Snapshot(3, 2, 3)
    assert walked(passed, Snapshot(2, 1, 2, ONE), Snapshot(1, None, 1, older)) == Walk(ONE, whole=True, snapshot_id=2)


def test_only_the_first_sequence_number_is_the_start() -> None:
    assert walked(Snapshot(2, 1, 2), Snapshot(1, None, 1)) == Walk(None, whole=True)
    assert walked(Snapshot(2, None, 2)) == Walk(None, whole=False)
    assert walked(Snapshot(2, None, None)) == Walk(None, whole=False)
    assert walked(Snapshot(2, 1, 2)) == Walk(None, whole=False)


def test_a_snapshot_without_a_summary_is_passed_over() -> None:
    bare = Snapshot(2, 1, 2)
    bare.summary = None
    assert walked(bare, Snapshot(1, None, 1, ONE)) == Walk(ONE, whole=True, snapshot_id=1)


def test_a_damaged_ledger_is_not_passed_over() -> None:
    broken = Snapshot(2, 1, 2)
    broken.summary.additional_properties[SUMMARY_KEY] = "{"
    with pytest.raises(ProductStopped):
        walked(broken, Snapshot(1, None, 1, ONE))


# --- the property ---


def test_the_property_serves_if_it_agrees_with_the_rows() -> None:
    ledger = Ledger("topic", 2, {0: Position(9, 7), 1: Position(4)}, {}, {})
    assert trusted_property(ledger.to_json(snapshot_id=5), {0: 7}) == ledger


@pytest.mark.parametrize("rows", [{}, {0: 6}, {0: 8}, {0: 7, 1: 3}, {1: 7}])
def test_a_property_that_contradicts_the_rows_stops_the_product(rows: dict[int, int]) -> None:
    ledger = Ledger("topic", 2, {0: Position(9, 7), 1: Position(4)}, {}, {})
    with pytest.raises(DamagedLedger) as caught:
        trusted_property(ledger.to_json(), rows)
    shown = ", ".join(f"{p}:{row}" for p, row in rows.items()) or "none"
    assert f"property 0:7, rows {shown}" in str(caught.value)
    assert "headrace ledger repair" in str(caught.value.hint)


def test_no_property_stops_the_product() -> None:
    with pytest.raises(DamagedLedger, match="property missing, rows 0:7"):
        trusted_property(None, {0: 7})


# --- gaps ---


@EXAMPLES
@given(LEDGERS, st.dictionaries(PARTITIONS, OFFSETS, max_size=5))
def test_a_gap_is_what_kafka_deleted_before_the_table_held_it(ledger: Ledger, lows: dict[int, int]) -> None:
    expected = [(p, ledger.next(p), low) for p, low in sorted(lows.items()) if ledger.next(p) < low]
    assert list(gaps(ledger, lows)) == expected


def test_a_partition_that_was_added_later_starts_at_0() -> None:
    assert list(gaps(ONE, {0: 5, 3: 2})) == [(3, 0, 2)]


# --- accepted gaps ---


def test_an_accepted_gap_moves_positions_behind_it_and_is_recorded() -> None:
    ledger = Ledger("topic", 1, {0: Position(5, 4), 1: Position(9, 8)}, {1: Range(8, 9, 8)}, {1: 2})
    after = ledger.accepting({0: Accepted(5, 20, 1_000), 3: Accepted(0, 7, 1_000)})
    assert after.positions == {0: Position(20, 4), 1: Position(9, 8), 3: Position(7)}
    assert after.accepted == {0: (Accepted(5, 20, 1_000),), 3: (Accepted(0, 7, 1_000),)}
    assert (after.added, after.origin, after.topic_id) == ({}, {1: 2}, "topic")
    assert list(gaps(after, {0: 20, 1: 9, 3: 7})) == []


def test_gaps_that_touch_become_one() -> None:
    once = ONE.accepting({0: Accepted(5, 20, 1_000)})
    twice = once.accepting({0: Accepted(20, 30, 2_000)})
    assert twice.accepted == {0: (Accepted(5, 30, 2_000),)}
    between = twice.advanced({0: Range(30, 40, 39)})
    apart = between.accepting({0: Accepted(40, 50, 3_000)})
    assert apart.accepted == {0: (Accepted(5, 30, 2_000), Accepted(40, 50, 3_000))}


def test_the_record_of_accepted_gaps_is_optional_in_the_ledger() -> None:
    """A ledger written before there was such a record is read, and one without gaps does not mention it."""
    assert Ledger.from_json(ONE.to_json()) == ONE
    assert "accepted" not in ONE.to_json()


@pytest.mark.parametrize("partitions", [300, 500])
def test_accepted_gaps_never_make_a_ledger_too_large(partitions: int) -> None:
    """Nothing depends on them: the newest that there is room for are kept."""
    ledger = large(partitions)
    for turn in range(8):
        begin = 10**12 + turn * 1_000
        ledger = ledger.accepting({p: Accepted(begin, begin + 10, 1_700_000_000 + turn) for p in range(partitions)})
    text = ledger.to_json(snapshot_id=2**62)
    assert len(text) <= MAX_BYTES
    read = Ledger.from_json(text)
    assert read.positions == ledger.positions
    kept = [gap.at_s for gaps_of in read.accepted.values() for gap in gaps_of]
    assert kept
    assert set(kept) == {1_700_000_007}


def test_a_table_that_holds_nothing_has_accepted_nothing() -> None:
    assert ONE.accepting({0: Accepted(5, 20, 1)}).at_origin() == Ledger("topic", 1, {0: Position(0)}, {}, {})
