"""A table that follows its subject's versions: each as a commit of its own, in order, whoever comes first."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table.update import AddSchemaUpdate
from pyiceberg.types import IntegerType, LongType

from headrace.schemas.avro import AvroSchema
from headrace.schemas.errors import NotApplied, ProductStopped, Refusal, SchemaError, Unavailable
from headrace.schemas.masks import Mask
from headrace.schemas.policy import PiiPolicy
from headrace.schemas.registered import RegisteredSchema, UnreadableSchema
from headrace.schemas.verdicts import Verdicts
from headrace.sinks.evolution import VERSION_PROPERTY, follow, followed_version, foreign, versions_of
from headrace.streams.masked import MASK_PROPERTIES, masks_of
from tests.support.lake import TABLE, Lake, product_of

if TYPE_CHECKING:
    from pathlib import Path

    from pyiceberg.catalog import Catalog
    from pyiceberg.table import CommitTableResponse, Table

    from headrace.schemas.product import Product
    from headrace.schemas.registry import Registry


POLICY = PiiPolicy(default=Mask.HMAC_SHA_256)


def schema_of(*fields: Any) -> AvroSchema:
    members = [f if isinstance(f, dict) else {"name": f[0], "type": f[1]} for f in fields]
    return AvroSchema.parse(json.dumps({"type": "record", "name": "Event", "fields": members}))


def record(name: str, *fields: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": n, "type": t} for n, t in fields]}


def versions(*schemas: AvroSchema) -> list[RegisteredSchema]:
    return [RegisteredSchema(100 + n, n, "shop.orders-value", schema) for n, schema in enumerate(schemas, 1)]


def judged(product: Product, *schemas: AvroSchema) -> Verdicts:
    return Verdicts.of(product, POLICY, versions(*schemas))


def followed_by(catalog: Catalog, product: Product, *schemas: AvroSchema) -> Table:
    return follow(catalog, product, judged(product, *schemas))


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
    table = followed_by(lake.catalog, lake.product, ONE, TWO, THREE, FOUR)
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
        followed_by(lake.catalog, lake.product, *(ONE, TWO, THREE)[:count])
        places.add(lake.reload().metadata_location)
    assert len(places) == 4
    followed_by(lake.catalog, lake.product, ONE, TWO, THREE)
    followed_by(lake.catalog, lake.product)
    assert lake.reload().metadata_location in places


def test_it_never_goes_back(tmp_path: Path) -> None:
    lake = Lake(tmp_path, ONE)
    followed_by(lake.catalog, lake.product, ONE, TWO, THREE)
    table = followed_by(lake.catalog, lake.product, ONE)
    assert followed_version(table) == 3
    assert columns(lake)["id"] == ("long", True)


def test_a_table_made_from_a_later_version_has_room_for_the_earlier(tmp_path: Path) -> None:
    lake = Lake(tmp_path, TWO)
    table = followed_by(lake.catalog, lake.product, ONE, TWO)
    assert followed_version(table) == 2
    assert columns(lake)["id"] == ("long", True)


def test_versions_may_have_holes(tmp_path: Path) -> None:
    lake = Lake(tmp_path, ONE)
    kept = [replace(version, version=version.version * 10) for version in versions(ONE, TWO)]
    assert followed_version(follow(lake.catalog, lake.product, Verdicts.of(lake.product, POLICY, kept))) == 20


REFUSED = [
    (schema_of(("id", "string"), ("gone", "string")), "id: the table's column is int"),
    (schema_of(("ID", "int"), ("id", "int")), "in case only"),
    (schema_of(("id", "int"), ("gone", "null")), "gone: null alone"),
    (schema_of(("id", "int"), ("_kafka_offset", "long")), "_kafka_offset: this name is reserved"),
    (schema_of(("id", "int"), {"name": "d", "type": "bytes", "default": "\u0100"}), "d: the default"),
    (schema_of(("id", "int"), {"name": "d", "type": "string", "aliases": ["id"], "default": ""}), "d: the alias id"),
]


@pytest.mark.parametrize(("schema", "what"), REFUSED)
def test_a_version_that_no_table_can_follow_changes_nothing_and_keeps_none_behind_it_back(
    tmp_path: Path, schema: AvroSchema, what: str
) -> None:
    lake = Lake(tmp_path, ONE)
    followed_by(lake.catalog, lake.product, ONE)
    before = lake.reload().metadata_location
    verdicts = judged(lake.product, ONE, schema)
    assert follow(lake.catalog, lake.product, verdicts).metadata_location == before
    assert what in verdicts.refused[2].fault
    assert verdicts.refusal(102) == verdicts.refused[2]
    assert verdicts.refusal(101) is None
    table = followed_by(lake.catalog, lake.product, ONE, schema, TWO)
    assert followed_version(table) == 3
    assert columns(lake)["note"] == ("string", False)
    assert "d" not in columns(lake)


def test_a_version_that_cannot_be_read_is_refused_like_one_that_cannot_be_followed(tmp_path: Path) -> None:
    lake = Lake(tmp_path, ONE)
    one, two = versions(ONE, TWO)
    broken = UnreadableSchema(102, 2, one.subject, "this is a JSON schema", "headrace's events are Avro")
    verdicts = Verdicts.of(lake.product, POLICY, [one, broken, replace(two, version=3, id=103)])
    assert followed_version(follow(lake.catalog, lake.product, verdicts)) == 3
    assert str(verdicts.refusal(102)) == "version 2: this is a JSON schema"


def test_a_version_whose_text_is_anothers_is_not_refused_where_the_other_is_followed() -> None:
    """A version that was deleted and registered anew keeps its id."""
    wide = schema_of(("id", "long"), ("gone", "string"))
    one, two, three = versions(ONE, wide, ONE)
    verdicts = Verdicts.of(product_of(ONE), POLICY, [one, two, replace(three, id=one.id)])
    assert list(verdicts.refused) == [3]
    assert verdicts.refusal(one.id) is None
    # Where both are followed, events count as the first, whenever they were written.
    again = Verdicts.of(product_of(ONE), POLICY, [one, replace(one, version=2), replace(two, version=3)])
    assert [each.version for each in again.versions] == [1, 2, 3]
    assert again.by_id[one.id].version == 1


def test_a_table_that_somebody_else_has_changed_stops_the_product_and_says_so(tmp_path: Path) -> None:
    lake = Lake(tmp_path, ONE)
    followed_by(lake.catalog, lake.product, ONE)
    with lake.reload().update_schema() as update:
        update.add_column("note", IntegerType())
    before = lake.reload().metadata_location
    with pytest.raises(ProductStopped, match=r"cannot follow version 2 .* note: the table's column is int") as caught:
        followed_by(lake.catalog, lake.product, ONE, TWO)
    assert caught.value.where == "table shop.orders"
    assert caught.value.hint
    assert lake.reload().metadata_location == before


def test_a_table_that_another_engine_has_widened_has_room(tmp_path: Path) -> None:
    lake = Lake(tmp_path, ONE)
    with lake.reload().update_schema() as update:
        update.update_column("id", LongType())
    assert followed_version(followed_by(lake.catalog, lake.product, ONE, ONE)) == 2


def test_a_mask_that_became_null_makes_columns_of_followed_versions_optional(tmp_path: Path) -> None:
    """Else the first batch after the contract's change would write nulls into a required column."""
    person = record("Person", ("email", "string"))
    schema = schema_of(("id", "int"), ("name", "string"), ("owner", person))
    lake = Lake(tmp_path, schema)
    followed_by(lake.catalog, lake.product, schema)
    masked = product_of(schema, {"name": Mask.REPLACE_WITH_NULL, "owner.email": Mask.REPLACE_WITH_NULL})
    table = followed_by(lake.catalog, masked, schema)
    assert not table.schema().find_field("name").required
    assert not table.schema().find_field("owner.email").required
    assert table.schema().find_field("owner").required
    assert followed_version(table) == 1


