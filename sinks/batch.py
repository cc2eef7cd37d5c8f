"""A micro-batch: what has been read since the last one, partition by partition, and when it is due. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from headrace.schemas.errors import Bug
from headrace.streams.ledger import Range

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Future

    import pyarrow as pa

    from headrace.streams.frames import Frame, Longs


# A batch of more files than this, smaller than this on average, is scattered over the table's partitions. A day's
# events make a few files; below a mebibyte what engines do for each file costs more than reading it.
_MANY_FILES = 16
_SMALL_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """When a batch is due: whatever comes first.

    Attributes:
        age_s: seconds since its first message (the contract's latency, or the environment's commit interval).
        bytes: bytes of keys, values and headers; 128 MiB makes files that engines like to read.
        rows: messages.
        scattered_age_s: seconds since its first message where the batch before was scattered (the contract's latency).
    """

    age_s: float = 10.0
    bytes: int = 128 << 20
    rows: int = 1_000_000
    scattered_age_s: float = 0.0

    def after(self, files: int, size_bytes: int) -> Limits:
        """Return the limits of a batch, after one that became so many data files of this size together.

        Late events lie in hundreds of partitions of a table, and each partition needs a file of its own. A batch that
        waits longer has more rows for each, so batches that follow a scattered one wait for as long as they may.
        """
        scattered = files > _MANY_FILES and size_bytes < files * _SMALL_BYTES
        return replace(self, age_s=max(self.age_s, self.scattered_age_s)) if scattered else self


@dataclass(frozen=True, slots=True)
class Letter:
    """A message that cannot become a row.

    Attributes:
        partition: the partition.
        offset: its offset there.
        schema_id: the schema id in its value; None: it is not in the wire format.
        reason: the stable code of the reason.
        key: its key as it is.
        value: its value as it is.
        timestamp_ms: its timestamp, milliseconds since 1970 UTC; -1: it has none.
        headers: its headers as they are, in their order.
    """

    partition: int
    offset: int
    schema_id: int | None
    reason: str
    key: bytes | None
    value: bytes | None
    timestamp_ms: int = -1
    headers: tuple[tuple[str, bytes | None], ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """A decoded frame.

    Attributes:
        partition: the partition.
        schema_id: the schema that the events were written with.
        events: the events as their writer shaped them; not masked yet.
        offsets: one an event.
        timestamps_ms: one an event.
        keys: one an event.
        letters: the frame's messages that could not be decoded.
    """

    partition: int
    schema_id: int
    events: pa.StructArray | None
    offsets: Longs
    timestamps_ms: Longs
    keys: pa.BinaryArray
    letters: tuple[Letter, ...] = ()

    def __len__(self) -> int:
        return len(self.offsets)


@dataclass(slots=True)
class Batch:
    """The open batch. ``positions`` are behind the last message of each partition.

    Offsets have gaps (transactions, compaction), so a range ends behind its last message or at the end of the
    partition, whichever is further. Frames of one partition and one schema id ascend; those of several ids interleave.
    """

    positions: dict[int, int]
    begun_s: float | None = None
    rows: int = 0
    bytes: int = 0
    memory_bytes: int = 0
    starts: dict[int, int] = field(default_factory=dict)
    chunks: list[Future[Chunk]] = field(default_factory=list)
    _read: dict[tuple[int, int | None], int] = field(default_factory=dict)

    def add(self, frame: Frame, chunk: Future[Chunk], now_s: float) -> None:
        """Add a frame and its decoding.

        Raises:
            Bug: if the frame repeats messages of this batch or of one before it.
        """
        first, last = int(frame.offsets[0]), int(frame.offsets[-1])
        if frame.partition not in self.positions:
            raise Bug(f"a message of partition {frame.partition}, which is not this worker's")
        # A message that came again would have the schema id that it had: each id is followed by itself.
        start = self.starts.get(frame.partition, self.positions[frame.partition])
        behind = self._read.get((frame.partition, frame.schema_id), start)
        if first < behind:
            raise Bug(f"partition {frame.partition} went back from {behind} to {first}")
        self._read[frame.partition, frame.schema_id] = last + 1
        self._move(frame.partition, last + 1, now_s)
        self.chunks.append(chunk)
        self.rows += len(frame)
        self.bytes += frame.nbytes
        self.memory_bytes += frame.memory_bytes

    def end_of_partition(self, partition: int, position: int, now_s: float) -> None:
        """Note that a partition's end was reached at ``position``, control records included."""
        if position > self.positions.get(partition, position):
            self._move(partition, position, now_s)

    def _move(self, partition: int, position: int, now_s: float) -> None:
        self.starts.setdefault(partition, self.positions[partition])
        self.positions[partition] = max(position, self.positions[partition])
        if self.begun_s is None:
            self.begun_s = now_s

    def due(self, limits: Limits, now_s: float) -> bool:
        """Tell whether the batch should land now."""
        if self.begun_s is None:
            return False
        return self.rows >= limits.rows or self.memory_bytes >= limits.bytes or now_s - self.begun_s >= limits.age_s

    def __bool__(self) -> bool:
        return bool(self.starts)

    def ranges(self, chunks: list[Chunk]) -> Mapping[int, Range]:
        """Return what the batch covers, with the last row of each partition among its decoded chunks."""
        last_rows: dict[int, int] = {}
        for chunk in chunks:
            if len(chunk):
                last = int(chunk.offsets[-1])
                last_rows[chunk.partition] = max(last, last_rows.get(chunk.partition, last))
        return {
            partition: Range(start, self.positions[partition], last_rows.get(partition))
            for partition, start in self.starts.items()
        }

    def next(self) -> Batch:
        """Return the empty batch that follows this one."""
        return Batch(positions=dict(self.positions))
