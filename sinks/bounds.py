"""Bounds of texts in a data file's statistics.

Iceberg keeps the first characters of a column's highest text, the last of them raised by one. pyiceberg 0.12 raises
U+D7FF to a surrogate, which is no character: such a text would be written in no file, ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyiceberg.io.fileformat import DataFileStatistics

_SURROGATES = range(0xD800, 0xE000)
_LAST = 0x10FFFF


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
