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


@pytest.mark.parametrize("fault", [CommitFault.REPLY_LOST, CommitFault.TWICE])
def test_a_landed_snapshot_that_expired_before_anybody_asked_is_not_landed_again(
    tmp_path: Path, fault: CommitFault
) -> None:
    """The history does not name it any more, but the ledger has moved: the batch is given up."""
    scene = Scene(tmp_path)
    one, _ = scene.worker()
    other, _ = scene.worker()

    def fail() -> None:
        scene.catalog.fault = fault

    def overtake(step: Step) -> None:
        at_commit(step)
        if step is Step.OUTCOME and scene.catalog.fault is None and not overtaken:
            overtaken.append(load_table(scene.catalog, scene.product).metadata.current_snapshot_id)
            other.run()

    overtaken: list[int | None] = []
    at_commit = At(Step.COMMIT, 1, fail)
    one.observe = overtake
    one.run()
    assert one.stale
    table = load_table(scene.catalog, scene.product)
    assert table.metadata.snapshot_by_id(overtaken[0] or 0) is None
    assert rows_in(scene.catalog, scene.product) == scene.log.rows()


def test_a_landing_that_waited_for_a_day_writes_its_files_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Meanwhile a sweep has deleted what it had written."""
    scene = Scene(tmp_path)
    worker, deletion = scene.worker()

    def fail() -> None:
        scene.catalog.fault = CommitFault.LOCKED

    def wait(step: Step) -> None:
        at_commit(step)
        if step is Step.OUTCOME and at_commit.done and not waited:
            waited.append(True)
            scene.now_s += 4 * 86_400
            deletion.look(load_table(scene.catalog, scene.product), sweep=True)
            scene.now_s += GRACE_S
            assert deletion.look(load_table(scene.catalog, scene.product)).deleted > 0
            monkeypatch.setattr("headrace.sinks.files.time.time", lambda: scene.now_s)

    waited: list[bool] = []
    at_commit = At(Step.COMMIT, LEAST_KEPT + 2, fail)
    worker.observe = wait
    worker.run()
    assert waited
    assert rows_in(scene.catalog, scene.product) == scene.log.rows()
