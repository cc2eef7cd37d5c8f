"""The table of a product's dead letters: where each came from, why it was refused, and how large it is, but no bytes.

Keys, values and headers' values may hold personal data, so they stay in the dead-letter topic, which forgets. The
table, ``shop.orders__dlq``, is for counting, and remembers.

A row's identity is (topic id, generation, partition, offset), and it is there once: letters are entered on one handle,
only those that a scan of its snapshot does not find, and the commit holds only while that is the branch's head. So
neither a sink that enters its batch's letters again, nor a table of events that was rolled back, doubles any.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyiceberg import types as ice
from pyiceberg.exceptions import NamespaceAlreadyExistsError, TableAlreadyExistsError
from pyiceberg.schema import Schema

from headrace.schemas.catalog import catalog_errors, identifier_of, load_table, on_handle
from headrace.schemas.errors import NotApplied, ProductStopped, Unavailable
from headrace.schemas.names import dead_letter_table_of
from headrace.schemas.stamps import stamp_column
from headrace.schemas.types import arrow_field
from headrace.schemas.upkeep import Compaction
from headrace.sinks.attempts import land
from headrace.sinks.dead_letters.redriving import by_partition, place_of, places_in
from headrace.sinks.draft import Draft
from headrace.sinks.files import columns_of, write_rows
from headrace.sinks.tables import TABLE_PROPERTIES
from headrace.sinks.upkeep.compaction import Compactor, has_deletes
from headrace.streams.rows import rows_at

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

    from headrace.schemas.product import Product
    from headrace.sinks.batch import Letter
    from headrace.sinks.dead_letters.redriving import Place
    from headrace.sinks.files import Written
    from headrace.streams.ledger import Ledger

__all__ = [
    "LETTERS_OF",
    "LETTER_SCHEMA",
    "LetterTable",
    "changed_columns",
    "ensure_letter_table",
    "filed",
    "letter_properties",
]

# A property of the table: the product whose dead letters it tells of. Without it a table of such a name is another's.
LETTERS_OF = "headrace.dead-letters-of"
# A table of letters needs no history: it never loses a row that anybody would go back for.
KEPT_SNAPSHOTS = 30
# Files are put together by each such commit. A scan reads some 20 files between, and the largest rewriting takes half a
# second, because the batch waits for it.
_COMPACTED_EACH = 16
_AIMS = Compaction(target_bytes=8 << 20, small_bytes=4 << 20, min_files=8)

LETTER_SCHEMA = Schema(
    ice.NestedField(1, "_kafka_partition", ice.IntegerType(), required=True, doc="partition of the event's topic"),
    ice.NestedField(2, "_kafka_offset", ice.LongType(), required=True, doc="offset in that partition"),
    ice.NestedField(3, "_kafka_timestamp", ice.TimestamptzType(), required=False, doc="the event's timestamp"),
    ice.NestedField(4, "_generation", ice.IntegerType(), required=True, doc="as in the table of events"),
    ice.NestedField(5, "topic_id", ice.StringType(), required=True, doc="Kafka's id of the topic"),
    ice.NestedField(6, "reason", ice.StringType(), required=True, doc="why the event was refused, a stable code"),
    ice.NestedField(7, "schema_id", ice.LongType(), required=False, doc="the schema id in the value; null: none"),
    ice.NestedField(8, "key_bytes", ice.LongType(), required=False, doc="the key's size; null: no key"),
    ice.NestedField(9, "value_bytes", ice.LongType(), required=False, doc="the value's size; null: a tombstone"),
    ice.NestedField(
        10,
        "header_names",
        ice.ListType(11, ice.StringType(), element_required=True),
        required=True,
        doc="names of the event's headers, in order",
    ),
    ice.NestedField(12, "refused_at", ice.TimestamptzType(), required=True, doc="when this row was written"),
)


# By these a letter is found again.
_IDENTITY = ("_kafka_partition", "_kafka_offset", "_generation", "topic_id")
_KINDS = {field.name: arrow_field(field).type for field in LETTER_SCHEMA.fields}


def filed(product: Product) -> Product:
    """Return a product under the name of its table of dead letters: as what this table is committed to."""
    return replace(product, name=dead_letter_table_of(product.name))


def letter_properties(product: Product) -> dict[str, str]:
    """Return the properties of a product's table of dead letters."""
    purpose = f"dead letters of {product.name}: what its sink refused, without the bytes"
    return {**TABLE_PROPERTIES, "comment": purpose, LETTERS_OF: str(product.name)}


def changed_columns(schema: Schema) -> tuple[str, ...]:
    """Return the columns that somebody has changed so that no letter can be entered any more.

    Others may be gone, be wider, or have come in addition.
    """
    there = {field.name: field for field in schema.fields}
    lost = [name for name in _IDENTITY if name not in there]
    strange = [
        name
        for name, field in there.items()
        if (field.required if name not in _KINDS else arrow_field(field).type not in {_KINDS[name], _wider(name)})
    ]
    return (*lost, *strange)


def _wider(name: str) -> pa.DataType:
    return pa.int64() if pa.types.is_int32(_KINDS[name]) else _KINDS[name]


def ensure_letter_table(catalog: Catalog, product: Product) -> Table:
    """Return the product's table of dead letters; make it if it is not there.

    Raises:
        Unavailable: if catalog or storage does not answer.
        ProductStopped: if the table's metadata is damaged, or if it is a table that headrace did not make.
    """
    try:
        # Asked first: who may only write to tables must not be refused because nobody has to make one.
        table = load_table(catalog, filed(product))
    except NotApplied:
        table = _made(catalog, product)
    if LETTERS_OF not in table.properties:
        raise ProductStopped(
            "a table of this name is there, and headrace has not made it",
            where=f"table {filed(product).name}",
            hint=f"move it away: dead letters of {product.name} are entered there",
        )
    return table


