"""One event, read as any version, from the topic and from the table: what is seen is the same."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from tests.support.versions import Subject, schema_of, ways

NULL = {"default": None}


def f(name: str, kind: Any, *aliases: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, **({"aliases": list(aliases)} if aliases else {}), **more}


def lines(*fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "record", "name": "Line", "fields": list(fields)}}


def by_key(*fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "map", "values": {"type": "record", "name": "Line", "fields": list(fields)}}


def inner(*fields: dict[str, Any]) -> list[Any]:
    return ["null", {"type": "record", "name": "Inner", "fields": list(fields)}]


def enum(*symbols: str, **more: Any) -> dict[str, Any]:
    return {"type": "enum", "name": "Colour", "symbols": list(symbols), **more}


MAIL = [[f("mail", "string")], [f("email", "string", "mail")]]
TAKEN = [
    [f("a", "string")],
    [f("b", "string", "a")],
    [f("b", "string"), f("a", "string", default="new")],
]
BACK = [[f("n", "int", default=7)], [], [f("n", "long", default=8)]]
LINES = [
    [f("lines", lines(f("qty", "int"), f("note", "string")))],
    [f("items", lines(f("count", "long", "qty"), f("note", "string")), "lines")],
    [f("items", lines(f("count", "long"), f("qty", "int", default=3), f("note", "string")))],
]
KEYED = [
    [f("m", by_key(f("x", "float")))],
    [f("m", by_key(f("y", "double", "x")))],
    [f("m", by_key(f("y", "double"), f("x", ["null", "int"], **NULL)))],
]
NEST = [
    [f("r", inner(f("a", "int")))],
    [f("s", inner(f("b", "int", "a")), "r")],
    [f("s", inner(f("b", "int"), f("a", "string", default="d")))],
]
COLOURS = [
    [f("colour", enum("RED", "GREEN"))],
    [f("color", enum("RED", "BLUE"), "colour")],
    [f("color", enum("RED", "OTHER", default="OTHER"))],
]
PAY = [
    [f("pay", ["null", "int", "string"])],
    [f("payment", ["null", "int", "string", lines(f("n", "int"))], "pay")],
    [f("payment", ["null", "int", "string", lines(f("m", "int", "n"))])],
]
WIDER = [
    [f("pay", ["null", "int", "string"]), f("all", {"type": "array", "items": ["float", "string"]})],
    [f("payment", ["string", "long", "null"], "pay"), f("all", {"type": "array", "items": ["string", "double"]})],
    [f("payment", ["string", "long", "null", "int"]), f("all", {"type": "array", "items": ["string", "double"]})],
]
MERGED = [[f("pay", ["int", "long"])], [f("pay", ["long", "string"])]]
TIMES = [
    [
        f("at", {"type": "int", "logicalType": "time-millis"}),
        f("ns", {"type": "long", "logicalType": "timestamp-nanos"}),
        f("for", {"type": "fixed", "name": "D", "size": 12, "logicalType": "duration"}),
    ],
    [
        f("time", {"type": "long", "logicalType": "time-micros"}, "at"),
        f("nanos", "long", "ns"),
        f("span", ["null", {"type": "fixed", "name": "D", "size": 12, "logicalType": "duration"}], "for"),
    ],
]
TIMED = {"at": dt.time(12, 30, 0, 5_000), "ns": 5, "for": (1).to_bytes(4, "little") * 3}
SPAN = {"months": 1, "days": 1, "millis": 1}
# The second version is one that no table can follow.
TWINS = [
    [f("mail", "string"), f("x", "int")],
    [f("Mail", "string"), f("x", "int"), f("note", "string")],
    [f("mail", "string"), f("x", "int"), f("note", "string")],
]
BOTH = [
    [f("mail", "string"), f("email", "string")],
    [f("email", "string", "mail"), f("note", "string")],
    [f("email", "string"), f("note", "string")],
]
DOUBLE = [[f("n", "int")], [f("n", "double"), f("m", "int")], [f("n", "int"), f("m", "int")]]
OPTIONAL = [[f("n", "int")], [f("n", ["null", "int"])]]
WITHOUT = [[f("a", "string")], [f("a", "string"), f("b", "string")]]
FORGOTTEN = [[f("a", "string")], [f("b", "string", "a")], [f("c", "string", "b")]]

# The versions' fields beside the id, the version that is read as, the event's version, the event, what is seen.
CASES: list[tuple[str, list[list[dict[str, Any]]], int, int, dict[str, Any], Any]] = [
    ("a rename, read as the new name", MAIL, 2, 1, {"mail": "x"}, {"email": "x"}),
    ("a rename, read as the old name", MAIL, 1, 2, {"email": "x"}, {"mail": "x"}),
    ("a name that nobody remembers", FORGOTTEN, 3, 1, {"a": "x"}, {"c": "x"}),
    ("a name that nobody knows yet", FORGOTTEN, 1, 3, {"c": "x"}, {"a": "x"}),
    ("a name given up and taken, old event", TAKEN, 3, 1, {"a": "x"}, {"b": "x", "a": "new"}),
    ("a name given up and taken, new event", TAKEN, 1, 3, {"b": "x", "a": "y"}, {"a": "x"}),
    ("a name given up and taken, from between", TAKEN, 3, 2, {"b": "x"}, {"b": "x", "a": "new"}),
    ("a name given up and taken, read from between", TAKEN, 2, 3, {"b": "x", "a": "y"}, {"b": "x"}),
    ("gone and back, and wider", BACK, 3, 1, {"n": 1}, {"n": 1}),
    ("gone, and read as what is back", BACK, 3, 2, {}, {"n": 8}),
    ("gone, and read as what was", BACK, 1, 2, {}, {"n": 7}),
    ("back, and narrower than it was", BACK, 1, 3, {"n": 1}, "n: it is long in them, int here"),
    (
        "a list and what is in it",
        LINES,
        2,
        1,
        {"lines": [{"qty": 1, "note": "n"}]},
        {"items": [{"count": 1, "note": "n"}]},
    ),
    (
        "a name in a list that another field has taken",
        LINES,
        3,
        1,
        {"lines": [{"qty": 1, "note": "n"}, {"qty": 2, "note": "m"}]},
        {"items": [{"count": 1, "qty": 3, "note": "n"}, {"count": 2, "qty": 3, "note": "m"}]},
    ),
    (
        "the same, read as it was before",
        LINES,
        2,
        3,
        {"items": [{"count": 1, "qty": 2, "note": "n"}]},
        {"items": [{"count": 1, "note": "n"}]},
    ),
    ("in a map", KEYED, 3, 1, {"m": {"k": {"x": 0.5}}}, {"m": {"k": {"y": 0.5, "x": None}}}),
    ("in a record", NEST, 3, 1, {"r": {"a": 1}}, {"s": {"b": 1, "a": "d"}}),
    ("in a record that is null", NEST, 3, 1, {"r": None}, {"s": None}),
    ("in a record, read as the old one", NEST, 1, 3, {"s": {"b": 1, "a": "x"}}, {"r": {"a": 1}}),
    ("a symbol that is known", COLOURS, 1, 2, {"color": "RED"}, {"colour": "RED"}),
    ("a symbol that is not known", COLOURS, 1, 2, {"color": "BLUE"}, "unknown-symbol"),
    ("a symbol that has a stand-in", COLOURS, 3, 1, {"colour": "GREEN"}, {"color": "OTHER"}),
    ("a branch", PAY, 2, 1, {"pay": 5}, {"payment": {"int": 5, "string": None, "array": None}}),
    ("null of a union", PAY, 2, 1, {"pay": None}, {"payment": None}),
    (
        "in a branch",
        PAY,
        3,
        2,
        {"payment": [{"n": 5}]},
        {"payment": {"int": None, "string": None, "array": [{"m": 5}]}},
    ),
    (
        "a branch too many",
        PAY,
        1,
        2,
        {"payment": 5},
        "pay.array: it may be of this branch in them, which is not here",
    ),
    (
        "a branch as a wider one",
        WIDER,
        2,
        1,
        {"pay": 5, "all": [0.5, "x"]},
        {
            "payment": {"string": None, "long": 5},
            "all": [{"string": None, "double": 0.5}, {"string": "x", "double": None}],
        },
    ),
    (
        "a branch as itself, though a wider one is there",
        WIDER,
        3,
        1,
        {"pay": 5, "all": []},
        {"payment": {"string": None, "long": None, "int": 5}, "all": []},
    ),
    (
        "a branch that is wider",
        WIDER,
        1,
        2,
        {"payment": 5, "all": []},
        "pay.long: it may be of this branch in them, which is not here",
    ),
    (
        "two branches as one",
        MERGED,
        2,
        1,
        {"pay": 5},
        "pay.int: it may be of this branch in them, which is not here",
    ),
    ("times", TIMES, 1, 1, TIMED, {"at": "12:30:00.005000", "ns": 5, "for": SPAN}),
    ("times, renamed", TIMES, 2, 1, TIMED, {"time": "12:30:00.005000", "nanos": 5, "span": SPAN}),
    ("a field that is not there yet", WITHOUT, 2, 1, {"a": "x"}, "b: it is not in them, and has no default"),
    ("null where there must be a value", OPTIONAL, 1, 2, {"n": 1}, "n: it may be null in them"),
    ("optional", OPTIONAL, 2, 1, {"n": 1}, {"n": 1}),
    ("a version that no table follows", BOTH, 3, 2, {"email": "a", "note": "b"}, {"email": "a", "note": "b"}),
    ("read as one that no table follows", BOTH, 2, 3, {"email": "a", "note": "b"}, {"email": "a", "note": "b"}),
    (
        "a name in another case",
        TWINS,
        3,
        2,
        {"Mail": "a", "x": 1, "note": "c"},
        "mail: it is not in them, and has no default",
    ),
    ("what a number may become in no table", DOUBLE, 2, 1, {"n": 1}, "n: it is int in them, double here"),
    ("what a number was in no table", DOUBLE, 3, 2, {"n": 1.0, "m": 1}, "n: it is double in them, int here"),
]


def subject_of(versions: list[list[dict[str, Any]]]) -> Subject:
    subject = Subject()
    for fields in versions:
        subject.add(schema_of(*fields))
    return subject


@pytest.mark.parametrize(
    ("versions", "pinned", "written", "event", "expected"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_an_event_is_seen_alike_from_wherever_it_comes(
    versions: list[list[dict[str, Any]]], pinned: int, written: int, event: dict[str, Any], expected: Any
) -> None:
    for way, seen in ways(subject_of(versions), pinned, written, event):
        assert seen == ({"id": "e0", **expected} if isinstance(expected, dict) else expected), way
