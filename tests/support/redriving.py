"""A table whose dead letters can be put back: some events were refused when they came, and can be read by now."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow as pa

from headrace.governance.duck import Duck
from headrace.schemas.catalog import load_table
from headrace.schemas.masking import Masker
from headrace.schemas.mesh import load_mesh
from headrace.schemas.names import dead_letter_table_of
from headrace.selfserve.stack import Endpoints
from headrace.sinks.batch import Letter
from headrace.sinks.dead_letters.message import headers_of, kept_letter
from headrace.sinks.dead_letters.redrive import EVERY_LETTER, Redrive, unobserved
from headrace.sinks.dead_letters.table import LetterTable
from headrace.sinks.decoding import chunk_of
from headrace.sinks.files import Shape
from headrace.sinks.generation import accept_topic, find_succession
from headrace.sinks.tables import ensure_table
from headrace.streams.admin import Watermarks
from headrace.streams.decode import Decoder
from tests.support.faulty import FaultyCatalog
from tests.support.meshes import ORDER, ORDERS, encoded, order, write_mesh
from tests.support.rewinding import Broker
from tests.support.workers import PARTITIONS, SCHEMA_ID, Log, Mailbox, Worker, rows_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import Any

    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

    from headrace.schemas.avro import AvroSchema
    from headrace.schemas.product import Product
    from headrace.sinks.batch import Chunk
    from headrace.sinks.dead_letters.message import Kept
    from headrace.sinks.dead_letters.redriving import Tally, Wish
    from headrace.sinks.landing import Step
    from headrace.streams.admin import Admin
    from headrace.streams.frames import Frame
    from headrace.streams.ledger import Ledger

REASON = "unknown-schema"


@dataclass(frozen=True)
class LateLog(Log):
    """A topic in memory whose each fifth message had a schema that nobody knew yet when it was read."""

    def value(self, schema: AvroSchema, partition: int, offset: int) -> bytes:
        """Return the message: nothing is wrong with it."""
        return encoded(schema, SCHEMA_ID, order(partition * 1000 + offset))

    def chunk(self, decoder: Decoder, partition: int, start: int, end: int) -> Chunk:
        """Return a run of messages as they were decoded while that schema was not known."""
        sound = super().chunk(decoder, partition, start, end)
        kept = np.array([not self.poison(offset) for offset in sound.offsets.tolist()], bool)
        assert sound.events is not None
        return replace(
            sound,
            events=sound.events.filter(pa.array(kept)),
            offsets=sound.offsets[kept],
            timestamps_ms=sound.timestamps_ms[kept],
            keys=sound.keys.filter(pa.array(kept)),
            letters=tuple(
                self._letter(partition, offset, stamp_ms)
                for offset, stamp_ms in zip(sound.offsets[~kept], sound.timestamps_ms[~kept], strict=True)
            ),
        )

    def _letter(self, partition: int, offset: int, stamp_ms: int) -> Letter:
        value, headers = self.value(self.product.schema, partition, int(offset)), ((f"h{offset}", None),)
        return Letter(partition, int(offset), SCHEMA_ID, REASON, b"k", value, int(stamp_ms), headers)

    def all_rows(self) -> list[tuple[int, int, str]]:
        """Return what the table holds once all letters have been put back."""
        return [(p, offset, f"o{p * 1000 + offset}") for p in range(PARTITIONS) for offset in range(self.events)]


@dataclass
class LetterBox(Mailbox):
    """A dead-letter topic in memory: letters as they are read from it, repeats included."""

    kept: list[Kept] = field(default_factory=list)

    def send(self, letters: Sequence[Letter], ledger: Ledger) -> None:
        """Keep letters."""
        super().send(letters, ledger)
        for letter in letters:
            headers = [
                (name, value.encode() if isinstance(value, str) else value)
                for name, value in headers_of(letter, ORDERS, ledger)
            ]
            kept = kept_letter(headers, letter.key, letter.value, 1_700_000_000_000)
            assert kept is not None
            assert kept.letter == letter
            self.kept.append(kept)


class RegisteringWorker(Worker):
    """A worker that enters its letters in the table of dead letters."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._desk = replace(self._desk, register=LetterTable(self.catalog, self.log.product))


class NowKnown:
    """Decodes as a sink does that knows the schema by now."""

    def __init__(self, product: Product) -> None:
        self._decoder = Decoder(product.schema, SCHEMA_ID)
        self._shape = Shape(product, product.schema.record, Masker(product.masks, b"k" * 32), key_masked=False)
        self.decoded = 0

    def chunk(self, frame: Frame) -> Chunk:
        """Decode a frame."""
        self.decoded += len(frame)
        return chunk_of(frame, self._decoder)

    def shape(self, table: Table) -> Shape:
        """Return how events become rows."""
        return self._shape


class Bench:
    """A product with its log, its letters, and catalogs of its tables."""

    def __init__(self, folder: Path, events: int = 12) -> None:
        write_mesh(folder, Endpoints("127.0.0.1:9", "http://127.0.0.1:9"), "t.", {ORDERS: ORDER})
        self.product: Product = load_mesh(folder, environment="cluster").product(ORDERS)
        self.log = LateLog(self.product, events)
        self.box = LetterBox()
        self._properties = {
            "uri": f"sqlite:///{folder}/catalog.db",
            "warehouse": f"file://{folder / 'warehouse'}",
        }
        ensure_table(self.catalog(), self.product)

    def catalog(self) -> FaultyCatalog:
        """Return a catalog of its own for a process."""
        return FaultyCatalog("shop", **self._properties)

    def worker(self, observe: Callable[[Step], None] = unobserved, catalog: Catalog | None = None) -> Worker:
        """Return a sink's worker that has done nothing yet."""
        return RegisteringWorker(catalog or self.catalog(), self.log, self.box, observe)

    def redrive(
        self,
        observe: Callable[[Step], None] = unobserved,
        *,
        catalog: Catalog | None = None,
        wish: Wish = EVERY_LETTER,
        portion: int = 1_000,
    ) -> Tally:
        """Put letters back, so many in a portion."""
        redrive = Redrive(catalog or self.catalog(), self.product, NowKnown(self.product), wish, observe)
        kept = list(self.box.kept)
        return redrive.run([kept[first : first + portion] for first in range(0, len(kept), portion)])

    def make_anew(self, topic_id: str) -> None:
        """Let the table go on with another topic, of which no event is there yet."""
        admin = cast("Admin", Broker(topic_id, dict.fromkeys(range(PARTITIONS), Watermarks(0, 0))))
        found = find_succession(self.catalog(), self.product, admin)
        assert found is not None
        assert accept_topic(self.catalog(), self.product, found, admin) is not None

    @property
    def table(self) -> Table:
        """The table of events as it is now."""
        return load_table(self.catalog(), self.product)

    def rows(self) -> list[tuple[int, int, str]]:
        """Return partition, offset and id of the rows of events."""
        return rows_in(self.catalog(), self.product)

    def entries(self) -> list[tuple[Any, ...]]:
        """Return topic id, partition and offset of the rows of dead letters, as DuckDB reads them."""
        name = dead_letter_table_of(self.product.name)
        place = str(self.catalog().load_table((name.domain, name.product)).metadata_location)
        with Duck([name], lambda _: place) as duck:
            duck.attach(name)
            answer = duck.query(f"SELECT topic_id, _kafka_partition, _kafka_offset FROM {name} ORDER BY ALL")
            assert answer is not None
            return [row for batch in answer.batches for row in _tuples(batch)]


def _tuples(batch: pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
    return (tuple(row.values()) for row in batch.to_pylist())
