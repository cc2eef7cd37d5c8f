"""From the values of JSON and CSV to the Python values that an event holds.

A value of another kind than the table says is left as it is, so that the event's own check names it.

===================  ======================================  ==============================================
Avro                 JSON                                    CSV cell (empty: null where optional)
===================  ======================================  ==============================================
boolean              true, false                             true, false
int, long            integer                                 digits with an optional minus
float, double        number                                  number in decimal digits
string, enum         string                                  the text; an empty cell is "" where required
decimal              number (read exactly) or string         number in decimal digits
bytes, fixed         string in base64                        base64
uuid                 string                                  string
date                 "2013-01-31"                            2013-01-31
timestamp-*          ISO 8601 with offset, or Z              the same
local-timestamp-*    ISO 8601 without offset                 the same
timestamp-nanos      integer: nanoseconds since 1970         the same; local-timestamp-nanos too
time-*               "23:59:59.999999", or fewer digits      the same
duration             {"months": 1, "days": 0, "millis": 0}   a column for each of the three: ``term.months``
array, map           array, object                           JSON
record               object                                  a column for each field: ``contact.email``
union of several     {"branch": value}, as the table has it  JSON
===================  ======================================  ==============================================
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, TypeAlias

from headrace.producers.scalars import Mismatch
from headrace.schemas.avro import (
    Array,
    AvroType,
    Enum,
    Fixed,
    Map,
    Primitive,
    Record,
    Union,
    branch_record,
    optional_of,
)
from headrace.schemas.shapes import shape

Read: TypeAlias = Callable[[Any], Any]

_INTEGER = re.compile(r"-?\d+", re.ASCII)
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
# datetime.fromisoformat cuts digits behind the microseconds off; a longer fraction is refused instead.
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d([.,]\d{1,6})?)?(Z|[+-]\d\d:?\d\d)?", re.ASCII)
# Python reads no longer integer from text; no Avro number needs more digits.
_MAX_DIGITS = 400


def parse_json(text: str) -> Any:
    """Parse JSON without losing a digit: numbers with a point or an exponent become Decimal.

    Raises:
        ValueError: if it is no JSON, names a field twice, has a number beyond all types, or is nested too deeply. The
            message holds no value.
    """
    try:
        return json.loads(
            text, parse_float=_exact, parse_constant=_no_constant, object_pairs_hook=_unique, parse_int=_integer
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"this is not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


def _no_constant(_: str) -> Any:
    raise ValueError("NaN and Infinity are no JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a JSON object names a field twice")
    return found


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError("a number has too many digits")
    return int(text)


def _exact(text: str) -> Decimal:
    if len(text) > _MAX_DIGITS:
        raise ValueError("a number has too many digits")
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError("a number's exponent is too large") from None


def json_reader(avro_type: AvroType) -> Read:
    """Return a function from a parsed JSON value to the value that an event holds. It raises `Mismatch`."""
    match optional_of(avro_type)[0]:
        case Union() as union:
            return _union_reader({field.name: json_reader(field.type) for field in branch_record(union).fields})
        case Record(fields=fields):
            return _record_reader({field.name: json_reader(field.type) for field in fields})
        case Array(items=items):
            return _array_reader(json_reader(items))
        case Map(values=values):
            return _map_reader(json_reader(values))
        case Primitive() | Fixed() | Enum() as leaf:
            read = _leaf_reader(leaf)
            if read is _as_is:
                return _as_is
            return lambda value: None if value is None else read(value)


def cell_reader(avro_type: AvroType) -> Read:
    """Return a function from a CSV cell's text to the value that an event holds. It raises `Mismatch`."""
    inner, optional = optional_of(avro_type)[0], shape(avro_type)[1]
    read = _cell(inner)
    text = isinstance(inner, Primitive) and inner.name == "string" and not inner.logical

    def convert(value: str) -> Any:
        if value == "":
            if optional:
                return None
            if not text:
                raise Mismatch("the cell is empty, and the field is not optional")
        return read(value)

    return convert


