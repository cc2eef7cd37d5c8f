"""Compaction while others work on the table, and while requests fail: rows are as they were, whatever lands when."""

from __future__ import annotations

import datetime as dt
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.types import StringType
from structlog.testing import capture_logs

from headrace.schemas.errors import Held, ProductStopped, Unavailable
from headrace.schemas.upkeep import Compaction
from headrace.sinks.hold import hold
from headrace.sinks.pipeline import Pipeline
from headrace.sinks.upkeep import compacting
from headrace.sinks.upkeep.compacting import TRIES, Compacting
from headrace.sinks.upkeep.compaction import Compactor, has_deletes
from headrace.streams.history import read_ledger
from headrace.streams.masked import MASK_PROPERTIES
from tests.support.compacting import compact_once
from tests.support.faulty import CommitFault, Crash, FaultyCatalog
from tests.support.faulty_storage import WRITTEN, Disk, DiskCatalog, Trouble
from tests.support.lake import TABLE, Lake
from tests.support.position_deletes import delete_positions
from tests.unit.test_commit import SCHEMA, events, ids

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pyiceberg.table import CommitTableResponse, Table

AIMS = Compaction(min_files=2)
COMMITS = 4


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path, SCHEMA)
    for number in range(COMMITS):
        lake.add(events(number))
    return lake


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compacting, "PAUSE_S", 0.0)


def another(lake: Lake, kind: type[SqlCatalog]) -> Any:
    """Return a client of its own of the same catalog."""
    return kind("shop", **{name: lake.catalog.properties[name] for name in ("uri", "warehouse")})


@dataclass
class Between:
    """Does what is handed in at once, after what happens meanwhile."""

    meanwhile: Callable[[], object] = lambda: None
    jobs: int = 0

    def __call__(self, job: Callable[[], Any], /) -> Future[Any]:
        self.jobs += 1
        self.meanwhile()
        future: Future[Any] = Future()
        try:
            future.set_result(job())
        except BaseException as error:  # noqa: BLE001 - as the pipeline does
            future.set_exception(error)
        return future


def task(lake: Lake, submit: Any = None, catalog: SqlCatalog | None = None) -> Compacting:
    return Compacting(Compactor(lake.product, AIMS), catalog or lake.catalog, submit or Between())


def paths(lake: Lake) -> set[str]:
    """Return the live data files."""
    return {each.file.file_path for each in lake.reload().scan().plan_files()}


def assert_whole(lake: Lake, rows: int = COMMITS) -> None:
    """Check that each row is there once, and that the ledger is the last landing's."""
    assert ids(lake) == list(range(rows))
    assert read_ledger(lake.table, lake.product) in (lake.ledger, lake.ledger.adding_nothing())


# --- requests that fail ---

CRASHING = {CommitFault.CRASH_UNSENT, CommitFault.CRASH_LANDED, CommitFault.CRASH_LATE}


@pytest.mark.parametrize("fault", CommitFault)
def test_a_commit_that_fails_in_any_way_changes_no_row(lake: Lake, tmp_path: Path, fault: CommitFault) -> None:
    catalog = another(lake, FaultyCatalog)
    kept: set[Path] = set()

    def files() -> set[Path]:
        return {path for path in (tmp_path / "warehouse").rglob("*") if path.is_file()}

    catalog.fault = fault
    catalog.on_fault = lambda: kept.update(files())
    try:
        task(lake, catalog=catalog).run(lake.table)
    except (Crash, Unavailable):
        assert_whole(lake)
    assert kept, "the fault was never met"
    # A successor, who talks to the same server; where the request arrives only now, there is nothing left to do.
    with suppress(Unavailable):
        compact_once(catalog, lake.product, AIMS)
    assert len(paths(lake)) == 1
    assert_whole(lake)
    assert kept - {path for path in kept if path.name.endswith("metadata.json")} <= files(), "a file was deleted"
    lake.add(events(COMMITS))
    assert_whole(lake, COMMITS + 1)


def test_a_lost_reply_is_looked_up(lake: Lake) -> None:
    catalog = another(lake, FaultyCatalog)
    catalog.fault = CommitFault.REPLY_LOST
    with capture_logs() as logs:
        task(lake, catalog=catalog).run(lake.table)
    assert [line["files"] for line in logs if line["event"] == "compacted"] == [COMMITS]
    assert len(lake.reload().snapshots()) == COMMITS + 1
    assert_whole(lake)


