"""Rows of CSV: a header of field paths, then a row an event."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

from headrace.producers.lines import MAX_LINE_BYTES, BadLine, Row, lines
from headrace.producers.scalars import Mismatch
from headrace.producers.values import cell_reader
from headrace.schemas.avro import Record, Union, optional_of
from headrace.schemas.errors import UserError
from headrace.schemas.shapes import shape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from io import BufferedReader
    from typing import TypeAlias

    ReadCells: TypeAlias = Callable[[Sequence[str]], Any]


def csv_rows(file: BufferedReader, record: Record, where: str) -> Iterator[Row]:
    """Yield the rows of CSV (RFC 4180, UTF-8).

    The header names field paths, ``contact.email`` for a field of a nested record. A column may be missing where the
    schema has a default for its field. An optional nested record is null where all of its cells are empty.

    Raises:
        UserError: if the header does not fit the schema, or the quotes do not fit together.
    """
    reader = csv.reader(_text(file), strict=True)
    try:
        header = next(reader, [])
        read = _header(record, header, where)
        line = reader.line_num + 1
        for cells in reader:
            if cells:
                yield _row(cells, len(header), read, line, reader.line_num)
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"this is not CSV: {error}", where=f"{where}:{reader.line_num}", hint='write a quote inside a cell as ""'
        ) from None


def _text(file: BufferedReader) -> Iterator[str]:
    for line in lines(file):
        if line is None:
            raise csv.Error(f"a line is longer than {MAX_LINE_BYTES >> 20} MiB")
        # What is no UTF-8 becomes halves of surrogate pairs, which no string field accepts.
        yield line.decode(errors="surrogateescape")


def _row(cells: list[str], width: int, read: ReadCells, line: int, last_line: int) -> Row:
    if len(cells) != width:
        return Row(line, last_line, bad=BadLine(line, "", f"there are {len(cells)} cells, the header has {width}"))
    try:
        return Row(line, last_line, read(cells))
    except Mismatch as mismatch:
        return Row(line, last_line, bad=BadLine(line, mismatch.path, mismatch.what))


def _header(record: Record, header: list[str], where: str) -> ReadCells:
    places = {name: index for index, name in enumerate(header)}
    faults = [f"column {name} stands twice" for name in places if header.count(name) > 1]
    unused = set(places)
    missing: list[str] = []
    read = _record(record, "", places, unused, missing)
    faults += [f"the contract has no field {name}" for name in places if name in unused]
    faults += [f"column {name} is missing" for name in missing]
    if faults:
        raise UserError(
            "; ".join(faults), where=f"{where}:1", hint="the first line names the fields of the product's schema"
        )
    return read


def _record(record: Record, prefix: str, places: Mapping[str, int], unused: set[str], missing: list[str]) -> ReadCells:
    """Return the reader of a record's cells; takes the columns that it uses out of ``unused``."""
    members: list[tuple[str, ReadCells]] = []
    for field in record.fields:
        path = f"{prefix}{field.name}"
        inner, optional = optional_of(field.type)
        if not isinstance(inner, Union):
            inner, _ = shape(inner)
        within = [index for name, index in places.items() if name.startswith(f"{path}.")]
        if isinstance(inner, Record) and within:
            below = _record(inner, f"{path}.", places, unused, missing)
            members.append((field.name, _unless_empty(below, within) if optional else below))
        elif not isinstance(inner, Record) and path in places:
            unused.discard(path)
            members.append((field.name, _cell(cell_reader(field.type), places[path])))
        elif not field.has_default:
            missing.append(path)

    def read(cells: Sequence[str]) -> dict[str, Any]:
        result, name = {}, ""
        try:
            for name, member in members:
                result[name] = member(cells)
        except Mismatch as mismatch:
            mismatch.steps.append(f".{name}")
            raise
        return result

    return read


def _cell(read: Callable[[str], Any], index: int) -> ReadCells:
    return lambda cells: read(cells[index])


def _unless_empty(read: ReadCells, within: list[int]) -> ReadCells:
    return lambda cells: read(cells) if any(cells[index] for index in within) else None
