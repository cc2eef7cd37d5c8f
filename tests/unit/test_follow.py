"""A table that follows its subject's versions: each as a commit of its own, in order, whoever comes first."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException

from headrace.schemas.avro import AvroSchema
from headrace.schemas.errors import NotApplied, ProductStopped, Refusal, SchemaError, Unavailable
from headrace.schemas.masks import Mask
from headrace.schemas.registry import RegisteredSchema, Registry
from headrace.sinks.evolution import VERSION_PROPERTY, follow, followed_version, version_of
from headrace.streams.masked import MASK_PROPERTIES, masks_of
from tests.support.lake import TABLE, Lake, product_of

if TYPE_CHECKING:
    from pathlib import Path

    from pyiceberg.table import CommitTableResponse


def schema_of(*fields: Any) -> AvroSchema:
    members = [f if isinstance(f, dict) else {"name": f[0], "type": f[1]} for f in fields]
    return AvroSchema.parse(json.dumps({"type": "record", "name": "Event", "fields": members}))


def record(name: str, *fields: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": n, "type": t} for n, t in fields]}


def versions(*schemas: AvroSchema) -> list[RegisteredSchema]:
    return [RegisteredSchema(100 + n, n, "shop.orders-value", schema) for n, schema in enumerate(schemas, 1)]


ONE = schema_of(("id", "int"), ("gone", "string"))
TWO = schema_of(("id", "long"), ("gone", "string"), {"name": "note", "type": ["null", "string"], "default": None})
THREE = schema_of(
    ("id", "long"),
    ("note", ["null", "string"]),
    ("items", {"type": "array", "items": record("Item", ("sku", "string"), ("price", "float"))}),
    ("by", {"type": "map", "values": ["null", "Item"]}),
)
FOUR = schema_of(
    ("id", "long"),
    ("note", ["null", "string"]),
    (
        "items",
        {"type": "array", "items": ["null", record("Item", ("sku", "string"), ("price", "double"), ("qty", "int"))]},
    ),
    ("by", {"type": "map", "values": ["null", "Item"]}),
)


def columns(lake: Lake) -> dict[str, tuple[str, bool]]:
    schema = lake.reload().schema()
    names = [schema.find_column_name(number) for number in schema._lazy_id_to_name]
    return {
        name: (str(schema.find_field(name).field_type), schema.find_field(name).required)
        for name in map(str, names)
        if not name.startswith("_") and "." not in name
    }


def test_a_table_follows_every_version_in_order(tmp_path: Path) -> None:
    lake = Lake(tmp_path, ONE)
    assert followed_version(lake.table) == 0
    before = lake.table.schema().find_field("id").field_id
    table = follow(lake.catalog, lake.product, list(reversed(versions(ONE, TWO, THREE, FOUR))))
    assert followed_version(table) == 4
    found = columns(lake)
    assert found["id"] == ("long", True)
    assert found["gone"] == ("string", False)
    assert found["note"] == ("string", False)
    schema = table.schema()
    assert schema.find_field("id").field_id == before
    assert [str(schema.find_field(f"items.element.{name}").field_type) for name in ("sku", "price", "qty")] == [
        "string",
        "double",
        "int",
    ]
    assert not schema.find_field("items.element").required
    assert not schema.find_field("items.element.qty").required
    assert schema.find_field("items.element.sku").required
    assert str(schema.find_field("by.value.qty").field_type) == "int"
    assert {n for n in ("_kafka_offset", "_generation") if schema.find_field(n).required} == {
        "_kafka_offset",
        "_generation",
    }


def test_each_version_is_one_commit_and_none_is_made_twice(tmp_path: Path) -> None:
    lake = Lake(tmp_path, ONE)
    places = {lake.table.metadata_location}
    for count in (1, 2, 3):
        follow(lake.catalog, lake.product, versions(ONE, TWO, THREE)[:count])
        places.add(lake.reload().metadata_location)
    assert len(places) == 4
    follow(lake.catalog, lake.product, versions(ONE, TWO, THREE))
    follow(lake.catalog, lake.product, [])
    assert lake.reload().metadata_location in places


def test_it_never_goes_back(tmp_path: Path) -> None:
    lake = Lake(tmp_path, ONE)
    follow(lake.catalog, lake.product, versions(ONE, TWO, THREE))
    table = follow(lake.catalog, lake.product, versions(ONE))
    assert followed_version(table) == 3
    assert columns(lake)["id"] == ("long", True)


def test_a_table_made_from_a_later_version_has_room_for_the_earlier(tmp_path: Path) -> None:
    lake = Lake(tmp_path, TWO)
    table = follow(lake.catalog, lake.product, versions(ONE, TWO))
    assert followed_version(table) == 2
    assert columns(lake)["id"] == ("long", True)


def test_versions_may_have_holes(tmp_path: Path) -> None:
    lake = Lake(tmp_path, ONE)
    kept = [replace(version, version=version.version * 10) for version in versions(ONE, TWO)]
    assert followed_version(follow(lake.catalog, lake.product, kept)) == 20


@pytest.mark.parametrize(
    ("schema", "what"),
    [
        (schema_of(("id", "string"), ("gone", "string")), "id: the table's column is int"),
        (schema_of(("ID", "int")), "in case only"),
        (schema_of(("id", "int"), ("gone", ["string", "int"])), "gone: a union of several branches"),
        (schema_of(("id", "int"), ("when", {"type": "int", "logicalType": "time-millis"})), "when: time-millis"),
        (schema_of(("id", "int"), {"name": "d", "type": "bytes", "default": "\u0100"}), "d: the default"),
    ],
)
def test_a_version_that_has_no_place_stops_the_product_and_changes_nothing(
    tmp_path: Path, schema: AvroSchema, what: str
) -> None:
    lake = Lake(tmp_path, ONE)
    follow(lake.catalog, lake.product, versions(ONE))
    before = lake.reload().metadata_location
    with pytest.raises(ProductStopped) as caught:
        follow(lake.catalog, lake.product, versions(ONE, schema))
    assert "cannot follow version 2 of shop.orders-value" in str(caught.value)
    assert what in str(caught.value)
    assert caught.value.hint
    assert lake.reload().metadata_location == before


def test_versions_before_one_that_has_no_place_are_followed(tmp_path: Path) -> None:
    lake = Lake(tmp_path, ONE)
    with pytest.raises(ProductStopped):
        follow(lake.catalog, lake.product, versions(ONE, TWO, schema_of(("id", "string"))))
    assert followed_version(lake.reload()) == 2


def test_a_mask_that_became_null_makes_columns_of_followed_versions_optional(tmp_path: Path) -> None:
    """Else the first batch after the contract's change would write nulls into a required column."""
    person = record("Person", ("email", "string"))
    schema = schema_of(("id", "int"), ("name", "string"), ("owner", person))
    lake = Lake(tmp_path, schema)
    follow(lake.catalog, lake.product, versions(schema))
    masked = product_of(schema, {"name": Mask.REPLACE_WITH_NULL, "owner.email": Mask.REPLACE_WITH_NULL})
    table = follow(lake.catalog, masked, versions(schema))
    assert not table.schema().find_field("name").required
    assert not table.schema().find_field("owner.email").required
    assert table.schema().find_field("owner").required
    assert followed_version(table) == 1


