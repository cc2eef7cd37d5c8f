"""Accepting a gap: Kafka deleted events before the table held them, and an operator lets the sink go on without them.

The acceptance is a snapshot without rows whose ledger stands behind the gap and records it. It is fenced as a batch is:
it lands only while the table's ledger is at the gap's start, and the topic is the one that the ledger follows.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headrace.schemas.catalog import load_table
from headrace.schemas.errors import Stale, Unavailable
from headrace.schemas.stamps import holdable
from headrace.sinks.attempts import land
from headrace.sinks.commit import check_fence
from headrace.sinks.draft import Draft
from headrace.sinks.stops import topic_made_anew
from headrace.streams.history import LastRows, read_ledger, stamps_of
from headrace.streams.ledger import Accepted, Ledger, Range, gaps
from headrace.streams.peek import first_events

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

    from headrace.schemas.product import Product
    from headrace.streams.admin import Admin


@dataclass(frozen=True, slots=True)
class Gap:
    """Offsets of one partition that Kafka deleted before the table held them.

    Attributes:
        partition: the partition.
        first: the first of them.
        end: where the log begins now: the first offset that is not lost.
        after_ms: the timestamp of the table's last row before them, milliseconds since 1970 UTC; None: it has none.
        before_ms: the timestamp of the first event that Kafka still has behind them; None: not known, or
            not in 1970 to 9999.
    """

    partition: int
    first: int
    end: int
    after_ms: int | None
    before_ms: int | None


@dataclass(frozen=True, slots=True)
class Gaps:
    """All gaps of a product, as they were found: what an operator is shown, and what is accepted then.

    Attributes:
        ledger: the table's ledger, which the acceptance is fenced by; None: nothing was ever committed.
        gaps: the gaps, by partition.
    """

    ledger: Ledger | None
    gaps: Sequence[Gap]


def find_gaps(catalog: Catalog, product: Product, admin: Admin, config: Mapping[str, str]) -> Gaps:
    """Find the product's gaps.

    Args:
        catalog: the catalog of the product's domain.
        product: the product.
        admin: asks the broker for the topic.
        config: the environment's librdkafka properties, to look at the events behind the gaps.

    Raises:
        ProductStopped: the topic was made anew, or the ledger cannot be read.
        NotApplied: there is no topic or no table.
        Unavailable: Kafka, catalog or storage does not answer.
    """
    table = load_table(catalog, product)
    ledger = read_ledger(table, product)
    topic = admin.topic(product.topic)
    if ledger is None:
        # The very first start begins where the log does: nothing is missing from what the table promises.
        return Gaps(None, ())
    if ledger.topic_id != topic.id:
        raise topic_made_anew(product, ledger.topic_id, topic.id)
    lows = {partition: marks.low for partition, marks in admin.watermarks(topic).items()}
    found = list(gaps(ledger, lows))
    after = _before_the_gaps(table, product, ledger, [partition for partition, _, _ in found])
    behind: Mapping[int, tuple[int, int]] = {}
    # When they were written is nice to know; a log whose start moves all the time must not stand in the way.
    with suppress(Unavailable):
        behind = first_events(config, topic, {partition: low for partition, _, low in found})
    return Gaps(
        ledger,
        [
            Gap(partition, first, low, after.get(partition), _stamp(behind.get(partition, (low, -1))[1]))
            for partition, first, low in found
        ],
    )


def accept(catalog: Catalog, product: Product, found: Gaps, admin: Admin, now: datetime) -> int | None:
    """Accept gaps as they were found; return the snapshot that says so, None: there was nothing to accept.

    Raises:
        Unavailable: the table has moved since they were found, or something does not answer: ask again.
        ProductStopped: the topic was made anew, or the ledger cannot be read or would become too large.
    """
    base, ranges = found.ledger, {gap.partition: Range(gap.first, gap.end) for gap in found.gaps}
    if base is None or not ranges:
        return None
    lost = {gap.partition: Accepted(gap.first, gap.end, int(now.timestamp())) for gap in found.gaps}

    def decide(table: Table) -> Draft:
        ledger = read_ledger(table, product) or base.at_origin()
        topic = admin.topic(product.topic)
        if topic.id != ledger.topic_id:
            raise topic_made_anew(product, ledger.topic_id, topic.id)
        try:
            check_fence(ledger, base, ranges, where=str(product.name))
        except Stale as error:
            raise Unavailable(
                f"the table has moved since the gap was found: {error.what}",
                where=f"table {product.name}",
                hint=f"`headrace accept-gap {product.name}` shows what is missing now",
            ) from None
        return Draft(ledger.accepting(lost))

    return land(catalog, product, decide)


def _before_the_gaps(table: Table, product: Product, ledger: Ledger, partitions: Sequence[int]) -> Mapping[int, int]:
    known = {partition: ledger.positions.get(partition) for partition in partitions}
    rows = {partition: at.last_row for partition, at in known.items() if at is not None and at.last_row is not None}
    stamps = stamps_of(table, product, LastRows(ledger.generation, rows))
    return {partition: stamp for partition, at in stamps.items() if (stamp := _stamp(at)) is not None}


def _stamp(milliseconds: int) -> int | None:
    """Return a timestamp that can be shown; a producer may have sent any number."""
    return milliseconds if holdable(np.array([milliseconds], np.int64))[0] else None