@pytest.mark.parametrize("trouble", [Trouble.FULL, Trouble.UNKNOWN])
@pytest.mark.parametrize("kind", sorted(WRITTEN))
def test_a_storage_that_fails_at_any_file_changes_no_row(lake: Lake, kind: str, trouble: Trouble) -> None:
    disk = Disk()
    catalog = DiskCatalog("shop", disk, **{name: lake.catalog.properties[name] for name in ("uri", "warehouse")})
    disk.trouble(trouble, 1, WRITTEN[kind])
    with pytest.raises(Unavailable):
        task(lake, catalog=catalog).run(catalog.load_table(TABLE))
    assert disk.met
    assert_whole(lake)
    assert compact_once(catalog, lake.product, AIMS) is not None
    assert len(paths(lake)) == 1
    assert_whole(lake)


# --- others meanwhile ---


def test_a_landing_meanwhile_and_both_land(lake: Lake) -> None:
    task(lake, Between(lambda: lake.add(events(COMMITS)))).run(lake.table)
    assert len(paths(lake)) == 2
    assert_whole(lake, COMMITS + 1)


class Rivals(SqlCatalog):
    """A catalog in which somebody is quicker, so many times."""

    def __init__(self, name: str, **properties: Any) -> None:
        super().__init__(name, **properties)
        self.rival: Callable[[], object] = lambda: None
        self.left = 0

    def commit_table(self, table: Table, *given: Any) -> CommitTableResponse:
        """Let the rival commit first."""
        if self.left:
            self.left -= 1
            self.rival()
        return super().commit_table(table, *given)


@pytest.mark.parametrize("times", [1, TRIES - 1])
def test_it_is_staged_again_where_landings_are_quicker(lake: Lake, times: int) -> None:
    catalog = another(lake, Rivals)
    landed = iter(range(COMMITS, 100))
    catalog.rival, catalog.left = lambda: lake.add(events(next(landed))), times
    submit = Between()
    task(lake, submit, catalog).run(lake.table)
    # Each try is a job of its own: a landing waits for one at most.
    assert submit.jobs == times + 1
    assert len(paths(lake)) == 1 + times
    assert_whole(lake, COMMITS + times)


def test_it_gives_up_where_landings_are_always_quicker(lake: Lake) -> None:
    catalog = another(lake, Rivals)
    landed = iter(range(COMMITS, 100))
    catalog.rival, catalog.left = lambda: lake.add(events(next(landed))), TRIES
    with pytest.raises(Unavailable, match="all the time"):
        task(lake, catalog=catalog).run(lake.table)
    assert_whole(lake, COMMITS + TRIES)
    assert len(paths(lake)) == COMMITS + TRIES


def rewritten_by_others(lake: Lake) -> None:
    compact_once(lake.catalog, lake.product, AIMS)


def deleted_by_others(lake: Lake) -> None:
    with lake.reload().transaction() as transaction:
        transaction.delete("id = 2")


def test_files_that_others_have_rewritten_meanwhile_are_left(lake: Lake) -> None:
    with pytest.raises(Unavailable, match="files that were to be replaced are not in the table any more"):
        task(lake, Between(lambda: rewritten_by_others(lake))).run(lake.table)
    assert len(paths(lake)) == 1
    assert_whole(lake)


def test_rows_that_others_have_deleted_meanwhile_do_not_come_back(lake: Lake) -> None:
    with pytest.raises(Unavailable):
        task(lake, Between(lambda: deleted_by_others(lake))).run(lake.table)
    assert ids(lake) == [0, 1, 3]
    task(lake).run(lake.table)
    assert len(paths(lake)) == 1
    assert ids(lake) == [0, 1, 3]


def test_a_table_rolled_back_behind_the_files_is_left(lake: Lake) -> None:
    first = lake.table.snapshots()[1].snapshot_id
    back = Between(lambda: lake.reload().manage_snapshots().rollback_to_snapshot(first).commit())
    with pytest.raises(Unavailable):
        task(lake, back).run(lake.table)
    assert ids(lake) == [0, 1]
    ledger = read_ledger(lake.table, lake.product)
    assert ledger is not None
    assert ledger.next(0) == 2


