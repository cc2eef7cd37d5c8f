"""A sink's worker without a broker: a log in memory, and landings that start from the table's ledger each time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyiceberg.table.refs import MAIN_BRANCH

from headrace.governance.duck import Duck
from headrace.schemas.catalog import load_table
from headrace.schemas.errors import Stale, Unavailable
from headrace.schemas.masking import Masker
from headrace.sinks.batch import Chunk, Letter
from headrace.sinks.files import Shape
from headrace.sinks.landing import Desk, Landing
from headrace.sinks.tables import ensure_table
from headrace.streams.decode import Decoder
from headrace.streams.history import read_ledger
from headrace.streams.ledger import Ledger, Range
from tests.support.meshes import encoded, order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pyiceberg.catalog import Catalog

    from headrace.schemas.avro import AvroSchema
    from headrace.schemas.product import Product
    from headrace.sinks.landing import Step

TOPIC_ID = "a-topic"
SCHEMA_ID = 7
PARTITIONS = 2
BATCH_ROWS = 4
_NOON_MS = 1_700_000_000_000


def unobserved(step: Step) -> None:
    """Nobody watches the steps."""


@dataclass
class Mailbox:
    """Where dead letters go: the identities of all that were sent, repeats included."""

    letters: list[tuple[str, int, int]] = field(default_factory=list)

    def send(self, letters: Sequence[Letter], ledger: Ledger) -> None:
        """Keep letters."""
        self.letters += [(ledger.topic_id, letter.partition, letter.offset) for letter in letters]


@dataclass(frozen=True)
class Log:
    """A topic in memory: ``events`` messages a partition, of which each fifth is poison."""

    product: Product
    events: int = 12

    def poison(self, offset: int) -> bool:
        """Tell whether the message at this offset cannot be read."""
        return offset % 5 == 3

    def rows(self) -> list[tuple[int, int, str]]:
        """Return what the table must hold at the end: partition, offset, id."""
        return [
            (partition, offset, f"o{partition * 1000 + offset}")
            for partition in range(PARTITIONS)
            for offset in range(self.events)
            if not self.poison(offset)
        ]

    def letters(self) -> set[tuple[str, int, int]]:
        """Return what must be dead letters at the end."""
        return {
            (TOPIC_ID, p, offset) for p in range(PARTITIONS) for offset in range(self.events) if self.poison(offset)
        }

    def value(self, schema: AvroSchema, partition: int, offset: int) -> bytes:
        """Return the message."""
        good = encoded(schema, SCHEMA_ID, order(partition * 1000 + offset))
        return good[:-1] if self.poison(offset) else good

    def chunk(self, decoder: Decoder, partition: int, start: int, end: int) -> Chunk:
        """Return a run of messages, decoded."""
        offsets = np.arange(start, end, dtype=np.int64)
        values = [self.value(self.product.schema, partition, int(offset)) for offset in offsets]
        decoded = decoder.decode(pa.array(values, pa.binary()))
        kept = np.ones(len(offsets), bool)
        kept[list(decoded.refused)] = False
        return Chunk(
            partition=partition,
            schema_id=SCHEMA_ID,
            events=decoded.events,
            offsets=offsets[kept],
            timestamps_ms=offsets[kept] + _NOON_MS,
            keys=pa.array([b"k"] * int(kept.sum()), pa.binary()),
            letters=tuple(
                Letter(partition, int(offsets[row]), SCHEMA_ID, "undecodable", b"k", values[row])
                for row in decoded.refused
            ),
        )


@dataclass
class Worker:
    """Reads the log into the table, batch by batch, as a sink's worker does.

    Attributes:
        catalog: the catalog that it was given.
        log: what it reads.
        mailbox: where its dead letters go.
        observe: is told each step before it is done.
        branch: the branch that it lands on.
        begun: landings that have begun.
        stale: how often it was refused.
        unknown: how often it was told that something does not answer.
    """

    catalog: Catalog
    log: Log
    mailbox: Mailbox
    observe: Callable[[Step], None] = unobserved
    branch: str = MAIN_BRANCH
    begun: int = 0
    stale: list[Stale] = field(default_factory=list)
    unknown: list[Unavailable] = field(default_factory=list)

    def __post_init__(self) -> None:
        schema = self.log.product.schema
        self._decoder = Decoder(schema, SCHEMA_ID)
        masker = Masker(self.log.product.masks, b"k" * 32)
        self._shape = Shape(self.log.product, schema.record, masker, key_masked=False)
        self._desk = Desk(
            self.log.product, self.catalog, self.mailbox, lambda _: self._shape, lambda: TOPIC_ID, self.branch
        )

    def run(self) -> None:
        """Land everything; start from the ledger again where another worker was quicker."""
        for _ in range(100):
            try:
                for landing in self._landings():
                    self._drive(landing)
            except Stale as error:
                self.stale.append(error)
            else:
                return
        raise AssertionError("the worker never ends")

    def _landings(self) -> Iterator[Landing]:
        ensure_table(self.catalog, self.log.product)
        table = load_table(self.catalog, self.log.product)
        first = Ledger.begin(TOPIC_ID, dict.fromkeys(range(PARTITIONS), 0))
        base = read_ledger(table, self.log.product, self.branch) or first
        starts = {partition: base.next(partition) for partition in range(PARTITIONS)}
        while any(start < self.log.events for start in starts.values()):
            ends = {p: min(start + BATCH_ROWS, self.log.events) for p, start in starts.items()}
            parts = {p: (start, ends[p]) for p, start in starts.items() if ends[p] > start}
            chunks = {p: self.log.chunk(self._decoder, p, *part) for p, part in parts.items()}
            ranges = {
                p: Range(start, end, int(chunks[p].offsets[-1]) if len(chunks[p]) else None)
                for p, (start, end) in parts.items()
            }
            self.begun += 1
            yield Landing(self._desk, base, ranges, list(chunks.values()))
            starts = ends

    def _drive(self, landing: Landing) -> None:
        for _ in range(20):
            try:
                for step in landing:
                    self.observe(step)
            except Unavailable as error:
                self.unknown.append(error)
            else:
                assert landing.landed is not None
                return
        raise AssertionError("the landing never ends")


def rows_in(catalog: Catalog, product: Product) -> list[tuple[int, int, str]]:
    """Return partition, offset and id of the table's rows, as DuckDB reads them."""
    table = load_table(catalog, product)
    duck = Duck([product.name], lambda _: table.metadata_location)
    try:
        duck.attach(product.name)
        answer = duck.query(f"SELECT _kafka_partition, _kafka_offset, id FROM {product.name} ORDER BY ALL")
        assert answer is not None
        return [tuple(row.values()) for batch in answer.batches for row in batch.to_pylist()]
    finally:
        duck.close()


@dataclass
class At:
    """An observer of steps that acts once: before the ``occurrence``-th ``step``, or right after it.

    After a step is before the next one, whichever that is; after the last step, the landing just ends.
    """

    step: Step
    occurrence: int
    action: Callable[[], None]
    after: bool = False
    seen: int = 0
    done: bool = False

    def __call__(self, step: Step) -> None:
        """Observe a step that is about to be done."""
        if self.done:
            return
        self.seen += step is self.step
        reached = self.seen == self.occurrence and step is self.step
        passed = self.seen >= self.occurrence and not reached
        if passed if self.after else reached:
            self.done = True
            self.action()
