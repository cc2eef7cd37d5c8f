"""A real table that follows renames at every depth: a subscriber sees the same of its files and of the topic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from headrace.streams.decode import Decoder
from headrace.streams.past import Past
from headrace.streams.portions import PLACE_FIELDS, Span
from headrace.streams.versions import followed_version
from tests.support.lake import Lake
from tests.support.versions import Subject, frame_of, schema_of

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.streams.portions import Portion


def of(name: str, kind: Any, *aliases: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, "aliases": list(aliases), **more}


def inner(name: str, *fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields)}


def listed(*fields: dict[str, Any]) -> list[Any]:
    return ["null", {"type": "array", "items": inner("Line", *fields)}]


def mapped(*fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "map", "values": inner("Unit", *fields)}


def either(*fields: dict[str, Any]) -> list[Any]:
    return ["null", inner("Card", *fields), "string"]


# First the names, then others, then others' fields under the first ones.
VERSIONS = [
    [
        of("lines", listed(of("qty", "int"), of("note", ["null", "string"]))),
        of("by", mapped(of("x", "float"))),
        of("nest", ["null", inner("Nest", of("a", "int"))]),
        of("pay", either(of("number", "string"))),
    ],
    [
        of("payment", either(of("digits", "string", "number")), "pay"),
        of("items", listed(of("note", ["null", "string"]), of("count", "int", "qty")), "lines"),
        of("units", mapped(of("y", "float", "x")), "by"),
        of("nested", ["null", inner("Nest", of("b", "int", "a"))], "nest"),
    ],
    [
        of("pay", "string", default="?"),
        of("payment", either(of("number", "string", default="?"), of("digits", "string"))),
        of("items", listed(of("count", "int"), of("qty", "string", default="?"), of("note", ["null", "string"]))),
        of("lines", "int", default=7),
        of("units", mapped(of("x", "int", default=1), of("y", "float"))),
        of("nested", ["null", inner("Nest", of("a", "string", default="?"), of("b", "int"))]),
    ],
]


def events_of(version: int) -> list[dict[str, Any]]:
    """Return events of a version: of each shape one."""
    qty, x, a, number = [("qty", "x", "a", "number"), ("count", "y", "b", "digits")][version > 1]
    lines, by, nest, pay = [("lines", "by", "nest", "pay"), ("items", "units", "nested", "payment")][version > 1]

    def new(**fields: Any) -> dict[str, Any]:
        return fields if version == 3 else {}

    full: dict[str, Any] = {
        lines: [{qty: 1, "note": "n", **new(qty="q")}, {qty: 2, "note": None, **new(qty="r")}],
        by: {"k": {x: 0.5, **new(x=2)}, "l": {x: 1.5, **new(x=3)}},
        nest: {a: version, **new(a="n")},
        pay: {number: "12", **new(number="c")},
        **new(pay="p", lines=5),
    }
    return [full, {**full, lines: None, by: {}, nest: None, pay: None}, {**full, lines: [], pay: "cash"}]


def seen(portion: Portion) -> list[dict[str, Any]]:
    assert portion.stop is None
    assert not portion.poisons
    events = portion.events.drop_columns([each.name for each in PLACE_FIELDS])
    found: list[dict[str, Any]] = events.to_pylist(maps_as_pydicts="strict")
    return found


@pytest.fixture
def subject() -> Subject:
    subject = Subject(ids_from=0)
    for fields in VERSIONS:
        subject.add(schema_of(*fields))
    return subject


def test_files_of_all_versions_are_read_as_each_of_them(subject: Subject, tmp_path: Path) -> None:
    lake = Lake(tmp_path, subject.versions[0].schema)
    frames: list[Any] = []
    for held in (1, 2, 3):
        lake.follow(*(version.schema for version in subject.versions[:held]))
        for version in subject.versions[:held]:
            # Events of an older version come late, too.
            frame = frame_of(version, *events_of(version.version), first=3 * len(frames))
            lake.add(Decoder(version.schema, version.id).decode(frame.values).events, version.id)
            frames.append(frame)
        assert followed_version(lake.table) == held
        for pinned in (1, 2, 3):
            reader = subject.pinned(pinned)
            past = Past(lake.table, lake.product, reader.relations.columns(held))
            rows = [seen(reader.rows(0, batch, held)) for _, batch in past.rows({0: Span(0, 100)})]
            (topic,) = reader.portions(frames)
            assert [event for some in rows for event in some] == seen(topic)
            assert len(seen(topic)) == 3 * len(frames)


def test_what_is_seen_is_what_was_sent(subject: Subject) -> None:
    (old,) = subject.pinned(1).portions([frame_of(subject.version(3), *events_of(3))])
    expected = events_of(1)
    for event, card in zip(expected, [{"number": "12"}, None, None], strict=True):
        event["nest"] = event["nest"] and {"a": 3}
        event["pay"] = event["pay"] and {"Card": card, "string": None if card else "cash"}
    assert seen(old) == [{"id": f"e{number}", **event} for number, event in enumerate(expected)]
