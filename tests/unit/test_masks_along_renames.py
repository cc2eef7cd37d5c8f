"""Masks along renames: what any version tags is masked in events of all, under whatever name, keys included."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
from pyiceberg.catalog.sql import SqlCatalog

from headrace.schemas.masks import Mask
from headrace.schemas.verdicts import Verdicts
from headrace.sinks.evolution import VERSION_PROPERTY, follow
from headrace.sinks.tables import ensure_table
from headrace.streams.masked import MASK_PROPERTIES, masks_of
from tests.support.lake import TABLE, Lake, verdicts_of
from tests.support.mixed import POLICY, Sink, field, record, schema_of, tagged

if TYPE_CHECKING:
    from pathlib import Path

    from pyiceberg.table import CommitTableResponse

PERSON = record("Person", field("nick", "string"))
MAIL = "ann@example.org"


def test_a_tag_of_one_version_masks_the_renamed_field_in_events_of_all(tmp_path: Path) -> None:
    one = schema_of(
        tagged("mail", "string"),
        field("contact", record("Contact", tagged("phone", "string"))),
        field("payer", [PERSON, record("Company", tagged("name", "string"))]),
    )
    two = schema_of(
        field("email", "string", aliases=["mail"]),
        field("person", record("Contact", field("call", "string", aliases=["phone"])), aliases=["contact"]),
        field("payer", [PERSON, record("Company", field("title", "string", aliases=["name"]))]),
    )
    three = schema_of(field("email", "string"), field("mail", ["null", "boolean"]))
    sink = Sink(tmp_path, one)
    event = {"mail": MAIL, "contact": {"phone": "secret-1"}, "payer": ("Company", {"name": "secret-2"})}
    sink.land(1, {"id": 1, **event})
    sink.shelf.add(two)
    renamed = {"email": MAIL, "person": {"call": "secret-1"}, "payer": ("Company", {"title": "secret-2"})}
    sink.land(2, {"id": 2, **renamed})
    sink.shelf.add(three)
    sink.land_all([(3, {"id": 3, "email": MAIL, "mail": True}), (2, {"id": 4, **renamed}), (1, {"id": 5, **event})])
    rows = sink.rows()
    assert {row["email"] for row in rows} == {rows[0]["email"]}
    assert {row["person"]["call"] for row in rows if row["person"]} == {rows[0]["person"]["call"]}
    assert {row["payer"]["Company"]["title"] for row in rows if row["payer"]} == {rows[0]["payer"]["Company"]["title"]}
    # The field that has taken the name is another one.
    assert [row["mail"] for row in rows] == [None, None, True, None, None]
    noted = masks_of(sink.lake.reload())
    assert noted.keys() == {
        "email",
        *("contact.phone", "person.call"),
        *("payer.Company.name", "payer.Company.title"),
    }
    no_clear_value(tmp_path, MAIL, "secret-")
    # A table that is made now notes the same, earlier names too: somebody may still know the fields by them.
    sink.lake.catalog.drop_table(TABLE)
    verdicts = Verdicts.of(sink.product, POLICY, sink.shelf.all_versions(sink.product.subject))
    assert masks_of(ensure_table(sink.lake.catalog, sink.product, verdicts)) == noted


def test_a_key_of_any_version_that_holds_a_masked_field_is_not_written(tmp_path: Path) -> None:
    one, two = schema_of(tagged("mail", "string")), schema_of(field("email", "string", aliases=["mail"]))
    three = schema_of(field("email", "string"), field("mail", "string", default=""))
    contract = replace(Lake(tmp_path / "unused", one).product.contract, key=("email",))
    for number, schema in enumerate((two, three)):
        product = replace(Lake(tmp_path / f"unused{number}", schema).product, contract=contract)
        sink = Sink(tmp_path / str(number), one, two, three, product=product)
        sink.land(1, {"id": 1, "mail": MAIL})
        assert [row["_kafka_key"] for row in sink.lake.rows("_kafka_key")] == [None]
    # The contract's key is the field that took the name, and old events' keys hold the one that had it.
    product = replace(product, contract=replace(contract, key=("mail",)))
    sink = Sink(tmp_path / "taken", one, two, three, product=product)
    sink.land(1, {"id": 1, "mail": MAIL})
    assert [row["_kafka_key"] for row in sink.lake.rows("_kafka_key")] == [None]


def test_a_mask_of_the_contract_and_one_that_only_the_table_knows_follow_a_rename(tmp_path: Path) -> None:
    plain = schema_of(field("mail", "string"), field("phone", "string"))
    tagging = schema_of(field("mail", "string"), tagged("phone", "string"))
    renamed = schema_of(field("email", "string", aliases=["mail"]), field("call", "string", aliases=["phone"]))
    product = replace(Lake(tmp_path / "unused", plain).product, masks={"mail": Mask.SHOW_FIRST_4})
    sink = Sink(tmp_path / "lake", plain, tagging, product=product)
    sink.land(1, {"id": 1, "mail": MAIL, "phone": MAIL})
    # The registry has lost the version that tagged the phone, and the sink is started again.
    del sink.shelf.held[2]
    sink.shelf.held[3] = renamed
    sink.start()
    sink.land(3, {"id": 2, "email": MAIL, "call": MAIL})
    first, second = sink.rows()
    assert first["email"] == second["email"] == "ann@" + "x" * (len(MAIL) - 4)
    assert first["call"] == second["call"] != MAIL
    assert masks_of(sink.lake.reload()) == {
        **dict.fromkeys(("mail", "email"), Mask.SHOW_FIRST_4),
        **dict.fromkeys(("phone", "call"), Mask.HMAC_SHA_256),
    }


def test_a_tag_of_a_refused_version_masks_too(tmp_path: Path) -> None:
    shared = field("n", "int"), field("mail", "string")
    one = schema_of(*shared, field("age", "int"))
    refused = schema_of(
        field("n", "double"),
        tagged("email", "string", aliases=["mail"]),
        tagged("note", "string"),
        tagged("age", "int"),
    )
    three = schema_of(*shared, field("note", "string"), field("age", ["null", "int"]))
    sink = Sink(tmp_path, one, refused, three)
    sink.land_all(
        [(1, {"id": 1, "n": 1, "mail": MAIL, "age": 7}), (3, {"id": 2, "n": 1, "mail": MAIL, "note": MAIL, "age": 7})]
    )
    no_clear_value(tmp_path, MAIL)
    # A hash does not go with a number: nothing is left of it.
    assert [row["age"] for row in sink.rows()] == [None, None]


def test_a_default_that_is_filled_deep_inside_is_masked_too(tmp_path: Path) -> None:
    contact = record("Contact", tagged("mail", "string"))
    sink = Sink(tmp_path, schema_of(), schema_of(field("contact", contact, default={"mail": MAIL})))
    sink.land(1, {"id": 1})
    (row,) = sink.rows()
    assert len(row["contact"]["mail"]) == 64


def no_clear_value(folder: Path, *values: str) -> None:
    files = list(folder.rglob("*.parquet"))
    assert files
    for path in files:
        assert not [value for value in values if value.encode() in path.read_bytes()]
        for column in pq.read_table(path).columns:
            assert not [value for value in values if value in str(column.to_pylist())]


def test_the_commit_that_renames_a_column_notes_its_mask(tmp_path: Path) -> None:
    """No state of the table shows a column whose mask is not noted, however many versions it follows at once."""
    versions = [
        schema_of(tagged("mail", "string")),
        schema_of(field("email", "string", aliases=["mail"])),
        schema_of(field("post", "string", aliases=["email"]), tagged("mail", ["null", "string"])),
        schema_of(field("post", "string"), field("email", ["null", "boolean"])),
    ]
    sink = Sink(tmp_path, *versions)
    sink.land(1, {"id": 1, "mail": MAIL})
    states = [json.loads(path.read_text()) for path in tmp_path.rglob("*.metadata.json")]
    assert len(states) > len(versions)
    told = set()
    for state in states:
        (schema,) = [each for each in state["schemas"] if each["schema-id"] == state["current-schema-id"]]
        names = {each["name"] for each in schema["fields"] if not each["name"].startswith("_")} - {"id"}
        noted = {name.removeprefix(MASK_PROPERTIES) for name in state["properties"] if MASK_PROPERTIES in name}
        version = int(state["properties"].get(VERSION_PROPERTY, "0"))
        told.add((version, *sorted(names & noted), "-", *sorted(names - noted)))
    assert told == {
        (0, "-", "mail"),
        (1, "mail", "-"),
        (2, "email", "-"),
        (3, "mail", "post", "-"),
        (4, "mail", "post", "-", "email"),
    }


def test_who_notes_a_mask_by_a_name_that_is_gone_meanwhile_notes_it_by_the_new_one(tmp_path: Path) -> None:
    """Masks are noted by the names of columns, so the commit is refused when another worker has renamed one."""
    one, two = schema_of(field("mail", "string")), schema_of(field("email", "string", aliases=["mail"]))
    lake = Lake(tmp_path, one)
    lake.follow(one)

    class Late(SqlCatalog):
        first = True

        def commit_table(self, *args: Any, **kwargs: Any) -> CommitTableResponse:
            if self.first:
                self.first = False
                lake.follow(one, two)
            return super().commit_table(*args, **kwargs)

    product = replace(lake.product, masks={"mail": Mask.SHOW_LAST_4})
    table = follow(Late("shop", **lake.catalog.properties), product, verdicts_of(product, one))
    # It does not know the version that renamed the column, so it notes the name that it knows.
    assert masks_of(table) == {"mail": Mask.SHOW_LAST_4}
    table = follow(lake.catalog, product, verdicts_of(product, one, two))
    assert masks_of(table) == dict.fromkeys(("mail", "email"), Mask.SHOW_LAST_4)
