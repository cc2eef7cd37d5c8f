"""One event at a time: from a value's bytes to what a `Subscriber` gives for them, in microseconds. Pure.

The mesh's own decoder (:mod:`headrace.streams.decode`) is made for blocks and costs a millisecond for each. Here
fastavro reads a value as plainly as its bytes stand, and what they mean is worked out behind it, with a look at its
size first: fastavro's own conversions make another number of a decimal with too many digits, and spend seconds on a
long one.
"""

from __future__ import annotations

import datetime as dt
import io
import re
from copy import deepcopy
from decimal import Context, Decimal
from itertools import count
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

import fastavro
import pyarrow as pa

from headrace.schemas.avro import Array, AvroType, Enum, Field, Fixed, Map, Primitive, Record, Union, optional_of
from headrace.schemas.errors import Refusal
from headrace.schemas.types import MAX_DECIMAL_PRECISION, ColumnTypes, arrow_type
from headrace.streams.columns import default_value
from headrace.streams.decode import HEADER_BYTES, Decoder
from headrace.streams.pinned import UNDECODABLE, UNKNOWN_SYMBOL, event_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headrace.schemas.avro import AvroSchema

    Made: TypeAlias = Callable[[Any], Any]

_EXACT = Context(prec=MAX_DECIMAL_PRECISION)
_EPOCH_DAY = dt.date(1970, 1, 1).toordinal()
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_LOCAL_EPOCH = _EPOCH.replace(tzinfo=None)
_HEX = "[0-9a-fA-F]"
_HYPHENS = f"{_HEX}{{8}}(?:-{_HEX}{{4}}){{3}}-{_HEX}{{12}}"
# The spellings that the mesh's own decoder reads; Python's UUID would read more, digits of other scripts among them.
_UUID = re.compile(rf"{_HEX}{{32}}|{_HYPHENS}|\{{{_HYPHENS}\}}|urn:uuid:{_HYPHENS}")


class EventReader:
    """Reads values written with one schema as events of another.

    What a table cannot hold (:mod:`headrace.streams.storable`) is refused here as well. One difference to a subscriber
    is left, in bytes that no writer makes: a branch of an optional field that is not there is refused.

    Args:
        writer: the schema that the values were written with.
        schema_id: its id in the registry, which every value's header must carry.
        reader: the schema that events are read as. Both must have passed `headrace.schemas.types.unsupported`, and
            nothing may be `headrace.streams.resolution.unreadable`.
    """

    def __init__(self, writer: AvroSchema, schema_id: int, reader: AvroSchema) -> None:
        names = (f"T{number}" for number in count())
        self._writer, self._schema_id = writer, schema_id
        self._decoder: Decoder | None = None
        self._plain = fastavro.parse_schema(_plain(writer.record, names))
        self._event = _record(writer.record, reader.record)
        self._own = _record(writer.record, writer.record)

    def read(self, value: bytes) -> dict[str, Any]:
        """Return the event of a value, header included.

        Raises:
            Refusal: if it is none, to the byte; or if the reader's schema has neither a symbol that it holds nor a
                default for it.
        """
        body = io.BytesIO(value)
        body.seek(HEADER_BYTES)
        event: dict[str, Any] | None = None
        try:
            read: Any = fastavro.schemaless_reader(body, self._plain, None)
            try:
                event = self._event(read)
            except _StrangeSymbolError:
                self._own(read)
        except Exception:  # noqa: BLE001 - fastavro raises all kinds of errors for bytes that do not fit
            raise _undecodable() from None
        if body.tell() != len(value) or not self._is_whole(value, read):
            raise _undecodable()
        if event is None:
            raise Refusal(UNKNOWN_SYMBOL, "an enum's symbol is none of the contract's, which has no default for it")
        return event

    def _is_whole(self, value: bytes, read: Any) -> bool:
        """Tell whether the bytes are what fastavro takes them for.

        It lets pass what no writer makes: a key twice, a symbol before the first, numbers of more than 64 bits.
        """
        body = io.BytesIO()
        fastavro.schemaless_writer(body, self._plain, read)
        if body.getbuffer() == memoryview(value)[HEADER_BYTES:]:
            return True
        # Written in an unusual way, such as an array in several blocks, which need not be wrong.
        if self._decoder is None:
            self._decoder = Decoder(self._writer, self._schema_id)
        return not self._decoder.decode(pa.array([value], pa.binary())).refused


