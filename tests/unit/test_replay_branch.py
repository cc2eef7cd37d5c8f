"""A replay's branch: which rows it leaves out, what its commits survive, and when it may take main's place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow as pa
import pytest
import time_machine
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan, _read_all_delete_files
from pyiceberg.types import StringType

from headrace.schemas.errors import ProductStopped, Unavailable, UserError
from headrace.schemas.upkeep import Tier, Upkeep
from headrace.sinks.attempts import land
from headrace.sinks.draft import Draft
from headrace.sinks.files import MAX_AGE_S
from headrace.sinks.landing import Step
from headrace.sinks.past_snapshots import ancestors_of, by_id, past_snapshots
from headrace.sinks.replay.boundary import BRANCH, Boundary, Extent, Fate, Note, changes_since, note_of
from headrace.sinks.replay.cut import Cutting, begin_branch, cut_branch, rows_that_stay
from headrace.sinks.replay.plan import abandon, plan_replay
from headrace.sinks.replay.swap import check_unchanged, swap
from headrace.sinks.rollback import Way, land_rollback, plan_rollback
from headrace.sinks.upkeep.expiry import Expiry
from headrace.streams.admin import Watermarks
from headrace.streams.ledger import Accepted, Ledger, Position
from tests.support.faulty import CommitFault
from tests.support.rewinding import Broker, Shop
from tests.support.workers import At, Log, rows_in

if TYPE_CHECKING:
    from pathlib import Path

    from pyiceberg.table import Table

    from headrace.sinks.replay.plan import Plan
    from headrace.streams.admin import Admin

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
LOST = [CommitFault.REPLY_LOST, CommitFault.TWICE, CommitFault.LOCKED_AFTER]
UNSURE = [CommitFault.REFUSED, CommitFault.LATE_BEFORE_REPEAT, CommitFault.LATE_AFTER_REPEAT]
FIRST = {0: 2, 1: 5}


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop.at(tmp_path)


def planned(shop: Shop, begin: int | datetime | None = None, broker: Broker | None = None) -> Plan:
    return plan_replay(shop.table(), shop.product, begin, cast("Admin", broker or Broker()))


def noted(shop: Shop, offsets: dict[int, int] | None = None) -> Note:
    return Note("here", Boundary(1, FIRST if offsets is None else offsets), shop.head())


def begun(shop: Shop, offsets: dict[int, int] | None = None) -> None:
    """Make the branch and cut it."""
    begin_branch(shop.catalog, shop.product, noted(shop, offsets))
    cut_branch(shop.catalog, shop.product, lambda _: None)


def rows_of(shop: Shop, branch: str) -> list[tuple[int, int, str]]:
    names = ("_kafka_partition", "_kafka_offset", "id")
    found = shop.table().scan(selected_fields=names, snapshot_id=shop.head(branch)).to_arrow()
    return sorted(zip(*(found.column(name).to_pylist() for name in names), strict=True))


def below(shop: Shop, offsets: dict[int, int], events: int) -> list[tuple[int, int, str]]:
    return [row for row in Log(shop.product, events).rows() if row[1] < offsets[row[0]]]


# --- which rows ---


@given(
    offsets=st.dictionaries(st.integers(0, 4), st.integers(0, 20)),
    rows=st.lists(st.tuples(st.integers(1, 3), st.integers(0, 4), st.integers(0, 20)), min_size=1),
    loose=st.integers(0, 2),
)
def test_a_files_fate_is_that_of_all_rows_that_it_may_hold(
    offsets: dict[int, int], rows: list[tuple[int, int, int]], loose: int
) -> None:
    boundary = Boundary(2, offsets)
    generations, partitions, places = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    goes = boundary.goes(generations, partitions, places)
    assert goes.tolist() == [g == 2 and o >= offsets.get(p, 1_000) for g, p, o in rows]
    # Bounds may be wider than what lies within them.
    extent = Extent(
        (int(generations.min()), int(generations.max())),
        (int(partitions.min()), int(partitions.max())),
        (int(places.min()) - loose, int(places.max()) + loose),
    )
    fate = boundary.fate(extent)
    assert fate is not Fate.STAYS or not goes.any()
    assert fate is not Fate.GOES or goes.all()
    assert boundary.fate(None) is Fate.SPLITS


def test_files_that_lie_wholly_on_one_side_are_not_read() -> None:
    boundary = Boundary(2, {0: 10, 1: 20})
    assert boundary.fate(Extent((2, 2), (0, 1), (0, 9))) is Fate.STAYS
    assert boundary.fate(Extent((1, 1), (0, 1), (0, 99))) is Fate.STAYS
    assert boundary.fate(Extent((2, 2), (0, 1), (20, 99))) is Fate.GOES
    assert boundary.fate(Extent((2, 2), (0, 0), (10, 99))) is Fate.GOES


def test_the_ledger_at_the_boundary_forgets_what_lies_behind_it() -> None:
    now = Ledger(
        "t", 1, {0: Position(50, 49), 1: Position(9, 8)}, {}, {1: 3}, {0: (Accepted(5, 8, 1), Accepted(9, 30, 2))}
    )
    then = Boundary(1, {0: 20, 1: 9}).ledger(now, {0: 18, 1: 8})
    assert then.positions == {0: Position(20, 18), 1: Position(9, 8)}
    assert then.accepted == {0: (Accepted(5, 8, 1), Accepted(9, 20, 2))}
    assert then.origin == {1: 3}
    assert Boundary(1, {0: 0, 1: 9}).ledger(now, {}).accepted == {}


def test_a_partition_that_came_after_the_plan_keeps_its_place() -> None:
    """Its rows are on the branch from the beginning: read again, they would be doubled."""
    now = Ledger("t", 1, {0: Position(9, 8), 1: Position(7, 6)}, {}, {}, {1: (Accepted(2, 4, 1),)})
    then = Boundary(1, {0: 3}).ledger(now, {0: 2})
    assert then.positions == {0: Position(3, 2), 1: Position(7, 6)}
    assert then.accepted == {1: (Accepted(2, 4, 1),)}


def test_a_note_comes_back_as_it_was() -> None:
    note = Note("earliest", Boundary(3, {0: 5, 11: 2**40}), 2**60, cut=True)
    assert Note.from_json(note.to_json()) == note
    assert Note.from_json("{}") is None
    assert Note.from_json("[") is None


# --- the branch ---


@pytest.mark.parametrize("offsets", [FIRST, {0: 0, 1: 0}, {0: 8, 1: 8}, {0: 4, 1: 4}, {0: 1, 1: 8}])
def test_the_branch_holds_what_lies_below_and_main_stays_as_it_is(shop: Shop, offsets: dict[int, int]) -> None:
    shop.land(8)
    begun(shop, offsets)
    assert rows_of(shop, BRANCH) == below(shop, offsets, 8)
    assert shop.holds(8)
    assert {p: at.next for p, at in shop.ledger(BRANCH).positions.items()} == offsets
    last = {p: max((row[1] for row in below(shop, offsets, 8) if row[0] == p), default=None) for p in offsets}
    assert {p: at.last_row for p, at in shop.ledger(BRANCH).positions.items()} == last
    note = note_of(shop.table().metadata)
    assert note is not None
    assert note.cut
    assert BRANCH not in [past.author for past in past_snapshots(shop.table().metadata)]
    with pytest.raises(UserError):
        by_id(shop.table().metadata, shop.head(BRANCH), shop.product)


def test_rows_of_earlier_generations_and_rows_that_others_deleted_stay_as_they_are(shop: Shop) -> None:
    shop.land(8)
    ledger = replace(shop.ledger(), generation=2, topic_id="next", added={})
    land(shop.catalog, shop.product, lambda _: Draft(ledger))
    begin_branch(shop.catalog, shop.product, Note("x", Boundary(2, {0: 0, 1: 0}), shop.head()))
    cut_branch(shop.catalog, shop.product, lambda _: None)
    assert rows_of(shop, BRANCH) == Log(shop.product, 8).rows()


def test_rows_that_others_deleted_below_the_boundary_do_not_come_back(shop: Shop) -> None:
    shop.land(8)
    shop.table().delete("_kafka_offset = 1")
    begun(shop)
    assert rows_of(shop, BRANCH) == [row for row in below(shop, FIRST, 8) if row[1] != 1]


def test_a_branch_that_was_begun_anew_is_not_cut_as_the_one_before(shop: Shop) -> None:
    shop.land(8)
    begin_branch(shop.catalog, shop.product, noted(shop, {0: 0, 1: 0}))
    cutting = Cutting(shop.product, lambda _: None)

    def late(table: Table) -> Draft | None:
        draft = cutting.draft(table)
        if BRANCH not in restarted:
            restarted.append(BRANCH)
            abandon(shop.catalog, shop.product)
            begin_branch(shop.catalog, shop.product, noted(shop, FIRST))
        return draft

    restarted: list[str] = []
    land(shop.catalog, shop.product, late)
    assert rows_of(shop, BRANCH) == below(shop, FIRST, 8)
    assert {p: at.next for p, at in shop.ledger(BRANCH).positions.items()} == FIRST


def test_a_replay_from_begin_to_end(shop: Shop) -> None:
    shop.land(8)
    begun(shop)
    shop.land(12)
    shop.land(12, BRANCH)
    check_unchanged(shop.table(), shop.product)
    made = swap(shop.catalog, shop.product, shop.head())
    assert shop.head() == made
    assert BRANCH not in shop.table().metadata.refs
    assert shop.holds(12)
    shop.land(16)
    assert shop.holds(16)
    newest = past_snapshots(shop.table().metadata)
    assert "headrace: replay from here" in [past.author for past in newest]
    assert all(past.rows is not None and past.rows >= 6 for past in newest), "none of the branch's is listed"


def test_main_and_branch_land_at_the_same_time(shop: Shop) -> None:
    """Both commits have the same sequence number; the second one is repeated with the next."""
    shop.land(4)
    begun(shop, {0: 2, 1: 3})
    rival = shop.worker(8, BRANCH)
    main = shop.worker(12)
    main.observe = At(Step.COMMIT, 1, rival.run)
    main.run()
    assert main.unknown == []
    assert shop.holds(12)
    shop.land(12, BRANCH)
    swap(shop.catalog, shop.product, shop.head())
    assert shop.holds(12)


def test_a_commit_of_a_sink_under_way_is_refused_after_the_swap(shop: Shop) -> None:
    shop.land(8)
    begun(shop)
    shop.land(8, BRANCH)
    late = shop.worker(12)

    def swapped() -> None:
        swap(shop.catalog, shop.product, shop.head())

    late.observe = At(Step.COMMIT, 1, swapped)
    late.run()
    assert shop.holds(12)


@pytest.mark.parametrize("fault", [*LOST, *UNSURE])
def test_requests_of_the_beginning_may_be_lost(shop: Shop, fault: CommitFault) -> None:
    shop.land(8)
    note = noted(shop)
    shop.catalog.fault = fault
    for _ in range(2):
        try:
            begin_branch(shop.catalog, shop.product, note)
        except Unavailable:
            continue
    assert note_of(shop.table().metadata) == note
    shop.catalog.fault = fault
    for _ in range(2):
        try:
            cut_branch(shop.catalog, shop.product, lambda _: None)
        except Unavailable:
            continue
    assert rows_of(shop, BRANCH) == below(shop, FIRST, 8)
    assert shop.holds(8)


@pytest.mark.parametrize("fault", [*LOST, *UNSURE])
def test_the_swap_may_be_lost_or_late(shop: Shop, fault: CommitFault) -> None:
    shop.land(8)
    begun(shop)
    shop.land(8, BRANCH)
    shop.catalog.fault = fault
    if fault in UNSURE:
        with pytest.raises(Unavailable):
            swap(shop.catalog, shop.product, shop.head())
    else:
        swap(shop.catalog, shop.product, shop.head())
    shop.land(12)
    assert shop.holds(12)


def test_a_late_swap_is_refused_once_a_sink_has_landed(shop: Shop) -> None:
    shop.land(8)
    begun(shop)
    shop.land(8, BRANCH)
    shop.catalog.fault = CommitFault.LATE_AFTER_REPEAT
    with pytest.raises(Unavailable):
        swap(shop.catalog, shop.product, shop.head())
    shop.land(12)
    assert shop.catalog.answers == ["late request refused"]
    assert shop.holds(12)


def test_a_version_that_comes_meanwhile_lets_the_files_be_written_again(shop: Shop) -> None:
    shop.land(8)
    begin_branch(shop.catalog, shop.product, noted(shop))
    grown: list[str] = []

    def grow(said: str) -> None:
        if not grown:
            with shop.table().update_schema() as update:
                update.add_column("note", StringType())
        grown.append(said)

    cut_branch(shop.catalog, shop.product, grow)
    assert len(grown) > 1
    assert rows_of(shop, BRANCH) == below(shop, FIRST, 8)


def test_files_are_as_old_as_the_first_of_them_was_begun(shop: Shop) -> None:
    """What is half as old as an orphan may be swept before it is committed: it is written again."""
    shop.land(8)
    begin_branch(shop.catalog, shop.product, noted(shop))
    told: list[str] = []
    with time_machine.travel(NOW, tick=False) as clock:

        def last(said: str) -> None:
            if not told:
                clock.shift(MAX_AGE_S)
            told.append(said)

        cutting = Cutting(shop.product, last)
        cutting.draft(shop.table())
        once = len(told)
        cutting.draft(shop.table())
        cutting.draft(shop.table())
    assert len(told) == 2 * once > 0


# --- what the swap would undo ---


def ready(shop: Shop) -> None:
    shop.land(8)
    begun(shop)
    shop.land(8, BRANCH)


def redriven(shop: Shop) -> None:
    """Append a row below the positions, as a redrive does."""
    worker = shop.worker(4)
    chunk = worker.log.chunk(worker._decoder, 0, 0, 1)
    from headrace.sinks.files import write_rows

    def decide(table: Table) -> Draft:
        rows = worker._shape.rows(table, [chunk], 1)
        return Draft(shop.ledger().adding_nothing(), write_rows(table, rows, shop.product).files)

    land(shop.catalog, shop.product, decide)


def deleted(shop: Shop) -> None:
    shop.table().delete("_kafka_offset = 1")


def overwritten(shop: Shop) -> None:
    table = shop.table()
    rows = table.scan("_kafka_offset = 1").to_arrow()
    table.overwrite(rows, "_kafka_offset = 1")


def rolled_back(shop: Shop) -> None:
    table = shop.table()
    oldest = past_snapshots(table.metadata)[-1]
    land_rollback(shop.catalog, shop.product, plan_rollback(table, shop.product, oldest, Way.SKIP, NOW))


@pytest.mark.parametrize("change", [redriven, deleted, rolled_back])
def test_what_others_did_meanwhile_is_not_undone(shop: Shop, change: object) -> None:
    ready(shop)
    check_unchanged(shop.table(), shop.product)
    assert callable(change)
    change(shop)
    with pytest.raises(ProductStopped) as refused:
        check_unchanged(shop.table(), shop.product)
    assert refused.value.hint is not None
    assert "--restart" in refused.value.hint


@pytest.mark.parametrize("change", [redriven, deleted])
def test_nor_where_the_history_since_was_expired(shop: Shop, change: object) -> None:
    ready(shop)
    for more in (False, True):
        if more:
            assert callable(change)
            change(shop)
        table = shop.table()
        table.append(table.schema().as_arrow().empty_table())
        expire_between(shop)
        if not more:
            check_unchanged(shop.table(), shop.product)
    with pytest.raises(ProductStopped, match="rows that the replay leaves alone"):
        check_unchanged(shop.table(), shop.product)


@pytest.mark.parametrize("change", [redriven, deleted, overwritten])
def test_its_own_expiry_leaves_what_tells_of_a_change(shop: Shop, change: object) -> None:
    """An update changes no number of rows: nothing else would tell of it."""
    ready(shop)
    assert callable(change)
    change(shop)
    worker = shop.worker(40)
    tiers = (Tier(0.0),)
    worker._desk = replace(worker._desk, expire=Expiry(Upkeep(tiers=tiers)))
    worker.run()
    metadata = shop.table().metadata
    note = note_of(metadata)
    assert note is not None
    assert note.base not in {each.snapshot_id for each in ancestors_of(metadata, shop.head())}, "it has expired"
    with pytest.raises(ProductStopped, match="by snapshot"):
        check_unchanged(shop.table(), shop.product)
    assert abandon(shop.catalog, shop.product)
    assert list(changes_since(shop.table().metadata)) == []


def test_what_others_do_on_their_own_branches_is_no_change(shop: Shop) -> None:
    ready(shop)
    table = shop.table()
    table.manage_snapshots().create_branch(shop.head(), "audit").commit()
    table = shop.table()
    table.append(table.scan().to_arrow(), branch="audit")
    assert list(changes_since(shop.table().metadata)) == []
    check_unchanged(shop.table(), shop.product)


def expire_between(shop: Shop) -> None:
    """Expire what lies between main's head and the branch's beginning, as an engine's own upkeep may."""
    table = shop.table()
    note = note_of(table.metadata)
    assert note is not None
    gone, at = [], table.metadata.snapshot_by_id(shop.head())
    while at is not None and at.parent_snapshot_id is not None and at.parent_snapshot_id != note.base:
        gone.append(at.parent_snapshot_id)
        at = table.metadata.snapshot_by_id(at.parent_snapshot_id)
    if gone:
        table.maintenance.expire_snapshots().by_ids(gone).commit()


