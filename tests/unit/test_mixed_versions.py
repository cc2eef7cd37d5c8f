"""Events of several versions in one table: each value in its column, whatever its field was called."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from itertools import permutations
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyiceberg.types import StringType

from headrace.schemas.changes import shown
from headrace.schemas.errors import ProductStopped
from headrace.schemas.product import RefusedVersions
from headrace.schemas.verdicts import Verdicts
from headrace.sinks.evolution import follow, followed_version
from headrace.sinks.files import write_rows
from headrace.sinks.tables import ensure_table
from tests.support.lake import TABLE
from tests.support.mixed import POLICY, Sink, field, record, schema_of, tagged

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.schemas.avro import AvroSchema

ITEM = record("Item", field("sku", "string"), field("qty", "int"))
PERSON, COMPANY = (
    record("Person", field("nick", "string")),
    record("Company", field("name", "string"), field("seats", "int")),
)


def decimal_of(precision: int) -> dict[str, Any]:
    return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": 2}


ONE = schema_of(
    field("n", "int"),
    field("x", "float"),
    field("price", decimal_of(6)),
    field("counts", {"type": "array", "items": "int"}),
    field("by", {"type": "map", "values": "float"}),
    field("mail", "string"),
    field("contact", ["null", record("Contact", field("mail", "string"), field("phone", ["null", "string"]))]),
    field("items", {"type": "array", "items": ITEM}),
    field("payer", [PERSON, COMPANY]),
    field("gone", "string"),
)
ONE_EVENT = {
    "n": 1,
    "x": 0.5,
    "price": Decimal("1.25"),
    "counts": [1, 2],
    "by": {"a": 0.25},
    "mail": "one",
    "contact": {"mail": "inner", "phone": "1"},
    "items": [{"sku": "s", "qty": 3}],
    "payer": ("Company", {"name": "bolt", "seats": 3}),
    "gone": "g",
}
ONE_ROW: dict[str, Any] = {
    "n": 1,
    "x": 0.5,
    "price": Decimal("1.25"),
    "counts": [1, 2],
    "by": [("a", 0.25)],
    "email": "one",
    "person": {"email": "inner", "phone": "1"},
    "items": [{"article": "s", "qty": 3, "unit": "piece"}],
    "payer": {"Person": None, "Company": {"title": "bolt", "seats": 3}},
    "gone": "g",
    "tier": "basic",
}
# Renamed at every depth, widened in lists, maps and unions, a field given up, another one added.
TWO = schema_of(
    field("tier", "string", default="basic"),
    field("n", "long"),
    field("x", "double"),
    field("price", decimal_of(12)),
    field("counts", {"type": "array", "items": ["null", "long"]}),
    field("by", {"type": "map", "values": "double"}),
    field("email", "string", aliases=["mail"]),
    field(
        "person",
        ["null", record("Contact", field("email", "string", aliases=["mail"]), field("phone", ["null", "string"]))],
        aliases=["contact"],
    ),
    field(
        "items",
        {
            "type": "array",
            "items": record(
                "Item",
                field("article", "string", aliases=["sku"]),
                field("qty", "long"),
                field("unit", "string", default="piece"),
            ),
        },
    ),
    field("payer", [PERSON, record("Company", field("title", "string", aliases=["name"]), field("seats", "long"))]),
)
TWO_EVENT = {
    "n": 2**40,
    "x": 0.1,
    "price": Decimal("9999999999.99"),
    "counts": [None, 2**40],
    "by": {"b": 0.1},
    "email": "two",
    "person": None,
    "items": [{"article": "t", "qty": 2**40, "unit": "box"}],
    "payer": ("Company", {"title": "acme", "seats": 2**40}),
    "tier": "gold",
}
TWO_ROW = {
    **TWO_EVENT,
    "by": [("b", 0.1)],
    "payer": {"Person": None, "Company": {"title": "acme", "seats": 2**40}},
    "gone": None,
}
# The old names are other fields' now, and what was given up is back.
THREE = schema_of(
    field("email", "string"),
    field("mail", "boolean", default=True),
    field("gone", ["null", "string"], default="back"),
    field("n", ["null", "long"]),
)
THREE_EVENT = {"email": "three", "mail": False, "gone": "again", "n": None}
EVENTS = {1: ONE_EVENT, 2: TWO_EVENT, 3: THREE_EVENT}


def row_of(version: int, followed: int) -> dict[str, Any]:
    """What an event of a version becomes in a table that has followed so many."""
    row = {1: ONE_ROW, 2: TWO_ROW}.get(version) or {
        **dict.fromkeys(ONE_ROW),
        "email": "three",
        "mail": False,
        "gone": "again",
    }
    if followed == 3 and version < 3:
        # The reader's defaults fill what an event lacks: version 3 has no tier, and gone again.
        row = {**row, "mail": True, "tier": row["tier"] if version == 2 else None}
        row |= {"gone": "back"} if version == 2 else {}
        row |= {"items": [{**item, "unit": None} for item in row["items"]]} if version == 1 else {}
    return row


@pytest.mark.parametrize("order", list(permutations((1, 2, 3))))
def test_events_of_three_versions_in_any_order_land_in_one_table(tmp_path: Path, order: tuple[int, ...]) -> None:
    sink = Sink(tmp_path, ONE, TWO, THREE)
    sink.land_all([(version, {"id": place, **EVENTS[version]}) for place, version in enumerate(order)])
    assert sink.rows() == [{"id": place, **row_of(version, 3)} for place, version in enumerate(order)]
    assert [row["_schema_id"] for row in sink.lake.rows("_schema_id")] == [100 + version for version in order]


def test_rows_from_before_show_under_the_new_names_and_late_events_of_old_versions_beside_them(tmp_path: Path) -> None:
    sink = Sink(tmp_path, ONE)
    sink.land(1, {"id": 1, **ONE_EVENT})
    sink.shelf.add(TWO)
    sink.land(2, {"id": 2, **TWO_EVENT})
    sink.shelf.add(THREE)
    sink.land(3, {"id": 3, **THREE_EVENT})
    sink.land(1, {"id": 4, **ONE_EVENT})
    sink.start()
    sink.land(2, {"id": 5, **TWO_EVENT})
    first, second, third, fourth, fifth = sink.rows()
    # A row that was there when a column came has no value in it.
    assert first == {"id": 1, **ONE_ROW, "mail": None, "tier": None, "items": [{**ONE_ROW["items"][0], "unit": None}]}
    assert second == {"id": 2, **TWO_ROW, "mail": None}
    assert third == {"id": 3, **row_of(3, 3)}
    assert fourth == {"id": 4, **row_of(1, 3)}
    assert fifth == {"id": 5, **row_of(2, 3)}


def test_a_table_that_is_made_late_is_as_one_that_was_there_from_the_beginning(tmp_path: Path) -> None:
    early = Sink(tmp_path / "early", ONE, TWO, THREE)
    early.land(1, {"id": 1, **ONE_EVENT})
    late = Sink(tmp_path / "late", ONE, TWO, THREE)
    late.lake.catalog.drop_table(TABLE)
    verdicts = Verdicts.of(late.product, POLICY, late.shelf.all_versions(late.product.subject))
    made = ensure_table(late.lake.catalog, late.product, verdicts)
    assert followed_version(made) == 3
    place = made.metadata_location
    assert follow(late.lake.catalog, late.product, verdicts).metadata_location == place
    late.land(1, {"id": 1, **ONE_EVENT})
    assert late.rows() == early.rows()
    seen = [[shown(each.field_type) for each in sink.lake.reload().schema().fields] for sink in (early, late)]
    assert seen[0] == seen[1]


def test_a_column_of_somebody_elses_gets_no_events_value_even_under_an_events_name(tmp_path: Path) -> None:
    """A table from before renames were followed has both columns, and only one of them is masked."""
    one, two = schema_of(tagged("mail", "string")), schema_of(field("email", "string", aliases=["mail"]))
    sink = Sink(tmp_path, one, two)
    sink.land(2, {"id": 1, "email": "ann@example.org"})
    with sink.lake.reload().update_schema() as update:
        update.add_column("mail", StringType())
    sink.land(1, {"id": 2, "mail": "ann@example.org"})
    first, second = sink.rows()
    assert first["email"] == second["email"] != "ann@example.org"
    assert second["mail"] is None


def test_files_that_were_written_before_a_rename_are_written_again(tmp_path: Path) -> None:
    one, two = schema_of(field("mail", "string")), schema_of(field("email", "string", aliases=["mail"]))
    sink, other = Sink(tmp_path, one), Sink(tmp_path / "unused", one, two)
    sink.land(1, {"id": 1, "mail": "a"})
    chunk = sink.decoding.chunk(sink.frame(1, 1, {"id": 2, "mail": "b"}))
    before = sink.lake.reload()
    written = write_rows(before, sink.decoding.shape(before).rows(before, [chunk], 1), sink.product)
    # Another worker gets an event of version 2, which is registered meanwhile, and the table follows.
    sink.shelf.add(two)
    other.lake, other.shelf = sink.lake, sink.shelf
    other.start()
    other.decoding.chunk(other.frame(5, 2, {"id": 3, "email": "c"}))
    after = sink.lake.reload()
    assert followed_version(after) == 2
    assert not written.fits(after)
    # A handle from before still gets the columns that it names.
    assert sink.decoding.shape(before).rows(before, [chunk], 1).column("mail").to_pylist() == ["b"]
    assert sink.decoding.shape(after).rows(after, [chunk], 1).column("email").to_pylist() == ["b"]


# --- names that are given up, taken and crossed, at random ---

NAMES = st.sampled_from(["a", "b", "c"])


@st.composite
def histories(draw: st.DrawFn) -> list[dict[str, tuple[int, str | None]]]:
    """Versions as fields by name: which field it is (a number), and the alias that it is renamed by."""
    names = sorted(draw(st.sets(NAMES, min_size=1)))
    fields: dict[str, tuple[int, str | None]] = {name: (number, None) for number, name in enumerate(names)}
    count, versions = len(fields), [dict(fields)]
    for _ in range(draw(st.integers(1, 4))):
        changed: dict[str, tuple[int, str | None]] = {name: (number, None) for name, (number, _) in fields.items()}
        match draw(st.sampled_from(["add", "drop", "rename"])):
            case "rename" if free := sorted({"a", "b", "c"} - changed.keys()):
                old, new = draw(st.sampled_from(sorted(changed))), draw(st.sampled_from(free))
                changed[new] = changed.pop(old)[0], old
            case "drop" if len(changed) > 1:
                changed.pop(draw(st.sampled_from(sorted(changed))))
            case _:
                for name in sorted({"a", "b", "c"} - changed.keys())[:1]:
                    changed[name] = count, None
                    count += 1
        fields = changed
        versions.append(dict(fields))
    return versions


def schema_from(version: dict[str, tuple[int, str | None]]) -> AvroSchema:
    fields = [
        field(name, ["null", "string"], **({"aliases": [alias]} if alias else {}))
        for name, (_, alias) in version.items()
    ]
    return schema_of(*fields)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(histories(), st.data())
def test_every_value_is_found_in_its_fields_column_whatever_it_was_called(
    tmp_path_factory: pytest.TempPathFactory, versions: list[dict[str, tuple[int, str | None]]], data: st.DataObject
) -> None:
    """A field is its name until it is renamed: one that comes back under a name is the column that had it last."""
    schemas = [schema_from(version) for version in versions]
    sink = Sink(tmp_path_factory.mktemp("lake"), *schemas)
    verdicts = Verdicts.of(sink.product, POLICY, sink.shelf.all_versions(sink.product.subject))
    followed = [each.version for each in verdicts.versions]
    order = data.draw(st.lists(st.sampled_from(followed), min_size=1, max_size=6))
    sink.land_all(
        [
            (version, {"id": place, **{name: f"{place}{name}" for name in versions[version - 1]}})
            for place, version in enumerate(order)
        ]
    )
    columns = {name: model_column(versions, followed, name) for name in sink.lake.reload().schema().column_names}
    for row, version in zip(sink.rows(), order, strict=True):
        for name in versions[version - 1]:
            found = [column for column, value in row.items() if value == f"{row['id']}{name}"]
            assert len(found) == 1, (versions, order, row)
            assert columns[found[0]][version] == name, (versions, order, row)


def model_column(
    versions: list[dict[str, tuple[int, str | None]]], followed: list[int], column: str
) -> dict[int, str | None]:
    """What the table's column was called in each version that was followed, told backwards from its last name."""
    names: dict[int, str | None] = {}
    current: str | None = column
    for number in reversed(followed):
        version = versions[number - 1]
        names[number] = current if current in version else None
        if current is not None and current in version and version[current][1]:
            current = version[current][1]
    return names


