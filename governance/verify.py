"""``headrace verify``: read a product's topic and its table, each by itself, and compare them event by event.

The auditor believes nobody: it asks the broker for the events and DuckDB for the rows, never the sink's ledger, nor the
consumer group's offsets. The order of its steps makes it right while everything goes on running:

1. the ends of the topic's partitions: events behind them are not looked at;
2. the table, as of one snapshot;
3. the ends again: a row may lie between the two ends, because its event came meanwhile, but not behind the second;
4. the dead letters: a batch's letters are acknowledged before its rows are committed, so none of this snapshot's is
   missed;
5. the events up to the first ends, and only then the log's start: retention may have moved it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from headrace.governance.duck import tables_of
from headrace.governance.logs import read_letters, read_marks
from headrace.governance.proof import Marks, PartitionLog, judge, judge_earlier
from headrace.schemas.errors import HeadraceError, NotApplied, Unavailable
from headrace.streams.admin import Admin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from headrace.governance.duck import Duck
    from headrace.governance.proof import Longs, Verdict
    from headrace.schemas.mesh import Mesh
    from headrace.schemas.names import ProductName
    from headrace.schemas.product import Product
    from headrace.streams.admin import Topic

__all__ = ["Audit", "ProductAudit", "verify"]

# Sinks count a table's generations from here.
_FIRST_GENERATION = 1


@dataclass(frozen=True, slots=True)
class ProductAudit:
    """What was found of one product.

    Attributes:
        product: ``domain.product``.
        topic: the topic's name.
        topic_id: Kafka's UUID of it; empty if there is no such topic.
        verdicts: by generation and partition.
        fault: why nothing was found out, None if all was.
    """

    product: str
    topic: str
    topic_id: str
    verdicts: tuple[Verdict, ...]
    fault: HeadraceError | None = None

    @property
    def holds(self) -> bool:
        """Whether every event is in the table exactly once, or is a dead letter."""
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
    topics = admin.find(*(name for product in products for name in (product.topic, product.dead_letter_topic)))
    with tables_of(mesh) as duck:
        auditor = _Auditor(config, admin, topics, duck, tell)
        return Audit(tuple(auditor.audit(product) for product in products))


@dataclass(frozen=True, slots=True)
class _Auditor:
    config: Mapping[str, str]
    admin: Admin
    topics: Mapping[str, Topic]
    duck: Duck
    tell: Callable[[str], None]

    def audit(self, product: Product) -> ProductAudit:
        topic = self.topics.get(product.topic)
        name, topic_id = str(product.name), topic.id if topic else ""
        try:
            verdicts = self._verdicts(product)
        except HeadraceError as fault:
            return ProductAudit(name, product.topic, topic_id, (), fault)
        return ProductAudit(name, product.topic, topic_id, verdicts)

    def _verdicts(self, product: Product) -> tuple[Verdict, ...]:
        topic, letter_topic = self._topic(product.topic), self._topic(product.dead_letter_topic)
        bounds = self.admin.watermarks(topic)
        self.tell(f"{product.name}: reading the table")
        rows = read_rows(self.duck, product.name)
        ceilings = self.admin.watermarks(topic)
        self.tell(f"{product.name}: reading the dead letters")
        letters = read_letters(self.config, letter_topic, self.admin.watermarks(letter_topic), topic)
        count = sum(bound.end - bound.low for bound in bounds.values())
        self.tell(f"{product.name}: reading the topic, {count:,} offsets")
        events = read_marks(self.config, topic, bounds)
        lows = self.admin.watermarks(topic)
        if self.admin.topic(topic.name).id != topic.id:
            raise Unavailable("the topic was made anew while it was read", where=topic.name, hint="run it again")
        compacted = "compact" in product.contract.cleanup_policy
        logs = {
            partition: PartitionLog(
                lows[partition].low, bound.end, ceilings[partition].end, events[partition], compacted
            )
            for partition, bound in bounds.items()
        }
        return judge_all(logs, rows, letters)

    def _topic(self, name: str) -> Topic:
        if name not in self.topics:
            raise NotApplied("the topic does not exist", where=name, hint="headrace apply")
        return self.topics[name]


def read_rows(duck: Duck, product: ProductName) -> Mapping[tuple[int, int], Marks]:
    """Read the marks of all rows by generation and partition.

    Raises:
        NotApplied: if there is no table.
        Unavailable: if catalog or storage does not answer.
    """
    duck.attach(product)
    answer = duck.query(
        "SELECT _generation, _kafka_partition, _kafka_offset, coalesce(epoch_ms(_kafka_timestamp), -1) "  # noqa: S608
        f"FROM {product} ORDER BY 1, 2"  # a product's name is letters, digits and underscores (names.PART)
    )
    batches = [batch for batch in answer.batches if batch.num_rows] if answer is not None else []
    if not batches:
        return {}
    generations, partitions, offsets, stamps = (
        np.concatenate([batch.column(place).to_numpy(zero_copy_only=False) for batch in batches]).astype(np.int64)
        for place in range(4)
    )
    changes = np.flatnonzero((np.diff(generations) != 0) | (np.diff(partitions) != 0)) + 1
    edges = [0, *changes.tolist(), len(offsets)]
    return {
        (int(generations[first]), int(partitions[first])): Marks(offsets[first:end], stamps[first:end])
        for first, end in pairwise(edges)
    }


def judge_all(
    logs: Mapping[int, PartitionLog], rows: Mapping[tuple[int, int], Marks], letters: Mapping[int, Longs]
) -> tuple[Verdict, ...]:
    """Judge every partition of the topic and every partition that the table has rows of.

    The highest generation in the table is the current one, which the topic must answer for.
    """
    nothing = np.empty(0, np.int64)
    no_log = PartitionLog(0, 0, 0, Marks(nothing, nothing))
    current = max((generation for generation, _ in rows), default=_FIRST_GENERATION)
    places = {(current, partition) for partition in logs} | set(rows)
    return tuple(
        judge(
            partition,
            generation,
            logs.get(partition, no_log),
            rows.get((generation, partition), no_log.events),
            letters.get(partition, nothing),
        )
        if generation == current
        else judge_earlier(partition, generation, rows[generation, partition])
        for generation, partition in sorted(places)
    )
