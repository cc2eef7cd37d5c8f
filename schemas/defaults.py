"""Defaults of a schema's fields: does a JSON default stand for a value of its type? Pure.

Source: Avro 1.12 specification, "Complex Types", table of field default values: bytes and fixed are strings of the code
points 0 to 255, logical types are given as their underlying type, a union's default is of any of its branches.
Whoever reads an old event fills in the default, so one that fits no column must be found before.
"""

from __future__ import annotations

import sys
import uuid
from typing import Any

from headrace.schemas.avro import Array, AvroType, Enum, Fixed, Map, Primitive, Record, Union

_INT_BITS = {"int": 31, "long": 63}
_LARGEST = {"float": (2 - 2**-23) * 2.0**127, "double": sys.float_info.max}
# Years 1 to 9999, as in `headrace.streams.storable`: days, milliseconds or microseconds around 1970. Nanoseconds have
# no bound but a long's: their column is a long.
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896
_DAY_MS = 86_400_000
_UNITS_A_DAY = {"date": 1, "millis": _DAY_MS, "micros": _DAY_MS * 1_000}


def fits_default(default: Any, avro_type: AvroType) -> bool:
    """Tell whether a JSON default is a value of the type, one that a column of that type can hold."""
    match avro_type:
        case Union(branches=branches):
            return any(fits_default(default, branch) for branch in branches)
        case Record(fields=fields):
            return isinstance(default, dict) and all(
                fits_default(default[field.name], field.type)
                if field.name in default
                else field.has_default and fits_default(field.default, field.type)
                for field in fields
            )
        case Array(items=items):
            return isinstance(default, list) and all(fits_default(item, items) for item in default)
        case Map(values=values):
            return isinstance(default, dict) and all(
                _is_text(key) and fits_default(value, values) for key, value in default.items()
            )
        case Enum(symbols=symbols):
            return default in symbols
        case Fixed():
            return _is_bytes(default) and len(default) == avro_type.size and _fits_bytes(default, avro_type)
        case Primitive():
            return _fits_primitive(default, avro_type)


def _fits_primitive(default: Any, avro_type: Primitive) -> bool:
    match avro_type.name:
        case "null":
            return default is None
        case "boolean":
            return isinstance(default, bool)
        case "int" | "long":
            whole = isinstance(default, int) and not isinstance(default, bool)
            return whole and _in_range(default, avro_type)
        case "float" | "double":
            number = isinstance(default, int | float) and not isinstance(default, bool)
            return number and abs(default) <= _LARGEST[avro_type.name]
        case "bytes":
            return _is_bytes(default) and _fits_bytes(default, avro_type)
        case _:
            return _is_text(default) and (avro_type.logical != "uuid" or _is_uuid(default))


def branch_of_default(default: Any, union: Union) -> int:
    """Return the place of the branch that a union's default is of: the first that it fits, null left out of the count.

    Raises:
        ValueError: if it fits none; `fits_default` says so beforehand.
    """
    return [fits_default(default, branch) for branch in union.others].index(True)


def _in_range(default: int, avro_type: Primitive) -> bool:
    bound = 1 << _INT_BITS[avro_type.name]
    kind, _, unit = (avro_type.logical or "").rpartition("-")
    units = _UNITS_A_DAY.get(unit)
    if units is not None:
        # A time of day lies in the first day of all.
        first, last = (0, 0) if kind == "time" else (_FIRST_DAY, _LAST_DAY)
        if not first * units <= default < (last + 1) * units:
            return False
    return -bound <= default < bound


def _is_text(default: Any) -> bool:
    """Tell whether it is a text that UTF-8 can encode: JSON can write half a surrogate pair."""
    if not isinstance(default, str):
        return False
    try:
        default.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_bytes(default: Any) -> bool:
    return isinstance(default, str) and all(ord(character) <= 0xFF for character in default)


def _fits_bytes(default: str, avro_type: Primitive | Fixed) -> bool:
    if avro_type.logical != "decimal":
        return True
    unscaled = int.from_bytes(default.encode("latin-1"), "big", signed=True)
    return bool(abs(unscaled) < 10**avro_type.precision)


def _is_uuid(default: str) -> bool:
    try:
        uuid.UUID(default)
    except ValueError:
        return False
    return True