class _StrangeSymbolError(Exception):
    """A symbol that the reader's schema does not know what to make of."""


def _undecodable() -> Refusal:
    return Refusal(UNDECODABLE, "the value does not fit the schema that it names, or no table could hold it")


def _plain(avro_type: AvroType, names: Iterator[str]) -> Any:
    """Spell a type out as its bytes stand, so that fastavro converts nothing."""
    match avro_type:
        case Record(fields=fields):
            members = [{"name": field.name, "type": _plain(field.type, names)} for field in fields]
            return {"type": "record", "name": next(names), "fields": members}
        case Array(items=items):
            return {"type": "array", "items": _plain(items, names)}
        case Map(values=values):
            return {"type": "map", "values": _plain(values, names)}
        case Union(branches=branches):
            return [_plain(branch, names) for branch in branches]
        case Enum(symbols=symbols):
            return {"type": "enum", "name": next(names), "symbols": symbols}
        case Fixed(size=size):
            return {"type": "fixed", "name": next(names), "size": size}
        case Primitive(name=name):
            return name


def _made(writer: AvroType, reader: AvroType) -> Made:
    """Return what makes a value of what fastavro has read; it raises ValueError or OverflowError for what is none."""
    inner, may_be_null = optional_of(writer)
    wanted, _ = optional_of(reader)
    match inner, wanted:
        case Record(), Record():
            make = _record(inner, wanted)
        case Array(items=written), Array(items=items):
            make = _array(_made(written, items))
        case Map(values=written), Map(values=values):
            make = _map(_made(written, values))
        case Enum(), Enum(symbols=symbols, default=default):
            make = _symbol(symbols, default)
        case _:
            # What a table's column can widen to is the same in Python.
            make = _leaf(inner)
    if make is _as_read or not may_be_null:
        return make
    return lambda read: None if read is None else make(read)


def _record(writer: Record, reader: Record) -> Made:
    # Fields that the reader's schema lacks are looked at too: a subscriber refuses the event for what it leaves out.
    written = {}
    for field in writer.fields:
        wanted = reader.field(field.name)
        written[field.name] = _made(field.type, wanted.type if wanted is not None else field.type)
    defaults = {field.name: _default(field) for field in reader.fields if field.name not in written}
    names = [field.name for field in reader.fields]

    def make(read: Any) -> Any:
        values = {name: make_field(read[name]) for name, make_field in written.items()}
        return {name: values[name] if name in values else deepcopy(defaults[name]) for name in names}

    return make


def _default(field: Field) -> Any:
    """Return a field's default as a subscriber gives it."""
    ids = count(1)
    kind = ColumnTypes(lambda: next(ids)).type(field.type, field.name)
    value = pa.array([default_value(field.default, field.type)], arrow_type(kind))
    return value.cast(event_type(kind)).to_pylist(maps_as_pydicts="strict")[0]


def _array(make: Made) -> Made:
    return make if make is _as_read else lambda read: [make(item) for item in read]


def _map(make: Made) -> Made:
    return make if make is _as_read else lambda read: {key: make(value) for key, value in read.items()}


def _symbol(symbols: tuple[str, ...], default: str | None) -> Made:
    known = frozenset(symbols)

    def make(read: Any) -> Any:
        if read in known:
            return read
        if default is None:
            raise _StrangeSymbolError
        return default

    return make


def _leaf(avro_type: AvroType) -> Made:
    match avro_type:
        case Primitive(logical="decimal") | Fixed(logical="decimal"):
            return _decimal(avro_type.precision, avro_type.scale)
        case Fixed(logical="uuid"):
            return lambda read: UUID(bytes=read)
        case Primitive(logical="uuid"):
            return _uuid
        case Primitive(logical="date"):
            return lambda read: dt.date.fromordinal(_EPOCH_DAY + read)
        case Primitive(logical=str(logical)):
            return _time(_LOCAL_EPOCH if logical.startswith("local") else _EPOCH, logical)
        case Primitive(name="int"):
            return _int
        case _:
            return _as_read


def _as_read(read: Any) -> Any:
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
