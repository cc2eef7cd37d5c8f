"""Commits that remove snapshots meet every fault of a request: each batch lands once, and no file is missed after."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from headrace.schemas.catalog import load_table
from headrace.schemas.mesh import load_mesh
from headrace.schemas.upkeep import Tier, Upkeep
from headrace.selfserve.stack import Endpoints
from headrace.sinks.landing import Step
from headrace.sinks.tables import ensure_table
from headrace.sinks.upkeep.condemned import GRACE_S
from headrace.sinks.upkeep.deletion import Deletion
from headrace.sinks.upkeep.expiry import Expiry
from headrace.sinks.upkeep.storage import name_of
from headrace.sinks.upkeep.tiers import LEAST_KEPT
from tests.support.faulty import CommitFault, Crash, FaultyCatalog
from tests.support.meshes import ORDER, ORDERS, write_mesh
from tests.support.workers import At, Log, Mailbox, Worker, rows_in

if TYPE_CHECKING:
    from headrace.schemas.product import Product

# An hour's older than any snapshot here: all but the newest expire.
UPKEEP = Upkeep(tiers=(Tier(60.0),))
EVENTS = 36


class Scene:
    """A table that several workers may land into, each with an expiry of its own."""

    def __init__(self, root: Path) -> None:
        write_mesh(root, Endpoints("127.0.0.1:9", "http://127.0.0.1:9"), "t.", {ORDERS: ORDER})
        self.product: Product = load_mesh(root, environment="cluster").product(ORDERS)
        self.catalog = FaultyCatalog("shop", uri=f"sqlite:///{root}/catalog.db", warehouse=f"file://{root}/warehouse")
        table = ensure_table(self.catalog, self.product)
        self.folder = Path(table.location().removeprefix("file://"))
        self.now_s = table.metadata.last_updated_ms / 1_000 + 3_600
        self.mailbox, self.log = Mailbox(), Log(self.product, EVENTS)

    def worker(self) -> tuple[Worker, Deletion]:
        expiry = Expiry(UPKEEP, lambda: self.now_s)
        worker = Worker(self.catalog, self.log, self.mailbox)
        worker._desk = replace(worker._desk, expire=expiry)
        return worker, Deletion(self.product, expiry.seen, now_s=lambda: self.now_s)

    def files(self, ending: str) -> set[str]:
        return {file.name for file in self.folder.rglob(f"*{ending}") if "condemned" not in str(file)}


@pytest.mark.parametrize("fault", list(CommitFault))
def test_each_batch_lands_once_and_every_file_is_accounted_for(tmp_path: Path, fault: CommitFault) -> None:
    scene = Scene(tmp_path)
    worker, deletion = scene.worker()

    def fail() -> None:
        scene.catalog.fault = fault

    # By then each commit removes a snapshot.
    worker.observe = At(Step.COMMIT, LEAST_KEPT + 2, fail)
    try:
        worker.run()
    except Crash:
        worker, deletion = scene.worker()
        worker.run()
    assert rows_in(scene.catalog, scene.product) == scene.log.rows()
    table = load_table(scene.catalog, scene.product)
    assert len(table.metadata.snapshots) == LEAST_KEPT + 1

    gone = deletion.look(table)
    scene.now_s += GRACE_S
    done = deletion.look(table)
    assert (done.deleted, done.failed, done.spared) == (gone.condemned, 0, 0)
    assert gone.condemned > 0
    assert rows_in(scene.catalog, scene.product) == scene.log.rows()
    needed = {name_of(path) for path in table.inspect.all_files()["file_path"].to_pylist()}
    assert scene.files(".parquet") >= needed


def test_two_workers_expire_in_turns(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    one, of_one = scene.worker()
    other, of_other = scene.worker()

    def overtake() -> None:
        other.run()

    one.observe = At(Step.COMMIT, LEAST_KEPT + 2, overtake)
    one.run()
    assert one.stale
    assert rows_in(scene.catalog, scene.product) == scene.log.rows()
    table = load_table(scene.catalog, scene.product)
    for deletion in (of_one, of_other):
        deletion.look(table)
    scene.now_s += GRACE_S
    for deletion in (of_one, of_other):
        assert deletion.look(table).failed == 0
    assert rows_in(scene.catalog, scene.product) == scene.log.rows()
    lists = {name_of(snapshot.manifest_list) for snapshot in table.metadata.snapshots}
    # The one that was refused left its manifest list behind; the sweep finds it.
    assert scene.files(".avro") > lists
