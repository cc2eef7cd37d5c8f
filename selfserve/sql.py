r"""``headrace sql``: a query over the mesh's tables, its rows as values that JSON, CSV and a terminal can show.

A value is None, a bool, an int, a finite float, a text, or a list or mapping of these. What none of them can hold is
text that does not depend on where it is written:

- decimals in full (``199.90``), so that no digit is lost;
- timestamps in ISO 8601, those with a zone in UTC (``2013-01-01T10:15:00Z``), dates and times likewise;
- bytes as DuckDB writes them: printable ASCII as it is, everything else, quotation marks and the backslash as ``\xNN``;
- ``NaN``, ``Infinity`` and ``-Infinity``;
- types that only DuckDB has (intervals, unions, bit strings …): DuckDB's own text.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa

from headrace.schemas.errors import HeadraceError, NoSuchName, UserError
from headrace.schemas.names import dead_letter_table_of

if TYPE_CHECKING:
    from duckdb.sqltypes import DuckDBPyType

    from headrace.governance.duck import Duck
    from headrace.schemas.names import ProductName

Value: TypeAlias = "bool | int | float | str | Sequence[Value] | Mapping[str, Value] | None"

_NUMBERS = frozenset(
    {
        *("tinyint", "smallint", "integer", "bigint", "hugeint", "utinyint", "usmallint", "uinteger", "ubigint"),
        *("uhugeint", "float", "double", "decimal"),
    }
)
# DuckDB's sums are 128 bits wide; `Duck` hands them over as text.
_WIDE_INTEGERS = frozenset({"hugeint", "uhugeint"})
_NAMES_IN_A_HINT = 8
_ESCAPED = frozenset(b"'\"\\")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a result; ``numeric`` columns are set to the right. Names are unique."""

    name: str
    numeric: bool


@dataclass(frozen=True, slots=True)
class Result:
    """The rows of a query, computed while ``rows`` is read, once; reading raises what `select` raises."""

    columns: tuple[Column, ...]
    rows: Iterator[tuple[Value, ...]]


def select(duck: Duck, products: Sequence[ProductName], sql: str) -> Result:
    """Run a query over those tables of ``products`` that it names; if it names none, over all (``SHOW ALL TABLES``).

    Each product has a second table, of its dead letters (`dead_letter_table_of`).

    A table that is missing or broken fails only a query that uses it. Statements without rows give no columns.

    Raises:
        UserError: if the query is empty, or refused by DuckDB (with DuckDB's text).
        NotApplied: if it uses a table that has not been made yet.
        Unavailable: if catalog or storage does not answer.
    """
    if not sql.strip():
        raise UserError("the query is empty", hint='write one: headrace sql "SHOW ALL TABLES"')
    if not sql.isascii() and any("\ud800" <= char <= "\udfff" for char in sql):
        raise UserError("the query is not UTF-8", hint="save it as UTF-8")
    tables = [*products, *map(dead_letter_table_of, products)]
    faults = _attach(duck, named_in(sql, tables) or tables)
    try:
        answer = duck.query(sql)
    except NoSuchName as error:
        # Of two names the longer one is meant: an error about a table of dead letters names its product's too.
        named = [product for product in faults if _names(error.what, product)]
        fault = faults[max(named, key=lambda each: len(each.product))] if named else None
        if fault is not None:
            raise fault from None
        error.hint = _tables_hint(products)
        raise
    if answer is None:
        return Result((), iter(()))
    columns = tuple(
        Column(name, kind.id in _NUMBERS) for name, kind in zip(_unique(answer.columns), answer.types, strict=True)
    )
    return Result(columns, _rows(answer.batches, answer.types))


def named_in(sql: str, products: Sequence[ProductName]) -> list[ProductName]:
    """Return the products that a query may use: those whose domain and name both occur in its text.

    Never too few, because SQL has no way to write an identifier other than in its own letters; perhaps too many,
    which costs no more than a look at the table. (DuckDB's own list of a query's tables needs the tables to be there.)
    """
    text = sql.casefold()
    return [product for product in products if product.domain in text and product.product in text]


