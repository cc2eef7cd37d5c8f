"""A stage for landings without a broker: a product, its log in memory, real tables, and workers that may fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.schemas.mesh import load_mesh
from headrace.selfserve.stack import Endpoints
from headrace.sinks.landing import Step
from headrace.sinks.tables import ensure_table
from tests.support.faulty import Crash, FaultyCatalog, RefusingCatalog
from tests.support.faulty_storage import Disk, DiskCatalog
from tests.support.meshes import ORDER, ORDERS, write_mesh
from tests.support.workers import Log, Mailbox, Worker, rows_in

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pyiceberg.catalog import Catalog

    from headrace.schemas.product import Product


class Stage:
    """A product, its log, and catalogs of its tables: each worker has its own."""

    def __init__(self, folder: Path) -> None:
        write_mesh(folder, Endpoints("127.0.0.1:9", "http://127.0.0.1:9"), "t.", {ORDERS: ORDER})
        self.product: Product = load_mesh(folder, environment="cluster").product(ORDERS)
        self.log = Log(self.product)
        self.mailbox = Mailbox()
        self.warehouse = folder / "warehouse"
        self._properties = {"uri": f"sqlite:///{folder}/catalog.db", "warehouse": f"file://{self.warehouse}"}
        ensure_table(self.catalog(), self.product)

    def catalog(self) -> FaultyCatalog:
        """Return a catalog of its own for a worker."""
        return FaultyCatalog("shop", **self._properties)

    def refusing(self) -> RefusingCatalog:
        """Return a catalog of its own that answers with errors."""
        return RefusingCatalog("shop", **self._properties)

    def on(self, disk: Disk) -> DiskCatalog:
        """Return a catalog of its own whose tables lie on this disk."""
        return DiskCatalog("shop", disk, **self._properties)

    def worker(self, observe: Callable[[Step], None] | None = None, catalog: Catalog | None = None) -> Worker:
        """Return a worker that has done nothing yet."""
        worker = Worker(catalog or self.catalog(), self.log, self.mailbox)
        worker.observe = observe or worker.observe
        return worker

    def files(self) -> set[Path]:
        """Return all files of the tables."""
        return {path for path in self.warehouse.rglob("*") if path.is_file()}

    def assert_exactly_once(self) -> None:
        """Let a last worker look for what is left, and check table and dead letters."""
        last = self.worker()
        last.run()
        assert last.begun == 0, "a worker ended before everything had landed"
        assert rows_in(self.catalog(), self.product) == self.log.rows()
        assert set(self.mailbox.letters) == self.log.letters()


def crash() -> None:
    """Die at once."""
    raise Crash


def occurrence_of(step: Step, batch: int) -> int:
    """Return at the how-manieth time a step belongs to a batch, where nothing goes wrong before."""
    # RELOAD comes before FILES and before STAGE.
    return 2 * (batch - 1) + 1 if step is Step.RELOAD else batch
