"""What somebody else has put there, and what a product has left, as tables."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
from pyiceberg.schema import Schema
from pyiceberg.table.metadata import TableMetadata, new_table_metadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER
from pyiceberg.types import IntegerType, LongType, NestedField, StringType, StructType

from headrace.governance.observing import Version
from headrace.schemas.avro import AvroSchema
from headrace.schemas.environment import Environment, EnvironmentSettings
from headrace.schemas.masks import Mask
from headrace.schemas.mesh import Mesh
from headrace.schemas.names import ProductName
from headrace.schemas.policy import PiiPolicy
from headrace.schemas.product import Domain
from headrace.selfserve.resources.foreign import foreign_columns, foreign_versions
from headrace.selfserve.resources.left_over import Around, LeftOver, LeftThere, left_overs
from headrace.sinks.hold import Hold
from tests.support.lake import product_of, verdicts_of

HOLD = Hold("it is compacted", datetime(2026, 11, 23, tzinfo=UTC))
DOMAIN = Domain("shop", "team", "", "shop", {})


def schema_of(**fields: Any) -> AvroSchema:
    members = [{"name": name, "type": kind} for name, kind in fields.items()]
    return AvroSchema.parse(json.dumps({"type": "record", "name": "Order", "fields": members}))


ONE = schema_of(id="string", n="int")
ORDERS = product_of(ONE)


def test_foreign_versions() -> None:
    seen = [Version(number, 40 + number, deleted=number == 3, pii=()) for number in range(1, 5)]
    found = foreign_versions(ORDERS, seen, {41, 44})
    assert [each.old for each in found] == ["2 (schema id 42)"]
    assert "schema.avsc" in found[0].next


def column(number: int, name: str, kind: Any) -> NestedField:
    return NestedField(number, name, kind, required=False)


def metadata_of(*columns: NestedField) -> TableMetadata:
    return new_table_metadata(Schema(*columns), UNPARTITIONED_PARTITION_SPEC, UNSORTED_SORT_ORDER, "s3://a/shop/orders")


NESTED = schema_of(
    id="string",
    at={"type": "record", "name": "At", "fields": [{"name": "x", "type": "int"}, {"name": "y", "type": "int"}]},
)


@pytest.mark.parametrize(
    ("columns", "causes"),
    [
        ([column(1, "id", StringType()), column(2, "n", IntegerType())], []),
        # An order of their own harms nobody.
        ([column(2, "n", IntegerType()), column(1, "id", StringType())], []),
        (
            [column(1, "id", StringType()), column(2, "n", IntegerType()), column(9, "note", StringType())],
            [("column-added", "column note")],
        ),
        ([column(1, "id", StringType())], [("column-missing", "column n")]),
        ([column(1, "id", StringType()), column(2, "n", LongType())], [("column-type", "column n")]),
        (
            [column(1, "id", StringType()), column(2, "n", StructType(column(3, "x", IntegerType())))],
            [("column-type", "column n")],
        ),
    ],
)
def test_foreign_columns(columns: list[NestedField], causes: list[tuple[str, str]]) -> None:
    found = foreign_columns(ORDERS, metadata_of(*columns), verdicts_of(ORDERS, ONE), 1)
    assert [(each.cause, each.what) for each in found] == causes


def test_foreign_columns_inside_a_record() -> None:
    inner = StructType(column(3, "x", IntegerType()), column(9, "z", IntegerType()))
    there = metadata_of(column(1, "id", StringType()), column(2, "at", inner))
    found = foreign_columns(ORDERS, there, verdicts_of(product_of(NESTED), NESTED), 1)
    assert [(each.cause, each.what) for each in found] == [
        ("column-added", "column at.z"),
        ("column-missing", "column at.y"),
    ]


def test_a_table_that_has_followed_nothing_has_no_foreign_column() -> None:
    there = metadata_of(column(1, "id", StringType()))
    assert foreign_columns(ORDERS, there, verdicts_of(ORDERS, ONE), 0) == ()


EMPTY = Around(frozenset(), frozenset(), frozenset())
OLD = LeftOver(ProductName("shop", "old"), "p.shop.old", DOMAIN, EMPTY)


@pytest.mark.parametrize(
    ("found", "kinds"),
    [
        (LeftThere(), []),
        (
            LeftThere(topic=True, letters=True, subject=True, table=True, own=True),
            ["destroy", "destroy", "destroy", "destroy"],
        ),
        # What is left of a deletion that was broken off is still known for what it is.
        (LeftThere(topic=True, letters=True), ["destroy", "destroy"]),
        (LeftThere(letters=True), ["destroy"]),
        (LeftThere(table=True, own=True), ["destroy"]),
        (LeftThere(letter_table=True, own_letters=True), ["destroy"]),
        (LeftThere(table=True, own=True, letter_table=True, own_letters=True), ["destroy", "destroy"]),
        # Anybody may have made these.
        (LeftThere(letter_table=True), ["never"]),
        (LeftThere(topic=True, subject=True), ["never", "never"]),
        (LeftThere(topic=True), ["never"]),
        (LeftThere(subject=True), ["never"]),
        (LeftThere(table=True), ["never"]),
        (LeftThere(topic=True, letters=True, table=True), ["destroy", "destroy", "never"]),
        (LeftThere(table=True, own=True, hold=HOLD), ["held"]),
    ],
)
def test_left_overs(found: LeftThere, kinds: list[str]) -> None:
    assert [str(each.kind) for each in OLD.diff(found)] == kinds


def test_what_a_domain_has_left_is_not_deleted_without_the_domain() -> None:
    """Its table is out of reach, and another mesh's topics may begin the same: t1. and t1.x, or no prefix at all."""
    found = LeftThere(topic=True, letters=True, subject=True)
    differences = replace(OLD, domain=None).diff(found)
    assert [str(each.kind) for each in differences] == ["never"] * 3
    assert all("domains/shop/domain.yaml" in each.next for each in differences)


