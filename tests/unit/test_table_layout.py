"""Partition specs and sort orders from contracts, for new tables and for those that exist."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pyiceberg import types as ice
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.schema import Schema
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER
from pyiceberg.table.update import AddPartitionSpecUpdate
from pyiceberg.transforms import IdentityTransform

from headrace.schemas.errors import SchemaError
from headrace.schemas.product import Compatibility, Contract, PartitionField, SortField
from headrace.schemas.table_layout import (
    column_at,
    described_order,
    described_spec,
    layout_change,
    partition_spec,
    path_of,
    same_partitions,
    sort_order,
)
from headrace.schemas.transforms import TRANSFORMS, can_transform, transform_of

if TYPE_CHECKING:
    from pathlib import Path

    from pyiceberg.table import Table

SCHEMA = Schema(
    ice.NestedField(1, "id", ice.StringType(), required=True),
    ice.NestedField(2, "placed_at", ice.TimestamptzType(), required=True),
    ice.NestedField(3, "Placed_At_Day", ice.StringType(), required=False),
    ice.NestedField(
        4,
        "price",
        ice.StructType(ice.NestedField(5, "currency", ice.StringType(), required=True)),
        required=False,
    ),
    ice.NestedField(
        6,
        "items",
        ice.ListType(7, ice.StructType(ice.NestedField(8, "sku", ice.StringType(), required=True))),
        required=False,
    ),
    ice.NestedField(9, "_kafka_timestamp", ice.TimestamptzType(), required=False),
)
SORTED = (SortField("placed_at", descending=True, nulls_first=False), SortField("price.currency"))


def contract(*by: tuple[str, str], sort: tuple[SortField, ...] = ()) -> Contract:
    return Contract(
        "1.0.0",
        "active",
        "shop",
        "orders",
        ("id",),
        1,
        Compatibility.BACKWARD,
        10,
        partition_by=tuple(PartitionField(*each) for each in by),
        sort_by=sort,
    )


class Shelf:
    """A catalog with one table."""

    def __init__(self, folder: Path, wanted: Contract) -> None:
        self.catalog = SqlCatalog("shop", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}/warehouse")
        self.catalog.create_namespace("shop")
        self.table: Table = self.catalog.create_table(
            "shop.orders", SCHEMA, partition_spec=partition_spec(wanted, SCHEMA), sort_order=sort_order(wanted, SCHEMA)
        )

    def follow(self, wanted: Contract) -> None:
        change = layout_change(wanted, self.table.schema(), self.table.metadata)
        assert change
        self.catalog.commit_table(self.table, change.requirements, change.updates)
        self.table = self.catalog.load_table("shop.orders")
        assert not layout_change(wanted, self.table.schema(), self.table.metadata)


def test_names_of_transforms() -> None:
    assert all(transform_of(name.replace("N", "16").replace("W", "4")) is not None for name in TRANSFORMS)
    for text in ("", "days", "Day", "bucket", "bucket[0]", "bucket[-1]", "bucket[ 4]", "bucket[9999999999]", "void"):
        assert transform_of(text) is None
    assert str(transform_of("truncate[4]")) == "truncate[4]"


def test_a_decimal_is_not_rounded_out_of_its_bytes() -> None:
    wide, fitting = transform_of("truncate[100]"), transform_of("truncate[10]")
    assert wide is not None
    assert fitting is not None
    # One byte holds -128 … 127: -99 becomes -100, but two digits rounded to 90 become -180.
    assert can_transform(wide, ice.DecimalType(2, 0))
    assert can_transform(fitting, ice.DecimalType(2, 0))
    beyond = transform_of("truncate[90]")
    assert beyond is not None
    assert not can_transform(beyond, ice.DecimalType(2, 0))


def test_columns_by_path_and_paths_by_id() -> None:
    column = column_at(SCHEMA, "price.currency")
    assert column is not None
    assert column.field_id == 5
    assert [column_at(SCHEMA, path) for path in ("price.amount", "items.sku", "id.x", "")] == [None] * 4
    assert path_of(SCHEMA, 5) == ("price", "currency")
    assert path_of(SCHEMA, 8) is None
    assert path_of(SCHEMA, 99) is None


def test_a_new_table_has_the_contract_s_layout(tmp_path: Path) -> None:
    wanted = contract(
        ("_kafka_timestamp", "day"),
        ("id", "bucket[16]"),
        ("price.currency", "identity"),
        ("placed_at", "day"),
        sort=SORTED,
    )
    table = Shelf(tmp_path, wanted).table
    spec, order = table.spec(), table.sort_order()
    assert [field.name for field in spec.fields] == [
        "_kafka_timestamp_day",
        "id_bucket_16",
        "price.currency",
        "placed_at_day_partition",
    ]
    assert described_spec(spec, table.schema()) == (
        "day(_kafka_timestamp)",
        "bucket[16](id)",
        "price.currency",
        "day(placed_at)",
    )
    assert described_order(order, table.schema()) == (
        "placed_at desc nulls last",
        "price.currency asc nulls first",
    )
    assert not layout_change(wanted, table.schema(), table.metadata)


def test_a_contract_that_asks_for_nothing(tmp_path: Path) -> None:
    table = Shelf(tmp_path, contract()).table
    assert table.spec().is_unpartitioned()
    assert table.sort_order() == UNSORTED_SORT_ORDER
    assert not layout_change(contract(), table.schema(), table.metadata)


def test_an_existing_table_follows_there_and_back(tmp_path: Path) -> None:
    """What it had once keeps its field ids, its spec id and its order id."""
    plain, daily = contract(), contract(("placed_at", "day"), sort=SORTED)
    both = contract(("id", "bucket[4]"), ("placed_at", "day"), sort=SORTED[1:])
    shelf = Shelf(tmp_path, plain)
    change = layout_change(daily, shelf.table.schema(), shelf.table.metadata)
    assert change.partitions == ((), ("day(placed_at)",))
    assert change.sorting == ((), ("placed_at desc nulls last", "price.currency asc nulls first"))
    shelf.follow(daily)
    shelf.follow(both)
    shelf.follow(plain)
    assert shelf.table.spec().is_unpartitioned()
    shelf.follow(daily)
    shelf.follow(plain)
    shelf.follow(contract(("id", "bucket[4]")))
    metadata = shelf.table.metadata
    assert [(spec.spec_id, [field.field_id for field in spec.fields]) for spec in metadata.partition_specs] == [
        (0, []),
        (1, [1000]),
        (2, [1001, 1000]),
        (3, [1001]),
    ]
    assert [order.order_id for order in metadata.sort_orders] == [0, 1, 2]
    assert metadata.last_partition_id == 1001


def test_order_and_names_of_partitions_are_no_difference(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, contract(("id", "bucket[4]"), ("placed_at", "day")))
    with shelf.table.update_spec() as update:
        update.rename_field("placed_at_day_partition", "pday")
    table = shelf.catalog.load_table("shop.orders")
    turned = contract(("placed_at", "day"), ("id", "bucket[4]"))
    assert same_partitions(table.spec(), partition_spec(turned, table.schema()))
    assert not layout_change(turned, table.schema(), table.metadata)


def test_a_renamed_column_keeps_its_partitions(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, contract(("placed_at", "day"), sort=SORTED))
    with shelf.table.update_schema() as update:
        update.rename_column("placed_at", "ordered_at")
    table = shelf.catalog.load_table("shop.orders")
    renamed = contract(
        ("ordered_at", "day"), sort=(SortField("ordered_at", descending=True, nulls_first=False), SORTED[1])
    )
    assert not layout_change(renamed, table.schema(), table.metadata)
    with pytest.raises(SchemaError, match="placed_at: the table has no such column yet"):
        layout_change(contract(("placed_at", "day")), table.schema(), table.metadata)


def test_no_two_partitions_and_no_column_share_a_name(tmp_path: Path) -> None:
    """A partition that is made again has the name of a column that was renamed since, and another has that name now."""
    shelf = Shelf(tmp_path, contract(("id", "identity"), ("_kafka_timestamp", "hour")))
    shelf.follow(contract())
    with shelf.table.update_schema() as update:
        update.rename_column("id", "number")
        update.rename_column("_kafka_timestamp", "stamp")
    with shelf.table.update_schema() as update:
        update.add_column("stamped", ice.TimestamptzType())
    # Straight into the metadata: pyiceberg refuses such names, other engines do not.
    table = shelf.catalog.load_table("shop.orders")
    fields = [
        field.model_copy(update={"name": "id"}) if field.name == "stamped" else field for field in table.schema().fields
    ]
    wanted = contract(("number", "identity"), ("stamp", "hour"), ("id", "hour"))
    change = layout_change(wanted, Schema(*fields), table.metadata)
    added = next(update.spec for update in change.updates if isinstance(update, AddPartitionSpecUpdate))
    assert [(field.field_id, field.name) for field in added.fields] == [
        (1000, "id_partition"),
        (1001, "_kafka_timestamp_hour"),
        (1002, "id_hour"),
    ]


def test_two_that_change_a_layout_at_once_do_not_mix(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, contract())
    late = layout_change(contract(("id", "bucket[4]")), shelf.table.schema(), shelf.table.metadata)
    with shelf.table.update_spec() as update:
        update.add_field("placed_at", IdentityTransform(), "placed_at")
    table = shelf.catalog.load_table("shop.orders")
    with pytest.raises(CommitFailedException):
        shelf.catalog.commit_table(table, late.requirements, late.updates)
