"""What Avro can carry and a table cannot, though both have the type: such a value is refused before it spoils a file.

- A decimal of more digits than its precision: Avro's bytes are unbounded. In a Parquet file it becomes another number.
- A date or timestamp outside the years 1 to 9999: Python's readers of the table, pyiceberg among them, fail on it. Most
  often it is a mistake of unit: microseconds of today, written as milliseconds, lie in the year 50,000.
- A time of day outside of 24 hours: no engine knows one, and its text would not be of the fixed width.
- A map with a key twice: DuckDB cannot read the column then.

Unions have become structs before they come here (:mod:`headrace.streams.branches`).

Pure.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterable

Rows: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

_FIRST_DAY = (dt.date.min - dt.date(1970, 1, 1)).days
_LAST_DAY = (dt.date.max - dt.date(1970, 1, 1)).days
_UNITS_A_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000}
_LOW_BITS = (1 << 64) - 1


def unstorable(array: pa.Array) -> Rows:
    """Return the rows of the array that hold, at any depth, a value that a table's column cannot; ascending."""
    kind = array.type
    found: Iterable[Rows] = ()
    if not len(array):
        pass
    elif pa.types.is_struct(kind):
        found = map(unstorable, array.flatten())
    elif pa.types.is_list(kind):
        found = (_parents(array, unstorable(array.values)),)
    elif pa.types.is_map(kind):
        found = (_parents(array, unstorable(array.items)), _with_twins(array))
    elif pa.types.is_decimal128(kind):
        found = (_valid(array, _too_long(array)),)
    elif pa.types.is_date32(kind):
        found = (_valid(array, _beyond(array.view(pa.int32()), 1)),)
    elif pa.types.is_time64(kind):
        found = (_valid(array, _not_within(array.view(pa.int64()), 0, _UNITS_A_DAY[kind.unit])),)
    elif pa.types.is_timestamp(kind):
        found = (_valid(array, _beyond(array.view(pa.int64()), _UNITS_A_DAY[kind.unit])),)
    return np.unique(np.concatenate([np.empty(0, np.int64), *found]))


def _valid(array: pa.Array, marked: np.ndarray[Any, np.dtype[np.bool_]]) -> Rows:
    # What stands under a null is nobody's value.
    if marked.any() and array.null_count:
        marked &= array.is_valid().to_numpy(zero_copy_only=False)
    return np.flatnonzero(marked)


def _beyond(array: pa.Array, units_a_day: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return _not_within(array, _FIRST_DAY * units_a_day, (_LAST_DAY + 1) * units_a_day)


def _not_within(array: pa.Array, first: int, end: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    numbers = np.frombuffer(array.buffers()[1], array.type.to_pandas_dtype())[array.offset :][: len(array)]
    return (numbers < first) | (numbers >= end)


def _too_long(array: pa.Array) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Compare with 10^precision as Arrow lays a decimal out: 128 bits in two's complement, the low 64 first."""
    words = np.frombuffer(array.buffers()[1], np.dtype([("low", "<u8"), ("high", "<i8")]))[array.offset :][: len(array)]
    low, high = words["low"], words["high"]
    bound = 10**array.type.precision
    above, below = (bound >> 64, bound & _LOW_BITS), (-bound >> 64, -bound & _LOW_BITS)
    too_high = (high > above[0]) | ((high == above[0]) & (low >= np.uint64(above[1])))
    too_low = (high < below[0]) | ((high == below[0]) & (low <= np.uint64(below[1])))
    return np.asarray(too_high | too_low)


def _parents(array: pa.ListArray | pa.MapArray, children: Rows) -> Rows:
    """Return the rows of a list or map array that hold these of its children."""
    offsets = array.offsets.to_numpy()
    inside = children[(children >= offsets[0]) & (children < offsets[-1])]
    return np.asarray(np.searchsorted(offsets, inside, side="right") - 1)


def _with_twins(array: pa.MapArray) -> Rows:
    """Return the rows of a map array that have a key twice."""
    offsets = array.offsets.to_numpy()
    sizes = np.diff(offsets)
    if not len(sizes) or int(sizes.max()) < 2:
        return np.empty(0, np.int64)
    keys = array.keys.slice(int(offsets[0]), int(offsets[-1] - offsets[0])).dictionary_encode()
    rows = np.repeat(np.arange(len(array), dtype=np.int64), sizes)
    pairs = np.sort(rows * len(keys.dictionary) + keys.indices.to_numpy())
    return np.asarray(pairs[1:][pairs[1:] == pairs[:-1]] // len(keys.dictionary))