def test_what_tells_that_a_product_was_there_is_deleted_last() -> None:
    found = LeftThere(topic=True, letters=True, subject=True, table=True, own=True)
    causes = [each.cause for each in OLD.diff(found)]
    assert causes == ["unowned-subject", "unowned-topic", "unowned-dead-letters", "unowned-table"]


TOPICS = frozenset(
    {
        "p.shop.orders",
        "p.shop.orders.dlq",
        "p.shop.old",
        "p.shop.older.dlq",
        "p.crew.rosters",
        "p.shop._raw.table",
        "p.headrace.publish-positions",
        "shop.without",
        "crew.without",
        "q.shop.others",
    }
)


@pytest.mark.parametrize(
    ("prefix", "stack", "names"),
    [
        ("p.", "external", ["crew.rosters", "shop.noted", "shop.old", "shop.older", "shop.said"]),
        # Without a prefix, other domains may be other meshes'; on servers of this mesh alone there are none.
        ("", "external", ["shop.noted", "shop.without"]),
        ("", "embedded", ["crew.without", "shop.noted", "shop.without"]),
    ],
)
def test_names_that_look_like_products_and_are_none_of_them(prefix: str, stack: Any, names: list[str]) -> None:
    orders = replace(ORDERS, topic=f"{prefix}shop.orders")
    domain = replace(DOMAIN, products={"orders": orders})
    known: dict[str, Any] = {
        "kafka": {"bootstrap.servers": "x:1"},
        "registry": {"url": "http://x"},
        "catalog": {"a": 1},
    }
    settings = EnvironmentSettings(stack=stack, topic_prefix=prefix, **(known if stack == "external" else {}))
    own = Domain("governance", "", "", "governance", {})
    mesh = Mesh(
        "m",
        Path(),
        Environment("e", Path(), settings),
        {"shop": domain},
        PiiPolicy(default=Mask.REPLACE_WITH_NULL),
        own,
    )
    tables = frozenset({ProductName("shop", "noted"), ProductName("shop", "orders")})
    around = Around(TOPICS, frozenset({"p.shop.said-value", "p.shop.orders-value", "p.odd"}), tables)
    assert [str(each.name) for each in left_overs(mesh, around)] == names


def test_a_column_that_another_engine_has_renamed_inside_a_record() -> None:
    metadata = metadata_of(column(1, "id", StringType()), column(2, "at", StructType(column(3, "x", IntegerType()))))
    inner = StructType(column(3, "z", IntegerType()), column(4, "y", IntegerType()))
    now = Schema(column(1, "id", StringType()), column(2, "at", inner), schema_id=1)
    metadata = metadata.model_copy(update={"schemas": [*metadata.schemas, now], "current_schema_id": 1})
    found = foreign_columns(ORDERS, metadata, verdicts_of(product_of(NESTED), NESTED), 1)
    assert [(each.cause, each.what, each.old, each.new) for each in found] == [
        ("column-renamed", "column at.z", "z", "x")
    ]
