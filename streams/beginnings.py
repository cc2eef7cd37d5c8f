"""Beginning partitions: where in the topic, as Kafka and the table say, and the table's rows that come before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from headrace.schemas.catalog import load_table, open_catalog
from headrace.schemas.errors import NotApplied, Unavailable, UserError
from headrace.streams.ahead import in_thread
from headrace.streams.history import read_ledger
from headrace.streams.past import Past
from headrace.streams.portions import Portion, Span
from headrace.streams.starts import Seeker, Start
from headrace.streams.versions import followed_version

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyiceberg.table import Table

    from headrace.schemas.mesh import Mesh
    from headrace.schemas.product import Product
    from headrace.streams.admin import Admin, Topic, Watermarks
    from headrace.streams.pinned import Pinned
    from headrace.streams.starts import Beginning


@dataclass(frozen=True, slots=True)
class Course:
    """What is followed, and how."""

    mesh: Mesh
    product: Product
    group: str | None
    start: Beginning
    until_end: bool
    autocommit: bool


@dataclass(frozen=True, slots=True)
class Begun:
    """How partitions begin.

    Attributes:
        positions: the topic's offset to read each from.
        history: the table's rows to hand out before, None between them while they are being read; None: no history.
        kept: positions to commit though nothing was handled yet.
    """

    positions: Mapping[int, int]
    history: Iterator[Portion | None] | None = None
    kept: Mapping[int, int] = field(default_factory=dict)


class Beginnings:
    """Begins partitions of a product.

    Args:
        course: what is followed, and how.
        admin: asks the cluster.
        pinned: reads the table's rows.
    """

    def __init__(self, course: Course, admin: Admin, pinned: Pinned) -> None:
        self._course = course
        self._admin = admin
        self._pinned = pinned
        self._seeker = Seeker(course.product, course.group)

    def of(self, known: Mapping[int, int | None]) -> Begun:
        """Begin partitions, at the positions that are known or, where there is none, by the course's start.

        Raises:
            UserError: Kafka has deleted what stands at a position, or the topic ends before it.
            NotApplied: the topic does not exist.
            ProductStopped: the table follows another topic, or its ledger contradicts it.
            Unavailable: Kafka, catalog or storage does not answer.
        """
        start = self._course.start
        # The table before the log's bounds: a sink that goes on meanwhile must not be ahead of them.
        table = self._load() if start is Start.HISTORY else None
        topic = self._admin.topic(self._course.product.topic)
        marks = self._admin.watermarks(topic)
        if not marks.keys() >= known.keys():
            raise Unavailable(
                "partitions are assigned that the broker asked does not know yet",
                where=f"topic {topic.name}",
                hint="it is asked again",
            )
        if start is Start.HISTORY:
            return self._with_history(table, topic, marks, known)
        starts = self._starts(start, topic, marks)
        begun = {p: self._seeker.topic(p, at, marks[p], starts[p]).position for p, at in known.items()}
        # A group that begins in the midst keeps that place, even if nothing comes before it ends.
        kept = {p: at for p, at in begun.items() if known[p] is None and start is not Start.EARLIEST}
        return Begun(begun, kept=kept)

    def _with_history(
        self, table: Table | None, topic: Topic, marks: Mapping[int, Watermarks], known: Mapping[int, int | None]
    ) -> Begun:
        ledger = read_ledger(table, self._course.product) if table is not None else None
        if ledger is not None:
            self._seeker.same_topic(ledger, topic.id)
        begun = {p: self._seeker.history(p, at, marks[p], ledger) for p, at in known.items()}
        positions = {p: each.position for p, each in begun.items()}
        if table is None or ledger is None:
            return Begun(positions)
        spans = {p: each.history for p, each in begun.items() if each.history is not None}
        return Begun(positions, self._history(table, spans))

    def _history(self, table: Table, spans: Mapping[int, Span]) -> Iterator[Portion | None]:
        """Yield the rows of the spans, and None while they are read."""
        held = followed_version(table)
        past = Past(table, self._course.product, self._pinned.relations.columns(held))
        # A window may take longer than a member of a group may be silent.
        for read in in_thread(past.rows(spans)):
            yield None if read is None else self._pinned.rows(*read, held)
        for partition, span in spans.items():
            # Behind the last row may lie control records and what became dead letters.
            yield Portion(partition, self._pinned.nothing, end=span.end, from_history=True)

    def _load(self) -> Table | None:
        course = self._course
        try:
            return load_table(
                open_catalog(course.mesh.environment, course.mesh.domain_of(course.product)), course.product
            )
        except NotApplied:
            return None

    def _starts(self, start: Beginning, topic: Topic, marks: Mapping[int, Watermarks]) -> Mapping[int, int]:
        if start is Start.EARLIEST:
            return {partition: each.low for partition, each in marks.items()}
        if isinstance(start, Mapping):
            unknown = sorted(start.keys() - marks.keys())
            if unknown:
                raise UserError(
                    f"a subscriber cannot start in partition {unknown[0]}, which the topic does not have",
                    where=f"topic {topic.name}",
                    hint=f"its partitions are 0 to {topic.partitions - 1}",
                )
            return {partition: start.get(partition, each.low) for partition, each in marks.items()}
        ends = {partition: each.end for partition, each in marks.items()}
        if isinstance(start, Start):
            return ends
        # Before 1970, Kafka would take it for one of its own signs.
        found = self._admin.offsets_at(topic, max(round(start.timestamp() * 1_000), 0))
        # What came since the ends were looked up would lie behind them.
        return {partition: min(found.get(partition, end), end) for partition, end in ends.items()}
