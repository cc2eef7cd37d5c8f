"""Values of types that hold no other: from what fastavro reads to what a `Subscriber` gives for it. Pure."""

from __future__ import annotations

import datetime as dt
import re
from decimal import Context, Decimal
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

from headrace.schemas.avro import AvroType, Fixed, Primitive
from headrace.schemas.shapes import duration, time_text
from headrace.schemas.types import MAX_DECIMAL_PRECISION

if TYPE_CHECKING:
    from collections.abc import Callable

    Made: TypeAlias = Callable[[Any], Any]

_EXACT = Context(prec=MAX_DECIMAL_PRECISION)
_EPOCH_DAY = dt.date(1970, 1, 1).toordinal()
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_LOCAL_EPOCH = _EPOCH.replace(tzinfo=None)
_HEX = "[0-9a-fA-F]"
_HYPHENS = f"{_HEX}{{8}}(?:-{_HEX}{{4}}){{3}}-{_HEX}{{12}}"
# The spellings that the mesh's own decoder reads; Python's UUID would read more, digits of other scripts among them.
_UUID = re.compile(rf"{_HEX}{{32}}|{_HYPHENS}|\{{{_HYPHENS}\}}|urn:uuid:{_HYPHENS}")


def leaf(avro_type: AvroType) -> Made:
    """Return what makes the value of a type that holds no other; `as_read` where nothing is to be made.

    It raises ValueError or OverflowError for what no table can hold.
    """
    match avro_type:
        case Primitive(logical="decimal") | Fixed(logical="decimal"):
            return _decimal(avro_type.precision, avro_type.scale)
        case Fixed(logical=str(logical)):
            return (lambda read: UUID(bytes=read)) if logical == "uuid" else duration
        case Primitive(logical=str(logical)):
            return _logical(logical)
        case Primitive(name="int"):
            return _int
        case _:
            return as_read


def _logical(logical: str) -> Made:
    match logical:
        case "uuid":
            return _uuid
        case "date":
            return lambda read: dt.date.fromordinal(_EPOCH_DAY + read)
        case "time-millis" | "time-micros":
            unit_us = 1_000 if logical == "time-millis" else 1
            return lambda read: time_text(read * unit_us)
        case "timestamp-nanos" | "local-timestamp-nanos":
            return as_read
        case _:
            return _time(_LOCAL_EPOCH if logical.startswith("local") else _EPOCH, logical)


def as_read(read: Any) -> Any:
    """Return what fastavro has read."""
    return read


def _decimal(precision: int, scale: int) -> Made:
    bound = 10**precision

    def make(read: Any) -> Any:
        unscaled = int.from_bytes(read, "big", signed=True)
        # Before it becomes a Decimal: that takes time as the square of its digits.
        if not -bound < unscaled < bound:
            raise ValueError("more digits than the precision")
        return Decimal(unscaled).scaleb(-scale, _EXACT)

    return make


def _uuid(read: Any) -> Any:
    if not _UUID.fullmatch(read):
        raise ValueError("no UUID")
    return UUID(read)


def _time(epoch: dt.datetime, logical: str) -> Made:
    if logical.endswith("millis"):
        return lambda read: epoch + dt.timedelta(milliseconds=read)
    return lambda read: epoch + dt.timedelta(microseconds=read)


def _int(read: Any) -> Any:
    if not -(1 << 31) <= read < 1 << 31:
        raise ValueError("more than 32 bits")
    return read
