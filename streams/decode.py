"""Avro at full speed: a run of Kafka values of one schema *is* an Avro block, decoded into Arrow as a whole.

An Avro object container file holds blocks of records' bodies one after another, so the values of one writer schema,
each with its 5-byte header as a first field, make a block. Bodies do not delimit themselves: one truncated value
would shift all that follow. So every value is followed by a sentinel that no producer can foresee, and a block counts
only if every header and every sentinel is the expected one, each at its row. A block that fails is halved until it is
small; then fastavro sorts out what it cannot read, value by value. What both can read and a table cannot hold is
refused as well (:mod:`headrace.streams.storable`).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import struct
import tempfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datafusion import SessionConfig, SessionContext

from headrace.schemas.avro import Field, Fixed, Primitive, Record
from headrace.schemas.errors import Unavailable
from headrace.schemas.plain import Speller
from headrace.streams.branches import AS_WRITTEN, has_unions, reader_schema, reshaper
from headrace.streams.misfits import unheld_path, unread_path
from headrace.streams.storable import unstorable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.schemas.avro import AvroSchema

# Confluent's wire format: magic byte 0, then the schema id as four bytes, big-endian.
MAGIC = 0
HEADER_BYTES = 5
_HEADER = struct.Struct(">bI")
_SENTINEL_BYTES = 8
# Names that no field of an event can have: Avro's names hold no blanks.
_HEADER_FIELD = "headrace header"
_SENTINEL_FIELD = "headrace sentinel"
# Any 16 bytes do: there is one block a file, and it is never searched for.
_SYNC = b"headrace-block-\n"
# A block of this size costs fastavro less than DataFusion's set-up costs twice.
_FEW_ROWS = 256
# The largest block that the reader hands over.
MAX_BLOCK_ROWS = 65_536
# Row i's sentinel, made once: consecutive numbers from a secret start, so that no value can carry its successor's.
_EXPECTED = np.arange(MAX_BLOCK_ROWS, dtype=np.uint64) + np.frombuffer(os.urandom(8), np.uint64)
_SENTINELS = pa.FixedSizeBinaryArray.from_buffers(
    pa.binary(_SENTINEL_BYTES), MAX_BLOCK_ROWS, [None, pa.py_buffer(_EXPECTED.tobytes())]
).cast(pa.binary())

Rows: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class Decoded:
    """Decoded values.

    Attributes:
        events: one struct a value that could be decoded, in order, shaped as the writer's schema says; unions and
            durations are structs (`headrace.schemas.shapes`), times of day Arrow's ``time64``.
        refused: positions of the values that could not be decoded, ascending.
    """

    events: pa.StructArray
    refused: tuple[int, ...]


class Decoder:
    """Decodes values written with one schema. Not to be shared between threads.

    Args:
        schema: the schema the values were written with.
        schema_id: its id in the registry, which every value's header must carry.
    """

    def __init__(self, schema: AvroSchema, schema_id: int) -> None:
        self._header = _HEADER.pack(MAGIC, schema_id)
        spelt = Speller(_checked).record(schema.record)
        self._fields: list[dict[str, Any]] = spelt["fields"]
        self._plain = fastavro.parse_schema(spelt)
        # DataFusion resolves namespaces differently and trips over a logical type on a type that does not carry it,
        # which the specification has readers ignore; so there is nothing left to resolve or to ignore.
        guarded = Speller(_logical).record(_guarded(schema.record))
        self._prefix = _container_prefix(json.dumps(guarded).encode())
        self._scratch = _Scratch()
        self._columns: pa.Schema | None = None
        if has_unions(schema.record):
            self._columns = reader_schema(guarded, pa.schema(self._read(b"", 0).type))
        self._reshape = reshaper(schema.record)
        self._type = self._events(self._read(b"", 0)).type

    def decode(self, values: pa.BinaryArray) -> Decoded:
        """Decode up to :data:`MAX_BLOCK_ROWS` values (header included, no nulls).

        Never raises for what a value holds: values that do not fit the schema to the byte, or that no table can hold,
        are in ``refused``.

        Raises:
            Unavailable: this machine has no room to decode one of the values in; they can be decoded again.
        """
        parts: list[pa.StructArray] = []
        refused: list[int] = []
        pending = [np.arange(len(values))]
        while pending:
            rows = pending.pop()
            if not len(rows):
                continue
            events = self._block(values if len(rows) == len(values) else values.take(pa.array(rows)))
            if events is None:
                refused += self._split(values, rows, pending)
                continue
            spoilt = unstorable(events)
            refused += rows[spoilt].tolist()
            kept = np.ones(len(rows), bool)
            kept[spoilt] = False
            parts.append(events.filter(pa.array(kept)) if len(spoilt) else events)
        # Joining one array would copy it.
        events = pa.concat_arrays(parts) if len(parts) > 1 else parts[0] if parts else pa.array([], self._type)
        return Decoded(events, tuple(sorted(refused)))

    def misfit(self, value: bytes) -> str | None:
        """Return where a value, header included, does not fit: a field's path, empty: behind the last field.

        None: it fits, or its header is another one. For single values; what stands there is not told.
        """
        if value[:HEADER_BYTES] != self._header:
            return None
        path = unread_path(self._fields, value[HEADER_BYTES:])
        if path is not None:
            return path
        events = self._block(pa.array([value], pa.binary()))
        return None if events is None else unheld_path(events)

    def _split(self, values: pa.BinaryArray, rows: Rows, pending: list[Rows]) -> list[int]:
        """Put what is left of a block that failed on the stack, first rows on top; return the rows that are refused."""
        if len(rows) == 1:
            return [int(rows[0])]
        if len(rows) <= _FEW_ROWS:
            readable = np.array([self._readable(values[row].as_py()) for row in rows])
            if not readable.all():
                pending.append(rows[readable])
                return [int(row) for row in rows[~readable]]
        middle = len(rows) // 2
        pending += [rows[middle:], rows[:middle]]
        return []

    def _readable(self, value: bytes) -> bool:
        """Tell whether fastavro reads the value to its end.

        It reads whatever DataFusion reads, but for one thing: to DataFusion any branch of an optional field that is
        not null's is the other one, and fastavro refuses branches that are not there. No writer makes such bytes.
        """
        body = io.BytesIO(value)
        if body.read(HEADER_BYTES) != self._header:
            return False
        try:
            fastavro.schemaless_reader(body, self._plain, None)
        except Exception:  # noqa: BLE001 - fastavro raises all kinds of errors for bytes that do not fit
            return False
        return body.tell() == len(value)

    def _block(self, values: pa.BinaryArray) -> pa.StructArray | None:
        """Decode values as one block; None if any of them spoils it."""
        rows = len(values)
        joined = pc.binary_join_element_wise(values, _SENTINELS.slice(0, rows), b"")
        first = joined.offset
        offsets = np.frombuffer(joined.buffers()[1], np.int32)[first : first + rows + 1]
        body = memoryview(joined.buffers()[2])[offsets[0] : offsets[-1]]
        try:
            batch = self._read(body, rows)
        except Unavailable:
            # It says nothing of the values. Fewer of them may find room.
            if rows == 1:
                raise
            return None
        except Exception:  # noqa: BLE001 - DataFusion raises bare Exception for whatever the bytes spoil
            return None
        return self._events(batch) if self._holds(batch, rows) else None

    def _events(self, batch: pa.StructArray) -> pa.StructArray:
        """Return the events without header and sentinel, in the shape of columns."""
        events = pa.StructArray.from_arrays(batch.flatten()[1:-1], fields=list(batch.type)[1:-1])
        return self._reshape(events) if self._reshape else events

    def _holds(self, batch: pa.StructArray, rows: int) -> bool:
        if len(batch) != rows:
            return False
        headers = _fixed_bytes(batch.field(0))
        sentinels = _fixed_bytes(batch.field(batch.type.num_fields - 1))
        expected = np.frombuffer(self._header, np.uint8)
        return bool(
            (headers.reshape(rows, HEADER_BYTES) == expected).all()
            and (sentinels.view(np.uint64) == _EXPECTED[:rows]).all()
        )

    def _read(self, body: bytes | memoryview, rows: int) -> pa.StructArray:
        block = [_long(rows), _long(len(body)), body, _SYNC] if rows else []
        with self._scratch.holding([self._prefix, *block]) as path:
            # A context a block, because a context remembers what it knows of a path. A batch of exactly `rows` rows
            # and the limit, because DataFusion's Avro reader never ends on a block with bytes behind its last row.
            settings = SessionConfig().with_batch_size(max(rows, 1)).with_target_partitions(1)
            read = SessionContext(settings).read_avro(path, schema=self._columns, file_extension="")
            table = read.limit(rows).to_arrow_table()
        batches = table.to_batches()
        if len(batches) == 1:
            return batches[0].to_struct_array()
        # None, of no rows. Arrow has no kernels for unions that would join arrays, or make an empty one from no array.
        empty = [pa.nulls(0, field.type) for field in table.schema]
        return pa.RecordBatch.from_arrays(empty, schema=table.schema).to_struct_array()


def _fixed_bytes(array: pa.FixedSizeBinaryArray) -> np.ndarray[Any, np.dtype[np.uint8]]:
    width = array.type.byte_width
    flat = np.frombuffer(array.buffers()[1], np.uint8)
    return flat[array.offset * width : (array.offset + len(array)) * width]


def _guarded(record: Record) -> Record:
    """Return what a value and its sentinel are as a record."""
    header = Field(_HEADER_FIELD, Fixed("", HEADER_BYTES), "", (), (), has_default=False, default=None)
    sentinel = Field(_SENTINEL_FIELD, Fixed("", _SENTINEL_BYTES), "", (), (), has_default=False, default=None)
    return Record("", (header, *record.fields, sentinel), "")


def _logical(avro_type: Primitive | Fixed) -> dict[str, Any]:
    if avro_type.logical == "decimal":
        return {"logicalType": "decimal", "precision": avro_type.precision, "scale": avro_type.scale}
    return {"logicalType": avro_type.logical} if avro_type.logical and avro_type.logical not in AS_WRITTEN else {}


def _checked(avro_type: Primitive | Fixed) -> dict[str, Any]:
    # What fastavro has to check. Dates and times it need not; a decimal of 1 MB would keep it busy for minutes.
    return {"logicalType": "uuid"} if avro_type == Primitive("string", "uuid") else {}


def _container_prefix(schema: bytes) -> bytes:
    """Return an object container file up to its first block (Avro 1.12 specification, "Object Container Files")."""
    metadata = [(b"avro.schema", schema), (b"avro.codec", b"null")]
    entries = b"".join(_long(len(key)) + key + _long(len(value)) + value for key, value in metadata)
    return b"Obj\x01" + _long(len(metadata)) + entries + _long(0) + _SYNC


def _long(value: int) -> bytes:
    """Encode a non-negative Avro long: zigzag, then seven bits a byte, least significant first."""
    value <<= 1
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


class _Scratch:
    """A file that is never on a disk, since events are not masked yet; written anew for each block.

    One memory file for all blocks: its pages stay, where a new file's would be asked of the system and cleared again.
    Where the system has no memory files (macOS), a file a block that only this user can read, deleted at once.
    """

    def __init__(self) -> None:
        memory = os.memfd_create("headrace-block") if hasattr(os, "memfd_create") else None
        self._memory = os.fdopen(memory, "wb", buffering=0) if memory is not None else None

    @contextlib.contextmanager
    def holding(self, parts: list[bytes | memoryview]) -> Iterator[str]:
        """Lend the path of a file that holds the parts.

        Raises:
            Unavailable: there is no room for them; later, or for fewer, there may be.
        """
        try:
            file = self._open()
            try:
                file.writelines(parts)
                # Writes out what is buffered, too.
                file.truncate()
            except OSError:
                # What it still buffers finds no room either.
                with contextlib.suppress(OSError):
                    file.close()
                raise
        except OSError as error:
            raise Unavailable(
                f"there is no room to decode events in: {error.strerror}",
                where="this machine's memory" if self._memory is not None else tempfile.gettempdir(),
                hint="make room, or allow larger files; nothing is lost",
            ) from None
        with file:
            yield file.name if self._memory is None else f"/proc/self/fd/{file.fileno()}"

    def _open(self) -> IO[bytes]:
        if self._memory is None:
            return tempfile.NamedTemporaryFile(prefix="headrace-block-")
        self._memory.seek(0)
        # What a failed write leaves in a buffer goes with it.
        return os.fdopen(self._memory.fileno(), "wb", closefd=False)