def test_files_that_were_put_together_are_no_change(shop: Shop) -> None:
    ready(shop)
    table = shop.table()
    files = tuple(task.file for task in table.scan().plan_files())
    rows = table.scan().to_arrow()
    from headrace.sinks.files import columns_of, write_rows

    written = write_rows(table, rows.cast(columns_of(table)), shop.product)
    land(shop.catalog, shop.product, lambda _: Draft(shop.ledger().adding_nothing(), written.files, replaced=files))
    check_unchanged(shop.table(), shop.product)
    swap(shop.catalog, shop.product, shop.head())
    assert shop.holds(8)


def test_a_branch_behind_main_or_one_that_somebody_made_does_not_take_its_place(shop: Shop) -> None:
    shop.land(8)
    begun(shop)
    with pytest.raises(Unavailable, match="main has moved"):
        swap(shop.catalog, shop.product, shop.head())
    assert abandon(shop.catalog, shop.product)
    assert not abandon(shop.catalog, shop.product)
    with pytest.raises(Unavailable, match="somebody has removed"):
        swap(shop.catalog, shop.product, shop.head())
    shop.table().manage_snapshots().create_branch(shop.head(), BRANCH).commit()
    for call in (swap, cut_branch_of):
        with pytest.raises(Unavailable, match="somebody has removed"):
            call(shop.catalog, shop.product, shop.head())
    assert shop.holds(8)


