"""A session that rests looks whether its table was taken back, and is never misled by what it has landed itself."""

from __future__ import annotations

from concurrent.futures import Future
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from headrace.schemas.errors import NotApplied, ProductStopped, Stale
from headrace.sinks import glance
from headrace.sinks.glance import Glance, Seen
from headrace.sinks.landing import Desk
from headrace.sinks.past_snapshots import by_id
from headrace.sinks.rollback import Way, land_rollback, plan_rollback
from headrace.sinks.tables import ensure_table
from tests.support.rewinding import Shop
from tests.support.workers import TOPIC_ID, Mailbox

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


class Jobs:
    """Jobs of a pipeline's thread, done when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Seen], Callable[[], Seen]]] = []

    def submit(self, job: Callable[[], Seen]) -> Future[Seen]:
        future: Future[Seen] = Future()
        self.waiting.append((future, job))
        return future

    def do(self) -> None:
        for future, job in self.waiting:
            future.set_result(job())
        self.waiting.clear()


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setattr(glance, "GLANCE_S", 0.0)
    return Shop.at(tmp_path)


def looking(shop: Shop, jobs: Jobs, topic_id: Callable[[], str] = lambda: TOPIC_ID) -> Glance:
    def nothing(_: object) -> object:
        raise AssertionError("nothing is written")

    return Glance(Desk(shop.product, shop.catalog, Mailbox(), nothing, topic_id), jobs.submit)  # type: ignore[arg-type]


def rolled_back(shop: Shop, target: int, way: Way) -> None:
    table = shop.table()
    plan = plan_rollback(table, shop.product, by_id(table.metadata, target, shop.product), way, NOW)
    land_rollback(shop.catalog, shop.product, plan)


@pytest.mark.parametrize("way", Way)
def test_a_table_that_lost_rows_to_be_read_again_is_noticed_and_no_other(shop: Shop, way: Way) -> None:
    jobs, first = Jobs(), shop.land(4)
    shop.land(8)
    look, base = looking(shop, jobs), shop.ledger()
    for _ in range(2):
        look.at({0: 8, 1: 8}, base)
        jobs.do()
    rolled_back(shop, first, way)
    look.at({0: 8, 1: 8}, base)
    jobs.do()
    if way is Way.SKIP:
        look.at({0: 8, 1: 8}, base)
        return
    with pytest.raises(Stale, match=r"expected \[0:8, 1:8\].*committed \[0:4, 1:4\]"):
        look.at({0: 8, 1: 8}, base)


def test_a_topic_that_was_made_anew_with_as_many_events_is_noticed(shop: Shop) -> None:
    jobs = Jobs()
    shop.land(4)
    look, base = looking(shop, jobs, lambda: "a-new-topic"), shop.ledger()
    look.at({0: 4, 1: 4}, base)
    jobs.do()
    with pytest.raises(ProductStopped, match=f"the table follows the topic {TOPIC_ID}, Kafka has a-new-topic"):
        look.at({0: 4, 1: 4}, base)


def test_a_topic_that_is_gone_is_told_after_two_looks_in_a_row(shop: Shop) -> None:
    """A broker that has just come up may not know a topic for a moment."""
    jobs, gone = Jobs(), [True, False, True, True]

    def topic_id() -> str:
        if gone.pop(0):
            raise NotApplied("the topic does not exist", where="shop.orders")
        return TOPIC_ID

    shop.land(4)
    look, base = looking(shop, jobs, topic_id), shop.ledger()
    for _ in range(7):
        look.at({0: 4, 1: 4}, base)
        jobs.do()
    with pytest.raises(NotApplied, match="the topic does not exist"):
        look.at({0: 4, 1: 4}, base)
    assert not gone


def test_what_was_read_since_it_began_to_look_is_no_move(shop: Shop) -> None:
    jobs = Jobs()
    shop.land(4)
    look, base = looking(shop, jobs), shop.ledger()
    look.at({0: 4, 1: 4}, base)
    jobs.do()
    shop.land(8)
    look.at({0: 8, 1: 8}, base)
    assert jobs.waiting == []
    look.at({0: 8}, base)
    jobs.do()
    shop.land(12)
    look.at({0: 8}, base)


def test_a_catalog_that_does_not_answer_and_a_new_table_say_nothing(shop: Shop) -> None:
    jobs = Jobs()
    shop.land(4)
    look, base = looking(shop, jobs), shop.ledger()
    shop.catalog.drop_table("shop.orders")
    for _ in range(2):
        look.at({0: 4, 1: 4}, base)
        jobs.do()
    ensure_table(shop.catalog, shop.product)
    for _ in range(2):
        look.at({0: 4, 1: 4}, base)
        jobs.do()
    assert jobs.waiting == []
