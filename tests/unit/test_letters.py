"""Dead letters as messages, what is read of them again, and which of them can be put back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.schemas.names import DEAD_LETTER_TABLE, ProductName, dead_letter_table_of
from headrace.sinks.batch import Chunk, Letter
from headrace.sinks.dead_letters.message import Kept, headers_of, kept_letter
from headrace.sinks.dead_letters.redriving import (
    Seen,
    Wish,
    by_partition,
    frames_from,
    only,
    place_of,
    places_in,
    sorted_by,
)
from headrace.streams.ledger import Ledger, Position
from headrace.streams.walk import trusted_property

EXAMPLES = settings(max_examples=100, deadline=None)
LEDGER = Ledger("a-topic", 3, {0: Position(10, 8), 1: Position(5)}, {}, {})
NAMES = st.sampled_from(
    ["trace", "", "headrace.reason", "headrace.topic-id", "headrace.offset", "headrace.generation", "ünï"]
)
HEADERS = st.lists(st.tuples(NAMES, st.none() | st.binary(max_size=4)), max_size=5).map(tuple)
LETTERS = st.builds(
    Letter,
    partition=st.integers(0, 2),
    offset=st.integers(0, 12) | st.just(2**62),
    schema_id=st.none() | st.sampled_from([0, 7, 2**32 - 1]),
    reason=st.sampled_from(["null-value", "undecodable"]),
    key=st.none() | st.binary(max_size=3),
    value=st.none() | st.binary(max_size=3),
    timestamp_ms=st.sampled_from([-1, 0, 1_700_000_000_000]),
    headers=HEADERS,
)
KEPT = st.builds(
    Kept,
    LETTERS,
    st.sampled_from(["a-topic", "other"]),
    st.sampled_from([None, 2, 3]),
    st.booleans(),
    st.integers(0, 9),
)


def message_of(letter: Letter) -> list[tuple[str, bytes | None]]:
    """The headers of a letter as a consumer gets them."""
    sent = headers_of(letter, "shop.orders", LEDGER)
    return [(name, value.encode() if isinstance(value, str) else value) for name, value in sent]


@given(LETTERS)
@EXAMPLES
def test_a_letter_is_read_as_it_was_written_whatever_headers_its_original_had(letter: Letter) -> None:
    kept = kept_letter(message_of(letter), letter.key, letter.value, 5)
    assert kept == Kept(letter, "a-topic", 3, timed=True, refused_ms=5)
    # Whoever reads headers by name gets headrace's.
    by_name = dict(message_of(letter))
    assert by_name["headrace.offset"] == str(letter.offset).encode()
    assert by_name["headrace.topic-id"] == b"a-topic"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("trace", b"1")],
        [("headrace.reason", b"undecodable")],
        [
            ("headrace.reason", b"r"),
            ("headrace.topic-id", b"t"),
            ("headrace.partition", b"x"),
            ("headrace.offset", b"1"),
        ],
        [
            ("headrace.reason", b"r"),
            ("headrace.topic-id", b"t"),
            ("headrace.partition", b"-1"),
            ("headrace.offset", b"1"),
        ],
        [
            ("headrace.reason", None),
            ("headrace.topic-id", b"t"),
            ("headrace.partition", b"0"),
            ("headrace.offset", b"1"),
        ],
    ],
)
def test_what_is_no_letter_is_none(headers: list[tuple[str, bytes | None]]) -> None:
    assert kept_letter(headers, None, b"v", 0) is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("partition", str(2**31)),
        ("offset", str(2**63)),
        ("generation", "-1"),
        ("schema-id", str(2**32)),
        ("timestamp-ms", str(2**63)),
        ("timestamp-ms", str(-(2**63))),
    ],
)
def test_a_message_with_a_number_that_no_letter_has_is_none(name: str, text: str) -> None:
    headers = message_of(Letter(1, 4, 7, "undecodable", b"k", b"v"))
    forged = [(each, text.encode() if each == f"headrace.{name}" else value) for each, value in headers]
    assert kept_letter(headers, b"k", b"v", 0) is not None
    assert kept_letter(forged, b"k", b"v", 0) is None


def test_a_letter_of_an_earlier_headrace_says_neither_generation_nor_timestamp() -> None:
    letter = Letter(1, 4, 7, "undecodable", b"k", b"v")
    old = [each for each in message_of(letter) if each[0] not in {"headrace.generation", "headrace.timestamp-ms"}]
    kept = kept_letter(old, b"k", b"v", 0)
    assert kept == Kept(letter, "a-topic", None, timed=False, refused_ms=0)
    assert kept.of(LEDGER)
    assert not kept.of(replace(LEDGER, topic_id="other"))


@given(st.lists(KEPT, max_size=12))
@EXAMPLES
def test_each_letter_is_sorted_once_and_only_what_lies_before_the_position_passes(kept: list[Kept]) -> None:
    found = sorted_by(LEDGER, kept)
    assert len(found.passed) + found.ahead + len(found.untimed) + found.others == len(kept)
    for each in found.passed:
        assert (each.topic_id, each.timed) == ("a-topic", True)
        assert each.generation in {None, 3}
        assert each.letter.offset < LEDGER.next(each.letter.partition)
    assert sorted_by(None, kept).ahead == len(kept)


@given(st.lists(st.lists(KEPT, max_size=6), max_size=4))
@EXAMPLES
def test_repeats_count_once_in_a_portion_and_across_portions(portions: list[list[Kept]]) -> None:
    seen = Seen()
    news = [each for portion in portions for each in seen.new(portion)]
    letters = [which(each) for each in news]
    assert len(letters) == len(set(letters))
    assert set(letters) == {which(each) for portion in portions for each in portion}


def which(kept: Kept) -> tuple[object, ...]:
    """What two letters have in common that are one: a topic that was made anew has the same offsets."""
    return kept.topic_id, kept.generation, kept.timed, place_of(kept.letter)


@given(st.lists(LETTERS, max_size=10, unique_by=place_of))
@EXAMPLES
def test_frames_hold_each_letter_in_the_order_of_its_offsets(letters: list[Letter]) -> None:
    found = []
    for frame in frames_from(letters):
        assert (np.diff(frame.offsets) > 0).all()
        rows = zip(frame.offsets.tolist(), frame.timestamps_ms.tolist(), frame.keys, frame.values, strict=True)
        found += [(frame.partition, offset, stamp, key.as_py(), value.as_py()) for offset, stamp, key, value in rows]
    wanted = [(each.partition, each.offset, each.timestamp_ms, each.key, each.value) for each in letters]
    assert sorted(found, key=str) == sorted(wanted, key=str)


def test_places_and_offsets_are_the_same() -> None:
    places = {(1, 5), (0, 7), (1, 2)}
    grouped = by_partition(places)
    assert {partition: offsets.tolist() for partition, offsets in grouped.items()} == {0: [7], 1: [2, 5]}
    assert places_in(grouped) == places


def test_only_the_rows_at_some_places_are_left_of_chunks() -> None:
    events = pa.array([{"id": "a"}, {"id": "b"}, {"id": "c"}])
    chunk = Chunk(1, 7, events, np.arange(4, 7), np.arange(3), pa.array([b"x", b"y", None], pa.binary()))
    (left,) = only([chunk, replace(chunk, partition=2)], {(1, 6), (1, 4), (3, 5)})
    assert (left.offsets.tolist(), left.timestamps_ms.tolist(), left.keys.to_pylist()) == ([4, 6], [0, 2], [b"x", None])
    assert left.events is not None
    assert left.events.to_pylist() == [{"id": "a"}, {"id": "c"}]


@pytest.mark.parametrize(
    ("wish", "covered"),
    [
        (Wish(), True),
        (Wish(reason="undecodable"), True),
        (Wish(reason="null-value"), False),
        (Wish(partition=1, offset=4), True),
        (Wish(partition=1, offset=5), False),
        (Wish(partition=2), False),
    ],
)
def test_a_wish_covers_letters(wish: Wish, covered: bool) -> None:
    assert wish.covers(Letter(1, 4, 7, "undecodable", None, b"v")) is covered


POSITIONS = st.dictionaries(st.integers(0, 3), st.tuples(st.integers(5, 30), st.none() | st.integers(0, 4)), min_size=1)


@given(POSITIONS, st.dictionaries(st.integers(0, 3), st.integers(0, 4)))
@EXAMPLES
def test_a_redriven_ledger_keeps_positions_and_tells_the_last_rows(
    positions: dict[int, tuple[int, int | None]], rows: dict[int, int]
) -> None:
    ledger = Ledger("t", 1, {p: Position(*at) for p, at in positions.items()}, {}, {})
    rows = {p: offset for p, offset in rows.items() if p in positions}
    after = ledger.redriven(rows)
    assert {p: at.next for p, at in after.positions.items()} == {p: at.next for p, at in ledger.positions.items()}
    assert after.added == {}
    last_rows = {
        p: max(offsets)
        for p in positions
        if (offsets := [each for each in (positions[p][1], rows.get(p)) if each is not None])
    }
    # What the walk's fall-off trusts: the highest offset of each partition in the table.
    assert trusted_property(after.to_json(snapshot_id=1), last_rows) == after


def test_the_table_of_dead_letters_is_named_after_its_product() -> None:
    assert str(dead_letter_table_of(ProductName("shop", "orders"))) == f"shop.orders{DEAD_LETTER_TABLE}"
