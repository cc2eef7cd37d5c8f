"""From fastavro's bytes to what DuckDB reads of the table: values, defaults, promotions, masks."""

from __future__ import annotations

import datetime as dt
import io
import json
import math
import struct
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import fastavro
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.schemas.avro import AvroSchema
from headrace.schemas.masking import Masker
from headrace.schemas.masks import Mask
from headrace.streams.columns import Columns, default_value
from headrace.streams.decode import Decoder
from tests.support.lake import Lake

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

EXAMPLES = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
UTC = dt.UTC


def field(name: str, kind: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, **more}


def schema_of(*fields: dict[str, Any]) -> AvroSchema:
    return AvroSchema.parse(json.dumps({"type": "record", "name": "Event", "fields": list(fields)}))


def decimal_of(precision: int, scale: int) -> dict[str, Any]:
    return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}


def decoded(schema: AvroSchema, events: Sequence[Mapping[str, Any]], schema_id: int = 1) -> pa.StructArray:
    values = []
    for event in events:
        body = io.BytesIO()
        fastavro.schemaless_writer(body, schema.parsed, event)
        values.append(struct.pack(">bI", 0, schema_id) + body.getvalue())
    found = Decoder(schema, schema_id).decode(pa.array(values, pa.binary()))
    assert found.refused == ()
    return found.events


