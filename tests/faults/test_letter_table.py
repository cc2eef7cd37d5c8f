"""The table of dead letters by every way to fail: each letter has one row there, whatever happened to its batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pyiceberg.schema import Schema
from pyiceberg.types import LongType, NestedField

from headrace.schemas.catalog import identifier_of, load_named, load_table
from headrace.schemas.errors import ProductStopped
from headrace.sinks.dead_letters.table import KEPT_SNAPSHOTS, LetterTable, filed
from headrace.sinks.landing import Step
from headrace.streams.ledger import Ledger
from tests.support.faulty import CommitFault, Crash
from tests.support.redriving import Bench
from tests.support.workers import TOPIC_ID, At

if TYPE_CHECKING:
    from pathlib import Path

CRASHING = {CommitFault.CRASH_UNSENT, CommitFault.CRASH_LANDED, CommitFault.CRASH_LATE}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def crash() -> None:
    raise Crash


def assert_entered_once(bench: Bench) -> None:
    bench.worker().run()
    assert bench.rows() == bench.log.rows()
    assert bench.entries() == sorted(bench.log.letters())


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", [Step.LETTERS, Step.REGISTER, Step.RELOAD, Step.COMMIT])
def test_a_worker_that_dies_at_a_step_is_followed_by_one_that_completes(bench: Bench, step: Step, after: bool) -> None:
    with pytest.raises(Crash):
        bench.worker(At(step, 1, crash, after=after)).run()
    assert_entered_once(bench)


@pytest.mark.parametrize("fault", CommitFault)
def test_an_entry_that_fails_in_any_way_lands_once(bench: Bench, fault: CommitFault) -> None:
    catalog = bench.catalog()
    met: list[CommitFault] = []

    def arm() -> None:
        catalog.fault, catalog.on_fault = fault, lambda: met.append(fault)

    worker = bench.worker(At(Step.REGISTER, 1, arm), catalog)
    if fault in CRASHING:
        with pytest.raises(Crash):
            worker.run()
        # The successor talks to the same server: what is still under way arrives there.
        bench.worker(catalog=catalog).run()
    else:
        worker.run()
    assert met == [fault]
    assert_entered_once(bench)


def test_a_table_of_events_that_is_rolled_back_or_made_anew_doubles_no_letter(bench: Bench) -> None:
    bench.worker().run()
    first = load_table(bench.catalog(), bench.product).snapshots()[0].snapshot_id
    load_table(bench.catalog(), bench.product).manage_snapshots().rollback_to_snapshot(first).commit()
    assert_entered_once(bench)
    bench.catalog().drop_table(identifier_of(bench.product))
    assert_entered_once(bench)


def test_two_workers_that_enter_the_same_letters_enter_them_once(bench: Bench) -> None:
    bench.worker(At(Step.REGISTER, 1, bench.worker().run)).run()
    assert_entered_once(bench)


def test_letters_of_another_topic_are_other_letters(bench: Bench) -> None:
    bench.worker().run()
    letter = bench.box.kept[0].letter
    for topic_id, generation in (("another", 1), (TOPIC_ID, 2), ("another", 1)):
        ledger = Ledger(topic_id, generation, {}, {}, {})
        LetterTable(bench.catalog(), bench.product).send([letter, letter], ledger)
    entries = sorted([*bench.log.letters(), *((TOPIC_ID, letter.partition, letter.offset),)])
    assert bench.entries() == sorted([*entries, ("another", letter.partition, letter.offset)])


def test_it_keeps_few_snapshots_and_files_and_carries_no_ledger(bench: Bench) -> None:
    bench.worker().run()
    letters, catalog = [kept.letter for kept in bench.box.kept], bench.catalog()
    for generation in range(2, KEPT_SNAPSHOTS + 6):
        LetterTable(catalog, bench.product).send(letters, Ledger(TOPIC_ID, generation, {}, {}, {}))
    table = load_named(catalog, identifier_of(filed(bench.product)))
    assert len(table.snapshots()) <= KEPT_SNAPSHOTS
    assert len(list(table.scan().plan_files())) < 20, "two runs have put 16 files together each"
    assert len(bench.entries()) == len(letters) * (KEPT_SNAPSHOTS + 5)
    assert not any(name.startswith("headrace.ledger") for name in table.properties)


def test_a_table_of_that_name_that_is_anothers_is_left_alone(bench: Bench) -> None:
    name = identifier_of(filed(bench.product))
    bench.catalog().create_table(name, Schema(NestedField(1, "n", LongType(), required=False)))
    with pytest.raises(ProductStopped) as stopped:
        bench.worker().run()
    assert stopped.value.where == "table shop.orders__dlq"
    assert bench.catalog().load_table(name).current_snapshot() is None
