"""Holding a product: what lands under a hold (nothing), what a hold says, and what happens to its own commits."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table.update import RemoveSnapshotRefUpdate, SetPropertiesUpdate

from headrace.schemas.avro import AvroSchema
from headrace.schemas.catalog import load_table
from headrace.schemas.errors import Held, NotApplied, Unavailable
from headrace.schemas.mesh import load_mesh
from headrace.selfserve.stack import Endpoints
from headrace.sinks.hold import HOLD_PROPERTY, MAX_REASON_CHARACTERS, NO_REASON, Hold, hold, hold_of, release
from headrace.sinks.landing import Landing, Step
from headrace.sinks.patience import Patience
from headrace.sinks.tables import ensure_table
from headrace.streams.history import read_ledger
from headrace.streams.ledger import SUMMARY_KEY
from tests.support.faulty import CommitFault, FaultyCatalog
from tests.support.lake import TABLE, Lake
from tests.support.meshes import ORDER, ORDERS, write_mesh
from tests.support.workers import Log, Mailbox, Worker, rows_in

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.schemas.errors import HeadraceError

SCHEMA = AvroSchema.parse('{"type": "record", "name": "Event", "fields": [{"name": "id", "type": "long"}]}')
WIDER = AvroSchema.parse(
    '{"type": "record", "name": "Event", "fields": [{"name": "id", "type": "long"}, '
    '{"name": "note", "type": ["null", "string"], "default": null}]}'
)
NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
LATER = datetime(2026, 11, 23, 13, 0, tzinfo=UTC)


def events(*ids: int) -> pa.StructArray:
    return pa.array([{"id": i} for i in ids], pa.struct({"id": pa.int64()}))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path, SCHEMA)


def set_by_hand(lake: Lake, text: str) -> None:
    lake.catalog.commit_table(lake.reload(), (), (SetPropertiesUpdate(updates={HOLD_PROPERTY: text}),))


def ids(lake: Lake) -> list[int]:
    return [row["id"] for row in lake.rows("id")]


def test_a_hold_says_why_and_since_when(lake: Lake) -> None:
    assert hold_of(lake.reload()) is None
    assert hold(lake.catalog, lake.product, "  its table is compacted ", NOON) is None
    assert hold_of(lake.reload()) == Hold("its table is compacted", NOON)
    assert str(hold_of(lake.table)) == "held since 2026-11-23 12:00:00 UTC: its table is compacted"
    assert json.loads(lake.table.properties[HOLD_PROPERTY])["since"] == "2026-11-23T12:00:00+00:00"


def test_whoever_comes_second_is_told_and_changes_nothing(lake: Lake) -> None:
    hold(lake.catalog, lake.product, "first", NOON)
    before = lake.reload().metadata_location
    assert hold(lake.catalog, lake.product, "second", LATER) == Hold("first", NOON)
    assert lake.reload().metadata_location == before
    assert release(lake.catalog, lake.product) == Hold("first", NOON)
    assert hold_of(lake.reload()) is None
    before = lake.table.metadata_location
    assert release(lake.catalog, lake.product) is None
    assert lake.reload().metadata_location == before


def test_a_reason_may_be_missing_and_is_bounded(lake: Lake) -> None:
    hold(lake.catalog, lake.product, "", NOON)
    assert hold_of(lake.reload()) == Hold(NO_REASON, NOON)
    release(lake.catalog, lake.product)
    hold(lake.catalog, lake.product, "x" * 10_000, NOON)
    found = hold_of(lake.reload())
    assert found is not None
    assert len(found.reason) == MAX_REASON_CHARACTERS


def test_a_reason_may_hold_bytes_that_are_no_text(lake: Lake) -> None:
    assert hold(lake.catalog, lake.product, "disk \udcff full", NOON) is None
    assert hold_of(lake.reload()) == Hold("disk ? full", NOON)
    release(lake.catalog, lake.product)
    set_by_hand(lake, '{"reason": "\\ud800", "since": null}')
    assert hold_of(lake.reload()) == Hold("?", None)


@pytest.mark.parametrize(
    "text",
    [
        *("", "yes", "{", "{}", "[]", "null", '{"reason": "r", "since": 5}', '{"reason": "r", "since": "soon"}'),
        # Times that no year of Python's holds once they are in UTC, and a document that no parser follows to its end.
        *(
            '{"reason": "r", "since": "0001-01-01T00:00:00+14:00"}',
            '{"reason": "r", "since": "9999-12-31T23:59:59-14:00"}',
        ),
        "[" * 100_000,
    ],
)
def test_a_property_that_makes_no_sense_is_a_hold_all_the_same(lake: Lake, text: str) -> None:
    set_by_hand(lake, text)
    found = hold_of(lake.reload())
    assert found is not None
    assert found.since is None
    assert str(found).startswith("held: ")
    assert release(lake.catalog, lake.product) == found
    assert hold_of(lake.reload()) is None


def test_a_table_that_is_not_there_cannot_be_held(lake: Lake) -> None:
    lake.catalog.drop_table(TABLE)
    with pytest.raises(NotApplied):
        hold(lake.catalog, lake.product, "", NOON)
    with pytest.raises(NotApplied):
        release(lake.catalog, lake.product)


# --- the table under a hold ---


def test_a_hold_adds_nothing_and_carries_the_ledger(lake: Lake) -> None:
    lake.add(events(1, 2))
    hold(lake.catalog, lake.product, "", NOON)
    assert ids(lake) == [1, 2]
    assert read_ledger(lake.reload(), lake.product) == lake.ledger.adding_nothing()


def test_a_table_to_which_nothing_was_committed_stays_one(lake: Lake) -> None:
    hold(lake.catalog, lake.product, "", NOON)
    assert read_ledger(lake.reload(), lake.product) is None
    release(lake.catalog, lake.product)
    assert read_ledger(lake.reload(), lake.product) is None
    lake.add(events(1))
    assert ids(lake) == [1]


def test_nothing_was_committed_still_once_others_have_expired_an_earlier_hold(lake: Lake) -> None:
    for _ in range(2):
        hold(lake.catalog, lake.product, "", NOON)
        release(lake.catalog, lake.product)
    first, second = lake.reload().snapshots()
    lake.table.maintenance.expire_snapshots().by_id(first.snapshot_id).commit()
    assert [each.snapshot_id for each in lake.reload().snapshots()] == [second.snapshot_id]
    assert read_ledger(lake.table, lake.product) is None
    lake.add(events(1))
    assert ids(lake) == [1]


def test_a_ledger_that_cannot_be_read_is_no_reason_not_to_hold(lake: Lake) -> None:
    lake.add(events(1))
    lake.table.append(lake.table.schema().as_arrow().empty_table(), snapshot_properties={SUMMARY_KEY: "{"})
    assert hold(lake.catalog, lake.product, "", NOON) is None
    assert hold_of(lake.reload()) is not None
    head = lake.table.current_snapshot()
    assert head is not None
    assert head.summary is not None
    assert SUMMARY_KEY not in head.summary.additional_properties


def test_holding_a_table_whose_branch_was_removed_makes_no_new_one(lake: Lake) -> None:
    lake.add(events(1))
    removal = RemoveSnapshotRefUpdate.model_validate({"ref-name": "main"})
    lake.catalog.commit_table(lake.reload(), (), (removal,))
    assert hold(lake.catalog, lake.product, "", NOON) is None
    assert hold(lake.catalog, lake.product, "", LATER) == Hold(NO_REASON, NOON)
    assert lake.reload().current_snapshot() is None
    assert release(lake.catalog, lake.product) == Hold(NO_REASON, NOON)


def test_a_batch_that_was_staged_before_a_hold_is_refused_after_it(lake: Lake) -> None:
    """A property alone would not do that: a commit's requirements cannot name properties."""
    first = lake.add(events(1))
    staged, _ = lake.staged(lake.write(events(2)), 1)
    hold(lake.catalog, lake.product, "", NOON)
    with pytest.raises(CommitFailedException):
        lake.send(staged)
    release(lake.catalog, lake.product)
    with pytest.raises(CommitFailedException):
        lake.send(staged)
    # Not even once somebody has rolled the table back to where it was staged: its sequence number has passed.
    lake.reload().manage_snapshots().rollback_to_snapshot(first).commit()
    with pytest.raises(ValueError, match="sequence number"):
        lake.send(staged)
    assert ids(lake) == [1]


