"""Files of events: how JSON and CSV values become events, and how a bad line is told."""

from __future__ import annotations

import io
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from headrace.producers import lines as lines_module
from headrace.producers.csv_rows import csv_rows
from headrace.producers.events import event_converter
from headrace.producers.lines import Row, json_rows
from headrace.producers.values import json_reader, parse_json
from headrace.schemas.avro import AvroSchema
from headrace.schemas.errors import UserError

FIELDS: list[dict[str, Any]] = [
    {"name": "id", "type": "string"},
    {"name": "n", "type": ["null", "long"], "default": None},
    {"name": "x", "type": ["null", "double"], "default": None},
    {"name": "ok", "type": ["null", "boolean"], "default": None},
    {
        "name": "price",
        "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}],
        "default": None,
    },
    {"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}], "default": None},
    {"name": "day", "type": ["null", {"type": "int", "logicalType": "date"}], "default": None},
    {"name": "raw", "type": ["null", "bytes"], "default": None},
    {"name": "tags", "type": ["null", {"type": "array", "items": "bytes"}], "default": None},
    {
        "name": "contact",
        "type": [
            "null",
            {
                "type": "record",
                "name": "C",
                "fields": [{"name": "email", "type": "string"}, {"name": "days", "type": ["null", "long"]}],
            },
        ],
        "default": None,
    },
]
RECORD = AvroSchema.parse(json.dumps({"type": "record", "name": "E", "fields": FIELDS})).record
SECRET = "anna.secret"


def from_json(*lines: str) -> list[Row]:
    return list(json_rows(buffered("\n".join(lines).encode()), json_reader(RECORD)))


def from_csv(text: str) -> list[Row]:
    return list(csv_rows(buffered(text.encode()), RECORD, "f.csv"))


def buffered(data: bytes) -> io.BufferedReader:
    return io.BufferedReader(io.BytesIO(data))


def bad(rows: list[Row]) -> list[str]:
    return [str(row.bad) for row in rows if row.bad is not None]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('"x": 0.1', {"x": 0.1}),
        ('"price": 1.10', {"price": Decimal("1.10")}),
        ('"price": 3', {"price": Decimal(3)}),
        ('"price": "12345678901234567890.12"', {"price": Decimal("12345678901234567890.12")}),
        ('"at": "2013-01-31T12:00:00.000001Z"', {"at": datetime(2013, 1, 31, 12, 0, 0, 1, tzinfo=UTC)}),
        ('"at": "2013-01-31T13:00+01:00"', {"at": datetime(2013, 1, 31, 12, tzinfo=UTC)}),
        ('"day": "2013-01-31"', {"day": date(2013, 1, 31)}),
        ('"raw": "AP8="', {"raw": b"\x00\xff"}),
        ('"tags": ["AA==", "AQ=="]', {"tags": [b"\x00", b"\x01"]}),
        ('"n": null, "ok": true', {"n": None, "ok": True}),
        ('"contact": {"email": "a", "days": 1}', {"contact": {"email": "a", "days": 1}}),
        ('"n": "7"', {"n": "7"}),  # a string stays one, and the event's check refuses it
    ],
)
def test_json_values(value: str, expected: dict[str, Any]) -> None:
    (row,) = from_json(f"{{{value}}}")
    assert row.event == expected


def test_bad_json_lines_are_told_by_number_and_never_shown() -> None:
    rows = from_json(
        '\ufeff{"id": "a"}',
        "",
        f'{{"id": "{SECRET}"',
        f'{{"id": 1, "id": "{SECRET}"}}',
        f'{{"at": "{SECRET}"}}',
        '{"at": "2013-01-31T12:00:00.0000001Z"}',
        '{"day": "2013-02-30"}',
        '{"day": "20130131"}',
        '{"raw": "ä"}',
        '{"tags": ["!"]}',
        f'{{"price": "{SECRET}"}}',
        '{"x": NaN}',
        f'{{"n": {"9" * 500}}}',
        "[" * 100_000,
        '{"x": 1e400}',
        f'{{"x": 1e{"9" * 30}}}',
        f'{{"price": "1e{"9" * 30}"}}',
        f'{{"x": 0.{"1" * 500}}}',
    )
    assert [row.line for row in rows] == [1, *range(3, 19)]
    assert rows[0].event == {"id": "a"}
    assert bad(rows) == [
        "line 3: this is not JSON: Expecting ',' delimiter at column 21",
        "line 4: a JSON object names a field twice",
        "line 5: at: the text is no time of ISO 8601 with at most six decimal places",
        "line 6: at: the text is no time of ISO 8601 with at most six decimal places",
        "line 7: day: the text is no date of the form YYYY-MM-DD",
        "line 8: day: the text is no date of the form YYYY-MM-DD",
        "line 9: raw: the text is not base64",
        "line 10: tags[]: the text is not base64",
        "line 11: price: the text is no number",
        "line 12: NaN and Infinity are no JSON",
        "line 13: a number has too many digits",
        "line 14: the JSON is nested too deeply",
        "line 15: x: the number does not fit into an Avro double",
        "line 16: a number's exponent is too large",
        "line 17: price: a number's exponent is too large",
        "line 18: a number has too many digits",
    ]