def test_a_field_that_was_masked_once_stays_masked(tmp_path: Path) -> None:
    lake = Lake(tmp_path, ONE)
    assert masks_of(lake.table) == {}
    followed_by(lake.catalog, product_of(ONE, {"gone": Mask.SHOW_LAST_4, "by{}": Mask.HMAC_SHA_256}), ONE)
    place = lake.reload().metadata_location
    for masks in ({}, {"gone": Mask.SHOW_LAST_4}):
        table = followed_by(lake.catalog, product_of(ONE, masks), ONE)
        assert masks_of(table) == {"gone": Mask.SHOW_LAST_4, "by{}": Mask.HMAC_SHA_256}
        assert table.metadata_location == place
    # Another mask may take its place, and then its nulls have room.
    table = followed_by(lake.catalog, product_of(ONE, {"gone": Mask.REPLACE_WITH_NULL}), ONE)
    assert masks_of(table) == {"gone": Mask.REPLACE_WITH_NULL, "by{}": Mask.HMAC_SHA_256}
    assert not table.schema().find_field("gone").required


def test_workers_that_know_different_masks_lose_none(tmp_path: Path) -> None:
    lake = Lake(tmp_path, ONE)

    class Late(SqlCatalog):
        first = True

        def commit_table(self, *args: Any, **kwargs: Any) -> CommitTableResponse:
            if self.first:
                self.first = False
                followed_by(lake.catalog, product_of(ONE, {"gone": Mask.SHOW_LAST_4}), ONE)
            return super().commit_table(*args, **kwargs)

    late = Late("shop", **lake.catalog.properties)
    table = followed_by(late, product_of(ONE, {"id": Mask.MASK_TO_FIXED_VALUE}), ONE)
    assert masks_of(table) == {"gone": Mask.SHOW_LAST_4, "id": Mask.MASK_TO_FIXED_VALUE}


def test_a_mask_that_nobody_knows_stops_the_product(tmp_path: Path) -> None:
    lake = Lake(tmp_path, ONE)
    with lake.table.transaction() as transaction:
        transaction.set_properties({f"{MASK_PROPERTIES}gone": "rot13"})
    with pytest.raises(ProductStopped, match="names no mask") as caught:
        followed_by(lake.catalog, lake.product, ONE)
    assert caught.value.where == "table shop.orders"


