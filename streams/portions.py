"""What a subscriber has read and not handed out yet: events of one partition in order, and what among them is poison.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator

    from headrace.schemas.errors import HeadraceError

# Columns of a batch behind the event's own.
PARTITION, OFFSET, TIMESTAMP, SCHEMA_ID = "_kafka_partition", "_kafka_offset", "_kafka_timestamp", "_schema_id"
PLACE_FIELDS = (
    pa.field(PARTITION, pa.int32(), nullable=False),
    pa.field(OFFSET, pa.int64(), nullable=False),
    pa.field(TIMESTAMP, pa.timestamp("us", tz="UTC")),
    pa.field(SCHEMA_ID, pa.int32(), nullable=False),
)
PLACE_NAMES = tuple(each.name for each in PLACE_FIELDS)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an event stands.

    Attributes:
        partition: the topic's partition.
        offset: the offset in it.
        timestamp: the broker's or producer's time, with zone UTC; None: none, or one beyond the year 9999.
        from_history: whether the event came from the product's table, where PII is masked.
    """

    partition: int
    offset: int
    timestamp: dt.datetime | None
    from_history: bool


@dataclass(frozen=True, slots=True)
class Poison:
    """A message that is no event of its product.

    Attributes:
        partition: the topic's partition.
        offset: the offset in it.
        reason: a stable code: ``null-value``, ``no-schema-id``, ``unknown-schema``, ``foreign-schema``,
            ``undecodable``, ``unknown-symbol``, ``model``.
        what: the reason for people, without any value.
        schema_id: the schema id in its header; None: it has none.
        key: the message's key as it is; may hold PII. None too where it comes from the table.
        value: the message's value as it is; may hold PII. None too where it comes from the table.
    """

    partition: int
    offset: int
    reason: str
    what: str
    schema_id: int | None
    key: bytes | None = field(default=None, repr=False)
    value: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Span:
    """Offsets of one partition: from ``first`` up to, not including, ``end``."""

    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Stop:
    """An offset that cannot be passed, and the error that says why."""

    offset: int
    error: HeadraceError


@dataclass(frozen=True, slots=True)
class Portion:
    """A run of one partition.

    Attributes:
        partition: the partition.
        events: events in the order of their offsets, as columns: the event's, then where it stands.
        poisons: what is no event, in the order of offsets.
        stop: what ends the run, if anything: nothing at or behind its offset is in here.
        end: the position behind all of it.
        from_history: whether it comes from the table.
    """

    partition: int
    events: pa.RecordBatch
    poisons: tuple[Poison, ...] = ()
    stop: Stop | None = None
    end: int = 0
    from_history: bool = False

    def before(self, end: int) -> Portion:
        """Return what of it lies before an offset."""
        if self.end <= end:
            return self
        stop = self.stop if self.stop is not None and self.stop.offset < end else None
        return replace(
            self,
            events=self.events.filter(pc.less(self.events.column(OFFSET), end)),
            poisons=tuple(poison for poison in self.poisons if poison.offset < end),
            stop=stop,
            end=end,
        )

    def pieces(self, rows: int) -> Iterator[pa.RecordBatch | Poison]:
        """Yield events, at most so many at a time, and poison, in the order of their offsets."""
        offsets = self.events.column(OFFSET).to_numpy()
        first = 0
        for poison in self.poisons:
            last = int(offsets.searchsorted(poison.offset))
            yield from _slices(self.events, first, last, rows)
            yield poison
            first = last
        yield from _slices(self.events, first, len(offsets), rows)


def _slices(events: pa.RecordBatch, first: int, last: int, rows: int) -> Iterator[pa.RecordBatch]:
    for start in range(first, last, rows):
        yield events.slice(start, min(rows, last - start))