def test_the_table_follows_no_version_while_it_is_held(lake: Lake) -> None:
    hold(lake.catalog, lake.product, "not now", NOON)
    with pytest.raises(Held, match="not now"):
        lake.follow(SCHEMA, WIDER)
    assert "note" not in lake.reload().schema().column_names
    release(lake.catalog, lake.product)
    lake.follow(SCHEMA, WIDER)
    assert "note" in lake.reload().schema().column_names
    # What it has followed already is no change.
    hold(lake.catalog, lake.product, "not now", NOON)
    lake.follow(SCHEMA, WIDER)


# --- landings ---


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    write_mesh(tmp_path, Endpoints("127.0.0.1:9", "http://127.0.0.1:9"), "t.", {ORDERS: ORDER})
    product = load_mesh(tmp_path, environment="cluster").product(ORDERS)
    catalog = FaultyCatalog("shop", uri=f"sqlite:///{tmp_path}/catalog.db", warehouse=f"file://{tmp_path}/warehouse")
    ensure_table(catalog, product)
    return Worker(catalog, Log(product), Mailbox())


def first_landing(worker: Worker) -> Landing:
    return next(worker._landings())


@pytest.mark.parametrize("step", [Step.LETTERS, Step.RELOAD, Step.FILES, Step.STAGE, Step.COMMIT])
def test_a_hold_that_comes_at_any_step_before_the_commit_keeps_the_batch_out(worker: Worker, step: Step) -> None:
    catalog, product = worker.catalog, worker.log.product
    landing = first_landing(worker)

    def drive() -> None:
        held = False
        for at in landing:
            if at is step and not held:
                held = True
                hold(catalog, product, "at a step", NOON)

    with pytest.raises(Held, match="held since 2026-11-23 12:00:00 UTC: at a step") as caught:
        drive()
    assert caught.value.hint == f"it goes on by itself after `headrace release {ORDERS}`"
    for _ in range(3):
        with pytest.raises(Held):
            list(landing)
    assert rows_in(catalog, product) == []
    release(catalog, product)
    list(landing)
    assert landing.landed is not None
    assert len(rows_in(catalog, product)) == landing.landed.rows > 0
    worker.run()
    assert rows_in(catalog, product) == worker.log.rows()


