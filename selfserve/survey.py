"""Looking at products: topic, table and dead letters of each, now and as often as one likes.

The position of truth is the ledger in the table, never a consumer group's offsets. What does not answer is noted, and
reads None in what was found; a product's fault is kept with the product, and the others are looked at all the same.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from headrace.schemas.catalog import catalog_errors, load_table, open_catalog
from headrace.schemas.errors import DamagedLedger, HeadraceError, NotApplied, Unavailable
from headrace.selfserve.backlog import DeadLetterBox, LetterRows, lag_of
from headrace.selfserve.status import Look, ProductStatus, each_once
from headrace.sinks.hold import hold_of
from headrace.sinks.replay.boundary import note_of
from headrace.sinks.stops import gap, topic_made_anew
from headrace.streams.admin import Admin, Watermarks
from headrace.streams.history import find_ledger, last_commit
from headrace.streams.kafka import APPLY_HINT
from headrace.streams.ledger import Ledger, gaps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

    from headrace.schemas.mesh import Mesh
    from headrace.schemas.product import Product
    from headrace.streams.admin import Topic
    from headrace.streams.history import Found

__all__ = ["Survey"]

# Who looks again in a moment may give up sooner.
_ASK_S = 5.0


class Survey:
    """Looks at products as often as one likes. Not for several threads.

    Args:
        mesh: the mesh in its environment.
        products: which of its products.
    """

    def __init__(self, mesh: Mesh, products: Sequence[Product]) -> None:
        self._mesh = mesh
        self._products = products
        self._kafka: _Kafka | None = None
        self._catalogs: dict[str, Catalog] = {}
        self._memories = {product.name: _Memory() for product in products}

    def look(self) -> Look:
        """Look at all of them, one after the other. Never raises what a server or a table causes."""
        unasked: list[HeadraceError] = []
        topics = self._topics(unasked)
        found = []
        for product in self._products:
            looking = _ProductLook(product, self._kafka, topics, self._memories[product.name])
            status = looking.look(partial(self._table, product))
            found.append(status)
            if status.unasked:
                unasked += status.unasked
                # A session with a catalog may be over. If the broker is gone, the other products need not wait for it.
                self._catalogs.pop(product.name.domain, None)
                topics = self._topics(unasked)
        return Look(tuple(found), each_once(unasked))

    def _table(self, product: Product) -> Table:
        domain = self._mesh.domain_of(product)
        if domain.name not in self._catalogs:
            self._catalogs[domain.name] = open_catalog(self._mesh.environment, domain)
        return load_table(self._catalogs[domain.name], product)

    def _topics(self, unasked: list[HeadraceError]) -> Mapping[str, Topic] | None:
        try:
            config = self._mesh.environment.kafka_config()
            if self._kafka is None or self._kafka.config != config:
                self._kafka = _Kafka(config, Admin(config, request_timeout_s=_ASK_S))
            names = (name for product in self._products for name in (product.topic, product.dead_letter_topic))
            return self._kafka.admin.find(*names)
        except HeadraceError as error:
            unasked.append(error)
            return None


@dataclass(frozen=True, slots=True)
class _Kafka:
    config: Mapping[str, str]
    admin: Admin


@dataclass(slots=True)
class _Memory:
    """What need not be read again: dead letters, which of them have rows, and what a table is like at a location."""

    letters: DeadLetterBox = field(default_factory=DeadLetterBox)
    letter_rows: LetterRows = field(default_factory=LetterRows)
    _location: str | None = None
    _rows: int | None = None
    _ledger: Found | DamagedLedger | None = None
    _read: bool = False

    def rows(self, table: Table, product: Product) -> int:
        """Return the number of the table's rows."""
        self._at(table)
        if self._rows is None:
            self._rows = _rows(table, product)
        return self._rows

    def ledger(self, table: Table, product: Product) -> Found | None:
        """Return the table's ledger, which may take reading all its rows; see `find_ledger`."""
        self._at(table)
        if not self._read:
            try:
                self._ledger = find_ledger(table, product)
            except DamagedLedger as error:
                self._ledger = error
            self._read = True
        if isinstance(self._ledger, DamagedLedger):
            # Kept from look to look: without the frames of the looks before.
            raise self._ledger.with_traceback(None)
        return self._ledger

    def _at(self, table: Table) -> None:
        """Forget what is not of the table as it is now: whatever changes it gives it another location."""
        if table.metadata_location != self._location:
            self._location, self._rows, self._ledger, self._read = table.metadata_location, None, None, False


