"""Repairing a ledger: where a table's history no longer tells how far its sink had come, its rows do.

A partition's rows went in in the order of its offsets, whole batches at a time, so all below its last row is in the
table or was refused: behind that row the sink can go on without losing or doubling anything. What was refused behind it
may be refused again, because dead letters are at-least-once.

The rows must be the topic's own. Kafka's id of the topic tells, if any ledger is left that names it; and where Kafka
still has the event of a partition's last row, both must have the same timestamp. A table without rows and without any
ledger begins where the log does, as on the very first start.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headrace.schemas.catalog import load_table
from headrace.schemas.errors import Bug, DamagedLedger, ProductStopped, Unavailable
from headrace.schemas.stamps import holdable
from headrace.sinks.attempts import land
from headrace.sinks.draft import Draft
from headrace.sinks.stops import topic_made_anew
from headrace.streams.history import LastRows, last_rows, read_ledger, stamps_of
from headrace.streams.ledger import PROPERTY_KEY, SUMMARY_KEY, Ledger, Position
from headrace.streams.peek import first_events

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

    from headrace.schemas.product import Product
    from headrace.streams.admin import Admin, Topic, Watermarks


@dataclass(frozen=True, slots=True)
class Repair:
    """A repair that is ready to be shown, and to be landed if an operator agrees.

    Attributes:
        fault: what is wrong with the ledger that there is.
        known: the newest ledger that can be read, whether or not it agrees with the rows; None: there is none.
        new: the ledger made from the rows.
        head: the branch's head that it was made on.
        marks: the bounds of the topic's partitions.
    """

    fault: DamagedLedger
    known: Ledger | None
    new: Ledger
    head: int
    marks: Mapping[int, Watermarks]


def plan_repair(catalog: Catalog, product: Product, admin: Admin, config: Mapping[str, str]) -> Repair | None:
    """Make a ledger from the table's rows; None: there is nothing to repair.

    Args:
        catalog: the catalog of the product's domain.
        product: the product.
        admin: asks the broker for the topic.
        config: the environment's librdkafka properties, to compare rows with their events.

    Raises:
        ProductStopped: it is not certain that the rows are this topic's, or a newer headrace wrote the ledger.
        NotApplied: there is no topic or no table.
        Unavailable: Kafka, catalog or storage does not answer.
    """
    table = load_table(catalog, product)
    try:
        read_ledger(table, product)
    except DamagedLedger as error:
        fault = error
    else:
        return None
    head = table.metadata.current_snapshot_id
    if head is None:
        raise _unsure(
            product,
            "its branch main was removed: which rows it should hold is not known",
            "let another engine set the branch main to a snapshot again",
        )
    known = newest_readable(table)
    topic = admin.topic(product.topic)
    if known is not None and known.topic_id != topic.id:
        raise topic_made_anew(product, known.topic_id, topic.id)
    marks = admin.watermarks(topic)
    rows = last_rows(table, product)
    if known is not None and known.generation > rows.generation:
        # The topic was made anew and accepted: no event of the new one is in the table yet.
        rows = LastRows(known.generation, {})
    if known is not None and rows.offsets and known.generation != rows.generation:
        raise _unsure(
            product,
            f"its rows are of generation {rows.generation}, the last ledger is of generation {known.generation}",
        )
    proved = _compare(table, product, rows, marks, (topic, config))
    # Without a row nothing can be doubled, whatever the topic is.
    if known is None and rows.offsets and not proved:
        raise _unsure(
            product,
            "no ledger is left that names its topic, and Kafka has none of its last rows' events to compare with",
        )
    return Repair(fault, known, rebuilt(topic.id, rows, known, marks), head, marks)


def land_repair(catalog: Catalog, product: Product, plan: Repair, admin: Admin) -> int:
    """Land a repair as it was planned; return its snapshot.

    Raises:
        Unavailable: the table has moved since, or something does not answer: plan again.
        ProductStopped: the topic was made anew since.
    """

    def decide(table: Table) -> Draft:
        topic = admin.topic(product.topic)
        if topic.id != plan.new.topic_id:
            raise topic_made_anew(product, plan.new.topic_id, topic.id)
        if table.metadata.current_snapshot_id != plan.head:
            raise Unavailable(
                "the table has moved since the repair was planned",
                where=f"table {product.name}",
                hint=f"`headrace ledger repair {product.name}` looks again",
            )
        return Draft(plan.new)

    landed = land(catalog, product, decide)
    if landed is None:
        raise Bug("a repair ended without a snapshot")
    return landed


def newest_readable(table: Table) -> Ledger | None:
    """Return the newest ledger of the table that can be read: its property's, else that of the latest snapshot.

    Raises:
        ProductStopped: if a newer headrace wrote one.
    """
    return next(readable_ledgers(table), None)


def readable_ledgers(table: Table) -> Iterator[Ledger]:
    """Yield all ledgers of the table that can be read: its property's, then those of its snapshots, the latest first.

    Raises:
        ProductStopped: if a newer headrace wrote one.
    """
    for text in _texts(table):
        with suppress(DamagedLedger):
            yield Ledger.from_json(text)


def _texts(table: Table) -> Iterator[str]:
    repeated = table.properties.get(PROPERTY_KEY)
    if repeated is not None:
        yield repeated
    for snapshot in sorted(table.snapshots(), key=lambda each: each.sequence_number or 0, reverse=True):
        text = snapshot.summary.additional_properties.get(SUMMARY_KEY) if snapshot.summary else None
        if text is not None:
            yield text


def rebuilt(topic_id: str, rows: LastRows, known: Ledger | None, marks: Mapping[int, Watermarks]) -> Ledger:
    """Return the ledger that a table's rows prove. Pure.

    Where the known ledger agrees with a partition's last row, that partition stays where it is. Any other goes on
    behind its last row; without a row it starts where its log does, as on the very first start.
    """
    positions: dict[int, Position] = {}
    origin = dict(known.origin) if known else {}
    for partition, mark in marks.items():
        row = rows.offsets.get(partition)
        at = known.positions.get(partition) if known else None
        if at is not None and at.last_row == row and at.next <= mark.end:
            positions[partition] = at
        elif row is not None:
            positions[partition] = Position(row + 1, row)
        else:
            positions[partition] = Position(mark.low)
            origin.pop(partition, None)
            if mark.low > 0:
                origin[partition] = mark.low
    generation = rows.generation if rows.offsets or known is None else known.generation
    return Ledger(topic_id, generation, positions, {}, origin, dict(known.accepted) if known else {})


def _compare(
    table: Table,
    product: Product,
    rows: LastRows,
    marks: Mapping[int, Watermarks],
    source: tuple[Topic, Mapping[str, str]],
) -> bool:
    """Compare each partition's last row with its event; True if at least one proves that they belong together."""
    for partition, offset in sorted(rows.offsets.items()):
        end = marks[partition].end if partition in marks else 0
        if offset >= end:
            raise _unsure(product, f"it has a row at offset {offset} of partition {partition}, whose log ends at {end}")
    topic, config = source
    kept = {partition: offset for partition, offset in rows.offsets.items() if offset >= marks[partition].low}
    events, stamps = first_events(config, topic, kept), stamps_of(table, product, rows)
    proved = False
    for partition, offset in sorted(kept.items()):
        at, stamp = events.get(partition, (-1, -1))
        if at != offset:
            # Compacted away: there is nothing to compare with.
            continue
        stamp = stamp if holdable(np.array([stamp], np.int64))[0] else -1
        if stamp != stamps.get(partition, -1):
            raise _unsure(
                product, f"its row at offset {offset} of partition {partition} is not the event that Kafka has there"
            )
        proved = proved or stamp >= 0
    return proved


def _unsure(product: Product, what: str, hint: str | None = None) -> ProductStopped:
    return ProductStopped(
        f"the table's ledger cannot be made from its rows: {what}",
        where=f"table {product.name}",
        hint=hint or "move the table away or drop it, then run `headrace apply`: a new one begins with what Kafka has",
    )
