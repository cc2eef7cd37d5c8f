"""What is owed to a lineage backend: at most three moments a run, in order, whatever is delivered when."""

from __future__ import annotations

import itertools
import json
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from headrace.schemas.avro import AvroSchema
from headrace.schemas.errors import ProductStopped, Unavailable
from headrace.schemas.names import ProductName
from headrace.selfserve.lineage.events import Counts, RunState
from headrace.selfserve.lineage.outbox import MOST_OWED, RUNNING_EACH_S, Outbox, Parcel
from headrace.sinks.landing import Landed
from headrace.streams.ledger import Ledger
from tests.support.lake import product_of
from tests.support.meshes import ORDER

PRODUCT = product_of(AvroSchema.parse(json.dumps(ORDER)))
OTHER = replace(PRODUCT, name=ProductName("air", "flights"))
BEGAN = datetime(2026, 11, 23, tzinfo=UTC)
FAULT = ProductStopped("the topic was made anew", where="topic shop.orders", hint="see it")


class Clock:
    """A time that stands still until it is moved."""

    def __init__(self) -> None:
        self.s = 0.0

    def now(self) -> datetime:
        return BEGAN + timedelta(seconds=self.s)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def outbox(clock: Clock) -> Outbox:
    numbers = itertools.count(1)
    return Outbox(clock.now, lambda: clock.s, lambda: f"run-{next(numbers)}")


def landing(snapshot_id: int, rows: int = 10, refused: int = 0) -> Landed:
    return Landed(
        snapshot_id, Ledger.begin("topic", {0: 0}), rows, {"null-value": refused}, size_bytes=rows * 8, read_bytes=rows
    )


def taken(outbox: Outbox) -> Parcel:
    assert outbox.owed()
    parcel = outbox.take()
    assert parcel is not None
    return parcel


def states(parcel: Parcel) -> list[str]:
    return [moment.state.value for moment in parcel.moments]


def test_a_run_starts_once_and_ends_once(outbox: Outbox) -> None:
    outbox.running(PRODUCT)
    outbox.running(PRODUCT)
    assert states(taken(outbox)) == ["START"]
    outbox.ended(PRODUCT, None)
    outbox.ended(PRODUCT, FAULT)
    assert states(taken(outbox)) == ["COMPLETE"]
    assert outbox.owed() == 0


def test_a_run_tells_of_its_first_commit_and_then_once_a_minute(outbox: Outbox, clock: Clock) -> None:
    outbox.running(PRODUCT)
    for second in range(130):
        clock.s = float(second)
        outbox.landed(PRODUCT, landing(second, refused=1), 0.1)
        if second == 0:
            assert states(taken(outbox)) == ["START", "RUNNING"]
        elif second in (RUNNING_EACH_S, 2 * RUNNING_EACH_S):
            (moment,) = taken(outbox).moments
            assert moment.state is RunState.RUNNING
            assert moment.at == clock.now()
            assert moment.counts == Counts(
                (second + 1) * 10, second + 1, (second + 1) * 10, (second + 1) * 80, snapshot_id=second
            )
        assert outbox.owed() == 0


def test_an_end_tells_the_counts_of_the_whole_run(outbox: Outbox) -> None:
    outbox.running(PRODUCT)
    outbox.landed(PRODUCT, landing(1), 0.1)
    outbox.landed(PRODUCT, landing(2), 0.1)
    outbox.ended(PRODUCT, FAULT)
    parcel = taken(outbox)
    assert states(parcel) == ["START", "FAIL"]
    assert parcel.moments[-1].counts.rows == 20
    assert parcel.moments[-1].fault == "topic shop.orders: the topic was made anew"


def test_nothing_piles_up_while_nothing_is_taken(outbox: Outbox, clock: Clock) -> None:
    outbox.running(PRODUCT)
    for minute in range(1_000):
        clock.s = minute * RUNNING_EACH_S
        outbox.landed(PRODUCT, landing(minute), 0.1)
    assert outbox.owed() == 2
    parcel = taken(outbox)
    assert states(parcel) == ["START", "RUNNING"]
    assert parcel.moments[-1].counts.rows == 10_000
    assert outbox.lost == 0


