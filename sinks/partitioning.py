"""Partition values of rows, column by column, and the order of rows in a data file. Pure.

pyiceberg's own transforms of Arrow arrays need a library of which no version goes with DataFusion's that headrace reads
with. So calendar and whole numbers are computed here with numpy, and all else by pyiceberg's transforms of single
values, once for each value that occurs. Values are masked before they come here.

Sources: Iceberg table specification, "Partition Transforms", "Sorting", "Appendix B: 32-bit Hash Requirements".
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyiceberg.table.sorting import NullOrder, SortDirection
from pyiceberg.transforms import (
    BucketTransform,
    DayTransform,
    HourTransform,
    IdentityTransform,
    MonthTransform,
    TruncateTransform,
    VoidTransform,
    YearTransform,
)
from pyiceberg.types import (
    BinaryType,
    DateType,
    IntegerType,
    LongType,
    StringType,
    TimestampType,
    TimestamptzType,
    UUIDType,
)

from headrace.schemas.table_layout import path_of
from headrace.schemas.transforms import can_transform

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pyiceberg.partitioning import PartitionField
    from pyiceberg.schema import Schema
    from pyiceberg.table.sorting import SortField, SortOrder
    from pyiceberg.transforms import Transform
    from pyiceberg.types import IcebergType

Longs: TypeAlias = NDArray[np.int64]

_HOUR_US = 3_600_000_000
_WHOLE = (IntegerType, LongType, DateType, TimestampType, TimestamptzType)
_INT_MAX = 0x7FFFFFFF
# Arrow's own limit.
_DIGITS = 76


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one partition.

    Attributes:
        values: the partition's values, one a field of the spec, as manifests hold them.
        rows: its rows, in order.
    """

    values: tuple[Any, ...]
    rows: pa.Table


@dataclass(frozen=True, slots=True)
class Source:
    """A column that something is made of: the names that lead to it, its type and the transform."""

    path: tuple[str, ...]
    kind: IcebergType
    transform: Transform[Any, Any]

    @classmethod
    def of(cls, field: PartitionField | SortField, schema: Schema) -> Source | None:
        """Return a field's source; None: the column is gone, or this version of headrace cannot transform it."""
        path = path_of(schema, field.source_id)
        if path is None:
            return None
        kind = schema.find_type(field.source_id)
        return cls(path, kind, field.transform) if can_transform(field.transform, kind) else None

    def values(self, rows: pa.Table) -> pa.Array:
        """Return the transformed value of every row; null gives null."""
        array = rows.column(self.path[0]).combine_chunks()
        for name in self.path[1:]:
            # Where the struct is null, so is what lies in it.
            array = pc.struct_field(array, [name])
        return transformed(array, self.kind, self.transform)


def transformed(array: pa.Array, kind: IcebergType, transform: Transform[Any, Any]) -> pa.Array:
    """Return a transform of an array, as the specification defines it for values of this type; null gives null."""
    match transform:
        case IdentityTransform():
            return array
        case VoidTransform():
            return pa.nulls(len(array), array.type)
        case YearTransform() | MonthTransform() | DayTransform() | HourTransform():
            return _ordinal(array, kind, transform)
        case BucketTransform(num_buckets=buckets) if isinstance(kind, _WHOLE):
            return _like(array, (_hash_of(_longs(array)) & _INT_MAX) % buckets, pa.int32())
        case TruncateTransform(width=width) if isinstance(kind, IntegerType | LongType):
            return _truncated(array, width)
        case TruncateTransform(width=width) if isinstance(kind, StringType):
            return pc.utf8_slice_codeunits(array, 0, width)
        case TruncateTransform(width=width) if isinstance(kind, BinaryType):
            return pc.binary_slice(array, 0, width)
        case _:
            return _each(array, kind, transform)


