"""Avro at full speed: a run of Kafka values of one schema *is* an Avro block, decoded into Arrow as a whole.

An Avro object container file holds blocks of records' bodies one after another, so the values of one writer schema,
each with its 5-byte header as a first field, make a block. Bodies do not delimit themselves: one truncated value
would shift all that follow. So every value is followed by a sentinel that no producer can foresee, and a block counts
only if every header and every sentinel is the expected one, each at its row. A block that fails is halved until the
values that spoil it stand alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datafusion import SessionConfig, SessionContext

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.schemas.avro import AvroSchema

# Confluent's wire format: magic byte 0, then the schema id as four bytes, big-endian.
MAGIC = 0
HEADER_BYTES = 5
_HEADER = struct.Struct(">bI")
_SENTINEL_BYTES = 8
_HEADER_FIELD = "headrace_header__"
_SENTINEL_FIELD = "headrace_sentinel__"
# Any 16 bytes do: there is one block a file, and it is never searched for.
_SYNC = b"headrace-block-\n"
# The largest block that the reader hands over.
MAX_BLOCK_ROWS = 65_536
# Row i's sentinel, made once: consecutive numbers from a secret start, so that no value can carry its successor's.
_EXPECTED = np.arange(MAX_BLOCK_ROWS, dtype=np.uint64) + np.frombuffer(os.urandom(8), np.uint64)
_SENTINELS = pa.FixedSizeBinaryArray.from_buffers(
    pa.binary(_SENTINEL_BYTES), MAX_BLOCK_ROWS, [None, pa.py_buffer(_EXPECTED.tobytes())]
).cast(pa.binary())


@dataclass(frozen=True, slots=True)
class Decoded:
    """Decoded values.

    Attributes:
        events: one struct a value that could be decoded, in order, shaped as the writer's schema says.
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
        self._prefix = _container_prefix(_guarded(schema))
        self._type = self._read(b"", 0).type

    def decode(self, values: pa.BinaryArray) -> Decoded:
        """Decode up to :data:`MAX_BLOCK_ROWS` values (header included, no nulls).

        Never raises for what a value holds: values that do not fit the schema to the byte are in ``refused``.
        """
        parts: list[pa.StructArray] = []
        refused: list[int] = []
        pending = [(0, len(values))]
        while pending:
            start, stop = pending.pop()
            if start == stop:
                continue
            events = self._block(values.slice(start, stop - start))
            if events is not None:
                parts.append(events)
            elif stop - start == 1:
                refused.append(start)
            else:
                middle = (start + stop) // 2
                pending += [(middle, stop), (start, middle)]
        events = pa.concat_arrays(parts) if parts else pa.array([], self._type)
        return Decoded(events, tuple(refused))

    def _block(self, values: pa.BinaryArray) -> pa.StructArray | None:
        """Decode values as one block; None if any of them spoils it."""
        count = len(values)
        joined = pc.binary_join_element_wise(values, _SENTINELS.slice(0, count), b"")
        first = joined.offset
        offsets = np.frombuffer(joined.buffers()[1], np.int32)[first : first + count + 1]
        body = memoryview(joined.buffers()[2])[offsets[0] : offsets[-1]]
        try:
            batch = self._read(body, count)
        except Exception:  # noqa: BLE001 - DataFusion raises bare Exception for whatever the bytes spoil
            return None
        return batch if self._holds(batch, count) else None

    def _holds(self, batch: pa.StructArray, count: int) -> bool:
        if len(batch) != count:
            return False
        headers = _fixed_bytes(batch.field(0))
        sentinels = _fixed_bytes(batch.field(batch.type.num_fields - 1))
        expected = np.frombuffer(self._header, np.uint8)
        return bool(
            (headers.reshape(count, HEADER_BYTES) == expected).all()
            and (sentinels.view(np.uint64) == _EXPECTED[:count]).all()
        )

    def _read(self, body: bytes | memoryview, count: int) -> pa.StructArray:
        block = [_long(count), _long(len(body)), body, _SYNC] if count else []
        with _as_file([self._prefix, *block]) as path:
            # A context a block, because a context remembers what it knows of a path. A batch of exactly `count` rows
            # and the limit, because DataFusion's Avro reader never ends on a block with bytes behind its last row.
            settings = SessionConfig().with_batch_size(max(count, 1)).with_target_partitions(1)
            table = SessionContext(settings).read_avro(path, file_extension="").limit(count).to_arrow_table()
        return table.combine_chunks().to_struct_array().combine_chunks()


def _fixed_bytes(array: pa.FixedSizeBinaryArray) -> np.ndarray[Any, np.dtype[np.uint8]]:
    width = array.type.byte_width
    flat = np.frombuffer(array.buffers()[1], np.uint8)
    return flat[array.offset * width : (array.offset + len(array)) * width]


def _guarded(schema: AvroSchema) -> bytes:
    document = dict(schema.document)
    header = {"name": _HEADER_FIELD, "type": {"type": "fixed", "name": "headrace.Header__", "size": HEADER_BYTES}}
    sentinel = {
        "name": _SENTINEL_FIELD,
        "type": {"type": "fixed", "name": "headrace.Sentinel__", "size": _SENTINEL_BYTES},
    }
    document["fields"] = [header, *document["fields"], sentinel]
    return json.dumps(document).encode()


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


@contextlib.contextmanager
def _as_file(parts: list[bytes | memoryview]) -> Iterator[str]:
    """Lend the bytes as a file that is never on a disk: events are not masked yet.

    Where the system has no memory files (macOS), a file that only this user can read, deleted at once.
    """
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("headrace-block"), "wb") as memory:
            memory.writelines(parts)
            memory.flush()
            yield f"/proc/self/fd/{memory.fileno()}"
    else:
        with tempfile.NamedTemporaryFile(prefix="headrace-block-") as file:
            file.writelines(parts)
            file.flush()
            yield file.name
