"""The keeper: when a session's upkeep is done, and that nothing of it reaches the session."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from headrace.schemas.errors import Held, Unavailable
from headrace.sinks.hold import hold
from headrace.sinks.landing import Landed
from headrace.sinks.pipeline import Pipeline
from headrace.sinks.upkeep import keeper as keeper_module
from headrace.sinks.upkeep import keeping as keeping_module
from headrace.sinks.upkeep.keeper import FIRST_REST_S, IDLE_S, LONGEST_REST_S, Keeper
from headrace.sinks.upkeep.keeping import keeping
from headrace.sinks.upkeep.sightings import Sightings
from tests.support.lake import Lake
from tests.support.waiting import eventually
from tests.unit.test_commit import SCHEMA, events, ids

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pyiceberg.table import Table


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path, SCHEMA)
    lake.add(events(0))
    return lake


@dataclass
class Chore:
    """A task that notes when it is done."""

    name: str
    work: Callable[[], None] = lambda: None
    is_due: bool = True
    done: list[int] = field(default_factory=list)

    def due(self, now_s: float) -> bool:
        assert now_s >= 0
        return self.is_due

    def run(self, table: Table, /) -> None:
        self.done.append(len(table.snapshots()))
        self.work()


@dataclass
class Kept:
    """A keeper, its clock, and what it is told."""

    lake: Lake
    chores: tuple[Chore, ...]
    now_s: float = 0.0

    def __post_init__(self) -> None:
        self.keeper = Keeper(self.lake.product, self.lake.catalog, self.chores, Event(), lambda: self.now_s)

    def landed(self, *partitions: int) -> None:
        """Tell it of a commit, and wait until it has done what it does."""
        self.keeper.landed(Landed(1, self.lake.ledger, 1), partitions)
        self.rest()

    def polled(self, *partitions: int) -> None:
        """Tell it of a poll, and wait likewise."""
        self.keeper.polled(partitions)
        self.rest()

    def rest(self) -> None:
        assert eventually(lambda: self.keeper._working is None or self.keeper._working.done())


def stuck(reached: Event, going: Event) -> Callable[[], None]:
    def work() -> None:
        reached.set()
        assert going.wait(60)

    return work


def fault(error: Exception) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


def test_what_is_due_is_done_after_a_commit_on_the_table_as_it_is_then(lake: Lake) -> None:
    one, other, idle = Chore("one"), Chore("other"), Chore("idle", is_due=False)
    kept = Kept(lake, (one, other, idle))
    kept.landed(0, 1)
    lake.add(events(1))
    kept.landed(0)
    assert (one.done, other.done, idle.done) == ([1, 2], [1, 2], [])
    kept.keeper.close()


def test_only_the_session_with_the_first_partition_does_it(lake: Lake) -> None:
    chore = Chore("one")
    kept = Kept(lake, (chore,))
    kept.landed(1, 2)
    kept.landed()
    assert chore.done == []
    kept.landed(2, 0)
    assert chore.done == [1]
    kept.keeper.close()


def test_a_table_that_rests_is_looked_after_now_and_then(lake: Lake) -> None:
    chore = Chore("one")
    kept = Kept(lake, (chore,))
    kept.polled(0)
    kept.now_s = IDLE_S - 1
    kept.polled(0)
    assert chore.done == []
    kept.now_s = IDLE_S
    kept.polled(1)
    assert chore.done == [], "another worker's"
    kept.polled(0)
    kept.polled(0)
    assert chore.done == [1]
    # What a commit has brought about counts: it rests from then on.
    kept.now_s = 2 * IDLE_S - 1
    kept.landed(0)
    kept.now_s = 3 * IDLE_S - 2
    kept.polled(0)
    assert chore.done == [1, 1]
    kept.now_s = 3 * IDLE_S - 1
    kept.polled(0)
    assert chore.done == [1, 1, 1]
    kept.keeper.close()


def test_a_table_that_rests_is_compacted_once_and_then_left_alone(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping_module, "EVERY_S", 0.0)
    monkeypatch.setattr(keeper_module, "IDLE_S", 0.0)
    for number in range(1, 10):
        lake.add(events(number))
    pipeline = Pipeline("landing")
    keeper = keeping(lake.product, lake.catalog, Sightings())(pipeline.submit)

    def is_compacted() -> bool:
        keeper.polled([0])
        return len(list(lake.reload().scan().plan_files())) == 1

    assert eventually(is_compacted)
    assert ids(lake) == list(range(10))
    keeper.close()
    pipeline.close(10.0)


def test_a_commit_does_not_wait_for_work_that_is_under_way(lake: Lake) -> None:
    reached, going = Event(), Event()
    chore = Chore("slow", stuck(reached, going))
    kept = Kept(lake, (chore,))
    told = Landed(1, lake.ledger, 1)
    for _ in range(3):
        kept.keeper.landed(told, [0])
        assert reached.wait(60)
    going.set()
    assert eventually(lambda: kept.keeper._working is not None and kept.keeper._working.done())
    assert chore.done == [1]
    kept.keeper.close()


def test_a_fault_is_logged_and_rested_on_and_others_go_on(lake: Lake) -> None:
    bad = Chore("bad", fault(Unavailable("no answer", where="table shop.orders", hint="wait")))
    good = Chore("good")
    kept = Kept(lake, (bad, good))
    with capture_logs() as logs:
        kept.landed(0)
    assert logs == [
        {
            "event": "upkeep failed",
            "log_level": "warning",
            "product": "shop.orders",
            "task": "bad",
            "what": "no answer",
            "where": "table shop.orders",
            "next": "wait",
        }
    ]
    kept.now_s = FIRST_REST_S - 1
    kept.landed(0)
    assert (len(bad.done), len(good.done)) == (1, 2)
    rests, rest_s = [], FIRST_REST_S
    for _ in range(9):
        kept.now_s += rest_s
        before = len(bad.done)
        kept.landed(0)
        assert len(bad.done) == before + 1
        rest_s = min(rest_s * 2, LONGEST_REST_S)
        rests.append(rest_s)
        kept.now_s += 0.5
        kept.landed(0)
        assert len(bad.done) == before + 1
    assert rests[-1] == LONGEST_REST_S
    # What has gone well once is as if nothing had been.
    kept.now_s += LONGEST_REST_S
    bad.work = lambda: None
    kept.landed(0)
    kept.landed(0)
    assert len(bad.done) == 12
    kept.keeper.close()


def test_a_bug_shows_its_kind_and_place_and_no_value(lake: Lake) -> None:
    kept = Kept(lake, (Chore("bad", fault(ValueError("somebody@example.org"))),))
    with capture_logs() as logs:
        kept.landed(0)
    (line,) = logs
    assert line["event"] == "upkeep failed by a bug of headrace"
    assert line["kind"] == "ValueError"
    assert any("work" in place for place in line["places"])
    assert "example.org" not in str(line)
    kept.keeper.close()


def test_a_held_product_rests(lake: Lake) -> None:
    hold(lake.catalog, lake.product, "an audit", dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
    chore = Chore("one")
    kept = Kept(lake, (chore,))
    with capture_logs() as logs:
        kept.landed(0)
    assert (chore.done, logs) == ([], [])
    kept.keeper.close()


def test_a_catalog_that_is_away_breaks_nothing(lake: Lake) -> None:
    lake.catalog.drop_table(("shop", "orders"))
    kept = Kept(lake, (Chore("one"),))
    with capture_logs() as logs:
        kept.landed(0)
    assert [line["event"] for line in logs] == ["upkeep failed"]
    kept.keeper.close()


def test_a_session_ends_while_upkeep_is_at_work_and_nothing_is_said(lake: Lake) -> None:
    reached, going = Event(), Event()
    first = Chore("first", stuck(reached, going))
    second = Chore("second")
    kept = Kept(lake, (first, second))
    told = Landed(1, lake.ledger, 1)
    with capture_logs() as logs:
        kept.keeper.landed(told, [0])
        assert reached.wait(60)
        first.work = fault(Unavailable("broken off"))
        kept.keeper.close()
        assert kept.keeper.ended.is_set()
        going.set()
        assert eventually(lambda: kept.keeper._working is not None and kept.keeper._working.done())
    assert (second.done, logs) == ([], [])
    # Told of a commit after its end, it does nothing.
    kept.keeper.landed(told, [0])
    assert second.done == []


def test_of_all_products_of_a_process_one_is_kept_at_a_time(lake: Lake) -> None:
    reached, going = Event(), Event()
    one, other, third = (Kept(lake, (Chore(name),)) for name in ("one", "other", "third"))
    one.chores[0].work = stuck(reached, going)
    told = Landed(1, lake.ledger, 1)
    one.keeper.landed(told, [0])
    assert reached.wait(60)
    for kept in (other, third):
        kept.keeper.landed(told, [0])
    # One whose session ends waits no longer.
    third.keeper.close()
    assert eventually(lambda: third.keeper._working is not None and third.keeper._working.done())
    assert other.chores[0].done == []
    going.set()
    assert eventually(lambda: other.chores[0].done == [1])
    assert third.chores[0].done == []
    for kept in (one, other):
        kept.keeper.close()


def test_a_hold_that_comes_while_it_works_is_no_fault(lake: Lake) -> None:
    kept = Kept(lake, (Chore("one", fault(Held("held: an audit"))),))
    with capture_logs() as logs:
        kept.landed(0)
        kept.landed(0)
    assert (kept.chores[0].done, logs) == ([1, 1], [])
    kept.keeper.close()


def test_a_products_keeper_compacts_and_looks_after_files(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping_module, "EVERY_S", 0.0)
    for number in range(1, 10):
        lake.add(events(number))
    pipeline = Pipeline("landing")
    keeper = keeping(lake.product, lake.catalog, Sightings())(pipeline.submit)
    assert [task.name for task in keeper.tasks] == ["compaction", "deletion", "deletion of letters"]
    keeper.landed(Landed(1, lake.ledger, 1), [0])
    assert eventually(lambda: len(list(lake.reload().scan().plan_files())) == 1)
    assert ids(lake) == list(range(10))
    keeper.close()
    pipeline.close(10.0)