def test_a_field_that_was_masked_once_stays_masked(tmp_path: Path) -> None:
    lake = Lake(tmp_path, ONE)
    assert masks_of(lake.table) == {}
    follow(lake.catalog, product_of(ONE, {"gone": Mask.SHOW_LAST_4, "by{}": Mask.HMAC_SHA_256}), versions(ONE))
    place = lake.reload().metadata_location
    for masks in ({}, {"gone": Mask.SHOW_LAST_4}):
        table = follow(lake.catalog, product_of(ONE, masks), versions(ONE))
        assert masks_of(table) == {"gone": Mask.SHOW_LAST_4, "by{}": Mask.HMAC_SHA_256}
        assert table.metadata_location == place
    # Another mask may take its place, and then its nulls have room.
    table = follow(lake.catalog, product_of(ONE, {"gone": Mask.REPLACE_WITH_NULL}), versions(ONE))
    assert masks_of(table) == {"gone": Mask.REPLACE_WITH_NULL, "by{}": Mask.HMAC_SHA_256}
    assert not table.schema().find_field("gone").required


def test_workers_that_know_different_masks_lose_none(tmp_path: Path) -> None:
    lake = Lake(tmp_path, ONE)

    class Late(SqlCatalog):
        first = True

        def commit_table(self, *args: Any, **kwargs: Any) -> CommitTableResponse:
            if self.first:
                self.first = False
                follow(lake.catalog, product_of(ONE, {"gone": Mask.SHOW_LAST_4}), versions(ONE))
            return super().commit_table(*args, **kwargs)

    late = Late("shop", **lake.catalog.properties)
    table = follow(late, product_of(ONE, {"id": Mask.MASK_TO_FIXED_VALUE}), versions(ONE))
    assert masks_of(table) == {"gone": Mask.SHOW_LAST_4, "id": Mask.MASK_TO_FIXED_VALUE}