def test_a_table_rolled_back_to_a_snapshot_with_all_the_files_is_compacted_there(lake: Lake) -> None:
    table, head = lake.table, lake.table.metadata.current_snapshot_id
    assert head is not None

    def back() -> None:
        lake.add(events(COMMITS))
        lake.table.manage_snapshots().rollback_to_snapshot(head).commit()

    task(lake, Between(back)).run(table)
    assert ids(lake) == list(range(COMMITS))
    ledger = read_ledger(lake.table, lake.product)
    assert ledger is not None
    assert ledger.next(0) == COMMITS
    assert len(paths(lake)) == 1


def test_a_hold_meanwhile_is_obeyed(lake: Lake) -> None:
    def held() -> None:
        hold(lake.catalog, lake.product, "an audit", dt.datetime(2026, 1, 1, tzinfo=dt.UTC))

    with pytest.raises(Held):
        task(lake, Between(held)).run(lake.table)
    assert len(paths(lake)) == COMMITS
    assert_whole(lake)


def another_column(lake: Lake) -> None:
    with lake.reload().update_schema() as update:
        update.add_column("note", StringType())


def another_mask(lake: Lake) -> None:
    with lake.reload().transaction() as transaction:
        transaction.set_properties({f"{MASK_PROPERTIES}note": "replace-with-null"})


@pytest.mark.parametrize("change", [another_column, another_mask])
def test_a_table_that_is_another_meanwhile_is_looked_anew(lake: Lake, change: Callable[[Lake], None]) -> None:
    with pytest.raises(Unavailable, match="the table has changed"):
        task(lake, Between(lambda: change(lake))).run(lake.table)
    assert len(paths(lake)) == COMMITS
    task(lake).run(lake.table)
    assert len(paths(lake)) == 1
    assert_whole(lake)


def test_a_file_that_is_gone_from_storage_is_waited_for(lake: Lake, tmp_path: Path) -> None:
    lost = next((tmp_path / "warehouse").rglob("*.parquet"))
    lost.rename(lost.with_suffix(".away"))
    with pytest.raises(Unavailable):
        task(lake).run(lake.table)
    lost.with_suffix(".away").rename(lost)
    assert_whole(lake)


# --- deletes beside the files ---


def delete_a_row(lake: Lake) -> None:
    file = next(iter(lake.reload().scan("id = 2").plan_files())).file
    delete_positions(lake.table, file, [0])


def test_a_table_with_deletes_of_others_is_left_and_it_is_said_once(lake: Lake) -> None:
    assert not has_deletes(lake.table, lake.product)
    delete_a_row(lake)
    assert has_deletes(lake.reload(), lake.product)
    assert ids(lake) == [0, 1, 3]
    mine = task(lake)
    with capture_logs() as logs:
        for _ in range(3):
            mine.run(lake.table)
    assert [line["event"] for line in logs] == ["small files are left as they are"]
    with pytest.raises(ProductStopped, match="another engine keeps deletes"):
        compact_once(lake.catalog, lake.product, AIMS)
    assert ids(lake) == [0, 1, 3]


def test_rows_that_are_deleted_beside_the_files_meanwhile_do_not_come_back(lake: Lake) -> None:
    with pytest.raises(Unavailable, match="rows were deleted"):
        task(lake, Between(lambda: delete_a_row(lake))).run(lake.table)
    assert ids(lake) == [0, 1, 3]


# --- when ---


def test_it_rests_as_long_as_told_and_longer_than_it_worked(lake: Lake) -> None:
    seconds = iter([0.0, 0.0, 200.0, 200.0])
    mine = Compacting(Compactor(lake.product, AIMS), lake.catalog, Between(), 30.0, lambda: next(seconds))
    assert not mine.due(0.0)
    assert not mine.due(29.0)
    assert mine.due(30.0)
    mine.run(lake.table)
    assert not mine.due(799.0)
    assert mine.due(800.0)


def test_a_session_that_ends_ends_it_though_its_turn_never_comes(lake: Lake) -> None:
    pipeline = Pipeline("closed")
    pipeline.close(10.0)
    mine = task(lake, pipeline.submit)

    def end() -> Future[None]:
        mine.compactor.ended.set()
        return Future()

    submit = mine.submit
    mine.submit = lambda job: (end(), submit(job))[1]
    with pytest.raises(Unavailable, match="the session has ended"):
        mine.run(lake.table)
    assert len(paths(lake)) == COMMITS