class _ProductLook:
    """One look at one product.

    The topic's bounds are read before the table, so that a commit meanwhile shows no lag rather than a false one; the
    dead letters after the table, because a batch's letters are acknowledged before its rows are committed.
    """

    def __init__(
        self, product: Product, kafka: _Kafka | None, topics: Mapping[str, Topic] | None, memory: _Memory
    ) -> None:
        self._product = product
        self._kafka = kafka
        self._topics = topics
        self._memory = memory
        self._status = ProductStatus(str(product.name), product.topic)
        self._faults: list[HeadraceError] = []
        self._unasked: list[HeadraceError] = []

    def look(self, load: Callable[[], Table]) -> ProductStatus:
        """Look at it.

        Args:
            load: loads the product's table.
        """
        bounds: Mapping[int, Watermarks] = {}
        if self._kafka is not None and self._topics is not None:
            with self._noted():
                self._found(partitions=0)
                topic = self._topic(self._product.topic)
                self._found(partitions=topic.partitions)
                bounds = self._kafka.admin.watermarks(topic)
        with self._noted():
            table = load()
            hold = hold_of(table)
            self._found(rows=self._memory.rows(table, self._product), held=hold is not None, hold=hold)
            replay = note_of(table.metadata)
            self._found(snapshots=len(table.metadata.snapshots), files=_files(table))
            self._found(replay_from=replay.begin if replay else None)
            ledger = self._ledger(table)
            if self._kafka is not None and bounds:
                self._compare(self._kafka, table, ledger, bounds)
        return replace(self._status, faults=tuple(self._faults), unasked=tuple(self._unasked))

    def _ledger(self, table: Table) -> Ledger | None:
        found, head = self._memory.ledger(table, self._product), table.current_snapshot()
        if found is None or head is None:
            return None
        commit = last_commit(table)
        if commit is not None:
            self._found(snapshot_id=commit.snapshot_id, committed_s=commit.committed_ms / 1_000)
        else:
            # Where others have expired it, the newest snapshot is as near as can be told.
            self._found(
                snapshot_id=found.snapshot_id or head.snapshot_id,
                committed_s=(found.committed_ms or head.timestamp_ms) / 1_000,
            )
        return found.ledger

    def _compare(self, kafka: _Kafka, table: Table, ledger: Ledger | None, bounds: Mapping[int, Watermarks]) -> None:
        topic = self._topic(self._product.topic)
        lows = {partition: bound.low for partition, bound in bounds.items()}
        ledger = ledger or Ledger.begin(topic.id, lows)
        if ledger.topic_id != topic.id:
            raise topic_made_anew(self._product, ledger.topic_id, topic.id)
        self._faults += [gap(self._product, *lost) for lost in gaps(ledger, lows)]
        letter_topic = self._topic(self._product.dead_letter_topic)
        letter_bounds = kafka.admin.watermarks(letter_topic)
        letters = self._memory.letters.offsets(kafka.config, topic, letter_topic, letter_bounds)
        # Of an event that Kafka has deleted, nobody can say any more whether it was one.
        letters = {p: offsets[offsets >= lows[p]] for p, offsets in letters.items() if p in lows}
        # An event that is in the table all the same wins.
        rows = self._memory.letter_rows.count(table, self._product, ledger, letters)
        self._found(dead_letters=sum(map(len, letters.values())) - rows)
        starts = {p: max(ledger.next(p), bound.low) for p, bound in bounds.items()}
        behind = {p: Watermarks(start, max(bounds[p].end, start)) for p, start in starts.items()}
        self._found(lag=lag_of(kafka.config, topic, behind, letters, time.time()))

    def _topic(self, name: str) -> Topic:
        topic = (self._topics or {}).get(name)
        if topic is None:
            raise NotApplied("the topic does not exist", where=name, hint=APPLY_HINT)
        return topic

    def _found(self, **what: Any) -> None:
        self._status = replace(self._status, **what)

    @contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except Unavailable as error:
            self._unasked.append(error)
        except HeadraceError as error:
            self._faults.append(error)


def _files(table: Table) -> int | None:
    """Return the number of the table's data files, where its newest snapshot tells it."""
    snapshot = table.current_snapshot()
    if snapshot is None:
        return 0
    told = snapshot.summary.additional_properties.get("total-data-files") if snapshot.summary else None
    return None if told is None else int(told)


def _rows(table: Table, product: Product) -> int:
    """Return the number of the table's rows, from its metadata where that tells it."""
    snapshot = table.current_snapshot()
    if snapshot is None:
        return 0
    summary = snapshot.summary.additional_properties if snapshot.summary else {}
    if "total-records" in summary and summary.get("total-delete-files") == "0":
        return int(summary["total-records"])
    # Deleted rows are told by nothing but the files.
    with catalog_errors(f"table {product.name}"):
        return table.scan().count()