def test_a_line_that_is_too_long_or_no_text_is_one_bad_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_module, "MAX_LINE_BYTES", 1 << 20)
    data = b'{"id":"a"}\n' + b"x" * (3 << 20) + b'\n\xff\n{"id":"b"}'
    rows = list(json_rows(buffered(data), json_reader(RECORD)))
    assert [(row.line, row.event) for row in rows] == [(1, {"id": "a"}), (2, None), (3, None), (4, {"id": "b"})]
    assert bad(rows) == ["line 2: the line is longer than 1 MiB", "line 3: the line is not UTF-8"]


ODD = [
    {"name": "id", "type": "string"},
    {"name": "at", "type": ["null", {"type": "int", "logicalType": "time-millis"}], "default": None},
    {"name": "ns", "type": ["null", {"type": "long", "logicalType": "timestamp-nanos"}], "default": None},
    {
        "name": "term",
        "type": ["null", {"type": "fixed", "name": "T", "size": 12, "logicalType": "duration"}],
        "default": None,
    },
    {
        "name": "payer",
        "type": [
            "null",
            "string",
            {"type": "int", "logicalType": "date"},
            {"type": "record", "name": "P", "fields": [{"name": "raw", "type": "bytes"}]},
        ],
        "default": None,
    },
    {"name": "either", "type": ["int", "long"], "default": 0},
]
ODD_SCHEMA = AvroSchema.parse(json.dumps({"type": "record", "name": "E", "fields": ODD}))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"at": "23:59:59.5"', {"at": 86_399_500}),
        ('"ns": -9223372036854775808', {"ns": -(2**63)}),
        ('"term": {"months": 1, "days": 2, "millis": 3}', {"term": b"\1\0\0\0\2\0\0\0\3\0\0\0"}),
        ('"payer": {"string": "2013-01-31"}', {"payer": {"string": "2013-01-31"}}),
        ('"payer": {"int": "1970-01-02"}', {"payer": {"int": 1}}),
        ('"payer": {"P": {"raw": "AP8="}, "string": null}', {"payer": {"P": {"raw": b"\x00\xff"}}}),
        ('"payer": null', {"payer": None}),
        ('"either": {"long": 5}', {"either": {"long": 5}}),
    ],
)
def test_unions_times_and_durations_stand_in_json_as_the_table_has_them(text: str, expected: dict[str, Any]) -> None:
    (row,) = json_rows(buffered(f'{{"id": "a", {text}}}'.encode()), json_reader(ODD_SCHEMA.record))
    rest = {"id": "a", "at": None, "ns": None, "term": None, "payer": None, "either": {"int": 0}}
    assert event_converter(ODD_SCHEMA, where="f")(row.event) == rest | expected


def test_a_union_in_json_names_its_branch() -> None:
    lines = [
        f'{{"payer": {value}}}'
        for value in (f'"{SECRET}"', "5", "{}", f'{{"{SECRET}": 1}}', '{"string": "a", "int": 1}', '{"string": null}')
    ]
    rows = list(json_rows(buffered("\n".join(lines).encode()), json_reader(ODD_SCHEMA.record)))
    what = 'payer: a value of a union is an object {"branch": value} with one branch of string, int, P'
    assert bad(rows) == [f"line {number}: {what}" for number in range(1, 7)]
    (row,) = json_rows(buffered(b'{"payer": {"P": {"raw": "!"}}}'), json_reader(ODD_SCHEMA.record))
    assert bad([row]) == ["line 1: payer.P.raw: the text is not base64"]


