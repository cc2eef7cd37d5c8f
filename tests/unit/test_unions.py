"""Unions of several branches: which branch a published value is of, and what masks do inside of branches."""

from __future__ import annotations

import datetime as dt
import io
import json
from collections import OrderedDict
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from headrace.producers.events import event_converter
from headrace.schemas.avro import AvroSchema
from headrace.schemas.errors import EventError
from headrace.schemas.masks import Mask, fits
from headrace.schemas.plain import plain
from headrace.schemas.policy import choose
from headrace.schemas.types import masked_leaf
from tests.support.lake import Lake
from tests.unit.test_columns import decoded

if TYPE_CHECKING:
    from pathlib import Path


def record(name: str, *fields: tuple[str, Any]) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": n, "type": t} for n, t in fields]}


def schema_of(kind: Any, **more: Any) -> AvroSchema:
    return AvroSchema.parse(
        json.dumps({"type": "record", "name": "E", "fields": [{"name": "u", "type": kind, **more}]})
    )


def logical(base: str, name: str, **more: Any) -> dict[str, Any]:
    return {"type": base, "logicalType": name, **more}


COMPANY = record("Company", ("name", "string"), ("vat", ["null", "string"]))
PERSON = record("Person", ("name", "string"))
ENUM = {"type": "enum", "name": "Tier", "symbols": ["GOLD", "BASIC"]}
UID = {"type": "fixed", "name": "Uid", "size": 16, "logicalType": "uuid"}
TERM = {"type": "fixed", "name": "Term", "size": 12, "logicalType": "duration"}
AN_ID = UUID("6f1f3dd8-6f9e-4f0c-9d3b-0d2f6a1c2b3d")
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
SECRET = "anna.secret"


class Company(BaseModel):
    name: str
    vat: str | None = None


@dataclass
class Person:
    name: str


@dataclass
class Stranger:
    name: str


def written(kind: Any, value: Any, **more: Any) -> Any:
    """Return the branch of the union that an event goes out with, and the datum in it."""
    schema = schema_of(kind, **more)
    spelt = fastavro.parse_schema(plain(schema.record))
    body = io.BytesIO()
    datum = event_converter(schema, where="shop.orders")({"u": value} if value is not ... else {})
    fastavro.schemaless_writer(body, spelt, datum)
    body.seek(0)
    read: Any = fastavro.schemaless_reader(body, spelt, None)
    return read["u"]


