"""One event at a time: from a value's bytes to what a `Subscriber` gives for them, in microseconds. Pure.

The mesh's own decoder (:mod:`headrace.streams.decode`) is made for blocks and costs a millisecond for each. Here
fastavro reads a value as plainly as its bytes stand, and what they mean is worked out behind it, with a look at its
size first: fastavro's own conversions make another number of a decimal with too many digits, and spend seconds on a
long one.
"""

from __future__ import annotations

import io
from copy import deepcopy
from itertools import count
from typing import TYPE_CHECKING, Any

import fastavro
import pyarrow as pa

from headrace.schemas.avro import Array, AvroType, Enum, Field, Map, Record, Union, branch_record, optional_of
from headrace.schemas.errors import Refusal
from headrace.schemas.paths import below
from headrace.schemas.plain import plain
from headrace.schemas.types import ColumnTypes, arrow_type
from headrace.streams.columns import default_value
from headrace.streams.decode import HEADER_BYTES, Decoder
from headrace.streams.leaf_values import as_read, leaf
from headrace.streams.naming import SAME_NAMES, written_field
from headrace.streams.pinned import UNDECODABLE, UNKNOWN_SYMBOL, event_type

if TYPE_CHECKING:
    from headrace.schemas.avro import AvroSchema
    from headrace.streams.leaf_values import Made
    from headrace.streams.naming import Names


class EventReader:
    """Reads values written with one schema as events of another.

    What a table cannot hold (:mod:`headrace.streams.storable`) is refused here as well. One difference to a subscriber
    is left, in bytes that no writer makes: a branch of an optional field that is not there is refused.

    Args:
        writer: the schema that the values were written with.
        schema_id: its id in the registry, which every value's header must carry.
        reader: the schema that events are read as. Both must have passed `headrace.schemas.types.unsupported`, and
            nothing may be `headrace.streams.resolution.unreadable`.
        fields: where the reader's fields stand in the events.
    """

    def __init__(self, writer: AvroSchema, schema_id: int, reader: AvroSchema, fields: Names = SAME_NAMES) -> None:
        self._writer, self._schema_id = writer, schema_id
        self._decoder: Decoder | None = None
        self._plain = fastavro.parse_schema(plain(writer.record))
        self._event = _record(writer.record, reader.record, fields, "")
        self._own = _record(writer.record, writer.record, SAME_NAMES, "")

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


def _made(writer: AvroType, reader: AvroType, names: Names, path: str) -> Made:
    """Return what makes a value of what fastavro has read; it raises ValueError or OverflowError for what is none."""
    inner, may_be_null = optional_of(writer)
    wanted, _ = optional_of(reader)
    match inner, wanted:
        case Record(), Record():
            make = _record(inner, wanted, names, path)
        case Array(items=written), Array(items=items):
            make = _array(_made(written, items, names, f"{path}[]"))
        case Map(values=written), Map(values=values):
            make = _map(_made(written, values, names, f"{path}{{}}"))
        case Union(nullable=may_be_null), Union():
            make = _branch(branch_record(inner), branch_record(wanted), names, path)
        case Enum(), Enum(symbols=symbols, default=default):
            make = _symbol(symbols, default)
        case _:
            # What a table's column can widen to is the same in Python.
            make = leaf(inner)
    if make is as_read or not may_be_null:
        return make
    return lambda read: None if read is None else make(read)


def _record(writer: Record, reader: Record, names: Names, path: str) -> Made:
    sources, written = _fields(writer, reader, names, path)
    defaults = {field.name: _default(field) for field in reader.fields if sources[field.name] is None}

    def make(read: Any) -> Any:
        values = {name: make_field(read[name]) for name, make_field in written.items()}
        return {
            name: deepcopy(defaults[name]) if source is None else values[source] for name, source in sources.items()
        }

    return make


def _branch(writer: Record, reader: Record, names: Names, path: str) -> Made:
    sources, written = _fields(writer, reader, names, path)
    shown = {source: name for name, source in sources.items() if source is not None}
    nothing = dict.fromkeys(sources)

    def make(read: Any) -> Any:
        ((name, value),) = read.items()
        return {**nothing, shown[name]: written[name](value)}

    return make


def _fields(writer: Record, reader: Record, names: Names, path: str) -> tuple[dict[str, str | None], dict[str, Made]]:
    """Return where the reader's fields stand in the writer's record, and what makes the values of all of that one's."""
    sources: dict[str, str | None] = {}
    wanted: dict[str, Field] = {}
    for field in reader.fields:
        found = written_field(writer, field, below(path, field.name), names)
        sources[field.name] = found.name if found is not None else None
        if found is not None:
            wanted[found.name] = field
    # Fields that the reader's schema lacks are looked at too: a subscriber refuses the event for what it leaves out.
    written = {
        field.name: _made(field.type, read_as.type, names, below(path, read_as.name))
        if (read_as := wanted.get(field.name))
        else _made(field.type, field.type, SAME_NAMES, "")
        for field in writer.fields
    }
    return sources, written


def _default(field: Field) -> Any:
    """Return a field's default as a subscriber gives it."""
    ids = count(1)
    kind = ColumnTypes(lambda: next(ids)).type(field.type, field.name)
    value = pa.array([default_value(field.default, field.type)], arrow_type(kind))
    return value.cast(event_type(kind)).to_pylist(maps_as_pydicts="strict")[0]


def _array(make: Made) -> Made:
    return make if make is as_read else lambda read: [make(item) for item in read]


def _map(make: Made) -> Made:
    return make if make is as_read else lambda read: {key: make(value) for key, value in read.items()}


def _symbol(symbols: tuple[str, ...], default: str | None) -> Made:
    known = frozenset(symbols)

    def make(read: Any) -> Any:
        if read in known:
            return read
        if default is None:
            raise _StrangeSymbolError
        return default

    return make