def test_unions_times_and_durations_in_csv() -> None:
    text = (
        "id,at,ns,term.months,term.days,term.millis,payer,either\n"
        'a,01:00:00,5,1,2,3,"{""string"": ""x""}","{""int"": 1}"\n'
        'b,,,,,,,"{""long"": 1}"\n'
        'c,01:00,x,1,2,3,,"{""long"": 1}"\n'
        "d,,,,,,,\n"
    )
    rows = list(csv_rows(buffered(text.encode()), ODD_SCHEMA.record, "f.csv"))
    convert = event_converter(ODD_SCHEMA, where="f")
    assert [convert(row.event) for row in rows[:2]] == [
        {
            "id": "a",
            "at": 3_600_000,
            "ns": 5,
            "term": b"\1\0\0\0\2\0\0\0\3\0\0\0",
            "payer": {"string": "x"},
            "either": {"int": 1},
        },
        {"id": "b", "at": None, "ns": None, "term": None, "payer": None, "either": {"long": 1}},
    ]
    assert bad(rows) == [
        "line 4: ns: the text is no integer",
        "line 5: either: the cell is empty, and the field is not optional",
    ]


def test_numbers_lose_no_digit() -> None:
    assert parse_json("[0.10000000000000000001, 12345678901234567890]") == [
        Decimal("0.10000000000000000001"),
        12345678901234567890,
    ]


def test_csv_values() -> None:
    (row,) = from_csv(
        "id,n,x,ok,price,at,day,raw,tags,contact.email,contact.days\n"
        '"a\nb",-7,1e3,TRUE,1.50,2013-01-31T12:00:00Z,2013-01-31,AP8=,"[""AA==""]",a@b,\n'
    )
    assert (row.line, row.last_line) == (2, 3)
    assert row.event == {
        "id": "a\nb",
        "n": -7,
        "x": 1000.0,
        "ok": True,
        "price": Decimal("1.50"),
        "at": datetime(2013, 1, 31, 12, tzinfo=UTC),
        "day": date(2013, 1, 31),
        "raw": b"\x00\xff",
        "tags": [b"\x00"],
        "contact": {"email": "a@b", "days": None},
    }


def test_empty_cells_are_null_where_the_field_is_optional() -> None:
    header = "contact.days,id,n,x,ok,price,at,day,raw,tags,contact.email"
    (row,) = from_csv(f"{header}\n,,,,,,,,,,\n")
    assert row.event == {"id": "", **dict.fromkeys(("n", "x", "ok", "price", "at", "day", "raw", "tags", "contact"))}


def test_bad_csv_lines_are_told_by_number_and_never_shown() -> None:
    rows = from_csv(
        "id,n,x,ok,price,at,contact.email,contact.days\n"
        "a,1,2,true,3,2013-01-31T12:00Z,e,5\n"
        f"a,{SECRET},2,true,3,,e,\n"
        "a,1_0,2,true,3,,e,\n"
        "a,1,nan,true,3,,e,\n"
        "a,1,2,yes,3,,e,\n"
        "a,1,2,true,1_0,,e,\n"
        '"a\nb",1,2,true,3,noon,e,\n'
        "a,1,2,true,3,,e,x\n"
        "a,1\n"
        "\n"
    )
    assert rows[0].bad is None
    assert bad(rows) == [
        "line 3: n: the text is no integer",
        "line 4: n: the text is no integer",
        "line 5: x: the text is no number",
        "line 6: ok: the text is neither true nor false",
        "line 7: price: the text is no number",
        "line 8: at: the text is no time of ISO 8601 with at most six decimal places",
        "line 10: contact.days: the text is no integer",
        "line 11: there are 2 cells, the header has 8",
    ]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("n,n,y\n", "column n stands twice; the contract has no field y; column id is missing"),
        ("id,contact.days\n", "column contact.email is missing"),
        ("", "column id is missing"),
        ('id\n"a\n', "this is not CSV: unexpected end of data"),
        ('id\n"a"b\n', "this is not CSV: ',' expected after '\"'"),
    ],
)
def test_a_csv_file_that_does_not_fit_is_refused_as_a_whole(text: str, what: str) -> None:
    with pytest.raises(UserError) as caught:
        from_csv(text)
    assert caught.value.what == what
