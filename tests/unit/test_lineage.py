"""What became of a field from version to version: names are given up and taken, columns stay what they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from headrace.schemas.lineage import Lineage, fold
from tests.unit.test_evolution import alias, listed, parse, record

if TYPE_CHECKING:
    from collections.abc import Mapping


def folded(*versions: list[Any]) -> Lineage:
    return fold(((number, parse(*fields).record) for number, fields in enumerate(versions, 1)), frozenset())


# What a field of the target version is called in an event of the written one.
NAMES: list[tuple[str, list[list[Any]], tuple[int, int], Mapping[str, str | None]]] = [
    ("the same", [[("a", "int")]], (1, 1), {"a": "a"}),
    ("not there yet", [[("a", "int")], [("a", "int"), ("b", "int")]], (2, 1), {"a": "a", "b": None}),
    ("not there any more", [[("a", "int"), ("b", "int")], [("a", "int")]], (1, 2), {"a": "a", "b": None}),
    ("renamed, forth", [[("mail", "int")], [alias("email", "int", "mail")]], (2, 1), {"email": "mail"}),
    ("renamed, back", [[("mail", "int")], [alias("email", "int", "mail")]], (1, 2), {"mail": "email"}),
    (
        "renamed twice, the first name forgotten",
        [[("a", "int")], [alias("b", "int", "a")], [alias("c", "int", "b")]],
        (3, 1),
        {"c": "a"},
    ),
    (
        "a name given up, and taken by another field",
        [[("a", "int")], [alias("b", "int", "a")], [("b", "int"), ("a", "int")]],
        (3, 1),
        {"b": "a", "a": None},
    ),
    (
        "gone and back",
        [[("a", "int"), ("n", "int")], [("a", "int")], [("a", "int"), ("n", "long")]],
        (3, 1),
        {"a": "a", "n": "n"},
    ),
    (
        "inside a list that was renamed",
        [
            [("items", listed(("qty", "int")))],
            [alias("lines", {"type": "array", "items": record(alias("count", "int", "qty"), name="R")}, "items")],
        ],
        (2, 1),
        {"lines": "items", "lines[].count": "qty"},
    ),
    (
        "a branch of a union",
        [[("u", ["int", "string"])], [alias("v", ["int", "string", "boolean"], "u")]],
        (2, 1),
        {"v": "u", "v.int": "int", "v.string": "string", "v.boolean": None},
    ),
]


@pytest.mark.parametrize(("versions", "between", "expected"), [row[1:] for row in NAMES], ids=[row[0] for row in NAMES])
def test_names_follow_columns(
    versions: list[list[Any]], between: tuple[int, int], expected: Mapping[str, str | None]
) -> None:
    assert folded(*versions).names(*between) == expected


def test_a_row_shows_what_its_event_had_under_the_tables_names() -> None:
    lineage = folded(
        [("a", "int"), ("x", "int")], [alias("b", "int", "a"), ("y", "int")], [alias("c", "int", "b"), ("x", "int")]
    )
    assert lineage.row_names(1, 1, 3) == {"a": "c", "x": "x"}
    # The second version has no x, although the table has a column for it.
    assert lineage.row_names(1, 2, 3) == {"a": "c", "x": None}
    assert lineage.row_names(3, 1, 1) == {"c": "a", "x": "x"}
    assert lineage.column_names(3, 1) == {"c": "a", "x": "x", "y": None}


def test_a_refused_version_is_passed_over_and_its_fields_are_known() -> None:
    lineage = folded([("a", "int")], [alias("b", "double", "a"), ("new", "int")], [("a", "int"), ("new", "int")])
    assert [bool(step.refused) for step in lineage.steps.values()] == [False, True, False]
    assert [column.name for column in lineage.columns] == ["a", "new"]
    # The same columns, although no table follows the version that had them first.
    assert lineage.names(3, 2) == {"a": "b", "new": "new"}
    assert lineage.names(2, 3) == {"b": "a", "new": "new"}


def test_what_a_refused_version_added_can_be_renamed_later_and_its_name_taken() -> None:
    new = record(("x", "int"), name="R")
    lineage = folded(
        [("a", "int")],
        [("a", "double"), ("new", new)],
        [("a", "int"), ("new", new)],
        [("a", "int"), alias("newer", new, "new")],
        [("a", "int"), ("newer", new), ("new", "int")],
    )
    assert lineage.names(5, 2) == {"a": "a", "newer": "new", "newer.x": "x", "new": None}
    numbers = [column.field_id for column in lineage.columns]
    assert len(set(numbers)) == len(numbers)


def test_after_a_first_version_that_is_refused_no_number_is_given_twice() -> None:
    lineage = folded([("A", "int"), ("a", "int"), ("id", "int")], [("id", "int"), ("a", "int"), ("b", "int")])
    assert [refused.rule for refused in lineage.steps[1].refused] == ["FIELD_NAME_CASE_COLLISION"]
    assert lineage.names(2, 1) == {"id": "id", "a": "a", "b": None}


def test_a_first_version_that_is_refused_leaves_the_table_to_the_next() -> None:
    lineage = folded([("a", "int"), ("r", record(name="R"))], [("a", "int")])
    assert [refused.rule for refused in lineage.steps[1].refused] == ["EMPTY_STRUCT"]
    assert [(column.name, column.required) for column in lineage.columns] == [("a", True)]


PERSON = record(("n", "int"), name="Person")


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        (PERSON, [PERSON, "int"], "a"),
        (["null", PERSON], ["null", PERSON, "int"], "a"),
        (["null", PERSON, "int"], ["null", PERSON], "a"),
        ({"type": "array", "items": PERSON}, {"type": "array", "items": [PERSON, "int"]}, "a[]"),
        ({"type": "map", "values": [PERSON, "int"]}, {"type": "map", "values": PERSON}, "a{}"),
        (record(("x", ["int", "string"]), name="R"), record(("x", record(("int", "int"), name="S")), name="R"), "a.x"),
    ],
)
def test_a_record_does_not_become_a_branch_beside_its_own_fields(old: Any, new: Any, path: str) -> None:
    lineage = folded([("a", old)], [("a", new)], [("a", old), ("b", "int")])
    assert [(refused.rule, refused.path) for refused in lineage.steps[2].refused] == [("UNSUPPORTED_TYPE_CHANGE", path)]
    assert not lineage.steps[3].refused
    assert lineage.columns[0] == lineage.steps[1].columns[0]
