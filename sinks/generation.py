"""Accepting a topic that was made anew: the table goes on with it as a new generation, from where its log begins.

Offsets of the two topics are never mixed, because partition, offset *and* generation identify a row. Rows of earlier
generations stay. The acceptance is a snapshot without rows; it lands only while the table still follows the old topic
and Kafka still has the one that the operator was shown.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from headrace.schemas.catalog import load_table
from headrace.schemas.errors import DamagedLedger, Unavailable
from headrace.sinks.attempts import land
from headrace.sinks.draft import Draft
from headrace.sinks.past_topics import PAST_TOPIC, past_topics
from headrace.sinks.repair import newest_readable, readable_ledgers
from headrace.streams.history import last_rows, read_ledger
from headrace.streams.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

    from headrace.schemas.product import Product
    from headrace.streams.admin import Admin, Watermarks


@dataclass(frozen=True, slots=True)
class Succession:
    """A topic in the place of another one.

    Attributes:
        known: the ledger of the topic that the table follows.
        topic_id: the id of the one that Kafka has.
        marks: the bounds of its partitions.
        generation: which generation it becomes.
    """

    known: Ledger
    topic_id: str
    marks: Mapping[int, Watermarks]
    generation: int


def find_succession(catalog: Catalog, product: Product, admin: Admin) -> Succession | None:
    """Look whether a product's topic was made anew; None: it was not, or nothing was committed yet.

    Raises:
        NotApplied: there is no topic or no table.
        ProductStopped: no ledger of the table can be read, or only a repair helps; a newer headrace wrote it.
        Unavailable: Kafka, catalog or storage does not answer.
    """
    table = load_table(catalog, product)
    topic = admin.topic(product.topic)
    known = _known(table, product, topic.id)
    if known is None or known.topic_id == topic.id:
        return None
    return Succession(known, topic.id, admin.watermarks(topic), _generation(table, known, topic.id))


def accept_topic(catalog: Catalog, product: Product, found: Succession, admin: Admin) -> int | None:
    """Let the table follow the new topic; return the snapshot that says so, None: somebody else has done it already.

    Raises:
        Unavailable: the table or the topic has changed since it was found, or something does not answer: ask again.
        ProductStopped: the ledger cannot be read or would become too large.
    """
    lows = {partition: marks.low for partition, marks in found.marks.items()}

    def decide(table: Table) -> Draft | None:
        topic = admin.topic(product.topic)
        known = _known(table, product, topic.id)
        if known is not None and known.topic_id == topic.id:
            return None
        if known is None or known.topic_id != found.known.topic_id or topic.id != found.topic_id:
            raise Unavailable(
                "the table or the topic has changed since it was looked at, and nothing was done",
                where=f"topic {product.topic}",
                hint=f"`headrace accept-topic {product.name}` looks again",
            )
        return Draft(following(_generation(table, known, topic.id), topic.id, lows), properties=_note(table, known))

    return land(catalog, product, decide)


def following(generation: int, topic_id: str, lows: Mapping[int, int]) -> Ledger:
    """Return the ledger of a table that goes on with another topic, from where its log begins. Pure.

    What was accepted as lost were offsets of the topic that is gone: its own snapshots keep the record.
    """
    return replace(Ledger.begin(topic_id, lows), generation=generation)


def _note(table: Table, known: Ledger) -> Mapping[str, str]:
    """Return the property that tells the topic of the generation that ends, once its snapshots are gone."""
    sure = past_topics(table.metadata).get(known.generation) == known.topic_id
    return {f"{PAST_TOPIC}{known.generation}": known.topic_id} if sure else {}


def _generation(table: Table, known: Ledger, topic_id: str) -> int:
    """Return the generation that a topic becomes.

    The table may have been taken back over the border to an earlier topic. Its snapshots still tell of later ones: one
    of them keeps its number, and its number is nobody else's, so that a rollback never mixes the rows of two topics.
    """
    told = list(readable_ledgers(table))
    later = [ledger for ledger in told if ledger.generation > known.generation]
    same = [ledger.generation for ledger in later if ledger.topic_id == topic_id]
    return max(same) if same else max([known.generation, *(ledger.generation for ledger in later)]) + 1


def _known(table: Table, product: Product, topic_id: str) -> Ledger | None:
    """Return the ledger; of a damaged one, the newest that can be read, if it shows that the topic is another.

    A generation only has to be higher than any before, so that it does not matter how far the last one came.
    """
    try:
        return read_ledger(table, product)
    except DamagedLedger:
        known = newest_readable(table)
        if known is None or known.topic_id == topic_id or table.metadata.current_snapshot_id is None:
            raise
        return replace(known, generation=max(known.generation, last_rows(table, product).generation))