def _made(catalog: Catalog, product: Product) -> Table:
    identifier = identifier_of(filed(product))
    with catalog_errors(f"table {filed(product).name}"):
        with contextlib.suppress(NamespaceAlreadyExistsError):
            catalog.create_namespace(identifier[0])
        try:
            return catalog.create_table(identifier, schema=LETTER_SCHEMA, properties=letter_properties(product))
        except TableAlreadyExistsError:
            return catalog.load_table(identifier)


@dataclass(slots=True)
class LetterTable:
    """Enters letters in the product's table of dead letters, each once. Makes the table if it is not there.

    Attributes:
        catalog: the catalog of the product's domain.
        product: the product.
        now: tells the time.
    """

    catalog: Catalog
    product: Product
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def send(self, letters: Sequence[Letter], ledger: Ledger) -> None:
        """Enter letters of the topic and the generation that a ledger names, but those that are there.

        Raises:
            Unavailable: it may or may not have landed: enter them all again.
            ProductStopped: a table of that name is there which headrace did not make, or its columns were changed.
        """
        ensure_letter_table(self.catalog, self.product)
        product, entries = filed(self.product), _Entries.of(letters, ledger, self.now())
        number = 0

        def decide(table: Table) -> Draft | None:
            nonlocal number
            with on_handle(self.catalog, product, table):
                written = entries.missing_in(table, product)
            if written is None:
                return None
            number = table.metadata.next_sequence_number()
            return Draft(None, written.files, expired=_expired(table), ledgerless=True)

        if land(self.catalog, product, decide) is not None and number % _COMPACTED_EACH == 0:
            # The letters are entered. What is not put together now will be later; a damaged file is left as it is.
            with contextlib.suppress(Unavailable, ProductStopped):
                self._compact(product)

    def _compact(self, product: Product) -> None:
        """Put small files together, so that a scan for letters stays quick: each batch with a letter makes a file.

        Raises:
            Unavailable: if something does not answer, or somebody else has put them together.
        """
        table = load_table(self.catalog, product)
        with on_handle(self.catalog, product, table):
            rewritten = None if has_deletes(table, product) else Compactor(product, _AIMS).rewrite(table)
        if rewritten is None:
            return
        draft = Draft(None, rewritten.written.files, replaced=rewritten.replaced, ledgerless=True)

        def decide(table: Table) -> Draft | None:
            # Rows that somebody has deleted since must not come back.
            return draft if rewritten.written.fits(table) and not has_deletes(table, product) else None

        land(self.catalog, product, decide)


@dataclass(slots=True)
class _Entries:
    """Letters to enter, each place once, and the file that was written of them last."""

    letters: Mapping[Place, Letter]
    ledger: Ledger
    now: datetime
    _written: tuple[frozenset[Place], Written] | None = None

    @classmethod
    def of(cls, letters: Sequence[Letter], ledger: Ledger, now: datetime) -> _Entries:
        """Return letters as what is to be entered."""
        return cls({place_of(letter): letter for letter in letters}, ledger, now)

    def missing_in(self, table: Table, product: Product) -> Written | None:
        """Return a file of those that a handle's snapshot does not hold; None: it holds all of them.

        Raises:
            ProductStopped: somebody has changed the table's columns.
        """
        if changed := changed_columns(table.schema()):
            raise ProductStopped(
                f"its columns are not those that headrace made: {', '.join(changed)}",
                where=f"table {product.name}",
                hint="take that change back, or move the table away: a new one is made; then start the sink again",
            )
        missing = frozenset(self.letters.keys() - self._held(table, product))
        if not missing:
            return None
        if self._written is None or self._written[0] != missing or not self._written[1].fits(table):
            self._written = missing, write_rows(table, self._rows(table, missing), product)
        return self._written[1]

    def _held(self, table: Table, product: Product) -> frozenset[Place]:
        same_topic = f"topic_id = '{self.ledger.topic_id}'"
        return places_in(rows_at(table, product, self.ledger.generation, by_partition(self.letters), same_topic))

    def _rows(self, table: Table, places: frozenset[Place]) -> pa.Table:
        letters = [self.letters[place] for place in sorted(places)]
        count = len(letters)
        columns = {
            "_kafka_partition": [letter.partition for letter in letters],
            "_kafka_offset": [letter.offset for letter in letters],
            "_kafka_timestamp": stamp_column(np.array([letter.timestamp_ms for letter in letters], np.int64)),
            "_generation": [self.ledger.generation] * count,
            "topic_id": [self.ledger.topic_id] * count,
            "reason": [letter.reason for letter in letters],
            "schema_id": [letter.schema_id for letter in letters],
            "key_bytes": [None if letter.key is None else len(letter.key) for letter in letters],
            "value_bytes": [None if letter.value is None else len(letter.value) for letter in letters],
            "header_names": [[name for name, _ in letter.headers] for letter in letters],
            "refused_at": [self.now] * count,
        }
        schema = columns_of(table)
        # A column that somebody has added to the table stays empty.
        arrays = [
            pa.array(columns[field.name], field.type) if field.name in columns else pa.nulls(count, field.type)
            for field in schema
        ]
        return pa.Table.from_arrays(arrays, schema=schema)


def _expired(table: Table) -> tuple[int, ...]:
    """Return the snapshots but the newest, and but those that branches and tags name."""
    named = {ref.snapshot_id for ref in table.metadata.refs.values()}
    newest = sorted(table.metadata.snapshots, key=lambda each: each.sequence_number or 0, reverse=True)
    return tuple(each.snapshot_id for each in newest[KEPT_SNAPSHOTS - 1 :] if each.snapshot_id not in named)
