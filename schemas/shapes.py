"""What a column sees of an Avro type: unions of several branches and durations as records, times as texts. Pure.

Whoever compares, fills or reads columns asks here, and so meets neither a union nor a duration: both are structs.
"""

from __future__ import annotations

import struct

from headrace.schemas.avro_types import AvroType, Field, Fixed, Primitive, Record, Union, branch_record, optional_of

DAY_US = 86_400_000_000


def _long(name: str) -> Field:
    return Field(name, Primitive("long"), doc="", aliases=(), tags=(), has_default=False, default=None)


# Avro 1.12 specification, "Duration": three unsigned little-endian integers of 32 bits, in this order. A column's int
# has a sign, so each is a long. They do not convert into each other: months and days differ in length.
_DURATION = struct.Struct("<3I")
DURATION = Record("duration", (_long("months"), _long("days"), _long("millis")), "")


def shape(avro_type: AvroType) -> tuple[AvroType, bool]:
    """Return the type that a column sees, and whether it may be null there.

    ``["null", X]`` in either order is X that may be null, any other union a record with an optional field a branch (see
    `branch_record`) that is null where the union's null is meant, a duration a record of months, days and milliseconds.
    What comes back is neither a union nor a duration.
    """
    inner, optional = optional_of(avro_type)
    match inner:
        case Union():
            return branch_record(inner), inner.nullable
        case Fixed(logical="duration"):
            return DURATION, optional
        case _:
            return inner, optional


def duration(raw: bytes) -> dict[str, int]:
    """Return a duration's fields."""
    return {field.name: number for field, number in zip(DURATION.fields, _DURATION.unpack(raw), strict=True)}


def time_text(micros: int) -> str:
    """Return a time of day as columns have it, ``HH:MM:SS.ffffff``.

    Raises:
        ValueError: if it is not within 24 hours.
    """
    if not 0 <= micros < DAY_US:
        raise ValueError("no time of day")
    seconds, fraction = divmod(micros, 1_000_000)
    minutes, second = divmod(seconds, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{second:02}.{fraction:06}"
