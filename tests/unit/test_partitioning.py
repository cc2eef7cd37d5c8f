"""Partition values of columns, against pyiceberg's own transforms of single values, and the order of rows."""

from __future__ import annotations

import datetime as dt
import math
import uuid
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyiceberg import types as ice
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER, NullOrder, SortDirection, SortField, SortOrder
from pyiceberg.transforms import IdentityTransform, UnknownTransform, VoidTransform

from headrace.schemas.transforms import can_transform, transform_of
from headrace.schemas.types import arrow_type
from headrace.sinks.partitioning import Part, layout_of, transformed

TIMES = st.datetimes()
VALUES: dict[ice.IcebergType, st.SearchStrategy[Any]] = {
    ice.BooleanType(): st.booleans(),
    ice.IntegerType(): st.integers(-(2**31) + 2000, 2**31 - 1),
    ice.LongType(): st.integers(-(2**63) + 2000, 2**63 - 1),
    ice.FloatType(): st.floats(width=32),
    ice.DoubleType(): st.floats(),
    ice.StringType(): st.text(),
    ice.BinaryType(): st.binary(),
    ice.FixedType(3): st.binary(min_size=3, max_size=3),
    ice.UUIDType(): st.binary(min_size=16, max_size=16),
    ice.DecimalType(9, 2): st.decimals(Decimal("-9999999.99"), Decimal("9999999.99"), places=2),
    ice.DecimalType(38, 0): st.integers(-(10**38) + 1, 10**38 - 1).map(Decimal),
    ice.DateType(): st.dates(),
    ice.TimestampType(): TIMES,
    ice.TimestamptzType(): TIMES.map(lambda moment: moment.replace(tzinfo=dt.UTC)),
}
TRANSFORMS = ("identity", "year", "month", "day", "hour", "bucket[1]", "bucket[16]", "truncate[1]", "truncate[7]")
CASES = [
    (kind, name)
    for kind in VALUES
    for name in TRANSFORMS
    if (transform := transform_of(name)) is not None and can_transform(transform, kind)
]


@pytest.mark.parametrize(("kind", "name"), CASES, ids=str)
@settings(max_examples=30)
@given(data=st.data())
def test_each_value_is_transformed_as_pyiceberg_does(kind: ice.IcebergType, name: str, data: st.DataObject) -> None:
    transform = transform_of(name)
    assert transform is not None
    values = data.draw(st.lists(st.none() | VALUES[kind], max_size=20))
    array = pa.array([None, *values], arrow_type(kind))[1:]
    found = transformed(array, kind, transform).to_pylist()
    scalar = transform.transform(kind)
    assert len(found) == len(values)
    for each, value in zip(found, values, strict=True):
        expected = None if value is None else scalar(value)
        assert each == expected or (each != each and expected != expected)  # noqa: PLR0124 - not a number


def test_whole_numbers_wrap_around_below_the_lowest_as_in_the_reference_implementation() -> None:
    transform = transform_of("truncate[10]")
    assert transform is not None
    array = pa.array([-(2**63), 2**63 - 1], pa.int64())
    assert transformed(array, ice.LongType(), transform).to_pylist() == [2**63 - 2, 2**63 - 8]
    array = pa.array([-(2**31)], pa.int32())
    assert transformed(array, ice.IntegerType(), transform).to_pylist() == [2**31 - 2]


SCHEMA = Schema(
    ice.NestedField(1, "id", ice.LongType(), required=True),
    ice.NestedField(
        2,
        "price",
        ice.StructType(
            ice.NestedField(3, "currency", ice.StringType(), required=True),
            ice.NestedField(4, "amount", ice.DoubleType(), required=False),
        ),
        required=False,
    ),
    ice.NestedField(5, "uid", ice.UUIDType(), required=False),
    ice.NestedField(6, "tags", ice.ListType(7, ice.StringType(), element_required=True), required=False),
)


def rows(*prices: tuple[str, float | None] | None, uids: list[bytes | None] | None = None) -> pa.Table:
    """Rows in two chunks."""
    structs = [None if price is None else dict(zip(("currency", "amount"), price, strict=True)) for price in prices]
    table = pa.table(
        {
            "id": pa.array(range(len(prices)), pa.int64()),
            "price": pa.array(structs, arrow_type(SCHEMA.find_type(2))),
            "uid": pa.array(uids or [None] * len(prices), pa.binary(16)),
            "tags": pa.array([["a"]] * len(prices), pa.list_(pa.string())),
        }
    )
    half = len(prices) // 2
    return pa.concat_tables([table.slice(0, half), table.slice(half)])


def split(table: pa.Table, spec: PartitionSpec, order: SortOrder = UNSORTED_SORT_ORDER) -> list[Part]:
    found = layout_of(spec.fields, order, SCHEMA)
    assert found is not None
    count, parts = found[0].split(table)
    listed = list(parts)
    assert len(listed) == count
    return listed


def spec_of(*fields: tuple[int, str]) -> PartitionSpec:
    named = [(source, transform_of(name)) for source, name in fields]
    return PartitionSpec(
        *(PartitionField(source, 1000 + i, each, f"p{i}") for i, (source, each) in enumerate(named) if each is not None)
    )