def test_a_mask_that_nobody_knows_stops_the_product(tmp_path: Path) -> None:
    lake = Lake(tmp_path, ONE)
    with lake.table.transaction() as transaction:
        transaction.set_properties({f"{MASK_PROPERTIES}gone": "rot13"})
    with pytest.raises(ProductStopped, match="names no mask") as caught:
        follow(lake.catalog, lake.product, versions(ONE))
    assert caught.value.where == "table shop.orders"


def test_a_column_that_an_operator_dropped_does_not_come_back(tmp_path: Path) -> None:
    lake = Lake(tmp_path, TWO)
    follow(lake.catalog, lake.product, versions(ONE, TWO))
    with lake.reload().update_schema() as update:
        update.delete_column("note")
    table = follow(lake.catalog, lake.product, versions(ONE, TWO))
    assert "note" not in [field.name for field in table.schema().fields]


class Contended(SqlCatalog):
    """Another worker lands first, a number of times."""

    conflicts = 0
    winner: Lake

    def commit_table(self, *args: Any, **kwargs: Any) -> CommitTableResponse:
        if self.conflicts:
            self.conflicts -= 1
            with self.winner.reload().transaction() as transaction:
                transaction.set_properties(touched=str(self.conflicts))
            raise CommitFailedException("another worker landed first")
        return super().commit_table(*args, **kwargs)


def contended(lake: Lake, conflicts: int) -> Contended:
    catalog = Contended("shop", **lake.catalog.properties)
    catalog.conflicts, catalog.winner = conflicts, lake
    return catalog


def test_whoever_comes_second_goes_on(tmp_path: Path) -> None:
    lake = Lake(tmp_path, ONE)
    table = follow(contended(lake, 5), lake.product, versions(ONE, TWO))
    assert followed_version(table) == 2
    assert table.properties["touched"] == "0"


def test_who_loses_every_race_says_so(tmp_path: Path) -> None:
    lake = Lake(tmp_path, ONE)
    with pytest.raises(Unavailable, match="all the time"):
        follow(contended(lake, 1_000), lake.product, versions(ONE))


def test_two_that_follow_at_once_make_each_column_once(tmp_path: Path) -> None:
    """The second's commit is refused, because the schema moved: else two columns would share an id."""
    lake = Lake(tmp_path, ONE)

    class Late(SqlCatalog):
        first = True

        def commit_table(self, *args: Any, **kwargs: Any) -> CommitTableResponse:
            if self.first:
                self.first = False
                follow(lake.catalog, lake.product, versions(ONE, TWO, THREE))
            return super().commit_table(*args, **kwargs)

    table = follow(Late("shop", **lake.catalog.properties), lake.product, versions(ONE, TWO, THREE))
    assert followed_version(table) == 3
    names = [field.name for field in table.schema().fields]
    assert len(names) == len(set(names))
    assert table.properties[VERSION_PROPERTY] == "3"


def test_a_table_that_was_never_applied(tmp_path: Path) -> None:
    lake = Lake(tmp_path, ONE)
    lake.catalog.drop_table(TABLE)
    with pytest.raises(NotApplied):
        follow(lake.catalog, lake.product, versions(ONE))


class Shelf:
    """A registry in memory: the versions of one subject, and what other ids hold."""

    def __init__(self, *others: int) -> None:
        self._others = others

    def versions(self, subject: str) -> tuple[RegisteredSchema, ...]:
        return tuple(version for version in versions(ONE, TWO) if version.subject == subject)

    def schema(self, schema_id: int) -> AvroSchema:
        if schema_id == 666:
            raise SchemaError("no Avro at all")
        if schema_id not in self._others:
            raise Refusal("unknown-schema", "unknown")
        return ONE


def test_a_registry_that_lost_the_subject_refuses_nothing() -> None:
    registry = cast("Registry", Shelf(7))
    product = replace(product_of(ONE), topic="shop.lost")
    for schema_id in (7, 102):
        with pytest.raises(Unavailable, match="no version of this subject") as caught:
            version_of(registry, product, schema_id)
        assert caught.value.where == "subject shop.lost-value"
        assert caught.value.hint


def test_an_id_must_be_a_version_of_the_products_own_subject(tmp_path: Path) -> None:
    registry = cast("Registry", Shelf(7))
    product = product_of(ONE)
    assert version_of(registry, product, 102).version == 2
    for schema_id, reason in ((7, "foreign-schema"), (8, "unknown-schema"), (666, "foreign-schema")):
        with pytest.raises(Refusal) as caught:
            version_of(registry, product, schema_id)
        assert caught.value.reason == reason
