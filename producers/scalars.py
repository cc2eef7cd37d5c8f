"""Checks of single values: each function returns the datum that fastavro writes, or raises `Mismatch`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any, TypeAlias
from uuid import UUID

from headrace.schemas.avro import Enum, Fixed, Primitive

Convert: TypeAlias = Callable[[Any], Any]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = date(1970, 1, 1).toordinal()
# What Python, Arrow and the engines agree on; a UTC offset can lead out of it.
_FIRST_US = -62_135_596_800_000_000
_LAST_US = 253_402_300_799_999_999
_TIME = re.compile(r"\d\d:\d\d:\d\d(\.\d{1,6})?", re.ASCII)
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_INTEGERS = {"int": 2**31, "long": 2**63}
# IEEE 754: a double has a significand of 53 bits, a single of 24; the largest finite single.
_EXACT_INTEGERS = {"float": 2**24, "double": 2**53}
_MAX_FLOAT = 3.4028234663852886e38


class Mismatch(Exception):
    """A value that its type refuses. ``steps`` is the path from the inside out."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what
        self.steps: list[str] = []

    @property
    def path(self) -> str:
        """The field's path, like ``contact.email``, ``items[].price`` and ``labels{}``."""
        return "".join(reversed(self.steps)).removeprefix(".")


def scalar(avro_type: Primitive | Fixed | Enum) -> Convert | None:
    """Return the check of a type, None for a type that headrace does not carry."""
    if isinstance(avro_type, Enum):
        return _enum(frozenset(avro_type.symbols))
    if avro_type.logical:
        return _logical(avro_type)
    return _bytes(avro_type.size) if isinstance(avro_type, Fixed) else _plain(avro_type.name)


def _enum(symbols: frozenset[str]) -> Convert:
    def convert(value: Any) -> str:
        if not isinstance(value, str):
            raise wrong(value, "an enum's symbol")
        if value not in symbols:
            raise Mismatch("this is none of the enum's symbols")
        return value

    return convert


def _plain(name: str) -> Convert | None:
    match name:
        case "boolean":
            return _boolean
        case "int" | "long":
            return _integer(name)
        case "float" | "double":
            return _number(name)
        case "string":
            return string
        case "bytes":
            return _bytes(None)
        case _:
            return None


def _logical(avro_type: Primitive | Fixed) -> Convert | None:
    match avro_type.logical:
        case "decimal":
            size = avro_type.size if isinstance(avro_type, Fixed) else None
            return _decimal(avro_type.precision, avro_type.scale, size)
        case "uuid":
            return _uuid_bytes if isinstance(avro_type, Fixed) else _uuid_text
        case "date":
            return _date
        case "timestamp-millis" | "timestamp-micros" | "local-timestamp-millis" | "local-timestamp-micros" as logical:
            return _timestamp(1_000 if logical.endswith("millis") else 1, local=logical.startswith("local"))
        case "time-millis" | "time-micros" as logical:
            return _time(1_000 if logical == "time-millis" else 1)
        case "timestamp-nanos" | "local-timestamp-nanos" as logical:
            return _nanos(local=logical.startswith("local"))
        case _:
            return None


def _boolean(value: Any) -> bool:
    if value is not True and value is not False:
        raise wrong(value, "a boolean")
    return value is True


def _integer(name: str) -> Convert:
    limit = _INTEGERS[name]

    def convert(value: Any) -> int:
        if type(value) is not int and (not isinstance(value, int) or isinstance(value, bool)):
            raise wrong(value, f"an Avro {name}")
        if not -limit <= value < limit:
            raise Mismatch(f"the number does not fit into an Avro {name}")
        return value

    return convert


def _number(name: str) -> Convert:
    exact = _EXACT_INTEGERS[name]
    largest = _MAX_FLOAT if name == "float" else math.inf

    def convert(value: Any) -> float:
        if type(value) is float:
            if -largest <= value <= largest or not math.isfinite(value):
                return value
            raise Mismatch(f"the number does not fit into an Avro {name}")
        if isinstance(value, float):
            return convert(float(value))
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong(value, f"an Avro {name}")
        if not -exact <= value <= exact:
            raise Mismatch(f"an Avro {name} does not hold this integer exactly")
        return float(value)

    return convert