def ids_by_values(parts: list[Part]) -> dict[tuple[Any, ...], list[int]]:
    return {part.values: part.rows.column("id").to_pylist() for part in parts}


def test_rows_are_split_by_several_values_and_keep_their_order() -> None:
    table = rows(("EUR", 1.0), None, ("USD", 2.0), ("EUR", 3.0), ("EUR", None), ("USD", 2.5))
    parts = split(table, spec_of((3, "identity"), (1, "truncate[4]")))
    assert ids_by_values(parts) == {
        ("EUR", 0): [0, 3],
        (None, 0): [1],
        ("USD", 0): [2],
        ("EUR", 4): [4],
        ("USD", 4): [5],
    }
    assert pa.concat_tables([part.rows for part in parts]).sort_by("id").equals(table.combine_chunks())


def test_not_a_number_is_one_partition_and_negative_zero_is_not_zero() -> None:
    table = rows(("x", math.nan), ("x", -0.0), ("x", 0.0), ("x", math.nan), ("x", None))
    parts = split(table, spec_of((4, "identity")))
    assert sorted(part.rows.column("id").to_pylist() for part in parts) == [[0, 3], [1], [2], [4]]


def test_a_uuid_is_a_uuid() -> None:
    one = uuid.uuid4()
    parts = split(rows(None, None, uids=[one.bytes, None]), spec_of((5, "identity")))
    assert {part.values for part in parts} == {(one,), (None,)}


def test_rows_that_are_neither_partitioned_nor_sorted_are_left_as_they_are() -> None:
    table = rows(None, None)
    (part,) = split(table, PartitionSpec())
    assert part.rows is table
    assert part.values == ()


def test_a_void_field_makes_no_partitions() -> None:
    spec = PartitionSpec(PartitionField(1, 1000, VoidTransform(), "id"))
    (part,) = split(rows(None, None), spec)
    assert part.values == (None,)


@pytest.mark.parametrize(
    "field",
    [
        PartitionField(1, 1000, UnknownTransform("zorder"), "x"),
        PartitionField(99, 1000, IdentityTransform(), "gone"),
        PartitionField(7, 1000, IdentityTransform(), "element"),
    ],
)
def test_a_spec_that_cannot_be_made_is_none(field: PartitionField) -> None:
    assert layout_of([field], UNSORTED_SORT_ORDER, SCHEMA) is None


def test_an_order_that_cannot_be_made_is_left_out() -> None:
    gone = SortOrder(SortField(1, IdentityTransform()), SortField(99, IdentityTransform()))
    found = layout_of([], gone, SCHEMA)
    assert found is not None
    layout, is_sorted = found
    assert not is_sorted
    assert layout.order == ()


@pytest.mark.parametrize(
    ("direction", "nulls", "expected"),
    [
        (SortDirection.ASC, NullOrder.NULLS_FIRST, [6, 7, 3, 4, 2, 1, 0, 5]),
        (SortDirection.ASC, NullOrder.NULLS_LAST, [3, 4, 2, 1, 0, 5, 6, 7]),
        (SortDirection.DESC, NullOrder.NULLS_FIRST, [6, 7, 5, 0, 1, 2, 4, 3]),
        (SortDirection.DESC, NullOrder.NULLS_LAST, [5, 0, 1, 2, 4, 3, 6, 7]),
    ],
)
def test_floats_and_nulls_sort_as_the_specification_says(
    direction: SortDirection, nulls: NullOrder, expected: list[int]
) -> None:
    amounts = [1.5, 0.0, -0.0, -math.inf, -2.0, math.nan, None]
    table = rows(*(("x", amount) for amount in amounts), None)
    order = SortOrder(SortField(4, IdentityTransform(), direction, nulls))
    (part,) = split(table, PartitionSpec(), order)
    assert part.rows.column("id").to_pylist() == expected


@given(
    st.lists(
        st.none() | st.tuples(st.sampled_from(["EUR", "USD", "CHF"]), st.none() | st.integers(-3, 3).map(float)),
        min_size=1,
        max_size=40,
    ),
    st.booleans(),
)
def test_a_partition_s_rows_are_sorted_and_equal_rows_keep_their_order(
    prices: list[tuple[str, float | None] | None], nulls_first: bool
) -> None:
    nulls = NullOrder.NULLS_FIRST if nulls_first else NullOrder.NULLS_LAST
    order = SortOrder(SortField(4, IdentityTransform(), SortDirection.DESC, nulls))
    table = rows(*prices)
    parts = split(table, spec_of((3, "identity")), order)
    expected: dict[tuple[Any, ...], list[int]] = {}

    def rank(number: int) -> tuple[bool, float]:
        price = prices[number]
        amount = price[1] if price is not None else None
        return ((amount is None) != nulls_first, -(amount or 0.0))

    for number in sorted(range(len(prices)), key=rank):
        price = prices[number]
        expected.setdefault((price[0] if price is not None else None,), []).append(number)
    assert ids_by_values(parts) == expected
