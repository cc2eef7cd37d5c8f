"""Frames: messages of one partition and one schema id, as Arrow and numpy arrays. Pure.

Everything behind the reader works on frames, so that no Python runs for a single message after the reader.
"""

from __future__ import annotations

import marshal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa

from headrace.streams.decode import HEADER_BYTES, MAGIC, MAX_BLOCK_ROWS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

Longs: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
# Names and values of one message's headers, in their order.
HeaderList: TypeAlias = tuple[tuple[str, bytes | None], ...]
# Headers packed message by message, null for none: as objects they take many times that, and they are hardly ever read.
Headers: TypeAlias = pa.BinaryArray


@dataclass(frozen=True, slots=True)
class Frame:
    """At most 65,536 messages of one partition and one schema id.

    Of messages that arrived together, those of other schema ids may lie between them, in frames of their own.

    Attributes:
        partition: the partition.
        schema_id: the schema id in every header; None: none of the values is in the wire format.
        offsets: the messages' offsets, ascending, with gaps where records were aborted, compacted or control records.
        timestamps_ms: the messages' timestamps, milliseconds since 1970 UTC.
        keys: the keys as they are; null where there is none.
        values: the values as they are, header included; null for a tombstone.
        headers: the messages' headers, packed; None: no message has any.
    """

    partition: int
    schema_id: int | None
    offsets: Longs
    timestamps_ms: Longs
    keys: pa.BinaryArray
    values: pa.BinaryArray
    headers: Headers | None = None

    def __len__(self) -> int:
        return len(self.values)

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values together."""
        return int(self.values.nbytes + self.keys.nbytes)

    @property
    def memory_bytes(self) -> int:
        """Bytes of keys, values and headers together."""
        return self.nbytes + (0 if self.headers is None else int(self.headers.nbytes))

    def headers_of(self, row: int) -> HeaderList:
        """Return the headers of one of the messages."""
        packed = None if self.headers is None else self.headers[row].as_py()
        return () if packed is None else marshal.loads(packed)  # noqa: S302 - this process has packed them itself

    def before(self, end: int) -> Frame:
        """Return the messages below an offset."""
        count = int(self.offsets.searchsorted(end))
        return Frame(
            partition=self.partition,
            schema_id=self.schema_id,
            offsets=self.offsets[:count],
            timestamps_ms=self.timestamps_ms[:count],
            keys=self.keys[:count],
            values=self.values[:count],
            headers=None if self.headers is None else self.headers[:count],
        )


@dataclass(frozen=True, slots=True)
class Messages:
    """Messages as they arrived, column by column: partitions may be mixed, offsets ascend within each partition."""

    partitions: np.ndarray[Any, np.dtype[np.int32]]
    offsets: Longs
    timestamps_ms: Longs
    keys: pa.BinaryArray
    values: pa.BinaryArray
    headers: Headers | None = None

    @property
    def memory_bytes(self) -> int:
        """Bytes of keys, values and headers together."""
        headers = 0 if self.headers is None else self.headers.nbytes
        return int(self.values.nbytes + self.keys.nbytes + headers)

    @classmethod
    def joined(cls, parts: Sequence[Messages]) -> Messages:
        """Return several runs of messages, at least one, as one."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            partitions=np.concatenate([part.partitions for part in parts]),
            offsets=np.concatenate([part.offsets for part in parts]),
            timestamps_ms=np.concatenate([part.timestamps_ms for part in parts]),
            keys=pa.concat_arrays([part.keys for part in parts]),
            values=pa.concat_arrays([part.values for part in parts]),
            headers=_joined([(part.headers, len(part.values)) for part in parts]),
        )

    def without(self, partitions: Collection[int]) -> Messages:
        """Return the messages of all other partitions."""
        return self.where(~np.isin(self.partitions, list(partitions)))

    def where(self, kept: np.ndarray[Any, np.dtype[np.bool_]]) -> Messages:
        """Return the messages that are marked, in their order."""
        return Messages(
            partitions=self.partitions[kept],
            offsets=self.offsets[kept],
            timestamps_ms=self.timestamps_ms[kept],
            keys=self.keys.filter(pa.array(kept)),
            values=self.values.filter(pa.array(kept)),
            headers=None if self.headers is None else self.headers.filter(pa.array(kept)),
        )


def frames_of(*parts: Messages) -> Iterator[Frame]:
    """Sort messages into frames, by partition and schema id, each in the order of its offsets.

    Schema ids may alternate from message to message, while a producer is rolled out, and a frame costs about the same
    whatever its length: so a frame is no run.

    Args:
        parts: messages in the order in which they arrived. Most hold one partition and one schema id, and are joined as
            they are: sorting and picking rows would copy every value once more.
    """
    by_partition: dict[int, list[Messages]] = {}
    for part in parts:
        for partition, some in _split(part, part.partitions):
            by_partition.setdefault(partition, []).append(some)
    for partition in sorted(by_partition):
        joined = Messages.joined(by_partition[partition])
        for schema_id, messages in _split(joined, schema_ids(joined.values)):
            yield from _frames(partition, schema_id if schema_id >= 0 else None, messages)


def _split(messages: Messages, marks: np.ndarray[Any, Any]) -> Iterator[tuple[int, Messages]]:
    """Split messages by their marks, each group in its order."""
    if not len(marks):
        return
    first = int(marks[0])
    if (marks == first).all():
        yield first, messages
        return
    for mark in np.unique(marks).tolist():
        yield mark, messages.where(marks == mark)


def _frames(partition: int, schema_id: int | None, messages: Messages) -> Iterator[Frame]:
    for first in range(0, len(messages.values), MAX_BLOCK_ROWS):
        rows = slice(first, first + MAX_BLOCK_ROWS)
        yield Frame(
            partition=partition,
            schema_id=schema_id,
            offsets=messages.offsets[rows],
            timestamps_ms=messages.timestamps_ms[rows],
            keys=messages.keys[rows],
            values=messages.values[rows],
            headers=None if messages.headers is None else messages.headers[rows],
        )


def _joined(parts: Sequence[tuple[Headers | None, int]]) -> Headers | None:
    """Return headers of several runs as one; a run without any has null for each of its messages."""
    if all(headers is None for headers, _ in parts):
        return None
    return pa.concat_arrays([pa.nulls(count, pa.binary()) if headers is None else headers for headers, count in parts])


def packed_headers(each: Sequence[Sequence[tuple[str, bytes | None]] | None]) -> Headers | None:
    """Pack the headers of messages, one list or None a message; None: no message has any."""
    if not any(each):
        return None
    return pa.array([marshal.dumps(tuple(some)) if some else None for some in each], pa.binary())


def schema_ids(values: pa.BinaryArray) -> Longs:
    """Return the schema id in each value's header; -1 where there is no value or no header."""
    starts = np.frombuffer(values.buffers()[1], np.int32)[values.offset : values.offset + len(values) + 1]
    long_enough = np.diff(starts) >= HEADER_BYTES
    data = np.frombuffer(values.buffers()[2] or b"", np.uint8)
    ids = np.full(len(values), -1, np.int64)
    heads = starts[:-1][long_enough].astype(np.int64)
    if len(heads):
        magic = data[heads]
        number = sum(data[heads + 1 + byte].astype(np.int64) << (24 - 8 * byte) for byte in range(4))
        ids[long_enough] = np.where(magic == MAGIC, number, -1)
    return ids