def _as_is(value: Any) -> Any:
    return value


def _record_reader(members: dict[str, Read]) -> Read:
    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        result = {}
        for name, each in value.items():
            try:
                result[name] = members[name](each) if name in members else each
            except Mismatch as mismatch:
                mismatch.steps.append(f".{name}")
                raise
        return result

    return read


def _union_reader(members: dict[str, Read]) -> Read:
    """Return a reader of objects that name a branch: what other JSON would stand for depends on the branch."""
    names = ", ".join(members)

    def read(value: Any) -> Any:
        if value is None:
            return None
        given = [name for name, each in value.items() if each is not None] if isinstance(value, dict) else []
        if len(given) != 1 or not all(name in members for name in value):
            raise Mismatch(f'a value of a union is an object {{"branch": value}} with one branch of {names}')
        (name,) = given
        try:
            return name, members[name](value[name])
        except Mismatch as mismatch:
            mismatch.steps.append(f".{name}")
            raise

    return read


def _array_reader(item: Read) -> Read:
    def read(value: Any) -> Any:
        if not isinstance(value, list):
            return value
        try:
            return [item(each) for each in value]
        except Mismatch as mismatch:
            mismatch.steps.append("[]")
            raise

    return read


def _map_reader(item: Read) -> Read:
    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        try:
            return {key: item(each) for key, each in value.items()}
        except Mismatch as mismatch:
            mismatch.steps.append("{}")
            raise

    return read


def _leaf_reader(leaf: Primitive | Fixed | Enum) -> Read:
    if isinstance(leaf, Enum):
        return _as_is
    match leaf.logical:
        case "decimal":
            return _decimal
        case "date":
            return _date
        case "timestamp-millis" | "timestamp-micros" | "local-timestamp-millis" | "local-timestamp-micros":
            return _time
        case "uuid" | "time-millis" | "time-micros" | "timestamp-nanos" | "local-timestamp-nanos" | "duration":
            return _as_is
        case _:
            pass
    if isinstance(leaf, Fixed) or leaf.name == "bytes":
        return _bytes
    return _float if leaf.name in ("float", "double") else _as_is


def _cell(inner: AvroType) -> Read:
    if isinstance(inner, Array | Map | Union):
        read = json_reader(inner)
        return lambda text: read(_cell_json(text))
    if isinstance(inner, Primitive) and inner.logical in (None, "timestamp-nanos", "local-timestamp-nanos"):
        if inner.name in ("int", "long"):
            return _cell_integer
        if inner.name in ("float", "double"):
            return lambda text: _float(_decimal(text))
        if inner.name == "boolean":
            return _cell_boolean
    return json_reader(inner)


def _cell_json(text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise Mismatch(str(error)) from None


def _cell_integer(text: str) -> int:
    if not _INTEGER.fullmatch(text) or len(text) > _MAX_DIGITS:
        raise Mismatch("the text is no integer")
    return int(text)


def _cell_boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise Mismatch("the text is neither true nor false")
    return text.lower() == "true"


def _float(value: Any) -> Any:
    if not isinstance(value, Decimal):
        return value
    number = float(value)
    # Neither JSON nor a cell can say infinity: it is what is left of a number that no double holds.
    if math.isinf(number):
        raise Mismatch("the number does not fit into an Avro double")
    return number


def _decimal(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return Decimal(value)
    if isinstance(value, str):
        if not _NUMBER.fullmatch(value):
            raise Mismatch("the text is no number")
        try:
            return _exact(value)
        except ValueError as error:
            raise Mismatch(str(error)) from None
    return value


def _bytes(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise Mismatch("the text is not base64") from None


def _date(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        if _DATE.fullmatch(value):
            return date.fromisoformat(value)
    except ValueError:
        pass
    raise Mismatch("the text is no date of the form YYYY-MM-DD")


def _time(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        if _TIME.fullmatch(value):
            return datetime.fromisoformat(value)
    except ValueError:
        pass
    raise Mismatch("the text is no time of ISO 8601 with at most six decimal places")