@pytest.mark.parametrize("step", [Step.OUTCOME, Step.LANDED])
def test_a_batch_that_was_in_before_the_hold_is_told_as_landed(worker: Worker, step: Step) -> None:
    landing = first_landing(worker)
    for at in landing:
        if at is step:
            hold(worker.catalog, worker.log.product, "", NOON)
    assert landing.landed is not None
    assert len(rows_in(worker.catalog, worker.log.product)) == landing.landed.rows


def test_a_held_product_is_not_judged(worker: Worker) -> None:
    """Whatever an operator does to the table meanwhile, the worker waits; the fence is asked after the release."""
    catalog, product = worker.catalog, worker.log.product
    list(first_landing(worker))
    landing = first_landing(worker)
    rolled_back_to = load_table(catalog, product).snapshots()[0].snapshot_id
    worker.run()
    hold(catalog, product, "", NOON)
    load_table(catalog, product).manage_snapshots().rollback_to_snapshot(rolled_back_to).commit()
    with pytest.raises(Held):
        list(landing)
    release(catalog, product)
    worker.run()
    assert rows_in(catalog, product) == worker.log.rows()


# --- the hold's own commits ---

ANSWERED = [CommitFault.REPLY_LOST, CommitFault.LATE_BEFORE_LOOK, CommitFault.TWICE, CommitFault.LOCKED_AFTER]
UNSURE = [CommitFault.REFUSED, CommitFault.LOCKED, CommitFault.LATE_BEFORE_REPEAT, CommitFault.LATE_AFTER_REPEAT]


@pytest.mark.parametrize("fault", ANSWERED)
def test_a_hold_whose_reply_is_lost_is_found_in_the_table(worker: Worker, fault: CommitFault) -> None:
    catalog, product = worker.catalog, worker.log.product
    assert isinstance(catalog, FaultyCatalog)
    catalog.fault = fault
    assert hold(catalog, product, "", NOON) is None
    assert hold_of(load_table(catalog, product)) == Hold(NO_REASON, NOON)
    assert len(load_table(catalog, product).snapshots()) == 1
    catalog.fault = fault
    assert release(catalog, product) == Hold(NO_REASON, NOON)
    assert hold_of(load_table(catalog, product)) is None


@pytest.mark.parametrize("fault", UNSURE)
def test_a_hold_that_may_not_have_landed_is_asked_for_again(worker: Worker, fault: CommitFault) -> None:
    catalog, product = worker.catalog, worker.log.product
    assert isinstance(catalog, FaultyCatalog)
    catalog.fault = fault
    with pytest.raises(Unavailable):
        hold(catalog, product, "once", NOON)
    hold(catalog, product, "twice", LATER)
    assert hold_of(load_table(catalog, product)) is not None
    assert len(load_table(catalog, product).snapshots()) == 1
    catalog.fault = fault
    with pytest.raises(Unavailable):
        release(catalog, product)
    release(catalog, product)
    assert hold_of(load_table(catalog, product)) is None


def test_a_hold_gets_through_beside_a_worker_that_commits_all_the_time(worker: Worker) -> None:
    catalog: Any = worker.catalog
    product, rivals = worker.log.product, 5
    real = catalog.commit_table

    def contended(table: Any, requirements: Any, updates: Any) -> Any:
        nonlocal rivals
        if rivals:
            rivals -= 1
            other = FaultyCatalog("shop", **catalog.properties)
            load_table(other, product).append(table.schema().as_arrow().empty_table())
        return real(table, requirements, updates)

    catalog.commit_table = contended
    assert hold(catalog, product, "", NOON) is None
    assert hold_of(load_table(catalog, product)) is not None
    assert rivals == 0


# --- waiting ---


def test_a_hold_is_looked_at_every_second_and_told_once_a_minute() -> None:
    told: list[HeadraceError] = []
    waits: list[float] = []
    looks = 0

    class Clockless(Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0.0)
            return False

    def action() -> str:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise Unavailable("not yet")
        if looks <= 150:
            raise Held("held")
        return "done"

    assert Patience(told.append).with_(action, Clockless()) == "done"
    assert set(waits[1:]) == {1.0}
    # Looks 2, 62 and 122, behind one wait of another kind.
    assert [str(error) for error in told] == ["not yet", "held", "held", "held"]


def test_waiting_for_a_release_ends_with_a_stop() -> None:
    stop, waiting = Event(), Event()

    def action() -> None:
        raise Held("held")

    def wait() -> None:
        with pytest.raises(Held):
            Patience(lambda _: waiting.set()).with_(action, stop)

    thread = Thread(target=wait, daemon=True)
    thread.start()
    assert waiting.wait(60)
    stop.set()
    thread.join(60)
    assert not thread.is_alive()
