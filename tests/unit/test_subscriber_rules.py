"""The pure parts of a subscriber: which versions can be read, where a partition begins, portions in order."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from headrace.schemas.avro import AvroSchema
from headrace.schemas.errors import ProductStopped, Refusal, UserError
from headrace.schemas.registered import RegisteredSchema
from headrace.streams.admin import Watermarks
from headrace.streams.ledger import Ledger, Position
from headrace.streams.portions import OFFSET, PLACE_FIELDS, Poison, Portion, Span, Stop
from headrace.streams.resolution import unreadable
from headrace.streams.starts import Begin, Seeker
from headrace.streams.versions import REFUSED_S, Versions
from tests.support.lake import product_of

if TYPE_CHECKING:
    from collections.abc import Sequence


def schema(*fields: dict[str, Any]) -> AvroSchema:
    return AvroSchema.parse(json.dumps({"type": "record", "name": "Event", "fields": list(fields)}))


def of(kind: Any, **more: Any) -> AvroSchema:
    return schema({"name": "value", "type": kind, **more})


def inside(*fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "record", "name": "Inner", "fields": list(fields)}


def decimal(precision: int, scale: int = 2) -> dict[str, Any]:
    return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}


N = {"name": "n", "type": "int"}
M = {"name": "m", "type": "int"}
COLOUR = {"type": "enum", "name": "Colour", "symbols": ["red"]}

TIME = {"type": "int", "logicalType": "time-millis"}
DURATION = {"type": "fixed", "name": "Duration", "size": 12, "logicalType": "duration"}

RESOLUTION: list[tuple[str, Any, Any, list[tuple[str, str]]]] = [
    ("the same", of("int"), of("int"), []),
    ("a wider number", of("int"), of("long"), []),
    ("a wider float", of("float"), of("double"), []),
    ("a wider decimal", of(decimal(5)), of(decimal(9)), []),
    ("an enum as a string", of(COLOUR), of("string"), []),
    ("an enum of other symbols", of({**COLOUR, "symbols": ["blue"]}), of(COLOUR), []),
    ("texts as an enum", of("string"), of(COLOUR), [("value", "it is string in them, enum here")]),
    ("an optional branch in another order", of(["int", "null"]), of(["null", "long"]), []),
    ("required where null is allowed", of("int"), of(["null", "int"]), []),
    ("a field more", schema(N, M), schema(N), []),
    ("a field less that has a default", schema(N), schema(N, {**M, "default": 0}), []),
    ("narrower", of("long"), of("int"), [("value", "it is long in them, int here")]),
    (
        "a narrower decimal",
        of(decimal(9)),
        of(decimal(5)),
        [("value", "it is decimal(9, 2) in them, decimal(5, 2) here")],
    ),
    (
        "another scale",
        of(decimal(9)),
        of(decimal(9, 3)),
        [("value", "it is decimal(9, 2) in them, decimal(9, 3) here")],
    ),
    ("another kind", of("string"), of("int"), [("value", "it is string in them, int here")]),
    ("a shape for a value", of(inside(N)), of("int"), [("value", "it is record in them, int here")]),
    (
        "a map for a list",
        of({"type": "map", "values": "int"}),
        of({"type": "array", "items": "int"}),
        [("value", "it is map in them, array here")],
    ),
    ("null where it is required", of(["null", "int"]), of("int"), [("value", "it may be null in them")]),
    ("a field less", schema(N), schema(N, M), [("m", "it is not in them, and has no default")]),
    ("inside of a record", of(inside(N)), of(inside(N, M)), [("value.m", "it is not in them, and has no default")]),
    (
        "inside of a list",
        of({"type": "array", "items": "long"}),
        of({"type": "array", "items": "int"}),
        [("value[]", "it is long in them, int here")],
    ),
    ("a wider number than a table's", of("int"), of("double"), [("value", "it is int in them, double here")]),
    ("a branch more", of(["null", "int", "string"]), of(["string", "null", "int", "boolean"]), []),
    (
        "a branch less",
        of(["int", "string", "null"]),
        of(["null", "int", "boolean"]),
        [("value.string", "it may be of this branch in them, which is not here")],
    ),
    (
        "a wider branch",
        of(["int", "string"]),
        of(["long", "string"]),
        [("value.int", "it may be of this branch in them, which is not here")],
    ),
    (
        "a union that may be null",
        of(["null", "int", "string"]),
        of(["int", "string"]),
        [("value", "it may be null in them")],
    ),
    ("a value as a branch", of("int"), of(["int", "string"]), [("value", "it is int in them, union here")]),
    ("a branch as a value", of(["int", "string"]), of("int"), [("value", "it is union in them, int here")]),
    (
        "a record as a branch",
        of(inside(N)),
        of([inside(N), "string"]),
        [("value", "it is record in them, union here")],
    ),
    (
        "a field less in a branch",
        of([inside(N), "string"]),
        of([inside(N, M), "string"]),
        [("value.Inner.m", "it is not in them, and has no default")],
    ),
    ("a time as text", of(TIME), of("string"), []),
    ("a finer time", of(TIME), of({"type": "long", "logicalType": "time-micros"}), []),
    ("texts as times", of("string"), of(TIME), [("value", "it is string in them, time here")]),
    ("symbols as times", of(COLOUR), of(TIME), [("value", "it is enum in them, time here")]),
    ("the same duration", of(DURATION), of(["null", {**DURATION, "name": "Other"}]), []),
    (
        "bytes as a duration",
        of({"type": "fixed", "name": "F", "size": 12}),
        of(DURATION),
        [("value", "it is fixed[12] in them, duration here")],
    ),
    (
        "inside of a map",
        of({"type": "map", "values": ["null", "int"]}),
        of({"type": "map", "values": "int"}),
        [("value{}", "it may be null in them")],
    ),
]


@pytest.mark.parametrize(
    ("writer", "reader", "faults"), [case[1:] for case in RESOLUTION], ids=[c[0] for c in RESOLUTION]
)
def test_what_one_version_reads_of_another(writer: AvroSchema, reader: AvroSchema, faults: list[Any]) -> None:
    assert unreadable(writer.record, reader.record) == faults


def test_fields_are_found_by_the_names_that_they_have_in_events() -> None:
    writer = schema(
        {"name": "lines", "type": {"type": "array", "items": inside(N)}}, {"name": "note", "type": "string"}
    )
    reader = schema({"name": "items", "type": {"type": "array", "items": inside(M)}}, {"name": "note", "type": "int"})
    names = {"items": "lines", "items[].m": "n", "note": None}
    assert unreadable(writer.record, reader.record, names) == [("note", "it is not in them, and has no default")]
    assert [path for path, _ in unreadable(writer.record, reader.record)] == ["items", "note"]


PRODUCT = product_of(schema({"name": "id", "type": "string"}))
SEEKER = Seeker(PRODUCT, "g")
MARKS = Watermarks(10, 100)


def ledger(**positions: int) -> Ledger:
    return Ledger("topic", 1, {int(name[1:]): Position(at) for name, at in positions.items()}, {}, {})


@pytest.mark.parametrize(
    ("committed", "known", "begin"),
    [
        (None, None, Begin(10)),
        (30, None, Begin(30)),
        (None, ledger(p0=50), Begin(50, Span(0, 50))),
        (30, ledger(p0=50), Begin(50, Span(30, 50))),
        (50, ledger(p0=50), Begin(50)),
        (60, ledger(p0=50), Begin(60)),
        # Kafka has deleted it, the table holds it.
        (3, ledger(p0=50), Begin(50, Span(3, 50))),
        # Rolled back: what was handled does not come again.
        (60, ledger(p0=20), Begin(60)),
    ],
)
def test_history_begins_at_the_groups_position_and_ends_at_the_ledgers(
    committed: int | None, known: Ledger | None, begin: Begin
) -> None:
    assert SEEKER.history(0, committed, MARKS, known) == begin


@pytest.mark.parametrize(
    ("committed", "known"), [(3, None), (3, ledger(p0=5)), (None, ledger(p0=5)), (None, ledger(p1=50))]
)
def test_what_neither_table_nor_log_holds_is_a_gap(committed: int | None, known: Ledger | None) -> None:
    with pytest.raises(UserError, match="Kafka has deleted offsets") as caught:
        SEEKER.history(0, committed, MARKS, known)
    assert "the table does not hold them either" in str(caught.value.hint)


def test_a_topic_begins_at_the_groups_position_else_where_it_is_told() -> None:
    assert SEEKER.topic(0, 20, MARKS, 10) == Begin(20)
    assert SEEKER.topic(0, None, MARKS, 10) == Begin(10)
    with pytest.raises(UserError, match="deleted offsets 3 to 9 of partition 0 before group g read them") as caught:
        SEEKER.topic(0, 3, MARKS, 10)
    assert "history" in str(caught.value.hint)


def test_a_position_behind_the_end_is_told() -> None:
    with pytest.raises(UserError, match="the position 101 of group g in partition 0 lies behind the topic's end 100"):
        SEEKER.topic(0, 101, MARKS, 10)


def test_a_table_of_several_topics_is_told() -> None:
    with pytest.raises(ProductStopped, match="the topic was made anew once"):
        SEEKER.same_topic(Ledger("topic", 2, {}, {}, {}), "topic")


def test_a_table_of_another_topic_is_told() -> None:
    SEEKER.same_topic(ledger(), "topic")
    with pytest.raises(ProductStopped, match="the table follows the topic topic, Kafka has other"):
        SEEKER.same_topic(ledger(), "other")


def portion(*offsets: int, poisons: Sequence[int] = (), stop: int | None = None, end: int = 10) -> Portion:
    columns = [[0] * len(offsets), offsets, [dt.datetime(2024, 1, 1, tzinfo=dt.UTC)] * len(offsets), [1] * len(offsets)]
    batch = pa.RecordBatch.from_arrays(
        [pa.array(column, each.type) for column, each in zip(columns, PLACE_FIELDS, strict=True)],
        schema=pa.schema(PLACE_FIELDS),
    )
    found = tuple(Poison(0, offset, "null-value", "", None) for offset in poisons)
    return Portion(0, batch, found, None if stop is None else Stop(stop, UserError("")), end)


def shown(pieces: Any) -> list[Any]:
    return [each.offset if isinstance(each, Poison) else each.column(OFFSET).to_pylist() for each in pieces]


def test_pieces_are_in_order_with_poison_between() -> None:
    assert shown(portion(0, 2, 3, 5, poisons=[1, 4, 6]).pieces(10)) == [[0], 1, [2, 3], 4, [5], 6]
    assert shown(portion(0, 1, 2, 3, 4).pieces(2)) == [[0, 1], [2, 3], [4]]
    assert shown(portion().pieces(2)) == []


def test_what_is_behind_an_end_is_cut_off() -> None:
    cut = portion(0, 2, 3, 5, poisons=[1, 4], stop=6, end=7).before(3)
    assert (shown(cut.pieces(10)), cut.stop, cut.end) == ([[0], 1, [2]], None, 3)
    whole = portion(0, 2, end=7)
    assert whole.before(7) is whole


def test_a_refused_id_is_asked_for_again_after_a_while() -> None:
    now_s, asked = [100.0], [0]
    registered: list[RegisteredSchema] = []

    def ask() -> Sequence[RegisteredSchema]:
        asked[0] += 1
        return registered

    def probe(schema_id: int) -> None:
        if schema_id == 9:
            raise Refusal("unknown-schema", "not there")

    versions = Versions(PRODUCT, [], ask, probe, clock_s=lambda: now_s[0])
    for _ in range(3):
        found, other = versions.find(9), versions.find(8)
        assert isinstance(found, Refusal)
        assert isinstance(other, Refusal)
        assert (found.reason, other.reason) == ("unknown-schema", "foreign-schema")
    assert asked == [2]
    registered.append(RegisteredSchema(9, 1, PRODUCT.subject, PRODUCT.schema))
    now_s[0] += REFUSED_S + 0.1
    assert versions.find(9) == registered[0]
    assert isinstance(versions.find(8), Refusal)


def version(number: int, schema_id: int, *fields: dict[str, Any]) -> RegisteredSchema:
    return RegisteredSchema(schema_id, number, PRODUCT.subject, schema(*fields))


def test_the_registry_is_asked_for_versions_that_a_table_has_followed_meanwhile() -> None:
    registered = [version(1, 11, N)]
    asked: list[int] = []

    def ask() -> Sequence[RegisteredSchema]:
        asked.append(len(registered))
        return registered

    versions = Versions(PRODUCT, registered, ask, lambda _: None)
    versions.reach(1)
    assert asked == []
    registered.append(version(2, 12, {**M, "aliases": ["n"]}))
    versions.reach(2)
    assert asked == [2]
    assert versions.lineage.names(1, 2) == {"n": "m"}


def test_a_schema_that_was_registered_again_is_the_first_of_its_versions() -> None:
    again = [version(1, 11, N), version(2, 12, {**M, "aliases": ["n"]}), version(3, 11, N)]
    versions = Versions(PRODUCT, again, lambda: again, lambda _: None)
    assert [each.version for each in versions.all] == [1, 2, 3]
    assert versions.find(11) == again[0]