def string(value: Any) -> str:
    """Check a string, or a map's key."""
    if not isinstance(value, str):
        raise wrong(value, "a string")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Mismatch("the text has half a surrogate pair, which UTF-8 cannot encode") from None
    return value


def _bytes(size: int | None) -> Convert:
    def convert(value: Any) -> bytes:
        if not isinstance(value, bytes):
            raise wrong(value, "bytes")
        if size is not None and len(value) != size:
            raise Mismatch(f"there are {len(value)} bytes, and the type has {size}")
        return value

    return convert


def _decimal(precision: int, scale: int, size: int | None) -> Convert:
    """Decimals are written as the bytes of their unscaled value (Avro specification, "Decimal")."""
    limit = 10**precision if size is None else min(10**precision, 2 ** (8 * size - 1))

    def convert(value: Any) -> bytes:
        if not isinstance(value, Decimal):
            raise wrong(value, "a Decimal")
        sign, digits, exponent = value.as_tuple()
        if not isinstance(exponent, int):
            raise Mismatch("the decimal is not a finite number")
        if exponent < -scale:
            raise Mismatch(f"the decimal has more than {scale} decimal places")
        # Checked before the power is taken: 1E+999999 is a short Decimal and a long integer.
        if any(digits) and len(digits) + exponent + scale > precision:
            raise Mismatch(f"the decimal has more than {precision} digits at scale {scale}")
        magnitude = int("".join(map(str, digits))) * 10 ** (exponent + scale) if any(digits) else 0
        if magnitude >= limit:
            raise Mismatch(f"the decimal does not fit into precision {precision}")
        unscaled = -magnitude if sign else magnitude
        length = size or (unscaled.bit_length() + 8) // 8
        return unscaled.to_bytes(length, "big", signed=True)

    return convert


def _uuid_text(value: Any) -> str:
    if isinstance(value, UUID):
        return str(value)
    if not isinstance(value, str):
        raise wrong(value, "a UUID")
    if not _UUID.fullmatch(value):
        raise Mismatch("the text is no UUID of the form 8-4-4-4-12")
    return value.lower()


def _uuid_bytes(value: Any) -> bytes:
    return UUID(_uuid_text(value)).bytes


def _date(value: Any) -> int:
    if not isinstance(value, date) or isinstance(value, datetime):
        raise wrong(value, "a date")
    return value.toordinal() - _EPOCH_DAY


def _timestamp(unit_us: int, *, local: bool) -> Convert:
    def convert(value: Any) -> int:
        if not isinstance(value, datetime):
            raise wrong(value, "a datetime")
        if local:
            if value.tzinfo is not None:
                raise Mismatch("the time has a UTC offset, and the type is a local time")
            value = value.replace(tzinfo=UTC)
        elif value.utcoffset() is None:
            raise Mismatch("the time has no UTC offset")
        delta = value - _EPOCH
        micros: int = (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
        if not _FIRST_US <= micros <= _LAST_US:
            raise Mismatch("the time is not within the years 1 to 9999 of UTC")
        if micros % unit_us:
            raise Mismatch("the time is finer than milliseconds")
        return micros // unit_us

    return convert


def _nanos(*, local: bool) -> Convert:
    number, micros = _integer("long"), _timestamp(1, local=local)

    def convert(value: Any) -> int:
        # No datetime holds nanoseconds, but each is a number of them.
        return int(number(micros(value) * 1_000 if isinstance(value, datetime) else value))

    return convert


def _time(unit_us: int) -> Convert:
    def convert(value: Any) -> int:
        if isinstance(value, str):
            value = _time_of_text(value)
        if not isinstance(value, time):
            raise wrong(value, "a time of day")
        if value.tzinfo is not None:
            raise Mismatch("the time has a UTC offset, and a time of day has none")
        micros = ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond
        if micros % unit_us:
            raise Mismatch("the time is finer than milliseconds")
        return micros // unit_us

    return convert


def _time_of_text(text: str) -> time:
    try:
        if _TIME.fullmatch(text):
            return time.fromisoformat(text)
    except ValueError:
        pass
    raise Mismatch("the text is no time of the form HH:MM:SS.ffffff")


def wrong(value: Any, expected: str) -> Mismatch:
    """Return the mismatch of a value of another Python type."""
    return Mismatch(f"expected {expected}, found {'null' if value is None else type(value).__name__}")
