"""The vectorised decoder against fastavro: the same values accepted, the same refused, whatever the bytes are."""

from __future__ import annotations

import datetime as dt
import io
import json
import math
import random
import struct
from decimal import Decimal
from itertools import count
from typing import Any
from uuid import UUID

import fastavro
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.schemas.avro import AvroSchema
from headrace.schemas.types import unsupported
from headrace.streams.decode import _SENTINELS, HEADER_BYTES, MAX_BLOCK_ROWS, Decoder

# A decoder that never ends is the fault that matters most here: no test may wait for it long.
pytestmark = pytest.mark.timeout(60)

SCHEMA_ID = 7
HEADER = struct.pack(">bI", 0, SCHEMA_ID)
EXAMPLES = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def record(*fields: Any, name: str = "Event") -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": n, "type": t} for n, t in fields]}


def schema_of(*fields: Any) -> AvroSchema:
    return AvroSchema.parse(json.dumps(record(*fields)))


def decimal_of(precision: int, scale: int) -> dict[str, Any]:
    return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}


def long(value: int) -> bytes:
    """Avro's zigzag varint, of values that no encoder would write as well."""
    value = ((value << 1) ^ (value >> 63)) & (2**64 - 1)
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def text(value: bytes) -> bytes:
    return long(len(value)) + value


def encoded(schema: AvroSchema, value: Any) -> bytes:
    body = io.BytesIO()
    fastavro.schemaless_writer(body, schema.parsed, value)
    return HEADER + body.getvalue()


def naive(schema: AvroSchema, value: bytes) -> Any:
    """What fastavro reads; None: it cannot, or not to the end."""
    body = io.BytesIO(value)
    if body.read(HEADER_BYTES) != HEADER:
        return None
    try:
        event = fastavro.schemaless_reader(body, schema.parsed, None)
    except Exception:  # noqa: BLE001 - fastavro raises all kinds of errors
        return None
    return event if body.tell() == len(value) else None


def alike(left: Any, right: Any) -> bool:
    """Compare what Arrow gives with what fastavro gives: maps are pairs, uuids bytes, times of UTC in either case."""
    if isinstance(right, dict) and isinstance(left, list):
        left = dict(left)
    if isinstance(right, dict):
        return isinstance(left, dict) and left.keys() == right.keys() and all(alike(left[k], right[k]) for k in right)
    if isinstance(right, list):
        return len(left) == len(right) and all(map(alike, left, right))
    if isinstance(right, UUID):
        return bool(left == right.bytes)
    if isinstance(right, float):
        return (math.isnan(left) and math.isnan(right)) or bool(left == right)
    return bool(left == right)


def events_of(schema: AvroSchema, values: list[bytes]) -> tuple[list[dict[str, Any]], tuple[int, ...]]:
    decoded = Decoder(schema, SCHEMA_ID).decode(pa.array(values, pa.binary()))
    names = {field.name for field in schema.record.fields}
    return [{name: row[name] for name in names} for row in decoded.events.to_pylist()], decoded.refused


def check(schema: AvroSchema, values: list[bytes]) -> None:
    expected = [naive(schema, value) for value in values]
    rows, refused = events_of(schema, values)
    assert refused == tuple(row for row, event in enumerate(expected) if event is None)
    kept = [event for event in expected if event is not None]
    assert len(rows) == len(kept)
    for row, event in zip(rows, kept, strict=True):
        assert alike(row, event)


# --- random schemas, random values, random damage ---