CHOSEN: list[tuple[Any, Any, Any]] = [
    (["int", "string"], 5, {"int": 5}),
    (["string", "int"], 5, {"int": 5}),
    (["null", "int", "string"], None, None),
    (["string"], "x", {"string": "x"}),
    (["boolean", "int"], True, {"boolean": True}),
    (["int", "double"], 5, {"int": 5}),
    (["double", "int"], 5, {"int": 5}),
    (["double", "string"], 5, {"double": 5.0}),
    (["int", "double"], 2**40, {"double": float(2**40)}),
    (["float", "int"], 1.5, {"float": 1.5}),
    (["string", UID], AN_ID, {"Uid": AN_ID.bytes}),
    (["string", UID], str(AN_ID), {"string": str(AN_ID)}),
    (["int", UID], str(AN_ID), {"Uid": AN_ID.bytes}),
    ([logical("int", "time-millis"), "string"], dt.time(1), {"int": 3_600_000}),
    ([logical("int", "time-millis"), "string"], "01:00:00", {"string": "01:00:00"}),
    ([logical("int", "date"), logical("long", "timestamp-millis")], dt.date(1970, 1, 2), {"int": 1}),
    ([logical("int", "date"), logical("long", "timestamp-micros")], EPOCH, {"long": 0}),
    ([logical("bytes", "decimal", precision=3), "int"], Decimal(5), {"bytes": b"\5"}),
    (["bytes", "string"], b"x", {"bytes": b"x"}),
    ([{"type": "array", "items": "int"}, "int"], [1, 2], {"array": [1, 2]}),
    ([{"type": "map", "values": "int"}, "int"], {"a": 1}, {"map": {"a": 1}}),
    ([COMPANY, PERSON], {"name": "a"}, {"Person": {"name": "a"}}),
    ([COMPANY, PERSON], {"name": "a", "vat": None}, {"Company": {"name": "a", "vat": None}}),
    ([COMPANY, PERSON], Company(name="a"), {"Company": {"name": "a", "vat": None}}),
    ([PERSON, record("Stranger", ("name", "string"))], Person("a"), {"Person": {"name": "a"}}),
    ([PERSON, "string"], Stranger("a"), {"Person": {"name": "a"}}),
    ([TERM, "string"], {"months": 1, "days": 0, "millis": 0}, {"Term": b"\1" + bytes(11)}),
    ([ENUM, "int"], "GOLD", {"Tier": "GOLD"}),
    ([ENUM, "string"], "SILVER", {"string": "SILVER"}),
    # Named:
    (["int", "long"], ("long", 5), {"long": 5}),
    (["int", "long"], {"long": 5}, {"long": 5}),
    (["int", "long"], OrderedDict(int=None, long=5), {"long": 5}),
    ([ENUM, "string"], ("Tier", "GOLD"), {"Tier": "GOLD"}),
    ([{**PERSON, "namespace": "x"}, "string"], ("x.Person", {"name": "a"}), {"Person": {"name": "a"}}),
    ([PERSON, "string"], {"Person": {"name": "a"}, "string": None}, {"Person": {"name": "a"}}),
    ([{"type": "array", "items": "int"}, "int"], ("array", (1, 2)), {"array": [1, 2]}),
    ([{"type": "map", "values": "int"}, "string"], {"string": "a"}, {"string": "a"}),
    ([{"type": "map", "values": "int"}, "string"], {"string": 1}, {"map": {"string": 1}}),
    (["int", {"type": "array", "items": ["null", "int", "string"]}], [1, None, ("string", "a")],
     {"array": [{"int": 1}, None, {"string": "a"}]}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value", "expected"), CHOSEN)
def test_the_branch_is_chosen_by_type_or_named(kind: Any, value: Any, expected: Any) -> None:
    assert written(kind, value) == expected
    # Below an optional record and a map as well: the encoder chooses nothing.
    deep = ["null", record("Deep", ("m", {"type": "map", "values": ["null", record("In", ("x", kind))]}))]
    assert written(deep, {"m": {"k": {"x": value}, "n": None}}) == {"m": {"k": {"x": expected}, "n": None}}


REFUSED: list[tuple[Any, Any, str, str]] = [
    (["int", "long"], 5, "u", "the value fits int, long: say which, as (branch, value)"),
    ([ENUM, "string"], "GOLD", "u", "the value fits Tier, string: say which, as (branch, value)"),
    (["float", "double"], 1.5, "u", "the value fits float, double: say which, as (branch, value)"),
    ([PERSON, {"type": "map", "values": "string"}], {"name": SECRET}, "u", "the value fits Person, map: say which"),
    ([{"type": "map", "values": "string"}, "string"], {"string": SECRET}, "u", "the value fits string, map: say which"),
    (["int", "string"], None, "u", "expected one of int, string, found null"),
    (["int", "string"], 1.5, "u", "expected one of int, string, found float"),
    (["int", "double"], True, "u", "expected one of int, double, found bool"),
    (["int", "long"], 2**63, "u", "the value fits none of int, long"),
    (["int", "string"], 2**31, "u.int", "the number does not fit into an Avro int"),
    (["int", "string"], (5,), "u", "a tuple in place of a union is (branch, value)"),
    (["int", {"type": "array", "items": "int"}], (5, 6), "u", "a tuple in place of a union is (branch, value)"),
    (["int", "string"], ("long", 5), "u", "the union has no such branch; it has int, string"),
    (["int", "string"], (SECRET, 5), "u", "the union has no such branch; it has int, string"),
    ([COMPANY, "string"], {"name": 5}, "u.Company.name", "expected a string, found int"),
    ([COMPANY, "string"], ("Company", {"name": SECRET}), "u.Company.vat", "the field is missing"),
    ([COMPANY, "string"], {"Company": {"name": SECRET, "vat": 5}}, "u.Company.vat", "expected a string, found int"),
    ([TERM, "int"], {"months": -1, "days": 0, "millis": 0}, "u.Term.months", "the number does not fit into 32 bits"),
    (
        {"type": "array", "items": ["int", COMPANY]},
        [1, {"name": SECRET, "vat": 5}],
        "u[].Company.vat",
        "expected a string, found int",
    ),
]


@pytest.mark.parametrize(("kind", "value", "path", "what"), REFUSED)
def test_what_is_of_no_branch_or_of_two_is_named_and_not_shown(kind: Any, value: Any, path: str, what: str) -> None:
    with pytest.raises(EventError) as caught:
        written(kind, value)
    assert caught.value.field == path
    assert what in caught.value.what
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "default", "expected"),
    [
        (["int", "string"], "x", {"string": "x"}),
        (["null", "int", "string"], None, None),
        (["null", "int", "string"], 5, {"int": 5}),
        (["string", COMPANY], {"name": "a", "vat": None}, {"Company": {"name": "a", "vat": None}}),
        ([TERM, "int"], "\1" + "\0" * 11, {"Term": b"\1" + bytes(11)}),
        (["double", "string"], 1, {"double": 1.0}),
    ],
)
def test_a_union_that_is_left_out_gets_the_default_of_the_first_branch_that_it_fits(
    kind: Any, default: Any, expected: Any
) -> None:
    assert written(kind, ..., default=default) == expected


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.decimals() | st.times(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["int", "Company", "name", "map"]), inner)
    | st.tuples(st.sampled_from(["int", "Company", "x"]), inner),
)  # fmt: skip