def _ordinal(array: pa.Array, kind: IcebergType, transform: Transform[Any, Any]) -> pa.Array:
    """Return years, months, days or hours since 1970; times before it count downwards, whole units all the same."""
    longs = _longs(array)
    if isinstance(transform, HourTransform):
        return _like(array, longs // _HOUR_US, pa.int32())
    moments = longs.view("datetime64[D]" if isinstance(kind, DateType) else "datetime64[us]")
    unit = str(transform)[0].upper()
    return _like(array, moments.astype(f"datetime64[{unit}]").view(np.int64), pa.int32())


def _truncated(array: pa.Array, width: int) -> pa.Array:
    longs = _longs(array)
    # Below the type's lowest value it wraps around, as in the reference implementation.
    with np.errstate(over="ignore"):
        lower = longs - longs % width
    return _like(array, lower.astype(array.type.to_pandas_dtype()), array.type)


def _each(array: pa.Array, kind: IcebergType, transform: Transform[Any, Any]) -> pa.Array:
    """Transform each value that occurs, once."""
    encoded = array.dictionary_encode()
    function = transform.transform(kind)
    values = [function(value) for value in encoded.dictionary.to_pylist()]
    if isinstance(transform, BucketTransform):
        result = pa.int32()
    else:
        # What is rounded down may have a digit more.
        result = pa.decimal256(_DIGITS, array.type.scale) if pa.types.is_decimal(array.type) else array.type
    return pa.array(values, result).take(encoded.indices)


def _longs(array: pa.Array) -> Longs:
    """Return whole numbers, dates or times as 64-bit numbers; what stands under a null is any number."""
    width = pa.int32() if array.type.bit_width == 32 else pa.int64()
    numbers = array.view(width).fill_null(0)
    return np.asarray(numbers.to_numpy(zero_copy_only=False), np.int64)


def _like(array: pa.Array, values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    mask = array.is_null().to_numpy(zero_copy_only=False) if array.null_count else None
    return pa.array(values, mask=mask).cast(kind)


def _hash_of(longs: Longs) -> Longs:
    """Return Murmur3 (x86, 32 bits, seed 0) of each number's 8 bytes, little-endian."""
    unsigned = longs.view(np.uint64)
    state = np.zeros(len(longs), np.uint32)
    for shift in (0, 32):
        block = (unsigned >> np.uint64(shift)).astype(np.uint32)
        block = _rotated(block * np.uint32(0xCC9E2D51), 15) * np.uint32(0x1B873593)
        state = _rotated(state ^ block, 13) * np.uint32(5) + np.uint32(0xE6546B64)
    state ^= np.uint32(8)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        state = (state ^ (state >> np.uint32(shift))) * np.uint32(factor)
    state ^= state >> np.uint32(16)
    return state.astype(np.int64)


def _rotated(words: NDArray[np.uint32], bits: int) -> NDArray[np.uint32]:
    return (words << np.uint32(bits)) | (words >> np.uint32(32 - bits))


@dataclass(frozen=True, slots=True)
class Layout:
    """How rows are put into files.

    Attributes:
        partitions: what the partition values are made of, in the order of the spec.
        order: what the rows of a partition are sorted by; empty: they stay as they are.
    """

    partitions: tuple[Source, ...]
    order: tuple[tuple[Source, SortField], ...]

    def split(self, rows: pa.Table) -> tuple[int, Iterator[Part]]:
        """Return how many partitions the rows lie in, and the partitions, one after another.

        Holds a second copy of the rows while it lasts, and no third.
        """
        if not self.partitions and not self.order:
            return 1, iter((Part((), rows),))
        keys = [source.values(rows) for source in self.partitions]
        codes, firsts = _grouped(keys, rows.num_rows)
        if self.order:
            rows = rows.take(self._sorted(rows, codes))
        elif len(firsts) > 1:
            rows = rows.take(pa.array(np.argsort(codes, kind="stable")))
        values = [
            tuple(_value(key[first], source) for key, source in zip(keys, self.partitions, strict=True))
            for first in firsts
        ]
        return len(firsts), _parts(rows, np.bincount(codes, minlength=len(firsts)), values)

    def _sorted(self, rows: pa.Table, codes: Longs) -> pa.Array:
        """Return the rows by partition, and in a partition by the sort order; equal rows keep their order."""
        keys: list[tuple[pa.Array, str]] = [(pa.array(codes), "ascending")]
        for source, field in self.order:
            values = source.values(rows)
            descending = field.direction is SortDirection.DESC
            if values.null_count:
                # Arrow places nulls in all keys alike.
                first = field.null_order is NullOrder.NULLS_FIRST
                keys.append((values.is_null(), "descending" if first else "ascending"))
            keys.append((_sortable(values), "descending" if descending else "ascending"))
        names = [str(place) for place in range(len(keys))]
        table = pa.table([key for key, _ in keys], names=names)
        return pc.sort_indices(
            table, sort_keys=[(name, direction) for name, (_, direction) in zip(names, keys, strict=True)]
        )


def _sortable(values: pa.Array) -> pa.Array:
    """Return numbers in the place of floats that sort as Iceberg wants them: -NaN, -inf, …, -0, 0, …, inf, NaN."""
    if not pa.types.is_floating(values.type):
        return values
    signed = np.int32 if values.type == pa.float32() else np.int64
    bits = values.fill_null(0).to_numpy(zero_copy_only=False).view(signed)
    return pa.array(
        np.where(bits < 0, bits ^ np.iinfo(signed).max, bits), mask=values.is_null().to_numpy(zero_copy_only=False)
    )


def _grouped(keys: Sequence[pa.Array], count: int) -> tuple[Longs, Longs]:
    """Number the rows' partitions from 0: each row's number, and the first row of each partition."""
    codes, firsts = np.zeros(count, np.int64), np.zeros(1, np.int64)
    for key in keys:
        encoded = key.dictionary_encode(null_encoding="encode")
        codes = codes * len(encoded.dictionary) + encoded.indices.to_numpy()
        # Numbers stay below the square of the rows' count however many fields there are.
        _, firsts, codes = np.unique(codes, return_index=True, return_inverse=True)
    return codes, firsts


def _parts(rows: pa.Table, counts: Longs, values: Sequence[tuple[Any, ...]]) -> Iterator[Part]:
    start = 0
    for count, each in zip(counts.tolist(), values, strict=True):
        yield Part(each, rows.slice(start, count))
        start += count


def _value(scalar: pa.Scalar, source: Source) -> Any:
    """Return a partition value as manifests hold it: dates and times as numbers since 1970, a uuid as such."""
    if not scalar.is_valid:
        return None
    if pa.types.is_date32(scalar.type):
        return scalar.cast(pa.int32()).as_py()
    if pa.types.is_timestamp(scalar.type):
        return scalar.cast(pa.int64()).as_py()
    value = scalar.as_py()
    return uuid.UUID(bytes=value) if isinstance(source.kind, UUIDType) and isinstance(value, bytes) else value


def layout_of(fields: Sequence[PartitionField], order: SortOrder, schema: Schema) -> tuple[Layout, bool] | None:
    """Return how a table's rows are put into files, and whether they are sorted.

    None: this version of headrace cannot make the partitions of this spec. An order that it cannot make is left out,
    as the specification allows: the files then do not say that they are sorted.
    """
    partitions = [Source.of(field, schema) for field in fields]
    if None in partitions:
        return None
    sources = [(Source.of(field, schema), field) for field in order.fields]
    known = tuple((source, field) for source, field in sources if source is not None)
    is_sorted = bool(known) and len(known) == len(sources)
    return Layout(tuple(filter(None, partitions)), known if is_sorted else ()), is_sorted
