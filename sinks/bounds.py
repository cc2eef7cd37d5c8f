"""Bounds in a data file's statistics, where pyiceberg 0.12 makes wrong ones.

Iceberg keeps the first characters of a column's highest text, the last of them raised by one. pyiceberg raises U+D7FF
to a surrogate, which is no character: such a text would be written in no file, ever.

Arrow's writer leaves out the bounds of a row group whose highest or lowest text is longer than 4 kB. pyiceberg goes by
the other row groups then, so that engines would skip a file that holds what they look for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow.parquet as pq
    from pyiceberg.io.fileformat import DataFileStatistics

_SURROGATES = range(0xD800, 0xE000)
_LAST = 0x10FFFF
# Row groups of nothing but NaN have no bounds, and bounds are said without NaN anyway.
_FLOATS = frozenset({"FLOAT", "DOUBLE"})


def upper_bound(text: str, length: int) -> str | None:
    """Return a text of at most so many characters that is not below a given one; None: there is none."""
    if len(text) <= length:
        return text
    for place in range(length - 1, -1, -1):
        raised = ord(text[place]) + 1
        if raised in _SURROGATES:
            raised = _SURROGATES.stop
        if raised <= _LAST:
            return text[:place] + chr(raised)
    return None


def bound_texts(statistics: DataFileStatistics) -> None:
    """Give all texts upper bounds that can be written. Changes the statistics in place."""
    for column in statistics.column_aggregates.values():
        if isinstance(column.current_max, str) and column.trunc_length is not None:
            column.current_max = upper_bound(column.current_max, column.trunc_length)


def drop_partial(statistics: DataFileStatistics, parquet: pq.FileMetaData, field_ids: Mapping[str, int]) -> None:
    """Drop the bounds of columns that have values in a row group of which no bounds are known. Changes in place.

    Args:
        statistics: what pyiceberg has made of the file's metadata.
        parquet: the file's metadata.
        field_ids: the fields' ids by the columns' paths.
    """
    for group in map(parquet.row_group, range(parquet.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            known = column.statistics
            if column.physical_type in _FLOATS or (known is not None and known.has_min_max):
                continue
            if known is None or known.null_count != column.num_values:
                statistics.column_aggregates.pop(field_ids[column.path_in_schema], None)