def test_a_column_that_an_operator_dropped_does_not_come_back(tmp_path: Path) -> None:
    lake = Lake(tmp_path, TWO)
    followed_by(lake.catalog, lake.product, ONE, TWO)
    with lake.reload().update_schema() as update:
        update.delete_column("note")
    table = followed_by(lake.catalog, lake.product, ONE, TWO)
    assert "note" not in [field.name for field in table.schema().fields]


class Killed(BaseException):
    """The process is gone."""


class Killing(SqlCatalog):
    """Kills the process at a commit, before it lands or after."""

    left = 0
    lands = False

    def commit_table(self, *args: Any, **kwargs: Any) -> CommitTableResponse:
        self.left -= 1
        if self.left < 0 and not self.lands:
            raise Killed
        answer = super().commit_table(*args, **kwargs)
        if self.left < 0:
            raise Killed
        return answer


RENAMED = schema_of(
    {"name": "order", "type": "long", "aliases": ["id"], "confluent:tags": ["PII"]},
    ("note", ["null", "string"]),
    ("gone", ["null", "string"]),
)


@pytest.mark.parametrize("lands", [False, True])
@pytest.mark.parametrize("commits", range(4))
def test_whoever_is_killed_while_it_follows_leaves_a_table_that_the_next_one_completes(
    tmp_path: Path, commits: int, lands: bool
) -> None:
    whole, lake = Lake(tmp_path / "whole", ONE), Lake(tmp_path / "killed", ONE)
    history = (ONE, TWO, schema_of(("id", "long"), ("note", ["null", "string"])), RENAMED)
    expected = followed_by(whole.catalog, whole.product, *history)
    killing = Killing("shop", **lake.catalog.properties)
    killing.left, killing.lands = commits, lands
    with suppress(Killed):
        followed_by(killing, lake.product, *history)
    assert followed_version(lake.reload()) == commits + lands
    table = followed_by(lake.catalog, lake.product, *history)
    assert table.schema() == expected.schema()
    assert table.properties == expected.properties
    assert followed_version(table) == 4
    assert masks_of(table).keys() == {"id", "order"}


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
    table = followed_by(contended(lake, 5), lake.product, ONE, TWO)
    assert followed_version(table) == 2
    assert table.properties["touched"] == "0"


def test_who_loses_every_race_says_so(tmp_path: Path) -> None:
    lake = Lake(tmp_path, ONE)
    with pytest.raises(Unavailable, match="all the time"):
        followed_by(contended(lake, 1_000), lake.product, ONE)


def test_two_that_follow_at_once_make_each_column_once(tmp_path: Path) -> None:
    """The second's commit is refused, because the schema moved: else two columns would share an id."""
    lake = Lake(tmp_path, ONE)

    class Late(SqlCatalog):
        first = True

        def commit_table(self, *args: Any, **kwargs: Any) -> CommitTableResponse:
            if self.first and any(isinstance(update, AddSchemaUpdate) for update in args[2]):
                self.first = False
                followed_by(lake.catalog, lake.product, ONE, TWO, THREE)
                self.landed = lake.reload().metadata_location
            return super().commit_table(*args, **kwargs)

    late = Late("shop", **lake.catalog.properties)
    table = followed_by(late, lake.product, ONE, TWO, THREE)
    assert table.metadata_location == late.landed
    assert followed_version(table) == 3
    names = [field.name for field in table.schema().fields]
    assert len(names) == len(set(names))
    assert table.properties[VERSION_PROPERTY] == "3"


def test_a_table_that_was_never_applied(tmp_path: Path) -> None:
    lake = Lake(tmp_path, ONE)
    lake.catalog.drop_table(TABLE)
    with pytest.raises(NotApplied):
        followed_by(lake.catalog, lake.product, ONE)


class Shelf:
    """A registry in memory: the versions of one subject, and what other ids hold."""

    def __init__(self, *others: int) -> None:
        self._others = others

    def all_versions(self, subject: str) -> tuple[RegisteredSchema, ...]:
        return tuple(version for version in versions(ONE, TWO) if version.subject == subject)

    def schema(self, schema_id: int) -> AvroSchema:
        if schema_id == 666:
            raise SchemaError("no Avro at all")
        if schema_id not in self._others:
            raise Refusal("unknown-schema", "unknown")
        return ONE


def test_a_registry_that_lost_the_subject_refuses_nothing() -> None:
    registry = cast("Registry", Shelf(7))
    with pytest.raises(Unavailable, match="no version of this subject") as caught:
        versions_of(registry, replace(product_of(ONE), topic="shop.lost"))
    assert caught.value.where == "subject shop.lost-value"
    assert caught.value.hint


@pytest.mark.parametrize(
    ("schema_id", "reason"), [(7, "foreign-schema"), (8, "unknown-schema"), (666, "foreign-schema")]
)
def test_an_id_that_is_no_version_of_the_products_own_subject(schema_id: int, reason: str) -> None:
    assert foreign(cast("Registry", Shelf(7)), product_of(ONE), schema_id).reason == reason
