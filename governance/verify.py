"""``headrace verify``: read a product's topic and its table, each by itself, and compare them event by event.

The auditor believes nobody: it asks the broker for the events and DuckDB for the rows, never the sink's ledger for a
position, nor the consumer group. Of the ledger it reads only what operators have put on record (`governance.record`).
What it needs of memory does not grow with the table: rows lie on the local disk, 16 bytes each, events pass by, and one
window of both is compared at a time. Dead letters take 8 bytes each.

The order of its steps makes it right while everything goes on running:

1. the ends of the topic's partitions: events behind them are not looked at;
2. the table, as of one snapshot;
3. the ends again: a row may lie between the two ends, because its event came meanwhile, but not behind the second;
4. the dead letters: a batch's letters are acknowledged before its rows are committed, so none of this snapshot's is
   missed. Those that the retention of their topic has deleted are told by the table that remembers them;
5. of each partition the log's start, which retention may have moved, and then the events from there to the first ends:
   if any of them is deleted before it was read, that is an error, so all of them were.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from headrace.governance.logs import GROUP, marks_of, read_letters
from headrace.governance.marks import NO_OFFSETS
from headrace.governance.proof import NO_LOG, Excuses, Log, judge, judge_earlier
from headrace.governance.record import record_of
from headrace.governance.rows import entered_letters, spilled
from headrace.governance.windows import windows
from headrace.schemas.catalog import load_table, open_catalog
from headrace.schemas.errors import HeadraceError, NotApplied, Unavailable
from headrace.sinks.dead_letters.table import LETTERS_OF, changed_columns, filed
from headrace.sinks.stops import topic_made_anew
from headrace.streams.admin import Admin, Watermarks
from headrace.streams.history import FIRST_GENERATION
from headrace.streams.scan import Scan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

    from headrace.governance.marks import Longs, Marks
    from headrace.governance.proof import Verdict
    from headrace.governance.record import Record
    from headrace.governance.spill import Spill
    from headrace.schemas.mesh import Mesh
    from headrace.schemas.product import Product
    from headrace.streams.admin import Topic
    from headrace.streams.ledger import Accepted

__all__ = ["Audit", "ProductAudit", "verify"]


@dataclass(frozen=True, slots=True)
class ProductAudit:
    """What was found of one product.

    Attributes:
        product: ``domain.product``.
        topic: the topic's name.
        topic_id: Kafka's UUID of it; empty if there is no such topic.
        verdicts: by generation and partition.
        fault: why nothing was found out, None if all was.
        accepted: losses that operators have put on record, by partition of the current generation.
    """

    product: str
    topic: str
    topic_id: str
    verdicts: tuple[Verdict, ...]
    fault: HeadraceError | None = None
    accepted: Mapping[int, Sequence[Accepted]] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether every event is in the table exactly once, is a dead letter, or was skipped on record."""
        return self.fault is None and all(verdict.holds for verdict in self.verdicts)


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found of several products."""

    products: tuple[ProductAudit, ...]

    @property
    def holds(self) -> bool:
        """Whether all of them hold."""
        return all(product.holds for product in self.products)


def verify(mesh: Mesh, products: Sequence[Product], tell: Callable[[str], None]) -> Audit:
    """Compare topics with tables. A fault of one product (no table, a broken file) is kept, and the others go on.

    Args:
        mesh: the mesh in its environment.
        products: which of its products.
        tell: is told what is being read.

    Raises:
        Unavailable: if the broker does not answer.
        SettingsError: if the broker refuses the credentials.
    """
    config = mesh.environment.kafka_config()
    admin = Admin(config)
    # A broker that does not answer is told of once, and not once for each product.
    admin.find(*(product.topic for product in products))
    auditor = _Auditor(mesh, config, admin, tell)
    return Audit(tuple(auditor.audit(product) for product in products))


@dataclass(frozen=True, slots=True)
class _Auditor:
    mesh: Mesh
    config: Mapping[str, str]
    admin: Admin
    tell: Callable[[str], None]
    catalogs: dict[str, Catalog] = field(default_factory=dict)

    def audit(self, product: Product) -> ProductAudit:
        topics: Mapping[str, Topic] = {}
        try:
            # Anew for each: proving the products before may have taken hours.
            topics = self.admin.find(product.topic, product.dead_letter_topic)
            return self._audit(product, _topic(topics, product.topic), _topic(topics, product.dead_letter_topic))
        except HeadraceError as fault:
            topic = topics.get(product.topic)
            return ProductAudit(str(product.name), product.topic, topic.id if topic else "", (), fault)

    def _audit(self, product: Product, topic: Topic, letter_topic: Topic) -> ProductAudit:
        ends = self.admin.watermarks(topic)
        self.tell(f"{product.name}: reading the table")
        table = self._table(product)
        with spilled(table, product.name) as rows:
            record = _record(table, product, topic, rows)
            ceilings = self.admin.watermarks(self._same(topic))
            self.tell(f"{product.name}: reading the dead letters")
            letters = self._letters(product, letter_topic, topic)
            compacted = "compact" in product.contract.cleanup_policy
            # Of a partition that was added meanwhile, every event came meanwhile.
            bounds = {p: Watermarks(0, 0) for p in ceilings} | dict(ends)
            logs = {p: Log(bound.low, bound.end, ceilings[p].end, compacted) for p, bound in bounds.items()}
            current = record.generation if record else _newest(rows)
            self.tell(f"{product.name}: reading the topic, {sum(b.end - b.low for b in ends.values()):,} offsets")
            with Scan(self.config, topic.name, GROUP) as scan:
                verdicts = tuple(_verdicts(scan, logs, rows, _excuses(logs, letters, record), current))
        self._same(topic)
        accepted = record.accepted if record else {}
        return ProductAudit(str(product.name), topic.name, topic.id, verdicts, accepted=accepted)

    def _letters(self, product: Product, letter_topic: Topic, topic: Topic) -> Mapping[int, Longs]:
        """Return the offsets of all letters of a topic, by partition."""
        marks = self.admin.watermarks(letter_topic)
        letters = read_letters(self.config, letter_topic, marks, topic)
        if not any(mark.low for mark in marks.values()):
            return letters
        # Their topic forgets before the events' own one does.
        entered = self._entered(product, topic)
        both = {partition: (letters.get(partition, NO_OFFSETS), some) for partition, some in entered.items()}
        return {**letters, **{partition: np.concatenate(some) for partition, some in both.items()}}

    def _entered(self, product: Product, topic: Topic) -> Mapping[int, Longs]:
        try:
            table = self._table(filed(product))
        except NotApplied:
            return {}
        if LETTERS_OF not in table.properties or changed_columns(table.schema()):
            # It is somebody else's, or nobody knows what it says.
            return {}
        return entered_letters(table, filed(product).name, topic.id)

    def _same(self, topic: Topic) -> Topic:
        """Return the topic as it is now, partitions that were added included."""
        now = self.admin.topic(topic.name)
        if now.id != topic.id:
            raise Unavailable("the topic was made anew while it was read", where=topic.name, hint="run it again")
        return now

    def _table(self, product: Product) -> Table:
        domain = self.mesh.domain_of(product)
        if domain.name not in self.catalogs:
            self.catalogs[domain.name] = open_catalog(self.mesh.environment, domain)
        return load_table(self.catalogs[domain.name], product)


def _topic(topics: Mapping[str, Topic], name: str) -> Topic:
    if name not in topics:
        raise NotApplied("the topic does not exist", where=name, hint="headrace apply")
    return topics[name]


def _newest(rows: Spill) -> int:
    return max({FIRST_GENERATION} | {generation for generation, _ in rows.places})


def _record(table: Table, product: Product, topic: Topic, rows: Spill) -> Record | None:
    """Return what operators have put on record about this topic.

    Raises:
        ProductStopped: if the table follows a topic that is gone, or a newer headrace wrote the record.
    """
    newest = _newest(rows)
    last_rows = {partition: last for (generation, partition), last in rows.last_offsets.items() if generation == newest}
    record = record_of(table, last_rows, newest)
    if record is not None and record.topic_id != topic.id:
        raise topic_made_anew(product, record.topic_id, topic.id)
    return record


def _excuses(logs: Mapping[int, Log], letters: Mapping[int, Longs], record: Record | None) -> Mapping[int, Excuses]:
    accepted = record.accepted if record else {}
    return {
        partition: Excuses(
            np.sort(letters.get(partition, NO_OFFSETS)),
            [(lost.first, lost.end) for lost in accepted.get(partition, ())],
        )
        for partition in logs
    }


def _verdicts(
    scan: Scan, logs: Mapping[int, Log], rows: Spill, excuses: Mapping[int, Excuses], current: int
) -> Iterator[Verdict]:
    """Judge every partition of the topic, and every partition that the table has rows of.

    ``current`` is the generation that the topic must answer for: the one on record, or the highest in the table. Rows
    of a later one, or of none that there can be, are of no event.
    """
    for generation, partition in sorted({(current, partition) for partition in logs} | rows.places):
        place, pieces = (partition, generation), rows.read(generation, partition)
        if FIRST_GENERATION <= generation < current and partition >= 0:
            yield judge_earlier(place, pieces)
            continue
        log = NO_LOG
        events: Iterator[Marks] = iter(())
        if generation == current and partition in logs:
            log = replace(logs[partition], start=max(logs[partition].start, scan.low(partition)))
            events = marks_of(scan, partition, Watermarks(log.start, log.end))
        yield judge(place, log, windows(events, pieces), excuses.get(partition, Excuses()))
