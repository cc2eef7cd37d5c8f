"""Every step of a redrive by every way to fail there: each letter becomes one row, and none twice."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from pyiceberg.manifest import DataFileContent

from headrace.schemas.catalog import load_table
from headrace.schemas.errors import Held, ProductStopped, Unavailable
from headrace.sinks.attempts import land
from headrace.sinks.dead_letters.holdings import Holdings
from headrace.sinks.dead_letters.redriving import Wish, place_of
from headrace.sinks.draft import Draft
from headrace.sinks.hold import hold
from headrace.sinks.landing import Step
from headrace.sinks.past_topics import as_followed
from headrace.streams.history import find_ledger, last_rows, read_ledger
from headrace.streams.ledger import PROPERTY_KEY, REDRIVE_KEY, Position, Range
from tests.support.faulty import CommitFault, Crash
from tests.support.position_deletes import delete_positions
from tests.support.redriving import REASON, Bench
from tests.support.workers import TOPIC_ID, At

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.sinks.dead_letters.redriving import Tally
    from headrace.streams.ledger import Ledger

CRASHING = {CommitFault.CRASH_UNSENT, CommitFault.CRASH_LANDED, CommitFault.CRASH_LATE}
STEPS = (Step.RELOAD, Step.FILES, Step.STAGE, Step.COMMIT, Step.OUTCOME, Step.LANDED)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path)
    bench.worker().run()
    assert bench.rows() == bench.log.rows()
    return bench


def crash() -> None:
    raise Crash


def assert_put_back(bench: Bench) -> None:
    """Run it once more, which finds nothing to do, and check the rows."""
    before = bench.table.metadata.current_snapshot_id
    tally = bench.redrive()
    assert (tally.put_back, tally.held) == (0, len(bench.log.letters()))
    assert bench.table.metadata.current_snapshot_id == before
    assert bench.rows() == bench.log.all_rows()


def ledger_of(bench: Bench) -> Ledger:
    ledger = read_ledger(bench.table, bench.product)
    assert ledger is not None
    return ledger


def land_of_the_new_topic(bench: Bench) -> None:
    """Land a batch of a sink that goes on with the topic that was made anew."""
    land(bench.catalog(), bench.product, lambda _: Draft(ledger_of(bench).advanced({0: Range(0, 5)})))


def test_all_letters_become_rows_and_a_second_run_finds_nothing(bench: Bench) -> None:
    before = read_ledger(bench.table, bench.product)
    tally = bench.redrive()
    assert (tally.put_back, tally.held, tally.ahead) == (len(bench.log.letters()), 0, 0)
    after = read_ledger(bench.table, bench.product)
    assert before is not None
    assert after is not None
    assert {p: at.next for p, at in after.positions.items()} == {p: at.next for p, at in before.positions.items()}
    assert after.added == {}
    snapshot = bench.table.current_snapshot()
    assert snapshot is not None
    assert snapshot.summary is not None
    assert snapshot.summary[REDRIVE_KEY] == '{"rows":4}'
    assert_put_back(bench)


def test_letters_that_were_sent_again_and_again_count_once_in_any_portions(bench: Bench) -> None:
    bench.box.kept *= 3
    tally = bench.redrive(portion=3)
    assert (tally.put_back, tally.held) == (len(bench.log.letters()), 0)
    assert_put_back(bench)


@pytest.mark.parametrize(
    "other", [{"topic_id": "made-anew"}, {"generation": 2}, {"timed": False}], ids=["topic", "generation", "untimed"]
)
@pytest.mark.parametrize("portion", [1, 1_000])
def test_letters_of_another_topic_at_the_same_offsets_stand_in_nobodys_way(
    bench: Bench, other: dict[str, Any], portion: int
) -> None:
    own = list(bench.box.kept)
    bench.box.kept = [each for kept in own for each in (replace(kept, **other), kept, replace(kept, **other))]
    assert bench.redrive(portion=portion).put_back == len(own)
    assert bench.redrive(portion=portion).untimed == 0, "their rows are there: nobody should publish them anew"
    assert_put_back(bench)


def test_a_table_is_scanned_once_however_often_sinks_commit_behind_the_letters(tmp_path: Path) -> None:
    bench = Bench(tmp_path, events=24)
    with pytest.raises(Crash):
        bench.worker(At(Step.LANDED, 2, crash)).run()
    ledger, holdings = read_ledger(bench.table, bench.product), Holdings(bench.product)
    assert ledger is not None
    rows = [(p, offset) for p, offset, _ in bench.rows()]
    asked = frozenset([*rows[:3], *(place_of(kept.letter) for kept in bench.box.kept[:2])])
    assert holdings.among(asked, bench.table, ledger) == set(rows[:3])
    for file in (tmp_path / "warehouse").rglob("data/*.parquet"):
        file.rename(file.with_suffix(".away"))
    bench.worker().run()
    assert holdings.among(asked - set(rows[:1]), bench.table, ledger) == set(rows[1:3])
    # What no scan has looked for, and what is no batch of a sink, has to be looked for.
    for file in (tmp_path / "warehouse").rglob("data/*.away"):
        file.rename(file.with_suffix(".parquet"))
    assert holdings.among(frozenset(rows[:4]), bench.table, ledger) == set(rows[:4])
    bench.redrive()
    assert holdings.among(asked, bench.table, ledger) == asked


@pytest.mark.parametrize("step", STEPS)
def test_letters_of_a_topic_that_was_made_anew_become_rows_of_its_generation(bench: Bench, step: Step) -> None:
    bench.make_anew("a-new-topic")
    own = list(bench.box.kept)
    strangers: list[dict[str, Any]] = [{"topic_id": "never-followed"}, {"generation": 2}, {"generation": 0}]
    bench.box.kept = [*own, *(replace(kept, **other) for kept in own for other in strangers)]
    at = At(step, 1, lambda: land_of_the_new_topic(bench))
    tally = bench.redrive(at)
    assert at.done
    assert (tally.put_back, tally.others) == (len(own), 3 * len(own))
    ledger = ledger_of(bench)
    assert (ledger.topic_id, ledger.generation, ledger.positions[0]) == ("a-new-topic", 2, Position(5))
    assert last_rows(bench.table, bench.product).generation == 1
    assert_put_back(bench)


def test_beside_a_sink_of_the_new_topic_the_rows_before_are_scanned_once(bench: Bench, tmp_path: Path) -> None:
    bench.make_anew("a-new-topic")
    asked = frozenset(place_of(kept.letter) for kept in bench.box.kept)
    ledger, holdings = as_followed(bench.table.metadata, ledger_of(bench), TOPIC_ID, [0, 1]), Holdings(bench.product)
    assert ledger is not None
    assert holdings.among(asked, bench.table, ledger) == frozenset()
    for file in (tmp_path / "warehouse").rglob("data/*.parquet"):
        file.rename(file.with_suffix(".away"))
    land_of_the_new_topic(bench)
    assert holdings.among(asked, bench.table, ledger) == frozenset()


def test_a_row_that_another_engine_has_deleted_comes_back_with_its_letter(bench: Bench) -> None:
    bench.redrive()
    file = next(iter(bench.table.scan("_kafka_partition = 0 and _kafka_offset = 3").plan_files())).file
    delete_positions(bench.table, file, range(file.record_count))
    assert len(bench.rows()) == len(bench.log.all_rows()) - file.record_count
    assert bench.redrive().put_back == file.record_count
    assert_put_back(bench)


def test_rows_that_another_engine_has_deleted_by_their_values_stop_it(bench: Bench) -> None:
    file = next(iter(bench.table.scan().plan_files())).file
    delete_positions(bench.table, file, [0], DataFileContent.EQUALITY_DELETES)
    before = bench.table.metadata.current_snapshot_id
    with pytest.raises(ProductStopped, match="deleted rows by their values"):
        bench.redrive()
    assert bench.table.metadata.current_snapshot_id == before


def test_only_what_is_asked_for_is_put_back(bench: Bench) -> None:
    assert bench.redrive(wish=Wish(reason="undecodable")).put_back == 0
    assert bench.redrive(wish=Wish(partition=1, offset=8)).put_back == 1
    assert bench.rows() == sorted([*bench.log.rows(), (1, 8, "o1008")])
    assert bench.redrive(wish=Wish(reason=REASON)).held == 1
    assert_put_back(bench)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_redrive_that_dies_at_a_step_is_completed_by_the_next(bench: Bench, step: Step, after: bool) -> None:
    at = At(step, 1, crash, after=after)
    if (step, after) == (Step.LANDED, True):
        bench.redrive(at)
    else:
        with pytest.raises(Crash):
            bench.redrive(at)
        assert at.done
    bench.redrive()
    assert_put_back(bench)


@pytest.mark.parametrize("fault", CommitFault)
def test_a_commit_that_fails_in_any_way_lands_once(bench: Bench, fault: CommitFault) -> None:
    catalog = bench.catalog()
    met: list[CommitFault] = []

    def arm() -> None:
        catalog.fault, catalog.on_fault = fault, lambda: met.append(fault)

    at = At(Step.COMMIT, 1, arm)
    if fault in CRASHING:
        with pytest.raises(Crash):
            bench.redrive(at, catalog=catalog)
    else:
        try:
            bench.redrive(at, catalog=catalog)
        except Unavailable:
            assert fault in {CommitFault.REFUSED, CommitFault.LOCKED} | {
                each for each in CommitFault if each.name.startswith("LATE")
            }
    assert met == [fault]
    # The next one talks to the same server: what is still under way arrives there.
    bench.redrive(catalog=catalog)
    assert_put_back(bench)


@pytest.mark.parametrize("step", STEPS)
def test_two_redrives_at_once_put_each_letter_back_once(bench: Bench, step: Step) -> None:
    other: list[Tally] = []
    at = At(step, 1, lambda: other.append(bench.redrive()))
    tally = bench.redrive(at)
    assert at.done
    assert tally.put_back + tally.held == len(bench.log.letters())
    assert tally.put_back + other[0].put_back == len(bench.log.letters())
    assert_put_back(bench)


@pytest.mark.parametrize("step", STEPS)
def test_a_sink_that_commits_meanwhile_loses_nothing(tmp_path: Path, step: Step) -> None:
    bench = Bench(tmp_path, events=24)
    with pytest.raises(Crash):
        bench.worker(At(Step.LANDED, 3, crash)).run()
    first = len(bench.box.kept)
    tally = bench.redrive(At(step, 1, bench.worker().run))
    assert tally.put_back + tally.held + tally.ahead == first
    bench.redrive()
    assert_put_back(bench)


def test_what_the_sink_has_not_passed_is_its_own(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    with pytest.raises(Crash):
        bench.worker(At(Step.RELOAD, 1, crash)).run()
    assert bench.box.kept, "the letters were sent before the batch could land"
    tally = bench.redrive()
    assert (tally.put_back, tally.ahead) == (0, len(bench.box.kept))
    assert bench.table.current_snapshot() is None
    bench.worker().run()
    bench.redrive()
    assert_put_back(bench)


@pytest.mark.parametrize("step", STEPS)
def test_a_table_that_is_rolled_back_meanwhile_gets_its_letters_once(bench: Bench, step: Step) -> None:
    first = bench.table.snapshots()[0].snapshot_id

    def roll_back() -> None:
        bench.table.manage_snapshots().rollback_to_snapshot(first).commit()

    bench.redrive(At(step, 1, roll_back))
    bench.worker().run()
    bench.redrive()
    assert_put_back(bench)


def test_a_roll_back_behind_the_redrive_opens_the_letters_again(bench: Bench) -> None:
    before = bench.table.metadata.current_snapshot_id
    assert before is not None
    bench.redrive()
    bench.table.manage_snapshots().rollback_to_snapshot(before).commit()
    assert bench.rows() == bench.log.rows()
    assert bench.redrive().put_back == len(bench.log.letters())
    assert_put_back(bench)


@pytest.mark.parametrize("step", STEPS[:4])
def test_a_hold_stops_it_with_nothing_put_back(bench: Bench, step: Step) -> None:
    def hold_it() -> None:
        hold(bench.catalog(), bench.product, "why", datetime.now(UTC))

    with pytest.raises(Held) as held:
        bench.redrive(At(step, 1, hold_it))
    assert held.value.hint == "headrace release shop.orders, then headrace dlq redrive shop.orders"
    assert bench.rows() == bench.log.rows()


def test_the_property_serves_after_others_have_expired_the_history(tmp_path: Path) -> None:
    bench = Bench(tmp_path, events=14)  # the last event of each partition is a letter: the redrive moves the last rows
    bench.worker().run()
    bench.redrive()
    table = bench.table
    found = find_ledger(table, bench.product)
    assert found is not None
    assert dict(last_rows(table, bench.product).offsets) == {p: at.last_row for p, at in found.ledger.positions.items()}
    # An engine's snapshot without a ledger on top, and nothing left below it.
    table.append(table.schema().as_arrow().empty_table())
    table = bench.table
    head = table.metadata.current_snapshot_id
    table.maintenance.expire_snapshots().by_ids(
        [each.snapshot_id for each in table.snapshots() if each.snapshot_id != head]
    ).commit()
    again = find_ledger(load_table(bench.catalog(), bench.product), bench.product)
    assert again is not None
    assert again.snapshot_id is None, "the walk has fallen off"
    assert again.ledger == found.ledger
    assert PROPERTY_KEY in bench.table.properties
