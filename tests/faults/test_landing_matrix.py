"""Every step of a landing by every way to fail there: each event ends in the table exactly once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pyiceberg.types import StringType

from headrace.schemas.catalog import load_table
from headrace.sinks.evolution import VERSION_PROPERTY
from headrace.sinks.landing import Step
from headrace.sinks.tables import ensure_table
from tests.support.faulty import CommitFault, Crash
from tests.support.stages import Stage, crash, occurrence_of
from tests.support.workers import At

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pyiceberg.table import Table

FIRST, LATER = 1, 2
CRASHING = {CommitFault.CRASH_UNSENT, CommitFault.CRASH_LANDED, CommitFault.CRASH_LATE}


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


@pytest.mark.parametrize("batch", [FIRST, LATER])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", Step)
def test_a_worker_that_dies_at_a_step_is_followed_by_one_that_completes(
    stage: Stage, step: Step, after: bool, batch: int
) -> None:
    at = At(step, occurrence_of(step, batch), crash, after=after)
    with pytest.raises(Crash):
        stage.worker(at).run()
    assert at.done
    stage.worker().run()
    stage.assert_exactly_once()


@pytest.mark.parametrize("occurrence", range(1, 7))
def test_a_worker_that_dies_at_any_look_at_the_table(stage: Stage, occurrence: int) -> None:
    with pytest.raises(Crash):
        stage.worker(At(Step.RELOAD, occurrence, crash)).run()
    stage.worker().run()
    stage.assert_exactly_once()


@pytest.mark.parametrize("batch", [FIRST, LATER])
@pytest.mark.parametrize("fault", CommitFault)
def test_a_commit_that_fails_in_any_way_lands_once(stage: Stage, fault: CommitFault, batch: int) -> None:
    catalog = stage.catalog()
    kept: set[Path] = set()

    def arm() -> None:
        catalog.fault = fault
        catalog.on_fault = lambda: kept.update(stage.files())

    worker = stage.worker(At(Step.COMMIT, batch, arm), catalog)
    if fault in CRASHING:
        with pytest.raises(Crash):
            worker.run()
        # The successor talks to the same server: what is still under way arrives there.
        stage.worker(catalog=catalog).run()
    else:
        worker.run()
    assert kept, "the fault was never met"
    assert kept <= stage.files(), "a file was deleted though nobody knew the outcome"
    stage.assert_exactly_once()


@pytest.mark.parametrize(
    ("fault", "answers"),
    [
        (CommitFault.LATE_BEFORE_LOOK, ["late request landed"]),
        (CommitFault.LATE_BEFORE_REPEAT, ["late request landed"]),
        (CommitFault.LATE_AFTER_REPEAT, ["late request refused"]),
    ],
)
def test_a_late_request_and_its_repetition_never_both_land(
    stage: Stage, fault: CommitFault, answers: list[str]
) -> None:
    catalog = stage.catalog()
    worker = stage.worker(At(Step.COMMIT, FIRST, lambda: setattr(catalog, "fault", fault)), catalog)
    worker.run()
    assert catalog.answers == answers
    assert worker.stale == []
    stage.assert_exactly_once()


@pytest.mark.parametrize("batch", [FIRST, LATER])
@pytest.mark.parametrize("fault", [fault for fault in CommitFault if fault not in CRASHING])
def test_a_worker_that_dies_before_it_learns_a_failed_commit_s_outcome(
    stage: Stage, fault: CommitFault, batch: int
) -> None:
    catalog = stage.catalog()
    arm = At(Step.COMMIT, batch, lambda: setattr(catalog, "fault", fault))
    die = At(Step.OUTCOME, batch, crash)

    def observe(step: Step) -> None:
        arm(step)
        die(step)

    with pytest.raises(Crash):
        stage.worker(observe, catalog).run()
    stage.worker(catalog=catalog).run()
    stage.assert_exactly_once()


@pytest.mark.parametrize("batch", [FIRST, LATER])
@pytest.mark.parametrize("step", Step)
def test_a_rival_that_lands_the_same_events_first_makes_the_worker_stale(stage: Stage, step: Step, batch: int) -> None:
    rival = stage.worker()
    worker = stage.worker(At(step, occurrence_of(step, batch), rival.run))
    worker.run()
    assert rival.begun > 0
    if step in (Step.OUTCOME, Step.LANDED):
        # Its own batch had landed before the rival began: it is the next one that comes too late.
        assert len(worker.stale) <= 1
    else:
        (stale,) = worker.stale
        assert stale.what.startswith("stale: expected [0:")
        assert "committed [0:12, 1:12] of generation 1" in stale.what
    stage.assert_exactly_once()


@pytest.mark.parametrize("step", Step)
def test_a_schema_that_moves_under_a_batch_has_its_files_written_again(stage: Stage, step: Step) -> None:
    def evolve() -> None:
        table = load_table(stage.catalog(), stage.product)
        with table.update_schema() as update:
            update.add_column("note", StringType())
        with table.transaction() as transaction:
            transaction.set_properties({VERSION_PROPERTY: "2"})

    worker = stage.worker(At(step, occurrence_of(step, FIRST), evolve))
    worker.run()
    assert worker.stale == []
    stage.assert_exactly_once()


def appends(table: Table) -> None:
    table.append(table.schema().as_arrow().empty_table())


def compacts(table: Table) -> None:
    """Write all rows anew."""
    if table.current_snapshot() is not None:
        table.overwrite(table.scan().to_arrow())


def expires(table: Table) -> None:
    """Expire all snapshots but the newest."""
    old = [snapshot.snapshot_id for snapshot in table.snapshots()][:-1]
    table.maintenance.expire_snapshots().by_ids(old).commit()


@pytest.mark.parametrize("work", [appends, compacts, expires], ids=lambda function: str(function.__name__))
@pytest.mark.parametrize("batch", [FIRST, LATER])
@pytest.mark.parametrize("step", Step)
def test_another_engine_that_commits_at_a_step_is_no_reason_to_drop_a_batch(
    stage: Stage, step: Step, batch: int, work: Callable[[Table], None]
) -> None:
    at = At(step, occurrence_of(step, batch), lambda: work(load_table(stage.catalog(), stage.product)))
    worker = stage.worker(at)
    worker.run()
    assert at.done
    assert worker.stale == []
    stage.assert_exactly_once()


@pytest.mark.parametrize("gone", ["made anew", "rolled back"])
@pytest.mark.parametrize("step", [Step.RELOAD, Step.STAGE, Step.COMMIT])
def test_a_table_that_loses_what_it_held_under_a_worker_gets_it_again(stage: Stage, step: Step, gone: str) -> None:
    with pytest.raises(Crash):
        stage.worker(At(Step.LANDED, LATER, crash)).run()
    first_snapshot = load_table(stage.catalog(), stage.product).snapshots()[0].snapshot_id

    def lose() -> None:
        catalog = stage.catalog()
        if gone == "made anew":
            catalog.drop_table(("shop", "orders"))
            ensure_table(catalog, stage.product)
        else:
            manage = load_table(catalog, stage.product).manage_snapshots()
            manage.rollback_to_snapshot(first_snapshot).commit()

    worker = stage.worker(At(step, FIRST, lose))
    worker.run()
    assert worker.stale
    stage.assert_exactly_once()