def test_runs_that_begin_and_fail_all_the_time_are_bounded_and_counted(outbox: Outbox) -> None:
    for _ in range(MOST_OWED + 50):
        outbox.running(PRODUCT)
        outbox.ended(PRODUCT, FAULT)
    assert outbox.owed() == 2 * MOST_OWED
    assert outbox.lost == 100


def test_a_sink_that_goes_on_after_a_fault_has_a_run_of_its_own(outbox: Outbox) -> None:
    outbox.running(PRODUCT)
    outbox.landed(PRODUCT, landing(1), 0.1)
    outbox.ended(PRODUCT, FAULT)
    outbox.waiting(PRODUCT, Unavailable("it is mended"))
    outbox.landed(PRODUCT, landing(2), 0.1)
    outbox.running(PRODUCT)
    first, second = taken(outbox), taken(outbox)
    assert (states(first), states(second)) == (["START", "FAIL"], ["START"])
    assert first.run_id != second.run_id
    outbox.ended(PRODUCT, None)
    (end,) = taken(outbox).moments
    assert end.counts == Counts()


def test_a_sink_that_is_tried_again_in_vain_has_no_second_run(outbox: Outbox) -> None:
    outbox.running(PRODUCT)
    outbox.ended(PRODUCT, FAULT)
    outbox.ended(PRODUCT, FAULT)
    assert states(taken(outbox)) == ["START", "FAIL"]
    outbox.ended(PRODUCT, FAULT)
    assert outbox.owed() == 0


def test_a_fault_before_it_ran_is_a_run_and_a_stop_before_is_none(outbox: Outbox) -> None:
    outbox.ended(PRODUCT, None)
    outbox.ended(OTHER, FAULT)
    parcel = taken(outbox)
    assert (parcel.product, states(parcel)) == (OTHER, ["START", "FAIL"])
    assert outbox.owed() == 0


def test_a_start_that_was_not_delivered_goes_before_the_next(outbox: Outbox, clock: Clock) -> None:
    outbox.running(PRODUCT)
    parcel = taken(outbox)
    assert outbox.keep(parcel)
    clock.s = 5
    outbox.landed(PRODUCT, landing(1), 0.1)
    again = taken(outbox)
    assert states(again) == ["START", "RUNNING"]
    assert again.moments[0] == parcel.moments[0]
    assert outbox.keep(again)
    outbox.ended(PRODUCT, None)
    last = taken(outbox)
    assert states(last) == ["START", "COMPLETE"]
    # Nothing would follow it any more.
    assert not outbox.keep(last)
    assert outbox.owed() == 0


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_start_goes_before_an_end_that_came_while_it_was_not_delivered(outbox: Outbox, goes_on: bool) -> None:
    outbox.running(PRODUCT)
    parcel = taken(outbox)
    outbox.ended(PRODUCT, FAULT)
    if goes_on:
        outbox.running(PRODUCT)
    assert outbox.keep(parcel)
    ended = taken(outbox)
    assert (ended.run_id, states(ended)) == (parcel.run_id, ["START", "FAIL"])
    assert outbox.owed() == (1 if goes_on else 0)


def test_products_wait_for_each_other_in_turn(outbox: Outbox) -> None:
    outbox.running(PRODUCT)
    outbox.running(OTHER)
    outbox.landed(PRODUCT, landing(1), 0.1)
    assert [taken(outbox).product, taken(outbox).product] == [PRODUCT, OTHER]
    assert outbox.owed() == 0


def test_who_waits_is_woken_by_what_is_owed_and_by_the_end(outbox: Outbox) -> None:
    found: list[Parcel | None] = []

    def take() -> None:
        while not found or found[-1] is not None:
            found.append(outbox.take())

    thread = threading.Thread(target=take)
    thread.start()
    outbox.running(PRODUCT)
    outbox.close()
    thread.join(60)
    assert [parcel and states(parcel) for parcel in found] == [["START"], None]
