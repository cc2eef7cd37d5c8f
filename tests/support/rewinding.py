"""A table that a worker fills from a log in memory, to be rolled back and replayed: a real catalog, and no broker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pyiceberg.table.refs import MAIN_BRANCH

from headrace.schemas.catalog import load_table
from headrace.schemas.mesh import load_mesh
from headrace.selfserve.stack import Endpoints
from headrace.sinks.tables import ensure_table
from headrace.streams.admin import Topic, Watermarks
from headrace.streams.history import read_ledger
from tests.support.faulty import FaultyCatalog
from tests.support.meshes import ORDER, ORDERS, write_mesh
from tests.support.workers import PARTITIONS, TOPIC_ID, Log, Mailbox, Worker, rows_in

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pyiceberg.table import Table

    from headrace.schemas.product import Product
    from headrace.streams.ledger import Ledger


@dataclass
class Shop:
    """The product ``shop.orders``, its table, and a catalog with a fault to come."""

    catalog: FaultyCatalog
    product: Product

    @classmethod
    def at(cls, folder: Path) -> Shop:
        """Make the table in a folder."""
        write_mesh(folder, Endpoints("127.0.0.1:9", "http://127.0.0.1:9"), "t.", {ORDERS: ORDER})
        product = load_mesh(folder, environment="cluster").product(ORDERS)
        catalog = FaultyCatalog("shop", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}/warehouse")
        ensure_table(catalog, product)
        return cls(catalog, product)

    def worker(self, events: int, branch: str = MAIN_BRANCH) -> Worker:
        """Return a worker that lands each partition's first so many events."""
        return Worker(self.catalog, Log(self.product, events), Mailbox(), branch=branch)

    def land(self, events: int, branch: str = MAIN_BRANCH) -> int:
        """Land each partition's first so many events; return the branch's head."""
        self.worker(events, branch).run()
        return self.head(branch)

    def table(self) -> Table:
        """Load the table as it is now."""
        return load_table(self.catalog, self.product)

    def head(self, branch: str = MAIN_BRANCH) -> int:
        """Return a branch's head."""
        return self.table().metadata.refs[branch].snapshot_id

    def ledger(self, branch: str = MAIN_BRANCH) -> Ledger:
        """Return a branch's ledger, which must be there."""
        ledger = read_ledger(self.table(), self.product, branch)
        assert ledger is not None
        return ledger

    def holds(self, events: int) -> bool:
        """Tell whether DuckDB finds exactly the rows of each partition's first so many events."""
        return rows_in(self.catalog, self.product) == Log(self.product, events).rows()


@dataclass
class Broker:
    """Answers what a cluster is asked about one topic."""

    topic_id: str = TOPIC_ID
    marks: Mapping[int, Watermarks] = field(
        default_factory=lambda: {partition: Watermarks(0, 100) for partition in range(PARTITIONS)}
    )
    times: Mapping[int, int] = field(default_factory=dict)

    def topic(self, name: str) -> Topic:
        """See :meth:`headrace.streams.admin.Admin.topic`."""
        return Topic(name, self.topic_id, len(self.marks))

    def watermarks(self, _topic: Topic) -> Mapping[int, Watermarks]:
        """See :meth:`headrace.streams.admin.Admin.watermarks`."""
        return self.marks

    def offsets_at(self, _topic: Topic, _timestamp_ms: int) -> Mapping[int, int]:
        """See :meth:`headrace.streams.admin.Admin.offsets_at`."""
        return self.times