def leaves(names: Any) -> st.SearchStrategy[tuple[Any, st.SearchStrategy[Any]]]:
    """Pairs of a type that holds no other and values of it."""
    utc = dt.UTC
    days = st.dates()
    naive_times = st.datetimes(min_value=dt.datetime(1, 1, 2), max_value=dt.datetime(9999, 12, 30))  # noqa: DTZ001
    millis = naive_times.map(lambda t: t.replace(microsecond=t.microsecond // 1000 * 1000))
    amounts = st.integers(-(10**9) + 1, 10**9 - 1).map(lambda n: Decimal(n).scaleb(-2))
    large = st.integers(-(10**38) + 1, 10**38 - 1).map(lambda n: Decimal((n < 0, tuple(map(int, str(abs(n)))), -10)))
    strings = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)

    def named(kind: str, **more: Any) -> Any:
        return st.builds(lambda: {"type": kind, "name": f"N{next(names)}", **more})

    def timed(kind: str, values: st.SearchStrategy[Any]) -> Any:
        return st.tuples(st.just({"type": "long", "logicalType": kind}), st.just(values))

    return st.one_of(
        st.sampled_from(
            [
                ("boolean", st.booleans()),
                ("int", st.integers(-(2**31), 2**31 - 1)),
                ("long", st.integers(-(2**63), 2**63 - 1)),
                ("float", st.floats(width=32)),
                ("double", st.floats()),
                ("bytes", st.binary(max_size=12)),
                ("string", strings),
                ({"type": "string", "logicalType": "uuid"}, st.uuids()),
                ({"type": "int", "logicalType": "date"}, days),
                (decimal_of(9, 2), amounts),
                (decimal_of(38, 10), large),
            ]
        ),
        timed("timestamp-millis", millis.map(lambda t: t.replace(tzinfo=utc))),
        timed("timestamp-micros", naive_times.map(lambda t: t.replace(tzinfo=utc))),
        timed("local-timestamp-millis", millis),
        timed("local-timestamp-micros", naive_times),
        st.tuples(named("enum", symbols=["A", "B", "C"]), st.just(st.sampled_from("ABC"))),
        st.tuples(named("fixed", size=3), st.just(st.binary(min_size=3, max_size=3))),
        st.tuples(named("fixed", size=16, logicalType="uuid"), st.just(st.uuids().map(lambda u: u.bytes))),
        st.tuples(named("fixed", size=5, logicalType="decimal", precision=9, scale=2), st.just(amounts)),
    )


def optional(pair: Any) -> Any:
    kind, values = pair
    either = st.sampled_from([["null", kind], [kind, "null"]])
    return st.tuples(either, st.just(st.one_of(st.none(), values)))


def nested(names: Any) -> Any:
    def extend(inner: Any) -> Any:
        def members(pairs: Any) -> Any:
            fields = [(f"f{i}", kind) for i, (kind, _) in enumerate(pairs)]
            values = st.fixed_dictionaries({f"f{i}": values for i, (_, values) in enumerate(pairs)})
            return st.builds(lambda: record(*fields, name=f"N{next(names)}")).map(lambda kind: (kind, values))

        return st.one_of(
            inner.map(lambda p: ({"type": "array", "items": p[0]}, st.lists(p[1], max_size=3))),
            inner.map(
                lambda p: (
                    {"type": "map", "values": p[0]},
                    st.dictionaries(st.text("abc", max_size=3), p[1], max_size=3),
                )
            ),
            st.lists(inner, min_size=1, max_size=3).flatmap(members),
            inner.filter(lambda p: not isinstance(p[0], list)).flatmap(optional),
        )

    return st.recursive(leaves(names), extend, max_leaves=5)


@st.composite
def schemas_and_events(draw: st.DrawFn) -> tuple[AvroSchema, list[bytes]]:
    """A random schema and encoded events of it."""
    pairs = draw(st.lists(nested(count()), min_size=1, max_size=4))
    schema = schema_of(*((f"c{i}", kind) for i, (kind, _) in enumerate(pairs)))
    assert not unsupported(schema)
    events = draw(
        st.lists(st.fixed_dictionaries({f"c{i}": v for i, (_, v) in enumerate(pairs)}), min_size=1, max_size=8)
    )
    return schema, [encoded(schema, event) for event in events]


def damaged(value: bytes, other: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(value))
    bit = bytearray(value)
    bit[place] ^= 1 << chance.randrange(8)
    middle = bytearray(value)
    middle[place] = chance.randrange(256)
    return chance.choice(
        [
            b"",
            value[:HEADER_BYTES],
            value[:place],
            value[:-1],
            value + bytes([chance.randrange(256)]),
            value + other,
            value + other[HEADER_BYTES:],
            value + bytes(8),
            value[:place] + other[HEADER_BYTES:] + value[place:],
            value[:HEADER_BYTES] + chance.randbytes(len(value)),
            b"\x01" + value[1:],
            struct.pack(">bI", 0, SCHEMA_ID + 1) + value[HEADER_BYTES:],
            value[:HEADER_BYTES] + long(-(2**63)) + value[HEADER_BYTES:],
            value[:HEADER_BYTES] + long(2**62) + value[HEADER_BYTES:],
            value[:place] + b"\xff" * 10 + value[place:],
            bytes(bit),
            bytes(middle),
        ]
    )


@EXAMPLES
@given(schemas_and_events())
def test_what_fastavro_wrote_is_decoded_alike(drawn: tuple[AvroSchema, list[bytes]]) -> None:
    check(*drawn)


@EXAMPLES
@given(schemas_and_events(), st.integers(0, 2**32))
def test_damaged_values_never_pass_for_others(drawn: tuple[AvroSchema, list[bytes]], seed: int) -> None:
    """Whatever the decoder accepts, fastavro reads alike; whatever was left whole is accepted, in its place."""
    schema, values = drawn
    chance = random.Random(seed)
    whole = [chance.random() < 0.5 for _ in range(24)]
    mixed = [values[i % len(values)] for i in range(24)]
    mixed = [v if ok else damaged(v, chance.choice(values), chance) for v, ok in zip(mixed, whole, strict=True)]
    rows, refused = events_of(schema, mixed)
    accepted = [row for row in range(len(mixed)) if row not in refused]
    assert len(rows) == len(accepted)
    # To DataFusion any branch of a union that is not null's is the other one (test_a_branch_that_is_not_there).
    lenient = '["null",' in schema.text or ',"null"]' in schema.text
    for row, event in zip(accepted, rows, strict=True):
        expected = naive(schema, mixed[row])
        assert lenient or expected is not None
        assert expected is None or alike(event, expected)
    assert not [row for row in refused if mixed[row] in values]
    # What is refused does not depend on the values around it.
    for row in range(0, len(mixed), 5):
        assert lenient or (events_of(schema, [mixed[row]])[1] == (0,)) == (row in refused)


# --- single poisons ---

TIME_MILLIS = {"type": "int", "logicalType": "time-millis"}
TIME_MICROS = {"type": "long", "logicalType": "time-micros"}
DURATION = {"type": "fixed", "name": "D", "size": 12, "logicalType": "duration"}
LIMITS: list[tuple[str, Any, bytes, bool]] = [
    ("a string longer than the message", "string", long(1 << 40) + b"abc", False),
    ("a string of the longest length", "string", long(2**63 - 1), False),
    ("a string of negative length", "string", long(-5) + b"abcde", False),
    ("bytes longer than memory", "bytes", long(1 << 45), False),
    ("invalid UTF-8", "string", text(b"\xff\xfe"), False),
    ("a surrogate in UTF-8", "string", text(b"\xed\xa0\x80"), False),
    ("a zero character", "string", text(b"a\0b"), True),
    ("an empty string", "string", text(b""), True),
    ("a varint without end", "long", b"\x80" * 100, False),
    ("a varint of eleven bytes", "long", b"\x80" * 10 + b"\x01", False),
    ("the smallest long", "long", long(-(2**63)), True),
    ("an int of 33 bits", "int", long(2**31), False),
    ("an int of 32 bits", "int", long(-(2**31)), True),
    ("nothing", "int", b"", False),
    ("a branch that is not there", ["null", "string"], long(2), False),
    ("a branch far away", ["null", "string"], long(1 << 40), False),
    ("a symbol that is not there", {"type": "enum", "name": "X", "symbols": ["A", "B"]}, long(2), False),
    ("a symbol before the first", {"type": "enum", "name": "X", "symbols": ["A", "B"]}, long(-1), False),
    ("an array of a million million", {"type": "array", "items": "int"}, long(1 << 40), False),
    ("an array of more than it holds", {"type": "array", "items": "int"}, long(1 << 60) + bytes(50), False),
    ("the largest array", {"type": "array", "items": "string"}, long(2**63 - 1), False),
    ("the smallest count", {"type": "array", "items": "string"}, long(-(2**63)) + long(3), False),
    ("an array without its end", {"type": "array", "items": "int"}, long(1) + long(5), False),
    ("an array with its size", {"type": "array", "items": "int"}, long(-2) + long(2) + long(1) * 2 + long(0), True),
    ("an array of two blocks", {"type": "array", "items": "int"}, (long(1) + long(7)) * 2 + long(0), True),
    ("a map of more than it holds", {"type": "map", "values": "int"}, long(1 << 50) + text(b"k"), False),
    ("a map with a key twice", {"type": "map", "values": "int"}, long(2) + (text(b"k") + long(1)) * 2 + long(0), False),
    ("a map with invalid UTF-8", {"type": "map", "values": "int"}, long(1) + text(b"\xff") + long(2) + long(0), False),
    ("a decimal of no bytes", decimal_of(9, 2), text(b""), True),
    ("the largest decimal", decimal_of(9, 2), text((10**9 - 1).to_bytes(5, "big")), True),
    ("one more than the largest", decimal_of(9, 2), text((10**9).to_bytes(5, "big")), False),
    ("the smallest decimal", decimal_of(9, 2), text((1 - 10**9).to_bytes(5, "big", signed=True)), True),
    ("one less than the smallest", decimal_of(9, 2), text((-(10**9)).to_bytes(5, "big", signed=True)), False),
    ("the largest of 38 digits", decimal_of(38, 0), text((10**38 - 1).to_bytes(16, "big")), True),
    ("one of 39 digits", decimal_of(38, 0), text((10**38).to_bytes(16, "big")), False),
    ("a padded decimal", decimal_of(9, 2), text(b"\xff" * 20), True),
    ("a decimal of 17 bytes", decimal_of(38, 0), text(b"\x7f" * 17), False),
    ("a decimal of 33 bytes", decimal_of(38, 0), text(b"\x7f" * 33), False),
    ("a decimal of 1 MB", decimal_of(38, 0), text(b"\x7f" * (1 << 20)), False),
    ("no uuid", {"type": "string", "logicalType": "uuid"}, text(b"hello"), False),
    ("no uuid of the right length", {"type": "string", "logicalType": "uuid"}, text(b"z" * 36), False),
    ("the last day", {"type": "int", "logicalType": "date"}, long(2_932_896), True),
    ("the day behind the last", {"type": "int", "logicalType": "date"}, long(2_932_897), False),
    ("the first day", {"type": "int", "logicalType": "date"}, long(-719_162), True),
    ("the day before the first", {"type": "int", "logicalType": "date"}, long(-719_163), False),
    ("a day in 5 million years", {"type": "int", "logicalType": "date"}, long(2**31 - 1), False),
    (
        "micros written as millis",
        {"type": "long", "logicalType": "timestamp-millis"},
        long(1_700_000_000_000_000),
        False,
    ),
    ("the latest millis", {"type": "long", "logicalType": "timestamp-millis"}, long(2**63 - 1), False),
    ("the latest micros", {"type": "long", "logicalType": "local-timestamp-micros"}, long(2**63 - 1), False),
    ("the earliest micros", {"type": "long", "logicalType": "timestamp-micros"}, long(-(2**63)), False),
    ("the last micros", {"type": "long", "logicalType": "timestamp-micros"}, long(253_402_300_799_999_999), True),
    ("midnight", TIME_MILLIS, long(0), True),
    ("before midnight", TIME_MILLIS, long(-1), False),
    ("the last millisecond of a day", TIME_MILLIS, long(86_399_999), True),
    ("the first millisecond of the next", TIME_MILLIS, long(86_400_000), False),
    ("a time of 33 bits", TIME_MILLIS, long(2**32), False),
    ("the last microsecond of a day", TIME_MICROS, long(86_399_999_999), True),
    ("the first microsecond of the next", TIME_MICROS, long(86_400_000_000), False),
    ("the latest time of day", TIME_MICROS, long(2**63 - 1), False),
    ("the earliest time of day", TIME_MICROS, long(-(2**63)), False),
    ("the latest nanosecond", {"type": "long", "logicalType": "timestamp-nanos"}, long(2**63 - 1), True),
    ("the earliest nanosecond", {"type": "long", "logicalType": "local-timestamp-nanos"}, long(-(2**63)), True),
    ("the longest duration", DURATION, b"\xff" * 12, True),
    ("a duration cut short", DURATION, b"\xff" * 11, False),
    ("the last of three branches", ["int", "null", "string"], long(2) + text(b"x"), True),
    ("null of three branches", ["int", "null", "string"], long(1), True),
    ("a fourth of three branches", ["int", "null", "string"], long(3) + text(b"x"), False),
    ("a branch before the first of three", ["int", "null", "string"], long(-1) + text(b"x"), False),
    ("a far branch of three", ["int", "null", "string"], long(1 << 40) + text(b"x"), False),
    ("the only branch", ["string"], long(0) + text(b"x"), True),
    ("a second of one branch", ["string"], long(1) + text(b"x"), False),
    ("a value of another branch", ["int", "string"], long(1) + long(5), False),
    ("a time that is none in a branch", ["string", TIME_MILLIS], long(1) + long(86_400_000), False),
    ("a time in a branch", ["string", TIME_MILLIS], long(1) + long(86_399_999), True),
    (
        "a day that is none in a branch's list",
        ["string", {"type": "array", "items": {"type": "int", "logicalType": "date"}}],
        long(1) + long(2) + long(0) + long(2**31 - 1) + long(0),
        False,
    ),
    ("a decimal that is too long in a branch", [decimal_of(2, 0), "null", "int"], long(0) + text(b"\x7f"), False),
]
NEIGHBOURS = 5


@pytest.mark.parametrize(("kind", "body", "good"), [row[1:] for row in LIMITS], ids=[row[0] for row in LIMITS])
def test_a_single_value(kind: Any, body: bytes, good: bool) -> None:
    """Each value alone, among whole values of its own schema, and below a list, a map and a record."""
    schema = schema_of(("a", kind))
    decoded = Decoder(schema, SCHEMA_ID).decode(pa.array([HEADER + body], pa.binary()))
    assert decoded.refused == (() if good else (0,))
    below = schema_of(("a", {"type": "array", "items": record(("m", {"type": "map", "values": kind}), name="R")}))
    wrapped = HEADER + long(1) + long(1) + text(b"k") + body + long(0) + long(0)
    empty = HEADER + long(0)
    values = [empty] * NEIGHBOURS + [wrapped] + [empty] * NEIGHBOURS
    decoded = Decoder(below, SCHEMA_ID).decode(pa.array(values, pa.binary()))
    assert decoded.refused == (() if good else (NEIGHBOURS,))
    assert len(decoded.events) == len(values) - len(decoded.refused)


def test_a_branch_that_is_not_there() -> None:
    """The one place where DataFusion accepts what fastavro refuses: a branch number beyond the two of an optional."""
    value = HEADER + long(2) + text(b"x")
    schema = schema_of(("a", ["null", "string"]))
    assert naive(schema, value) is None
    assert events_of(schema, [value]) == ([{"a": "x"}], ())


def test_a_value_under_null_is_nobodys_value() -> None:
    inner = record(("d", decimal_of(3, 0)), ("t", {"type": "long", "logicalType": "timestamp-millis"}), name="R")
    check(schema_of(("a", ["null", inner])), [HEADER + long(0), HEADER + long(1) + text(b"\1") + long(5)])


@pytest.mark.parametrize("value", [b"", b"\0", HEADER[:4], HEADER, b"\1" + HEADER[1:] + long(1)])
def test_a_value_without_a_whole_header_or_body_is_refused(value: bytes) -> None:
    check(schema_of(("a", "int")), [value])
    check(schema_of(("a", "int")), [HEADER + long(1), value, HEADER + long(2)])


# --- places in a block ---

ORDER = schema_of(("id", "long"), ("name", "string"), ("note", ["null", "string"]))
POISONS = [
    HEADER + long(9) + long(500) + b"short",
    HEADER + long(9) + text(b"name") + long(0) + b"\0",
    HEADER + long(9),
    HEADER,
]


def orders(rows: int) -> list[bytes]:
    return [
        HEADER + long(row) + text(b"n%d" % row) + long(row % 2) + (text(b"x") if row % 2 else b"")
        for row in range(rows)
    ]


@pytest.mark.parametrize("poison", POISONS)
@pytest.mark.parametrize("place", [0, 1, 511, 998, 999])
def test_one_poison_at_any_place(poison: bytes, place: int) -> None:
    values = orders(1_000)
    values[place] = poison
    rows, refused = events_of(ORDER, values)
    assert refused == (place,)
    assert [row["id"] for row in rows] == [row for row in range(1_000) if row != place]


def test_a_full_block_with_poison_in_it() -> None:
    values = orders(MAX_BLOCK_ROWS)
    places = (0, 1, 777, 40_000, MAX_BLOCK_ROWS - 1)
    for place in places:
        values[place] = POISONS[place % len(POISONS)]
    decoded = Decoder(ORDER, SCHEMA_ID).decode(pa.array(values, pa.binary()))
    assert decoded.refused == places
    expected = [row for row in range(MAX_BLOCK_ROWS) if row not in places]
    assert decoded.events.field("id").to_pylist() == expected


@pytest.mark.timeout(20)
def test_a_topic_of_another_schema_is_refused_quickly() -> None:
    """Half a minute a frame, as halving down to each value would take, is too long to find out that all are poison."""
    values = [POISONS[row % len(POISONS)] for row in range(20_000)]
    decoded = Decoder(ORDER, SCHEMA_ID).decode(pa.array(values, pa.binary()))
    assert decoded.refused == tuple(range(20_000))
    assert not len(decoded.events)


@pytest.mark.timeout(20)
def test_a_topic_of_unstorable_values_is_refused_quickly() -> None:
    schema = schema_of(("d", decimal_of(3, 0)))
    good, bad = HEADER + text(b"\1"), HEADER + text(b"\x7f\xff")
    decoded = Decoder(schema, SCHEMA_ID).decode(pa.array([good, bad] * 20_000, pa.binary()))
    assert decoded.refused == tuple(range(1, 40_000, 2))
    assert len(decoded.events) == 20_000


@pytest.mark.parametrize("poisons", [1, 2, 10, 255, 256, 257, 299, 300])
def test_many_poisons(poisons: int) -> None:
    values = orders(300)
    places = sorted(random.Random(poisons).sample(range(300), poisons))
    for place in places:
        values[place] = POISONS[place % len(POISONS)]
    rows, refused = events_of(ORDER, values)
    assert refused == tuple(places)
    assert [row["id"] for row in rows] == [row for row in range(300) if row not in places]


def test_two_truncated_values_that_would_add_up_are_refused() -> None:
    """The first swallows what follows it, the second makes up for it: only the sentinels tell."""
    whole = orders(4)
    glued = HEADER + long(1) + long(8 + HEADER_BYTES)
    check(ORDER, [whole[0], glued, b"", whole[3]])
    check(ORDER, [whole[0], whole[1] + whole[2], b"", whole[3]])
    check(ORDER, [whole[0], whole[1] + whole[2], whole[2][:7], whole[2][7:]])


def test_no_value_can_carry_its_own_sentinel() -> None:
    values = orders(3)
    decoded = Decoder(ORDER, SCHEMA_ID).decode(pa.array(values, pa.binary()))
    assert decoded.events.type.names == [field.name for field in ORDER.record.fields]
    sentinels = _SENTINELS.to_pylist()
    forged = values[0] + sentinels[0] + values[1]
    assert events_of(ORDER, [forged, b"", values[2]])[1] == (0, 1)


def test_slices_decode_as_their_values_do() -> None:
    values = pa.array([None, b"junk", *orders(50), b"junk"], pa.binary()).slice(2, 50)
    decoded = Decoder(ORDER, SCHEMA_ID).decode(values)
    assert decoded.refused == ()
    assert decoded.events.field("id").to_pylist() == list(range(50))


def test_nothing_decodes_to_nothing_of_the_same_type() -> None:
    decoder = Decoder(ORDER, SCHEMA_ID)
    empty = decoder.decode(pa.array([], pa.binary()))
    assert not len(empty.events)
    assert empty.refused == ()
    refused = decoder.decode(pa.array([b"junk"], pa.binary()))
    assert refused.events.type == empty.events.type == decoder.decode(pa.array(orders(1), pa.binary())).events.type


@pytest.mark.parametrize("schema_id", [0, 1, 2**31, 2**32 - 1])
def test_the_header_carries_the_schema_id(schema_id: int) -> None:
    decoder = Decoder(schema_of(("a", "int")), schema_id)
    own, other = struct.pack(">bI", 0, schema_id), struct.pack(">bI", 0, schema_id ^ 1)
    assert decoder.decode(pa.array([own + long(1), other + long(1)], pa.binary())).refused == (1,)


# --- schemas that the specification allows and that libraries trip over ---

AWKWARD: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "a dotted name, and references by short and by full name",
        {
            "type": "record",
            "name": "x.y.Event",
            "fields": [
                {"name": "a", "type": {"type": "record", "name": "P", "fields": [{"name": "n", "type": "int"}]}},
                {"name": "b", "type": "P"},
                {"name": "c", "type": ["null", "x.y.P"]},
            ],
        },
        {"a": {"n": 1}, "b": {"n": 2}, "c": {"n": 3}},
    ),
    (
        "logical types on types that do not carry them",
        record(
            ("a", {"type": "string", "logicalType": "date"}),
            ("b", {"type": "fixed", "name": "F", "size": 15, "logicalType": "uuid"}),
            ("c", {"type": "int", "logicalType": "timestamp-millis"}),
            ("d", {"type": "string", "logicalType": "decimal", "precision": 3}),
            ("e", {"type": "string", "logicalType": "mystery"}),
        ),
        {"a": "x", "b": b"123456789012345", "c": 5, "d": "y", "e": "z"},
    ),
    (
        "an error inside a record",
        record(("a", {"type": "error", "name": "Err", "fields": [{"name": "n", "type": "int"}]})),
        {"a": {"n": 1}},
    ),
    (
        "a null that is spelt at length",
        record(("a", [{"type": "null"}, {"type": "string", "avro.java.string": "String"}])),
        {"a": "x"},
    ),
    (
        "names as the decoder's own",
        record(("headrace_header__", "int"), ("T0", {"type": "fixed", "name": "T0", "size": 2}), name="T1"),
        {"headrace_header__": 1, "T0": b"ab"},
    ),
]


@pytest.mark.parametrize(("document", "event"), [row[1:] for row in AWKWARD], ids=[row[0] for row in AWKWARD])
def test_awkward_schemas(document: dict[str, Any], event: dict[str, Any]) -> None:
    schema = AvroSchema.parse(json.dumps(document))
    assert not unsupported(schema)
    plain = json.loads(
        json.dumps(document).replace('"logicalType": "uuid"', '"x": 0').replace('"type": "error"', '"type": "record"')
    )
    body = io.BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema(plain), event)
    rows, refused = events_of(schema, [HEADER + body.getvalue()])
    assert refused == ()
    assert alike(rows[0], event)