def cut_branch_of(catalog: object, product: object, _head: object) -> None:
    cut_branch(catalog, product, lambda _: None)  # type: ignore[arg-type]  # a stand-in for `swap`


def test_a_branch_that_is_gone_never_reads_mains_ledger(shop: Shop) -> None:
    shop.land(8)
    with pytest.raises(ProductStopped, match="its branch headrace-replay is gone"):
        shop.ledger(BRANCH)


def test_rows_that_stay_are_counted(shop: Shop) -> None:
    shop.land(8)
    assert rows_that_stay(shop.table(), shop.head(), Boundary(1, FIRST)) == len(below(shop, FIRST, 8))
    assert rows_that_stay(shop.table(), shop.head(), Boundary(2, FIRST)) == len(rows_in(shop.catalog, shop.product))


def test_pyiceberg_reads_files_as_is_relied_on(shop: Shop) -> None:
    """Private parts: a version that changes them must not leave deleted rows in, or hold a whole file."""
    shop.land(8)
    table = shop.table()
    (task, *_) = table.scan().plan_files()
    assert _read_all_delete_files(table.io, [task]) == {}
    scan = ArrowScan(table.metadata, table.io, table.schema(), AlwaysTrue())
    batches = scan._record_batches_from_scan_tasks_and_deletes([task], {})
    assert isinstance(batches, Iterator)
    assert sum(batch.num_rows for batch in batches) == task.file.record_count
    some = {task.file.file_path: [pa.chunked_array([pa.array([0], pa.int64())])]}
    left = scan._record_batches_from_scan_tasks_and_deletes([task], some)
    assert sum(batch.num_rows for batch in left) == task.file.record_count - 1


