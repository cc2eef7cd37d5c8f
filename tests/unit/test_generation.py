"""A topic that was made anew: what the table goes on with, and when it is not accepted."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
from pyiceberg.table.update import RemovePropertiesUpdate, SetPropertiesUpdate

from headrace.schemas.errors import DamagedLedger, ProductStopped, Unavailable
from headrace.sinks.generation import Succession, accept_topic, find_succession
from headrace.sinks.past_topics import PAST_TOPIC, as_followed, past_topics
from headrace.sinks.repair import plan_repair
from headrace.streams.admin import Watermarks
from headrace.streams.ledger import PROPERTY_KEY, SUMMARY_KEY, Accepted, Ledger, Position
from headrace.streams.walk import trusted_property
from tests.support.faulty import CommitFault
from tests.support.rewinding import Broker, Shop
from tests.support.workers import TOPIC_ID

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.streams.admin import Admin

ANEW = Broker("a-new-topic", {0: Watermarks(0, 5), 1: Watermarks(3, 9), 2: Watermarks(0, 0)})


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop.at(tmp_path)


def admin_of(broker: Broker) -> Admin:
    return cast("Admin", broker)


def found_in(shop: Shop, broker: Broker = ANEW) -> Succession | None:
    return find_succession(shop.catalog, shop.product, admin_of(broker))


def accepted(shop: Shop, found: Succession, broker: Broker = ANEW) -> int | None:
    return accept_topic(shop.catalog, shop.product, found, admin_of(broker))


def test_the_next_generation_begins_where_the_new_log_does(shop: Shop) -> None:
    shop.land(8)
    found = found_in(shop)
    assert found is not None
    assert (found.known.topic_id, found.topic_id) == (TOPIC_ID, "a-new-topic")
    assert accepted(shop, found) == shop.head()
    assert shop.ledger() == Ledger(
        "a-new-topic", 2, {0: Position(0), 1: Position(3), 2: Position(0)}, added={}, origin={1: 3}
    )
    assert shop.holds(8), "rows of the first generation stay"
    assert past_topics(shop.table().metadata) == {1: TOPIC_ID, 2: "a-new-topic"}


def test_which_topics_it_followed_is_known_after_their_snapshots_have_expired(shop: Shop) -> None:
    shop.land(4)
    for topic_id in ("a-new-topic", "a-third-topic"):
        broker = Broker(topic_id)
        found = found_in(shop, broker)
        assert found is not None
        accepted(shop, found, broker)
    table = shop.table()
    old = [each.snapshot_id for each in table.snapshots() if each.snapshot_id != shop.head()]
    table.maintenance.expire_snapshots().by_ids(old).commit()
    metadata = shop.table().metadata
    assert len(metadata.snapshots) == 1
    assert past_topics(metadata) == {1: TOPIC_ID, 2: "a-new-topic", 3: "a-third-topic"}
    ledger = shop.ledger()
    assert as_followed(metadata, ledger, "a-third-topic", [0]) is ledger
    earlier = as_followed(metadata, ledger, TOPIC_ID, [0, 1])
    assert earlier is not None
    assert (earlier.generation, set(earlier.positions)) == (1, {0, 1})
    assert as_followed(metadata, ledger, "never-followed", [0]) is None


def test_a_generation_that_two_topics_claim_is_nobodys(shop: Shop) -> None:
    shop.land(4)
    found = found_in(shop)
    assert found is not None
    accepted(shop, found)
    claims = {f"{PAST_TOPIC}1": "another", f"{PAST_TOPIC}x": "of no number"}
    shop.catalog.commit_table(shop.table(), (), (SetPropertiesUpdate(updates=claims),))
    metadata = shop.table().metadata
    assert past_topics(metadata) == {2: "a-new-topic"}
    assert as_followed(metadata, shop.ledger(), TOPIC_ID, [0]) is None
    assert as_followed(metadata, shop.ledger(), "another", [0]) is None


def test_there_is_nothing_to_accept_where_the_ids_agree_or_nothing_was_committed(shop: Shop) -> None:
    assert found_in(shop) is None
    shop.land(4)
    assert found_in(shop, Broker()) is None


def test_what_was_accepted_as_lost_stays_with_the_old_topic(shop: Shop) -> None:
    known = Ledger(TOPIC_ID, 4, {0: Position(9, 3)}, {}, {}, {0: (Accepted(4, 9, 1),)})
    found = Succession(known, "a-new-topic", {0: Watermarks(0, 0)}, 5)
    assert found.known.accepted
    shop.land(4)
    succession = found_in(shop)
    assert succession is not None
    accepted(shop, succession)
    assert shop.ledger().accepted == {}


@pytest.mark.parametrize("fault", [CommitFault.REPLY_LOST, CommitFault.TWICE, CommitFault.LOCKED_AFTER])
def test_a_reply_that_is_lost_makes_no_second_generation(shop: Shop, fault: CommitFault) -> None:
    shop.land(4)
    found = found_in(shop)
    assert found is not None
    shop.catalog.fault = fault
    assert accepted(shop, found) == shop.head()
    assert shop.ledger().generation == 2


@pytest.mark.parametrize("fault", [CommitFault.REFUSED, CommitFault.LATE_BEFORE_REPEAT, CommitFault.LATE_AFTER_REPEAT])
def test_what_may_not_have_landed_is_accepted_once(shop: Shop, fault: CommitFault) -> None:
    shop.land(4)
    found = found_in(shop)
    assert found is not None
    shop.catalog.fault = fault
    with pytest.raises(Unavailable):
        accepted(shop, found)
    again = found_in(shop)
    if again is not None:
        accepted(shop, again)
    assert shop.ledger().generation == 2
    assert accepted(shop, found) is None


def test_another_topic_than_the_one_that_was_shown_is_not_accepted(shop: Shop) -> None:
    shop.land(4)
    found = found_in(shop)
    assert found is not None
    with pytest.raises(Unavailable, match="has changed"):
        accepted(shop, found, Broker("a-third-topic"))
    assert shop.ledger().generation == 1


def test_a_sink_that_still_follows_the_old_topic_is_refused(shop: Shop) -> None:
    shop.land(4)
    worker = shop.worker(8)
    landing = next(worker._landings())
    steps = iter(landing)
    while next(steps) != "commit":
        pass
    found = found_in(shop)
    assert found is not None
    accepted(shop, found)
    with pytest.raises(ProductStopped, match="made anew"):
        list(steps)
    assert shop.holds(4)


def test_a_damaged_ledger_that_names_another_topic_is_no_obstacle(shop: Shop) -> None:
    shop.land(4)
    table = shop.table()
    table.append(table.schema().as_arrow().empty_table(), snapshot_properties={SUMMARY_KEY: "{"})
    found = found_in(shop)
    assert found is not None
    accepted(shop, found)
    assert shop.ledger().generation == 2
    table = shop.table()
    table.append(table.schema().as_arrow().empty_table(), snapshot_properties={SUMMARY_KEY: "{"})
    with pytest.raises(DamagedLedger):
        found_in(shop)


def test_a_generation_without_rows_is_trusted_when_its_history_is_gone(shop: Shop) -> None:
    """Others expire the history right behind the acceptance: the rows are all of the generation before."""
    shop.land(4)
    found = found_in(shop)
    assert found is not None
    accepted(shop, found)
    expected = shop.ledger()
    table = shop.table()
    table.append(table.schema().as_arrow().empty_table())
    table = shop.table()
    old = [each.snapshot_id for each in table.snapshots() if each.snapshot_id != shop.head()]
    table.maintenance.expire_snapshots().by_ids(old).commit()
    assert shop.ledger().positions == expected.positions
    shop.catalog.commit_table(shop.table(), (), (RemovePropertiesUpdate(removals=[PROPERTY_KEY]),))
    with pytest.raises(DamagedLedger):
        shop.ledger()


def test_a_generation_without_rows_is_repaired_from_its_newest_ledger(shop: Shop) -> None:
    shop.land(4)
    found = found_in(shop)
    assert found is not None
    accepted(shop, found)
    expected = shop.ledger()
    table = shop.table()
    table.append(table.schema().as_arrow().empty_table(), snapshot_properties={SUMMARY_KEY: "{"})
    plan = plan_repair(shop.catalog, shop.product, admin_of(ANEW), {})
    assert plan is not None
    assert plan.new == expected


def test_rows_of_a_later_generation_contradict_a_property() -> None:
    ledger = Ledger(TOPIC_ID, 1, {0: Position(4, 3)}, {}, {})
    assert trusted_property(ledger.to_json(), {0: 3}).positions == ledger.positions
    with pytest.raises(DamagedLedger):
        trusted_property(ledger.to_json(), {0: 5}, 2)


def rolled_back_by_others(shop: Shop, snapshot_id: int) -> None:
    shop.table().manage_snapshots().rollback_to_snapshot(snapshot_id).commit()


def test_a_generation_of_another_topic_is_never_taken_again(shop: Shop) -> None:
    """Taken back over the border and made anew once more: the snapshots that were left tell of the second topic."""
    first = shop.land(4)
    second = found_in(shop)
    assert second is not None
    left = accepted(shop, second)
    assert left is not None
    rolled_back_by_others(shop, first)
    third = Broker("a-third-topic", ANEW.marks)
    found = found_in(shop, third)
    assert found is not None
    assert found.generation == 3
    accepted(shop, found, third)
    assert shop.ledger().generation == 3


def test_a_topic_that_the_table_followed_before_keeps_its_generation(shop: Shop) -> None:
    first = shop.land(4)
    for _ in range(2):
        found = found_in(shop)
        assert found is not None
        accepted(shop, found)
        assert (shop.ledger().topic_id, shop.ledger().generation) == ("a-new-topic", 2)
        rolled_back_by_others(shop, first)