def plain(value: Any) -> Any:
    """A value as Arrow gives it: maps as pairs, uuids as bytes, NaN as something that equals itself."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, UUID):
        return value.bytes
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    return value


def pairs(value: Any) -> Any:
    return None if value is None else list(value.items())


# --- every type, to its limits ---

ITEM = {
    "type": "record",
    "name": "Item",
    "fields": [field("sku", "string"), field("qty", "int"), field("note", ["null", "string"])],
}
CONTACT = {
    "type": "record",
    "name": "Contact",
    "fields": [field("email", "string"), field("since", ["null", {"type": "int", "logicalType": "date"}])],
}
WIDE = schema_of(
    field("flag", "boolean"),
    field("small", ["null", "int"]),
    field("large", "long"),
    field("single", "float"),
    field("real", ["double", "null"]),
    field("raw", "bytes"),
    field("name", ["null", "string"]),
    field("amount", ["null", decimal_of(38, 10)]),
    field("fee", {"type": "fixed", "name": "Fee", "size": 4, "logicalType": "decimal", "precision": 9, "scale": 2}),
    field("uid", {"type": "string", "logicalType": "uuid"}),
    field("day", {"type": "int", "logicalType": "date"}),
    field("millis", {"type": "long", "logicalType": "timestamp-millis"}),
    field("micros", ["null", {"type": "long", "logicalType": "timestamp-micros"}]),
    field("wall_millis", {"type": "long", "logicalType": "local-timestamp-millis"}),
    field("wall", {"type": "long", "logicalType": "local-timestamp-micros"}),
    field("tier", ["null", {"type": "enum", "name": "Tier", "symbols": ["GOLD", "BASIC"]}]),
    field("code", {"type": "fixed", "name": "Code", "size": 3}),
    field("tags", {"type": "array", "items": ["null", "string"]}),
    field("grid", {"type": "array", "items": {"type": "array", "items": "long"}}),
    field("labels", ["null", {"type": "map", "values": ["null", "string"]}]),
    field("series", {"type": "map", "values": {"type": "array", "items": decimal_of(5, 1)}}),
    field("contact", ["null", CONTACT]),
    field("items", ["null", {"type": "array", "items": ITEM}]),
    field("by_shop", {"type": "map", "values": "Item"}),
    field("gaps", {"type": "array", "items": ["null", "Item"]}),
)

STRINGS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
DAYS = st.dates()
TIMES = st.datetimes(min_value=dt.datetime(1, 1, 2), max_value=dt.datetime(9999, 12, 30))  # noqa: DTZ001
MILLIS = TIMES.map(lambda t: t.replace(microsecond=t.microsecond // 1000 * 1000))
LARGE = st.integers(-(10**38) + 1, 10**38 - 1).map(lambda n: Decimal((int(n < 0), tuple(map(int, str(abs(n)))), -10)))
ITEMS = st.fixed_dictionaries({"sku": STRINGS, "qty": st.integers(-(2**31), 2**31 - 1), "note": st.none() | STRINGS})
KEYS = st.text("abcé", max_size=3)
EVENTS = st.fixed_dictionaries(
    {
        "flag": st.booleans(),
        "small": st.none() | st.integers(-(2**31), 2**31 - 1),
        "large": st.integers(-(2**63), 2**63 - 1),
        "single": st.floats(width=32),
        "real": st.none() | st.floats(),
        "raw": st.binary(max_size=40) | st.just(b"\xff" * 40),
        "name": st.none() | STRINGS | st.just("\U0010ffff" * 20),
        "amount": st.none() | LARGE,
        "fee": st.integers(-(10**9) + 1, 10**9 - 1).map(lambda n: Decimal(n).scaleb(-2)),
        "uid": st.uuids(),
        "day": DAYS,
        "millis": MILLIS.map(lambda t: t.replace(tzinfo=UTC)),
        "micros": st.none() | TIMES.map(lambda t: t.replace(tzinfo=UTC)),
        "wall_millis": MILLIS,
        "wall": TIMES,
        "tier": st.none() | st.sampled_from(["GOLD", "BASIC"]),
        "code": st.binary(min_size=3, max_size=3),
        "tags": st.lists(st.none() | STRINGS, max_size=3),
        "grid": st.lists(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3), max_size=3),
        "labels": st.none() | st.dictionaries(KEYS, st.none() | STRINGS, max_size=3),
        "series": st.dictionaries(
            KEYS, st.lists(st.integers(-99_999, 99_999).map(lambda n: Decimal(n).scaleb(-1)), max_size=3), max_size=2
        ),
        "contact": st.none() | st.fixed_dictionaries({"email": STRINGS, "since": st.none() | DAYS}),
        "items": st.none() | st.lists(ITEMS, max_size=3),
        "by_shop": st.dictionaries(KEYS, ITEMS, max_size=2),
        "gaps": st.lists(st.none() | ITEMS, max_size=3),
    }
)
MAPS = ("labels", "series", "by_shop")


def expected_row(event: Mapping[str, Any]) -> dict[str, Any]:
    return {name: plain(pairs(value) if name in MAPS else value) for name, value in event.items()}


@EXAMPLES
@given(st.lists(EVENTS, min_size=1, max_size=12))
def test_what_was_published_is_what_duckdb_reads(
    tmp_path_factory: pytest.TempPathFactory, events: list[dict[str, Any]]
) -> None:
    lake = Lake(tmp_path_factory.mktemp("lake"), WIDE)
    lake.add(decoded(WIDE, events))
    found = [{name: plain(value) for name, value in row.items()} for row in lake.rows(*events[0])]
    for row in found:
        row["uid"] = UUID(row["uid"]).bytes if isinstance(row["uid"], str) else row["uid"]
    assert found == [expected_row(event) for event in events]


@EXAMPLES
@given(st.lists(EVENTS, min_size=1, max_size=8), st.data())
def test_slices_become_the_columns_of_their_events(events: list[dict[str, Any]], data: st.DataObject) -> None:
    """Also where everything lies at an offset within larger arrays."""
    array = decoded(WIDE, events)
    start = data.draw(st.integers(0, len(events)))
    stop = data.draw(st.integers(start, len(events)))
    columns = Columns(_columns_of(WIDE), WIDE.record, Masker({}, b"key"))
    padded = pa.concat_arrays([array, array]).slice(start, stop - start)
    whole = columns.of(decoded(WIDE, events[start:stop]))
    for sliced, expected in zip(columns.of(padded), whole, strict=True):
        sliced.validate(full=True)
        assert sliced.type == expected.type
        assert plain(sliced.to_pylist()) == plain(expected.to_pylist())


def _columns_of(schema: AvroSchema) -> list[Any]:
    from headrace.schemas.types import METADATA_NAMES
    from headrace.sinks.tables import table_schema

    return [column for column in table_schema(schema, {}).fields if column.name not in METADATA_NAMES]


def test_a_null_struct_of_required_children_stays_null(tmp_path: Path) -> None:
    schema = schema_of(field("contact", ["null", CONTACT]), field("id", "long"))
    lake = Lake(tmp_path, schema)
    events: list[dict[str, Any]] = [{"contact": None, "id": 1}, {"contact": {"email": "", "since": None}, "id": 2}]
    lake.add(decoded(schema, events))
    assert lake.rows("contact", "id") == events


# --- events of older versions ---

OLD = schema_of(field("id", "long"))
DEFAULTS: list[tuple[str, Any, Any, Any]] = [
    ("null", ["null", "string"], None, None),
    ("boolean", "boolean", True, True),
    ("int", "int", -5, -5),
    ("long", "long", 2**62, 2**62),
    ("float", "float", 0.5, 0.5),
    ("whole_double", "double", 3, 3.0),
    ("string", "string", "é", "é"),
    ("second_branch", ["string", "null"], "x", "x"),
    ("bytes", "bytes", "\u00ff\u0000", b"\xff\0"),
    ("decimal", decimal_of(4, 2), "\u00ff", Decimal("-0.01")),
    ("optional_decimal", [decimal_of(4, 2), "null"], "\u0001\u0000", Decimal("2.56")),
    (
        "fixed_decimal",
        {"type": "fixed", "name": "D", "size": 2, "logicalType": "decimal", "precision": 4, "scale": 0},
        "\u0001\u0000",
        Decimal(256),
    ),
    ("fixed", {"type": "fixed", "name": "F", "size": 2}, "\u00fe\u0001", b"\xfe\x01"),
    ("uuid", {"type": "string", "logicalType": "uuid"}, str(UUID(int=5)), UUID(int=5).bytes),
    ("date", {"type": "int", "logicalType": "date"}, -1, dt.date(1969, 12, 31)),
    (
        "millis",
        {"type": "long", "logicalType": "timestamp-millis"},
        1,
        dt.datetime(1970, 1, 1, microsecond=1000, tzinfo=UTC),
    ),
    ("micros", {"type": "long", "logicalType": "local-timestamp-micros"}, 1, dt.datetime(1970, 1, 1, microsecond=1)),  # noqa: DTZ001
    ("enum", {"type": "enum", "name": "E", "symbols": ["A", "B"]}, "B", "B"),
    ("array", {"type": "array", "items": decimal_of(4, 0)}, ["\u0001", "\u0002"], [Decimal(1), Decimal(2)]),
    ("empty_array", {"type": "array", "items": "int"}, [], []),
    ("map", {"type": "map", "values": "int"}, {"a": 1}, [("a", 1)]),
    ("null_record", ["null", CONTACT], None, None),
    (
        "null_record_of_everything",
        [
            "null",
            {
                "type": "record",
                "name": "All",
                "fields": [
                    field("b", "boolean"),
                    field("d", decimal_of(38, 3)),
                    field("f", {"type": "fixed", "name": "Six", "size": 6}),
                    field("r", CONTACT),
                    field("l", {"type": "array", "items": "Contact"}),
                    field("m", {"type": "map", "values": {"type": "array", "items": "Contact"}}),
                    field("t", {"type": "long", "logicalType": "timestamp-millis"}),
                    field("o", ["null", "Contact"]),
                ],
            },
        ],
        None,
        None,
    ),
    ("record", CONTACT, {"email": "e", "since": None}, {"email": "e", "since": None}),
    (
        "record_of_defaults",
        {"type": "record", "name": "R", "fields": [field("n", "int", default=7), field("s", "string", default="s")]},
        {"s": "own"},
        {"n": 7, "s": "own"},
    ),
]


@pytest.mark.parametrize(("kind", "default", "expected"), [d[1:] for d in DEFAULTS], ids=[d[0] for d in DEFAULTS])
def test_an_older_event_gets_the_readers_default(tmp_path: Path, kind: Any, default: Any, expected: Any) -> None:
    new = schema_of(field("id", "long"), field("added", kind, default=default))
    lake = Lake(tmp_path, OLD)
    lake.follow(OLD, new)
    lake.add(decoded(OLD, [{"id": 1}, {"id": 2}]))
    found = [row["added"] for row in lake.rows("added")]
    if isinstance(expected, bytes) and isinstance(found[0], str):
        found = [UUID(value).bytes for value in found]
    assert found == [expected] * 2


def test_a_default_fills_what_is_missing_deep_inside(tmp_path: Path) -> None:
    def version(*fields: dict[str, Any]) -> AvroSchema:
        item = {"type": "record", "name": "Item", "fields": [field("sku", "string"), *fields]}
        return schema_of(
            field("items", {"type": "array", "items": item}), field("by", ["null", {"type": "map", "values": "Item"}])
        )

    old, new = version(), version(field("qty", "int", default=1), field("note", ["null", "string"]))
    lake = Lake(tmp_path, old)
    lake.follow(old, new)
    lake.add(
        decoded(old, [{"items": [{"sku": "a"}, {"sku": "b"}], "by": None}, {"items": [], "by": {"k": {"sku": "c"}}}])
    )
    filled = {"qty": 1, "note": None}
    assert lake.rows("items", "by") == [
        {"items": [{"sku": "a", **filled}, {"sku": "b", **filled}], "by": None},
        {"items": [], "by": [("k", {"sku": "c", **filled})]},
    ]


def test_promotions_and_removed_fields(tmp_path: Path) -> None:
    old = schema_of(
        field("n", "int"),
        field("x", "float"),
        field("d", decimal_of(4, 2)),
        field("m", {"type": "map", "values": "int"}),
        field("gone", "string"),
        field("t", {"type": "long", "logicalType": "timestamp-millis"}),
    )
    new = schema_of(
        field("n", "long"),
        field("x", "double"),
        field("d", decimal_of(12, 2)),
        field("m", {"type": "map", "values": ["null", "long"]}),
        field("t", {"type": "long", "logicalType": "timestamp-micros"}),
    )
    lake = Lake(tmp_path, old)
    moment = dt.datetime(2020, 1, 1, tzinfo=UTC)
    first = {"n": -1, "x": 0.1, "d": Decimal("-1.25"), "m": {"k": 2}, "gone": "old", "t": moment}
    lake.follow(old)
    lake.add(decoded(old, [first]))
    lake.follow(old, new)
    lake.add(decoded(old, [first]))
    second = {"n": 2**40, "x": 0.1, "d": Decimal("9999999999.99"), "m": {"k": None}, "t": moment}
    lake.add(decoded(new, [second], 2), 2)
    single = struct.unpack("<f", struct.pack("<f", 0.1))[0]
    row = {**first, "x": single, "m": [("k", 2)]}
    assert lake.rows(*first) == [row, row, {**second, "gone": None, "m": [("k", None)]}]
    assert [row["_schema_id"] for row in lake.rows("_schema_id")] == [1, 1, 2]


# --- masks ---


def test_masks_reach_every_depth_and_no_raw_value_is_written(tmp_path: Path) -> None:
    person = {
        "type": "record",
        "name": "Person",
        "fields": [
            field("email", "string"),
            field("phone", ["null", "string"]),
            field("born", {"type": "int", "logicalType": "date"}),
        ],
    }
    schema = schema_of(
        field("id", "long"),
        field("owner", ["null", person]),
        field("people", {"type": "array", "items": "Person"}),
        field("by_role", {"type": "map", "values": "Person"}),
        field("aliases", {"type": "array", "items": ["null", "string"]}),
        field("whole", ["null", "Person"]),
    )
    masks = {}
    for place in ("owner", "people[]", "by_role{}"):
        masks[f"{place}.email"] = Mask.HMAC_SHA_256
        masks[f"{place}.phone"] = Mask.SHOW_LAST_4
        masks[f"{place}.born"] = Mask.TRUNCATE_TO_YEAR
    masks |= {"aliases": Mask.MASK_ALPHANUM, "whole": Mask.REPLACE_WITH_NULL}
    lake = Lake(tmp_path, schema, masks)
    raw = {"email": "raw.secret@example.org", "phone": "raw-secret-5678", "born": dt.date(1999, 12, 31)}
    event = {
        "id": 1,
        "owner": raw,
        "people": [raw, {**raw, "phone": None}],
        "by_role": {"boss": raw},
        "aliases": ["raw.secret 7", None],
        "whole": raw,
    }
    lake.add(decoded(schema, [event, {**event, "owner": None, "people": [], "by_role": {}, "aliases": []}]))
    first, second = lake.rows("owner", "people", "by_role", "aliases", "whole")
    hashed = first["owner"]["email"]
    assert len(hashed) == 64
    hidden = {"email": hashed, "phone": "x" * 11 + "5678", "born": dt.date(1999, 1, 1)}
    assert first["owner"] == hidden
    assert first["people"] == [hidden, {**hidden, "phone": None}]
    assert first["by_role"] == [("boss", hidden)]
    assert first["aliases"] == ["xxx.xxxxxxxn", None]
    assert first["whole"] is None
    assert second == {"owner": None, "people": [], "by_role": [], "aliases": [], "whole": None}
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or b"secret" not in path.read_bytes()


def test_a_filled_default_is_masked_too(tmp_path: Path) -> None:
    new = schema_of(field("id", "long"), field("email", "string", default="team@example.org"))
    lake = Lake(tmp_path, OLD, {"email": Mask.SHOW_FIRST_4})
    lake.follow(OLD, new)
    lake.add(decoded(OLD, [{"id": 1}]))
    assert lake.rows("email") == [{"email": "team" + "x" * 12}]


def test_a_default_value_of_a_union_may_be_null() -> None:
    optional = schema_of(field("a", ["null", decimal_of(3, 1)], default=None)).record.fields[0]
    assert default_value(optional.default, optional.type) is None