# --- where it begins ---


def test_the_earliest_event_is_the_first_that_kafka_has_and_the_table_begins_with(shop: Shop) -> None:
    shop.land(8)
    plan = planned(shop, broker=Broker(marks={0: Watermarks(3, 20), 1: Watermarks(0, 20)}))
    assert plan.note == Note("earliest", Boundary(1, {0: 3, 1: 0}), shop.head())
    assert plan.resumed is None
    assert plan.offsets == 5 + 8


def test_a_moment_behind_all_events_reads_nothing_again(shop: Shop) -> None:
    shop.land(8)
    plan = planned(shop, NOW, Broker(times={0: 6}))
    assert plan.note.boundary.offsets == {0: 6, 1: 8}
    assert plan.note.begin == "2026-11-23T12:00:00+00:00"


def test_a_snapshots_positions(shop: Shop) -> None:
    first = shop.land(4)
    shop.land(8)
    assert planned(shop, first).note.boundary.offsets == {0: 4, 1: 4}
    with pytest.raises(UserError, match=r"offsets 4 to 5 of partition 0, which"):
        planned(shop, first, Broker(marks={0: Watermarks(6, 20), 1: Watermarks(0, 20)}))
    with pytest.raises(UserError):
        planned(shop, 7)


def test_what_was_begun_goes_on_and_nothing_else_begins_beside_it(shop: Shop) -> None:
    first = shop.land(4)
    shop.land(8)
    plan = planned(shop, first)
    begin_branch(shop.catalog, shop.product, plan.note)
    assert planned(shop, first).resumed == {0: 4, 1: 4}
    cut_branch(shop.catalog, shop.product, lambda _: None)
    shop.land(8, BRANCH)
    again = planned(shop, first)
    assert (again.note.begin, again.resumed, again.offsets) == (str(first), {0: 8, 1: 8}, 0)
    with pytest.raises(UserError, match="was begun and not ended") as refused:
        planned(shop)
    assert refused.value.hint is not None
    assert "--restart" in refused.value.hint
    begin_branch(shop.catalog, shop.product, again.note)


