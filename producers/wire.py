"""An event as Kafka carries it: the key's bytes, and the wire format of Confluent (magic 0, schema id, Avro body)."""

from __future__ import annotations

import io
import json
import struct
from operator import itemgetter
from typing import TYPE_CHECKING, Any
from uuid import UUID

from fastavro import parse_schema, schemaless_writer

from headrace.producers.events import event_converter
from headrace.schemas.avro import Enum, Fixed, Primitive, Record, optional_of
from headrace.schemas.errors import Bug, SchemaError
from headrace.schemas.plain import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headrace.schemas.product import Product

MAGIC = 0
_HEADER = struct.Struct(">bI")


class Encoder:
    """Turns one product's events into messages. Pure; may be used by several threads.

    Args:
        product: the product.
        schema_id: the registry's id of the product's schema.

    Raises:
        SchemaError: if the schema has a type that headrace does not carry.
    """

    def __init__(self, product: Product, schema_id: int) -> None:
        self._where = str(product.name)
        self._header = _HEADER.pack(MAGIC, schema_id)
        self._parsed = parse_schema(plain(product.schema.record))
        self._record = event_converter(product.schema, where=self._where)
        self._key = key_encoder(product.schema.record, product.contract.key)

    def encode(self, event: object) -> tuple[bytes | None, bytes]:
        """Return the message's key and value.

        Raises:
            EventError: if the contract's schema refuses the event; it names the field and never the value.
        """
        return self.message(self.record(event))

    def record(self, event: object) -> dict[str, Any]:
        """Return the event as `message` takes it: checked, its values as Avro writes them.

        Raises:
            EventError: if the contract's schema refuses the event; it names the field and never the value.
        """
        return self._record(event)

    def message(self, record: dict[str, Any]) -> tuple[bytes | None, bytes]:
        """Return the key and value of a checked record."""
        buffer = io.BytesIO()
        buffer.write(self._header)
        try:
            schemaless_writer(buffer, self._parsed, record, disable_tuple_notation=True)
        except Exception as error:  # noqa: BLE001 - fastavro's messages hold values, so none may pass
            raise Bug(f"a checked event could not be encoded ({type(error).__name__})", where=self._where) from None
        return self._key(record), buffer.getvalue()


def key_encoder(record: Record, paths: Sequence[str]) -> Callable[[dict[str, Any]], bytes | None]:
    """Return a function from a converted record to the message's key.

    One field: the UTF-8 text of its value (an integer in decimal, a UUID in lower case), or no key where the field is
    optional and null; such events spread over the partitions. Several fields: a compact JSON array of the values, null
    included, so that the key exists in any case.
    """
    parts = [_part(record, path) for path in paths]
    if len(parts) > 1:

        def several(datum: dict[str, Any]) -> bytes:
            return json.dumps([part(datum) for part in parts], ensure_ascii=False, separators=(",", ":")).encode()

        return several
    (part,) = parts

    def one(datum: dict[str, Any]) -> bytes | None:
        value = part(datum)
        return None if value is None else str(value).encode()

    return one


def _part(record: Record, path: str) -> Callable[[dict[str, Any]], str | int | None]:
    """Return a function that reads one field of the key; null where the field or a record around it is null."""
    outer, _, rest = path.partition(".")
    field = record.field(outer)
    inner = optional_of(field.type)[0] if field is not None else None
    if rest and isinstance(inner, Record):
        below = _part(inner, rest)

        def nested(datum: dict[str, Any]) -> str | int | None:
            within = datum[outer]
            return None if within is None else below(within)

        return nested
    if isinstance(inner, Fixed):  # a UUID: `check` lets no other fixed type be a key

        def uuid(datum: dict[str, Any]) -> str | None:
            value = datum[outer]
            return None if value is None else str(UUID(bytes=value))

        return uuid
    if rest or not isinstance(inner, Primitive | Enum):
        raise SchemaError("the key's field is not in the schema, or no type of a key", path=path)
    return itemgetter(outer)