@given(ANYTHING)
def test_nothing_but_an_event_error_leaves(value: Any) -> None:
    kind = [
        "int",
        COMPANY,
        {"type": "map", "values": ["null", "string", "boolean"]},
        UID,
        logical("long", "time-micros"),
    ]
    try:
        found = written(kind, value)
    except EventError:
        return
    assert len(found) == 1


# --- masks inside of branches ---

TAGGED = ["PII", "user.name"]
PAYER = schema_of(
    [
        "null",
        {
            "type": "record",
            "name": "Company",
            "fields": [
                {"name": "name", "type": "string", "confluent:tags": TAGGED},
                {"name": "staff", "type": {"type": "array", "items": {**PERSON, "name": "Worker"}}},
            ],
        },
        "string",
        {"type": "array", "items": PERSON},
    ]
)


def test_masks_are_put_on_by_path_inside_of_branches(tmp_path: Path) -> None:
    """And what their category's mask makes null is optional in the table."""
    assert dict(PAYER.pii) == {"u.Company.name": "user.name"}
    masks = {
        "u.Company.name": Mask.HMAC_SHA_256,
        "u.Company.staff[].name": Mask.REPLACE_WITH_NULL,
        "u.array[].name": Mask.SHOW_FIRST_4,
    }
    lake = Lake(tmp_path, PAYER, masks)
    events: list[Any] = [
        {"u": ("Company", {"name": SECRET, "staff": [{"name": SECRET}]})},
        {"u": ("string", "plain")},
        {"u": None},
        {"u": ("array", [{"name": SECRET}])},
    ]
    lake.add(decoded(PAYER, events))
    company, text, none, persons = (row["u"] for row in lake.rows("u"))
    assert len(company["Company"]["name"]) == 64
    assert company["Company"]["staff"] == [{"name": None}]
    assert (company["string"], company["array"]) == (None, None)
    assert text == {"Company": None, "string": "plain", "array": None}
    assert none is None
    assert persons["array"] == [{"name": "annaxxxxxxx"}]
    assert SECRET.encode() not in b"".join(path.read_bytes() for path in tmp_path.rglob("*.parquet"))


@pytest.mark.parametrize("kind", [["int", "string"], ["null", TERM], ["null", PERSON, "string"]])
def test_a_mask_of_a_union_or_a_duration_as_a_whole_is_null(kind: Any) -> None:
    """A tag on it covers all branches: no other mask fits a struct."""
    field = schema_of(kind).record.fields[0]
    assert choose(Mask.REPLACE_WITH_NULL, None, field.type) == (Mask.REPLACE_WITH_NULL, "", "")
    for mask in set(Mask) - {Mask.REPLACE_WITH_NULL}:
        assert not fits(mask, masked_leaf(field.type))
        _, what, hint = choose(mask, None, field.type)
        assert what == f"the policy's mask {mask} does not fit struct"
        assert hint == "choose in the contract replace-with-null"


def test_a_mask_of_a_time_is_one_of_a_text(tmp_path: Path) -> None:
    schema = schema_of(["null", logical("int", "time-millis")])
    assert fits(Mask.MASK_ALPHANUM, masked_leaf(schema.record.fields[0].type))
    lake = Lake(tmp_path, schema, {"u": Mask.MASK_ALPHANUM})
    lake.add(decoded(schema, [{"u": dt.time(23, 59)}, {"u": None}]))
    assert lake.rows("u") == [{"u": "nnxnnxnn.nnnnnn"}, {"u": None}]


def test_a_masked_union_is_null_in_the_table(tmp_path: Path) -> None:
    schema = schema_of(["int", PERSON])
    lake = Lake(tmp_path, schema, {"u": Mask.REPLACE_WITH_NULL})
    lake.add(decoded(schema, [{"u": 5}, {"u": ("Person", {"name": SECRET})}]))
    assert lake.rows("u") == [{"u": None}, {"u": None}]
