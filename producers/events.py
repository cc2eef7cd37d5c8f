"""From an event to the record that is encoded: every field is checked against the schema, nothing coerced in silence.

=======================  =======================================================================================
Avro                     accepted
=======================  =======================================================================================
boolean                  bool
int, long                int within the type's range; a bool is no int
float, double            float; an int that the type holds exactly (Avro promotes int to double, too)
string                   str that UTF-8 can encode
bytes, fixed             bytes, for fixed of the exact size
decimal                  Decimal, finite, with no more decimal places than the scale and within the precision
uuid                     UUID, or its text of 36 characters
date                     date, not datetime
timestamp-*              datetime with a UTC offset, no finer than the type
local-timestamp-*        datetime without one, no finer than the type
timestamp-nanos, local…  int of nanoseconds since 1970; datetime as above, within the years 1677 to 2262
time-*                   time without a UTC offset, no finer than the type, or its text ``HH:MM:SS.ffffff``
duration                 record of months, days and millis, each from 0 to 4,294,967,295
enum                     one of the symbols
array, map               list or tuple; dict with str keys
record                   dict (or any mapping), dataclass, pydantic model (by alias, where it has aliases)
optional                 None
union of several         a value of one branch: `headrace.producers.unions` says of which
=======================  =======================================================================================

A field may be left out only if the schema gives it a default, which is then written. A field that the schema does not
know is refused. Messages name types and never hold a value.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel

from headrace.producers.scalars import Convert, Mismatch, scalar, string, wrong
from headrace.producers.unions import union_converter
from headrace.schemas.avro import (
    Array,
    AvroSchema,
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
from headrace.schemas.defaults import branch_of_default
from headrace.schemas.errors import EventError, SchemaError
from headrace.schemas.shapes import DURATION

# Avro specification, "Names"; the limit is that of a table's columns in PostgreSQL.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


def event_converter(schema: AvroSchema, *, where: str) -> Callable[[object], dict[str, Any]]:
    """Return a function that turns an event into the record that fastavro encodes by the schema's `plain` spelling.

    The function raises `EventError`, which names the first field that the schema refuses.

    Args:
        schema: the contract's schema.
        where: the product, for errors.

    Raises:
        SchemaError: if the schema has a type that headrace does not carry.
    """
    convert = _record(schema.record, "")

    def converted(event: object) -> dict[str, Any]:
        try:
            record: dict[str, Any] = convert(event)
        except Mismatch as mismatch:
            raise event_error(mismatch, where=where) from None
        return record

    return converted


def event_error(mismatch: Mismatch, *, where: str | None = None) -> EventError:
    """Return the error that a person sees."""
    what = f"{mismatch.path}: {mismatch.what}" if mismatch.path else mismatch.what
    return EventError(what, field=mismatch.path, where=where)


def _convert(avro_type: AvroType, path: str) -> Convert:
    inner, optional = optional_of(avro_type)
    convert = _required(inner, path)
    if not optional:
        return convert

    def nullable(value: Any) -> Any:
        return None if value is None else convert(value)

    return nullable


def _required(avro_type: AvroType, path: str) -> Convert:
    match avro_type:
        case Record():
            return _record(avro_type, path)
        case Array(items=items):
            return _array(_convert(items, f"{path}[]"))
        case Map(values=values):
            return _map(_convert(values, f"{path}{{}}"))
        case Union(others=(_, *_)):
            return union_converter(avro_type, _required, path)
        case Fixed(logical="duration"):
            return _duration()
        case Primitive() | Fixed() | Enum() if (convert := scalar(avro_type)) is not None:
            return convert
        case _:
            pass
    raise SchemaError("events cannot carry this type", path=path, hint="headrace check names what to use instead")


def _record(record: Record, path: str) -> Convert:
    members = [(field.name, _convert(field.type, f"{path}.{field.name}")) for field in record.fields]
    defaults = {field.name: default_datum(field.type, field.default) for field in record.fields if field.has_default}

    def convert(value: Any) -> dict[str, Any]:
        given = value if type(value) is dict else _fields_of(value)
        result, left_out, name = {}, 0, ""
        try:
            for name, member in members:
                try:
                    field = given[name]
                except KeyError:
                    if name not in defaults:
                        raise Mismatch("the field is missing") from None
                    result[name] = defaults[name]
                    left_out += 1
                else:
                    result[name] = member(field)
        except Mismatch as mismatch:
            mismatch.steps.append(f".{name}")
            raise
        if len(given) + left_out != len(result):
            raise _extra(given, result)
        return result

    return convert


def _duration() -> Convert:
    """Durations are written as three unsigned little-endian integers of 32 bits (Avro specification, "Duration")."""
    members = _record(DURATION, "")

    def convert(value: Any) -> bytes:
        numbers: dict[str, int] = members(value)
        for name, number in numbers.items():
            if not 0 <= number < 1 << 32:
                mismatch = Mismatch("the number does not fit into 32 bits without a sign")
                mismatch.steps.append(f".{name}")
                raise mismatch
        return b"".join(number.to_bytes(4, "little") for number in numbers.values())

    return convert


def _extra(given: Mapping[Any, Any], known: Mapping[str, Any]) -> Mismatch:
    name = next(name for name in given if name not in known)
    # What could not be a field's name may be a value that stands in the wrong place.
    shown = name if isinstance(name, str) and _NAME.fullmatch(name) else "?"
    mismatch = Mismatch("the contract has no such field")
    mismatch.steps.append(f".{shown}")
    return mismatch


def _fields_of(value: Any) -> Mapping[Any, Any]:
    """Return an event's fields by name, one level deep; what lies deeper is converted when its turn comes."""
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        return {
            field.serialization_alias or field.alias or name: getattr(value, name) for name, field in fields.items()
        } | (value.model_extra or {})
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return value
    raise wrong(value, "a record")


def _array(item: Convert) -> Convert:
    def convert(value: Any) -> list[Any]:
        if not isinstance(value, list | tuple):
            raise wrong(value, "an array")
        try:
            return [item(each) for each in value]
        except Mismatch as mismatch:
            mismatch.steps.append("[]")
            raise

    return convert


def _map(item: Convert) -> Convert:
    def convert(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise wrong(value, "a map")
        try:
            return {string(key): item(each) for key, each in value.items()}
        except Mismatch as mismatch:
            mismatch.steps.append("{}")
            raise

    return convert


def default_datum(avro_type: AvroType, default: Any) -> Any:
    """Return the datum of a schema's JSON default (Avro specification, "Record": bytes stand as characters 0-255)."""
    inner, _ = optional_of(avro_type)
    match inner:
        case Union() if default is not None:
            place = branch_of_default(default, inner)
            return {branch_record(inner).fields[place].name: default_datum(inner.others[place], default)}
        case Record(fields=fields) if isinstance(default, dict):
            return {field.name: default_datum(field.type, default.get(field.name, field.default)) for field in fields}
        case Array(items=items) if isinstance(default, list):
            return [default_datum(items, each) for each in default]
        case Map(values=values) if isinstance(default, dict):
            return {key: default_datum(values, each) for key, each in default.items()}
        case Fixed() | Primitive(name="bytes") if isinstance(default, str):
            return default.encode("latin-1")
        case Primitive(name="float" | "double") if isinstance(default, int):
            return float(default)
        case _:
            return default
