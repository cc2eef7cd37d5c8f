"""The compatibility of versions, as tables of sentence, old, new, findings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headrace.schemas.avro import AvroSchema
from headrace.schemas.compatibility import Breaks, Finding, check, parse
from headrace.schemas.errors import SchemaError
from headrace.schemas.evolution import step
from headrace.schemas.lineage import fold
from headrace.schemas.product import Compatibility

CASES = Path(__file__).parents[3] / "shared" / "cases"
NULL = "null"
NOT_BESIDE = "the shared cases are not beside this clone"


def record(*fields: Any, name: str = "Event", **more: Any) -> dict[str, Any]:
    members = [each if isinstance(each, dict) else {"name": each[0], "type": each[1]} for each in fields]
    return {"type": "record", "name": name, "fields": members, **more}


def event(*fields: Any, **more: Any) -> AvroSchema:
    return AvroSchema.parse(json.dumps(record(*fields, **more)))


def cases(name: str, part: str) -> list[dict[str, Any]]:
    path = CASES / name
    found: list[dict[str, Any]] = json.loads(path.read_text())[part] if path.exists() else []
    return found


@pytest.mark.skipif(not CASES.exists(), reason=NOT_BESIDE)
@pytest.mark.parametrize(
    "case",
    cases("compatibility.json", "verdicts"),
    ids=lambda case: f"{case['mode']} {'>'.join(case['history'])}>{case['new']}",
)
def test_the_verdicts_of_the_reference_registry(case: dict[str, Any]) -> None:
    schemas = json.loads((CASES / "compatibility.json").read_text())["schemas"]
    history = [AvroSchema.parse(json.dumps(schemas[name])) for name in case["history"]]
    report = check(history, AvroSchema.parse(json.dumps(schemas[case["new"]])), Compatibility(case["mode"]))
    assert report.compatible is case["compatible"]


@pytest.mark.skipif(not CASES.exists(), reason=NOT_BESIDE)
@pytest.mark.parametrize("case", cases("evolution.json", "cases"), ids=lambda case: str(case["name"]))
def test_the_shared_changes(case: dict[str, Any]) -> None:
    old, new = (AvroSchema.parse(json.dumps(case[side])) for side in ("old", "new"))
    report = check([old], new, Compatibility.BACKWARD)
    assert [[finding.layer, finding.rule] for finding in report.findings] == case["findings"]
    assert [list(change) for change in report.changes] == case["diff"]


def decimal(precision: int, scale: int = 2) -> dict[str, Any]:
    return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}


def long_of(logical: str) -> dict[str, Any]:
    return {"type": "long", "logicalType": logical}


def enum(*symbols: str, **more: Any) -> dict[str, Any]:
    return {"type": "enum", "name": "E", "symbols": list(symbols), **more}


def fixed(size: int, name: str = "F") -> dict[str, Any]:
    return {"type": "fixed", "name": name, "size": size}


def listed(kind: Any) -> dict[str, Any]:
    return {"type": "array", "items": kind}


def mapped(kind: Any) -> dict[str, Any]:
    return {"type": "map", "values": kind}


def inner(*fields: Any, name: str = "R", **more: Any) -> dict[str, Any]:
    return record(*fields, name=name, **more)


# What happens to the field "a"; then layer, rule, path, old and new of each finding but the table's, under BACKWARD.
CHANGES: list[tuple[str, Any, Any, list[str]]] = [
    ("nothing", "int", "int", []),
    ("a branch of a union added", ["string", "int"], ["string", "int", "boolean"], []),
    ("a branch removed", ["string", "int"], ["string"], ["avro MISSING_UNION_BRANCH a int string"]),
    ("a branch widened", ["string", "int"], ["string", "long"], []),
    ("a branch narrowed", ["string", "long"], ["string", "int"], ["avro MISSING_UNION_BRANCH a long string|int"]),
    ("branches reordered", ["string", "int", NULL], [NULL, "int", "string"], []),
    (
        "a record in a union changed inside",
        ["string", inner(("x", "int"))],
        ["string", inner(("x", "string"))],
        ["avro TYPE_MISMATCH a.R.x int string"],
    ),
    (
        "an optional record's field",
        [NULL, inner()],
        [inner(("x", "int")), NULL],
        ["avro READER_FIELD_MISSING_DEFAULT_VALUE a.x absent int"],
    ),
    ("null moved in a union", [NULL, "int"], ["int", NULL], []),
    ("null taken away", [NULL, "int"], "int", ["avro TYPE_MISMATCH a null|int int"]),
    ("a fixed resized", fixed(2), fixed(3), ["avro FIXED_SIZE_MISMATCH a fixed(2) fixed(3)"]),
    ("a fixed renamed", fixed(2), fixed(2, "G"), ["avro NAME_MISMATCH a F G"]),
    ("a fixed renamed with an alias", fixed(2), {**fixed(2, "G"), "aliases": ["F"]}, []),
    ("a record renamed with an alias", inner(("x", "int")), inner(("x", "int"), name="S", aliases=["R"]), []),
    (
        "a full name in an alias",
        inner(("x", "int"), namespace="n"),
        inner(("x", "int"), name="S", namespace="m", aliases=["n.R"]),
        [],
    ),
    (
        "an alias of the other namespace",
        inner(("x", "int"), namespace="n"),
        inner(("x", "int"), name="S", namespace="m", aliases=["R"]),
        ["avro NAME_MISMATCH a n.R m.S"],
    ),
    ("another namespace", inner(("x", "int")), inner(("x", "int"), namespace="other"), []),
    ("a list to a map", listed("int"), mapped("int"), ["avro TYPE_MISMATCH a array<int> map<int>"]),
    ("items made optional", listed("int"), listed([NULL, "int"]), []),
    ("items made required", listed([NULL, "int"]), listed("int"), ["avro TYPE_MISMATCH a[] null|int int"]),
    (
        "deep inside",
        listed(mapped(inner(("x", [NULL, listed("string")])))),
        listed(mapped(inner(("x", [NULL, listed("int")])))),
        ["avro TYPE_MISMATCH a[]{}.x[] string int"],
    ),
    ("string to bytes", "string", "bytes", []),
    (
        "uuid to string",
        {"type": "string", "logicalType": "uuid"},
        "string",
        ["logical LOGICAL_TYPE_CHANGED a uuid string"],
    ),
    ("a moment to text", long_of("timestamp-micros"), "string", ["avro TYPE_MISMATCH a timestamp-micros string"]),
    (
        "millis to local micros",
        long_of("timestamp-millis"),
        long_of("local-timestamp-micros"),
        [
            "logical TIMESTAMP_UNIT_CHANGED a timestamp-millis local-timestamp-micros",
            "logical TIMESTAMP_ZONE_CHANGED a timestamp-millis local-timestamp-micros",
        ],
    ),
    ("a decimal widened", decimal(9), decimal(12), []),
    (
        "a decimal in a map's record",
        mapped(inner(("x", decimal(9, 2)))),
        mapped(inner(("x", decimal(9, 3)))),
        ["logical DECIMAL_SCALE_CHANGED a{}.x decimal(9,2) decimal(9,3)"],
    ),
    (
        "a logical type in a branch",
        ["string", long_of("timestamp-millis")],
        ["string", long_of("timestamp-micros")],
        ["logical TIMESTAMP_UNIT_CHANGED a.long timestamp-millis timestamp-micros"],
    ),
]


def shortly(finding: Finding) -> str:
    return f"{finding.layer} {finding.rule} {finding.path} {finding.old} {finding.new}"


@pytest.mark.parametrize(("old", "new", "expected"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES])
def test_a_change(old: Any, new: Any, expected: list[str]) -> None:
    report = check([event(("a", old))], event(("a", new)), Compatibility.BACKWARD)
    assert [shortly(each) for each in report.findings if each.layer != "table"] == expected
    assert all(each.hint for each in report.findings)


def test_who_breaks_follows_from_the_mode() -> None:
    """Where both sides break, each is told what to do."""
    old, new = event(("a", "int"), ("gone", "int")), event(("a", "string"), ("come", "int"))
    backward = [("a", Breaks.READER_OF_OLD_EVENTS), ("come", Breaks.READER_OF_OLD_EVENTS)]
    forward = [("a", Breaks.READER_OF_NEW_EVENTS), ("gone", Breaks.READER_OF_NEW_EVENTS)]
    for mode, expected in (
        (Compatibility.NONE, []),
        (Compatibility.BACKWARD, backward),
        (Compatibility.FORWARD, forward),
        (Compatibility.FULL, backward + forward),
    ):
        found = check([old], new, mode)
        assert [(each.path, each.breaks) for each in found.findings if each.layer == "avro"] == expected
        assert [each.rule for each in found.findings if each.layer == "table"] == ["UNSUPPORTED_TYPE_CHANGE"]
        assert all((each.old, each.new) == ("int", "string") for each in found.findings if each.path == "a")


def test_a_wider_decimal_breaks_those_who_have_the_narrow_one() -> None:
    old, new = event(("a", decimal(9))), event(("a", decimal(12)))
    (found,) = check([old], new, Compatibility.FORWARD).findings
    assert (found.rule, found.breaks) == ("DECIMAL_PRECISION_WIDENED", Breaks.READER_OF_NEW_EVENTS)
    assert check([old], new, Compatibility.FORWARD).changes == (("widen", "a", "decimal(9,2)", "decimal(12,2)"),)


def test_what_several_versions_share_is_told_once() -> None:
    first, second = event(("a", "int"), ("b", "string")), event(("a", "int"))
    third = event(("a", "string"), ("b", "int"))
    transitive = check([first, second], third, Compatibility.BACKWARD_TRANSITIVE).findings
    assert [(each.rule, each.path, each.against) for each in transitive if each.layer == "avro"] == [
        ("TYPE_MISMATCH", "a", (1, 2)),
        ("TYPE_MISMATCH", "b", (1,)),
        ("READER_FIELD_MISSING_DEFAULT_VALUE", "b", (2,)),
    ]
    plain = check([first, second], third, Compatibility.BACKWARD).findings
    assert [(each.rule, each.path, each.against) for each in plain] == [
        ("TYPE_MISMATCH", "a", (2,)),
        ("READER_FIELD_MISSING_DEFAULT_VALUE", "b", (2,)),
        # The table has followed both, and still has the first one's column.
        ("UNSUPPORTED_TYPE_CHANGE", "a", (2,)),
        ("UNSUPPORTED_TYPE_CHANGE", "b", (2,)),
    ]


def test_a_named_type_that_stands_twice_is_told_at_both_places() -> None:
    old, new = (event(("a", inner(("x", kind))), ("b", [NULL, "R"])) for kind in ("long", "int"))
    found = check([old], new, Compatibility.BACKWARD).findings
    assert [each.path for each in found if each.layer == "avro"] == ["a.x", "b.x"]


def test_a_first_version_is_judged_by_the_table_alone() -> None:
    assert check([], event(("a", "int")), Compatibility.FULL_TRANSITIVE).ok
    (found,) = check([], event(("a", inner())), Compatibility.BACKWARD).findings
    assert (found.layer, found.rule, found.path) == ("table", "EMPTY_STRUCT", "a")


NODE = (
    '{"type":"record","name":"Node","namespace":"n",'
    '"fields":[{"name":"v","type":"%s"},{"name":"next","type":["null","Node"]}]}'
)


def test_a_recursive_type_has_no_table_and_avros_rules_all_the_same() -> None:
    assert [
        shortly(each) for each in check([parse(NODE % "int")], parse(NODE % "long"), Compatibility.BACKWARD).findings
    ] == ["table RECURSIVE_TYPE next absent a record inside itself"]
    found = check([parse(NODE % "long")], parse(NODE % "int"), Compatibility.BACKWARD).findings
    assert [shortly(each) for each in found] == [
        "avro TYPE_MISMATCH v long int",
        "table RECURSIVE_TYPE next absent a record inside itself",
    ]
    flat = event(("v", "int"), name="Node")
    assert [each.rule for each in check([parse(NODE % "int")], flat, Compatibility.BACKWARD).findings] == []


def test_a_recursive_type_unrolled_once_is_the_same_type() -> None:
    once = json.loads(NODE % "int")
    again = {**json.loads(NODE % "long"), "namespace": "m"}
    once["fields"][1]["type"] = [NULL, again]
    unrolled = parse(json.dumps(once))
    report = check([parse(NODE % "int")], unrolled, Compatibility.BACKWARD)
    assert report.compatible
    narrowed = check([unrolled], parse(NODE % "int"), Compatibility.BACKWARD)
    assert [shortly(each) for each in narrowed.findings][:1] == ["avro TYPE_MISMATCH next.v long int"]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '"string"',
        NODE % "nothing",
        NODE[:-1] % "int" + ',"x":NaN}',
        "[" * 10**5,
        '{"type":"record","name":"R","fields":3}',
    ],
)
def test_what_is_no_schema_is_told_as_ever(text: str) -> None:
    with pytest.raises(SchemaError):
        parse(text)


@pytest.mark.parametrize("aliases", [5, None, "E", [1], {"E": 1}])
def test_aliases_that_are_no_names_are_nobodys(aliases: Any) -> None:
    old, new = event(("a", enum("A"))), event(("a", {**enum("A"), "name": "F", "aliases": aliases}))
    assert [each.rule for each in check([old], new, Compatibility.BACKWARD).findings] == ["NAME_MISMATCH"]


def test_a_fields_aliases_that_are_no_names_are_nobodys() -> None:
    old, new = event(("a", "int")), event({"name": "b", "type": "int", "default": 0, "aliases": [1, {"a": "b"}, ["a"]]})
    assert check([old], new, Compatibility.BACKWARD).changes == (
        ("add", "b", "int", "optional"),
        ("make_optional", "a"),
    )


TAGGED = {"confluent:tags": ["PII", "user.email"]}


def field(name: str, kind: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, **more}


# Old and new fields; then rule, path, old and new of what governance finds.
TAGS: list[tuple[str, Any, Any, list[str]]] = [
    ("removed", field("a", "string", **TAGGED), field("a", "string"), ["PII_TAG_REMOVED a user.email absent"]),
    ("the field removed", field("a", "string", **TAGGED), field("b", "string"), []),
    (
        "moved into a record without its tag",
        field("a", "string", **TAGGED),
        field("r", inner(field("a", ["null", "string"]), field("b", "int"))),
        ["PII_TAG_REMOVED r.a user.email absent"],
    ),
    (
        "moved out of a tagged record",
        field("r", inner(field("a", "string")), **TAGGED),
        field("a", "string"),
        ["PII_TAG_REMOVED a user.email absent"],
    ),
    (
        "moved into a record with its tag",
        field("a", "string", **TAGGED),
        field("r", inner(field("a", "string", **TAGGED))),
        [],
    ),
    (
        "moved into a tagged record",
        field("a", "string", **TAGGED),
        field("r", inner(field("a", "string")), **TAGGED),
        [],
    ),
    ("another thing of that name", field("a", "string", **TAGGED), field("r", inner(field("a", "int"))), []),
    (
        "branches of one last name",
        field("u", [record(field("x", "int", **TAGGED), name="a.X"), record(field("x", "int"), name="b.X")]),
        field("u", [record(field("x", "int", **TAGGED), name="a.X"), record(field("x", "int"), name="b.X")]),
        [],
    ),
    ("kept in a rename", field("a", "string", **TAGGED), field("b", "string", aliases=["a"], **TAGGED), []),
    (
        "lost in a rename",
        field("a", "string", **TAGGED),
        field("b", "string", aliases=["a"]),
        ["PII_TAG_REMOVED b user.email absent"],
    ),
    ("added", field("a", "string"), field("a", "string", **TAGGED), []),
    (
        "no category any more",
        field("a", "string", **TAGGED),
        field("a", "string", **{"confluent:tags": ["PII"]}),
        ["PII_CATEGORY_CHANGED a user.email PII"],
    ),
    (
        "in a list's record",
        field("a", listed(inner(field("x", "string", **TAGGED)))),
        field("a", listed(inner(field("x", "string")))),
        ["PII_TAG_REMOVED a[].x user.email absent"],
    ),
    (
        "moved up to the list",
        field("a", listed(inner(field("x", "string", **TAGGED)))),
        field("a", listed(inner(field("x", "string"))), **TAGGED),
        [],
    ),
    (
        "moved down to all of a record",
        field("a", inner(field("x", "string"), field("y", "string")), **TAGGED),
        field("a", inner(field("x", "string", **TAGGED), field("y", "string", **TAGGED))),
        [],
    ),
    (
        "moved down to a part",
        field("a", inner(field("x", "string"), field("y", "string")), **TAGGED),
        field("a", inner(field("x", "string", **TAGGED), field("y", "string"))),
        ["PII_TAG_REMOVED a user.email absent"],
    ),
    ("moved into the type", field("a", "string", **TAGGED), field("a", {"type": "string", **TAGGED}), []),
]


@pytest.mark.parametrize(("old", "new", "expected"), [row[1:] for row in TAGS], ids=[row[0] for row in TAGS])
def test_tags(old: Any, new: Any, expected: list[str]) -> None:
    report = check([event(("id", "int"), old)], event(("id", "int"), new), Compatibility.NONE)
    found = [each for each in report.findings if each.layer == "governance"]
    assert [f"{each.rule} {each.path} {each.old} {each.new}" for each in found] == expected
    assert all(each.breaks is Breaks.MASK for each in found)


def test_a_column_whose_mask_is_null_is_made_optional() -> None:
    old, new = event(("a", "string")), event(("a", "string"), ("b", [NULL, "int"]))
    report = check([old], new, Compatibility.BACKWARD, nulled=frozenset({"a"}))
    assert report.changes == (("add", "b", "int", "optional"),)


DATE = {"type": "int", "logicalType": "date"}


def test_what_no_table_can_hold_at_all_is_found_without_a_mesh() -> None:
    new = event(
        ("_kafka_offset", "long"),
        {"name": "n", "type": DATE, "default": 2**31 - 1},
        ("d", decimal(60)),
        ("e", {"type": "array", "items": NULL}),
    )
    found = check([event(("n", DATE))], new, Compatibility.NONE).findings
    assert {(each.rule, each.path, each.old) for each in found} == {
        ("RESERVED_NAME", "_kafka_offset", "absent"),
        ("INVALID_DEFAULT", "n", "date"),
        ("UNSUPPORTED_TYPE", "d", "absent"),
        ("UNSUPPORTED_TYPE", "e[]", "absent"),
    }


# What the shared cases leave out: versions oldest first, the last one new; rules of the table, and what it changes.
TABLES: list[tuple[str, list[list[Any]], list[str], list[tuple[str, ...]]]] = [
    ("removed and added again", [[("a", "int")], [], [("a", "int")]], [], []),
    ("removed and added again, wider", [[("a", "int")], [], [("a", "long")]], [], [("widen", "a", "int", "long")]),
    (
        "removed and added again as another type",
        [[("a", "int")], [], [("a", "string")]],
        ["UNSUPPORTED_TYPE_CHANGE a"],
        [],
    ),
    (
        "aliases that cross",
        [
            [("a", "int"), ("b", "int")],
            [{"name": "a", "type": "int", "aliases": ["b"]}, {"name": "b", "type": "int", "aliases": ["a"]}],
        ],
        ["ALIAS_AMBIGUOUS a", "ALIAS_AMBIGUOUS b"],
        [],
    ),
    (
        "a branch added",
        [[("a", ["string", "int"])], [("a", ["string", "int", "boolean"])]],
        [],
        [("add", "a.boolean", "boolean", "optional")],
    ),
    ("a branch widened", [[("a", ["string", "int"])], [("a", [NULL, "string", "int"])]], [], [("make_optional", "a")]),
    ("a fixed resized", [[("a", fixed(2))], [("a", fixed(3))]], ["UNSUPPORTED_TYPE_CHANGE a"], []),
    ("another namespace", [[("a", inner(("x", "int")))], [("a", inner(("x", "int"), namespace="n"))]], [], []),
    (
        "a type that stands twice",
        [[("a", inner(("x", "int"))), ("b", "R")], [("a", inner(("x", "long"))), ("b", "R")]],
        [],
        [("widen", "a.x", "int", "long"), ("widen", "b.x", "int", "long")],
    ),
    ("items made optional", [[("a", listed("int"))], [("a", listed([NULL, "int"]))]], [], [("make_optional", "a[]")]),
    ("a map to a list", [[("a", mapped("int"))], [("a", listed("int"))]], ["UNSUPPORTED_TYPE_CHANGE a"], []),
    (
        "a version that was refused is passed over",
        [[("a", "int")], [("a", "double")], [("a", "long")]],
        [],
        [("widen", "a", "int", "long")],
    ),
    (
        "a symbol of a nested enum",
        [[("a", listed(inner(("x", enum("A", "B")))))], [("a", listed(inner(("x", enum("A")))))]],
        ["ENUM_SYMBOL_DELETED a[].x"],
        [],
    ),
]


@pytest.mark.parametrize(("versions", "rules", "changes"), [row[1:] for row in TABLES], ids=[row[0] for row in TABLES])
def test_what_the_table_does(versions: list[list[Any]], rules: list[str], changes: list[tuple[str, ...]]) -> None:
    *old, new = [event(("id", "string"), *fields) for fields in versions]
    report = check(old, new, Compatibility.NONE)
    assert [f"{each.rule} {each.path}" for each in report.findings if each.layer == "table"] == rules
    assert list(report.changes) == changes


def test_a_short_schema_that_stands_in_itself_many_times_is_no_long_question() -> None:
    """Each union holds two records of one last name, so that at each level all four pairs are tried."""
    levels = 10

    def doubled(leaf: str) -> AvroSchema:
        kind: Any = leaf
        fields = []
        for level in range(levels):
            names = [f"{space}.X{level}" for space in "ab"]
            fields.append((f"f{level}", [record(("f", kind), name=name) for name in names]))
            kind = names
        return event(*fields)

    report = check([doubled("string")], doubled("int"), Compatibility.FULL)
    assert {each.rule for each in report.findings} == {"TYPE_MISMATCH", "UNSUPPORTED_TYPE_CHANGE"}
    deepest = max(report.findings, key=lambda each: each.path.count("."))
    assert deepest.path.count(".") == 2 * levels


def test_a_refusal_always_says_what_stands_there_now() -> None:
    report = check([event(("a", "int"))], event(("a", "int"), field("A", "int", default=1)), Compatibility.BACKWARD)
    assert [(each.rule, each.old, each.new) for each in report.findings] == [
        ("FIELD_NAME_CASE_COLLISION", "absent", "int")
    ]


def test_a_table_that_is_there_counts_instead_of_the_versions() -> None:
    """It may be behind them, or somebody may have changed it."""
    columns = fold([(1, event(("a", "long"), ("mine", "string")).record)], frozenset()).columns
    made = step(columns, event(("a", "int")).record, frozenset())
    report = check([event(("a", "int"))], event(("a", "int")), Compatibility.BACKWARD, step=made)
    assert [f"{each.rule} {each.path} {each.old} {each.new}" for each in report.findings] == [
        "UNSUPPORTED_TYPE_CHANGE a long int"
    ]
    made = step(columns, event(("a", "long")).record, frozenset())
    wider = check([event(("a", "int"))], event(("a", "long")), Compatibility.BACKWARD, step=made)
    assert wider.changes == (("make_optional", "mine"),)