def _attach(duck: Duck, products: Sequence[ProductName]) -> dict[ProductName, HeadraceError]:
    faults: dict[ProductName, HeadraceError] = {}
    for product in products:
        try:
            duck.attach(product)
        except HeadraceError as error:
            faults[product] = error
    return faults


def _names(message: str, product: ProductName) -> bool:
    # "Table with name flights does not exist!" comes first; guesses at what was meant follow on the next lines.
    return product.product in message.splitlines()[0].casefold()


def _tables_hint(products: Sequence[ProductName]) -> str:
    shown = ", ".join(str(product) for product in products[:_NAMES_IN_A_HINT])
    more = f" and {len(products) - _NAMES_IN_A_HINT} more" if len(products) > _NAMES_IN_A_HINT else ""
    letters = f"; dead letters are in tables such as {dead_letter_table_of(products[0])}" if products else ""
    return f"the mesh's tables are {shown}{more}{letters}" if products else "the mesh has no product yet"


def _unique(names: Sequence[str]) -> list[str]:
    """Give a repeated name a number: an object of JSON has each name once."""
    taken: set[str] = set()
    unique = []
    for name in names:
        number, candidate = 1, name
        while candidate in taken or (number > 1 and candidate in names):
            number += 1
            candidate = f"{name}_{number}"
        taken.add(candidate)
        unique.append(candidate)
    return unique


def _rows(batches: Iterator[pa.RecordBatch], types: Sequence[DuckDBPyType]) -> Iterator[tuple[Value, ...]]:
    for batch in batches:
        columns = [_values(column, kind.id) for column, kind in zip(batch.columns, types, strict=True)]
        yield from zip(*columns, strict=True)


def _values(column: pa.Array, kind: str) -> list[Value]:
    """Return a column's values; ``kind`` is DuckDB's name for its type."""
    if kind in _WIDE_INTEGERS:
        return [None if value is None else int(value) for value in column.to_pylist()]
    if pa.types.is_float32(column.type):
        # The shortest text that means the same 32 bits: 0.1, not 0.10000000149011612.
        return [None if value is None else plain(float(str(np.float32(value)))) for value in column.to_pylist()]
    try:
        values = column.to_pylist(maps_as_pydicts="strict")
    except (OverflowError, ValueError):
        # DuckDB's dates reach beyond Python's.
        values = column.cast(_dates_as_text(column.type)).to_pylist(maps_as_pydicts="strict")
    return [plain(value) for value in values]


def _dates_as_text(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_temporal(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_dates_as_text(kind.value_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_dates_as_text(kind.value_type), kind.list_size)
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _dates_as_text(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(kind.key_type, _dates_as_text(kind.item_type))
    return kind


def plain(value: object) -> Value:
    """Return one value as None, bool, int, float, text, list or mapping (see the module's text)."""
    if value is None or isinstance(value, bool | int | str):
        return value
    convert = next((convert for kind, convert in _PLAIN.items() if isinstance(value, kind)), str)
    return convert(value)


def _float(value: float) -> Value:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _bytes(value: bytes) -> Value:
    return "".join(chr(byte) if 0x20 <= byte < 0x7F and byte not in _ESCAPED else f"\\x{byte:02X}" for byte in value)


def _datetime(value: dt.datetime) -> Value:
    text = value.isoformat()
    return f"{text[:-6]}Z" if text.endswith("+00:00") else text


def _time(value: dt.date | dt.time) -> Value:
    return value.isoformat()


# A datetime is a date too: the narrower type comes first.
_PLAIN: Mapping[type, Callable[[Any], Value]] = {
    float: _float,
    Decimal: lambda value: format(value, "f"),
    bytes: _bytes,
    dt.datetime: _datetime,
    dt.date: _time,
    dt.time: _time,
    Mapping: lambda value: {str(key): plain(inner) for key, inner in value.items()},
    list: lambda value: [plain(inner) for inner in value],
    tuple: lambda value: [plain(inner) for inner in value],
}