def test_a_table_that_moves_all_the_time_is_no_obstacle_and_one_that_was_rolled_back_is(shop: Shop) -> None:
    shop.land(4)
    plan = planned(shop, NOW)
    assert plan.note.boundary.offsets == {0: 4, 1: 4}
    shop.land(8)
    begin_branch(shop.catalog, shop.product, plan.note)
    note = note_of(shop.table().metadata)
    assert note == replace(plan.note, base=shop.head())
    abandon(shop.catalog, shop.product)
    behind = planned(shop, NOW)
    rolled_back_to_reread(shop)
    with pytest.raises(Unavailable, match="was rolled back"):
        begin_branch(shop.catalog, shop.product, behind.note)
    begin_branch(shop.catalog, shop.product, plan.note)
    with pytest.raises(Unavailable, match="another replay"):
        begin_branch(shop.catalog, shop.product, behind.note)


def rolled_back_to_reread(shop: Shop) -> None:
    table = shop.table()
    oldest = past_snapshots(table.metadata)[-1]
    land_rollback(shop.catalog, shop.product, plan_rollback(table, shop.product, oldest, Way.REREAD, NOW))


def test_there_must_be_something_to_replay(shop: Shop) -> None:
    with pytest.raises(UserError, match="no sink has committed"):
        planned(shop)
    shop.land(4)
    with pytest.raises(ProductStopped, match="made anew"):
        planned(shop, broker=Broker("another"))
    with pytest.raises(ProductStopped, match="Kafka has deleted offsets 4 to 8"):
        planned(shop, broker=Broker(marks={0: Watermarks(9, 20), 1: Watermarks(0, 20)}))