def test_events_of_a_refused_version_wait_or_become_dead_letters(tmp_path: Path) -> None:
    one, refused = schema_of(field("n", "int")), schema_of(field("n", "double"))
    three = schema_of(field("n_exact", ["null", "double"]))
    sink = Sink(tmp_path, one, refused, three)
    sink.land(1, {"id": 1, "n": 1})
    frame = sink.frame(1, 2, {"id": 2, "n": 0.5})
    with pytest.raises(
        ProductStopped, match=r"cannot follow version 2 of shop\.orders-value: n: .* int, .* double"
    ) as caught:
        sink.decoding.chunk(frame)
    assert caught.value.where == "topic shop.orders"
    assert "sink.refusedVersions to dead-letter" in str(caught.value.hint)
    assert "shop.orders.dlq" in str(caught.value.hint)

    contract = replace(sink.product.contract, refused_versions=RefusedVersions.DEAD_LETTER)
    sink.product = replace(sink.product, contract=contract)
    sink.start()
    for _ in range(2):
        (letter,) = sink.decoding.chunk(frame).letters
        assert (letter.reason, letter.schema_id, letter.value) == ("refused-version", 102, frame.values[0].as_py())
    sink.land(3, {"id": 3, "n_exact": 0.5})
    assert sink.rows() == [{"id": 1, "n": 1, "n_exact": None}, {"id": 3, "n": None, "n_exact": 0.5}]
