"""Rolling a table back: what is chosen, what the new snapshot says, and what happens to requests under way."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.schemas.errors import DamagedLedger, ProductStopped, Unavailable, UserError
from headrace.sinks.attempts import land
from headrace.sinks.draft import Draft
from headrace.sinks.hold import hold, release
from headrace.sinks.landing import Step
from headrace.sinks.past_snapshots import ROLLBACK_KEY, at_moment, by_id, past_snapshots, said_by
from headrace.sinks.rollback import Rollback, Way, check_rereadable, land_rollback, plan_rollback, skipping
from headrace.streams.admin import Watermarks
from headrace.streams.ledger import SUMMARY_KEY, Accepted, Ledger, Position
from tests.support.faulty import CommitFault
from tests.support.rewinding import Broker, Shop
from tests.support.workers import At, Log, rows_in

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.streams.admin import Admin

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
NOW_S = int(NOW.timestamp())


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop.at(tmp_path)


def planned(shop: Shop, target: int, way: Way) -> Rollback:
    table = shop.table()
    return plan_rollback(table, shop.product, by_id(table.metadata, target, shop.product), way, NOW)


def rolled_back(shop: Shop, target: int, way: Way) -> int:
    return land_rollback(shop.catalog, shop.product, planned(shop, target, way))


def test_to_reread_takes_the_rows_and_the_ledger_back_in_a_new_snapshot(shop: Shop) -> None:
    first = shop.land(4)
    then = shop.ledger()
    last = shop.land(12)
    made = rolled_back(shop, first, Way.REREAD)
    assert made not in {first, last}
    assert shop.head() == made
    assert shop.ledger() == then.adding_nothing()
    assert shop.holds(4)
    snapshot = shop.table().current_snapshot()
    assert snapshot is not None
    assert snapshot.parent_snapshot_id == first
    assert said_by(snapshot)[ROLLBACK_KEY] == f"{first} (reread)"
    shop.land(12)
    assert shop.holds(12)


def test_to_skip_keeps_the_positions_and_records_what_is_left_out(shop: Shop) -> None:
    first = shop.land(4)
    shop.land(8)
    rolled_back(shop, first, Way.SKIP)
    assert shop.holds(4)
    assert shop.ledger().positions == {0: Position(8, 2), 1: Position(8, 2)}
    assert shop.ledger().accepted == {p: (Accepted(4, 8, NOW_S),) for p in (0, 1)}
    shop.land(12)
    left = [row for row in Log(shop.product, 12).rows() if not 4 <= row[1] < 8]
    assert rows_in(shop.catalog, shop.product) == left


def test_a_rollback_is_taken_back_by_another_one(shop: Shop) -> None:
    """What was taken back is still there, and going to it neither loses nor doubles anything."""
    first, last = shop.land(4), shop.land(8)
    rolled_back(shop, first, Way.REREAD)
    rolled_back(shop, last, Way.REREAD)
    assert shop.holds(8)
    shop.land(12)
    assert shop.holds(12)


def test_to_skip_never_goes_on_below_rows_that_are_there(shop: Shop) -> None:
    first, last = shop.land(4), shop.land(8)
    rolled_back(shop, first, Way.REREAD)
    rolled_back(shop, last, Way.SKIP)
    assert {p: at.next for p, at in shop.ledger().positions.items()} == {0: 8, 1: 8}
    assert shop.ledger().accepted == {}
    shop.land(12)
    assert shop.holds(12)


@pytest.mark.parametrize("way", Way)
def test_a_commit_under_way_is_refused_however_late_it_arrives(shop: Shop, way: Way) -> None:
    """The head is a new one, so that nothing asks for it that was prepared before: not even at the old snapshot."""
    first = shop.land(4)
    late = shop.worker(8)
    at = At(Step.COMMIT, 1, lambda: None)
    staged: list[int] = []

    def roll() -> None:
        staged.append(rolled_back(shop, first, way))

    at.action = roll
    late.observe = at
    late.run()
    assert at.done
    assert staged[0] in {snapshot.snapshot_id for snapshot in shop.table().snapshots()}
    rows = rows_in(shop.catalog, shop.product)
    assert len(rows) == len(set(rows)), "rows were doubled"
    if way is Way.REREAD:
        assert shop.holds(8)


def test_a_sinks_request_that_arrives_after_the_rollback_is_refused(shop: Shop) -> None:
    first = shop.land(4)
    landing = next(shop.worker(8)._landings())
    shop.catalog.fault = CommitFault.LATE_AFTER_REPEAT
    with pytest.raises(Unavailable):
        list(landing)
    # Back to the very snapshot that the request was made for: a set branch would let it in.
    rolled_back(shop, first, Way.REREAD)
    assert shop.catalog.answers == ["late request refused"]
    assert shop.holds(4)
    shop.land(8)
    assert shop.holds(8)


# What each fault does to the one request of a rollback: it lands, or the person is told that it may not have.
@pytest.mark.parametrize("fault", [CommitFault.REPLY_LOST, CommitFault.TWICE, CommitFault.LOCKED_AFTER])
@pytest.mark.parametrize("way", Way)
def test_a_reply_that_is_lost_changes_nothing(shop: Shop, way: Way, fault: CommitFault) -> None:
    first = shop.land(4)
    shop.land(8)
    plan = planned(shop, first, way)
    shop.catalog.fault = fault
    made = land_rollback(shop.catalog, shop.product, plan)
    assert shop.head() == made
    assert shop.holds(4)


@pytest.mark.parametrize("fault", [CommitFault.REFUSED, CommitFault.LATE_BEFORE_REPEAT, CommitFault.LATE_AFTER_REPEAT])
def test_a_rollback_that_may_not_have_landed_is_planned_again(shop: Shop, fault: CommitFault) -> None:
    first = shop.land(4)
    shop.land(8)
    plan = planned(shop, first, Way.REREAD)
    shop.catalog.fault = fault
    with pytest.raises(Unavailable):
        land_rollback(shop.catalog, shop.product, plan)
    # The late one may come first: then this one finds that the table has moved.
    with suppress(Unavailable):
        rolled_back(shop, first, Way.REREAD)
    rolled_back(shop, first, Way.REREAD)
    assert shop.holds(4)
    shop.land(12)
    assert shop.holds(12)


def test_what_moved_since_it_was_planned_is_not_rolled_back(shop: Shop) -> None:
    first = shop.land(4)
    shop.land(8)
    plan = planned(shop, first, Way.SKIP)
    shop.land(12)
    with pytest.raises(Unavailable, match="has moved"):
        land_rollback(shop.catalog, shop.product, plan)
    assert shop.holds(12)


def test_before_anything_was_committed(shop: Shop) -> None:
    hold(shop.catalog, shop.product, "", NOW)
    empty = shop.head()
    release(shop.catalog, shop.product)
    shop.land(8)
    rolled_back(shop, empty, Way.REREAD)
    assert shop.ledger().positions == {0: Position(0), 1: Position(0)}
    assert rows_in(shop.catalog, shop.product) == []
    shop.land(8)
    assert shop.holds(8)


def test_a_table_to_which_nothing_was_committed_goes_nowhere(shop: Shop) -> None:
    hold(shop.catalog, shop.product, "", NOW)
    with pytest.raises(UserError, match="no sink has committed"):
        planned(shop, shop.head(), Way.REREAD)


def test_a_damaged_ledger_is_no_obstacle_to_rereading(shop: Shop) -> None:
    first = shop.land(4)
    shop.land(8)
    table = shop.table()
    table.append(table.schema().as_arrow().empty_table(), snapshot_properties={SUMMARY_KEY: "{"})
    with pytest.raises(DamagedLedger):
        planned(shop, first, Way.SKIP)
    rolled_back(shop, first, Way.REREAD)
    shop.land(8)
    assert shop.holds(8)


def test_what_kafka_has_deleted_cannot_be_read_again(shop: Shop) -> None:
    first = shop.land(4)
    shop.land(8)
    plan = planned(shop, first, Way.REREAD)
    check_rereadable(plan, shop.product, cast("Admin", Broker()))
    gone = Broker(marks={0: Watermarks(6, 8), 1: Watermarks(4, 8)})
    with pytest.raises(UserError) as refused:
        check_rereadable(plan, shop.product, cast("Admin", gone))
    assert "offsets 4 to 5 of partition 0," in refused.value.what
    assert refused.value.hint is not None
    assert "--skip" in refused.value.hint
    with pytest.raises(ProductStopped, match="made anew"):
        check_rereadable(plan, shop.product, cast("Admin", Broker(topic_id="another")))


def test_what_other_engines_did_in_between_is_told(shop: Shop) -> None:
    first = shop.land(4)
    shop.table().delete("_kafka_offset = 1")
    plan = planned(shop, first, Way.REREAD)
    assert plan.undone == [shop.head()]
    land_rollback(shop.catalog, shop.product, plan)
    assert shop.holds(4)


# --- choosing a snapshot ---


def test_states_are_listed_the_newest_first_with_who_made_them(shop: Shop) -> None:
    first = shop.land(4)
    middle = shop.land(8)
    shop.table().delete("_kafka_offset = 1")
    deleted = shop.head()
    back = rolled_back(shop, first, Way.REREAD)
    found = past_snapshots(shop.table().metadata)
    assert [past.snapshot_id for past in found] == [back, deleted, middle, first]
    assert [past.standing for past in found] == ["current", "left", "left", "main"]
    assert found[0].author == f"headrace: rollback to {first} (reread)"
    assert [past.author for past in found[1:]] == ["another engine", "headrace", "headrace"]
    assert [past.rows for past in found] == [6, 12, 14, 6]
    assert [past.ledger.next(0) if past.ledger else None for past in found] == [4, 8, 8, 4]


def expired(shop: Shop, *snapshots: int) -> None:
    shop.table().maintenance.expire_snapshots().by_ids(list(snapshots)).commit()


def test_where_the_history_has_gaps_the_log_tells_what_was_taken_back(shop: Shop) -> None:
    """Upkeep expires most snapshots: a walk through the parents ends at the first of them."""
    first, second = shop.land(4), shop.land(8)
    third = shop.land(12)
    shop.table().delete("_kafka_offset = 1")
    deleted = shop.head()
    gap = shop.land(16)
    last = shop.land(20)
    expired(
        shop,
        *(
            each.snapshot_id
            for each in shop.table().snapshots()
            if each.snapshot_id not in {first, second, third, deleted, last}
        ),
    )
    assert gap not in {each.snapshot_id for each in shop.table().snapshots()}
    found = past_snapshots(shop.table().metadata)
    assert [(past.snapshot_id, past.standing) for past in found] == [
        (last, "current"), (deleted, "main"), (third, "main"), (second, "main"), (first, "main"),
    ]  # fmt: skip
    assert planned(shop, second, Way.REREAD).undone == [deleted]
    back = rolled_back(shop, second, Way.REREAD)
    standing = {past.snapshot_id: past.standing for past in past_snapshots(shop.table().metadata)}
    assert standing == {
        back: "current", last: "left", deleted: "left", third: "left", second: "main", first: "main",
    }  # fmt: skip
    assert planned(shop, deleted, Way.REREAD).undone == []
    shop.table().manage_snapshots().rollback_to_snapshot(first).commit()
    assert {past.snapshot_id for past in past_snapshots(shop.table().metadata) if past.standing == "left"} == {
        back, last, deleted, third, second,
    }  # fmt: skip


def test_what_was_taken_back_is_listed_where_a_catalog_cut_the_log_off(shop: Shop) -> None:
    first, last = shop.land(4), shop.land(8)
    back = rolled_back(shop, first, Way.REREAD)
    metadata = shop.table().metadata
    cut = metadata.model_copy(update={"snapshot_log": metadata.snapshot_log[-1:]})
    assert {first, last, back} <= {past.snapshot_id for past in past_snapshots(cut)}


def test_a_moment_is_what_main_was_then(shop: Shop) -> None:
    first = shop.land(4)
    shop.land(8)
    metadata = shop.table().metadata
    entry = next(entry for entry in metadata.snapshot_log if entry.snapshot_id == first)

    def at(milliseconds: int) -> int:
        moment = datetime.fromtimestamp(milliseconds / 1_000, UTC)
        return at_moment(metadata, moment, shop.product).snapshot_id

    assert at(entry.timestamp_ms) == first
    assert at(entry.timestamp_ms + 10_000_000) == shop.head()
    with pytest.raises(UserError, match="keeps no snapshot"):
        at(entry.timestamp_ms - 1)


def test_a_snapshot_that_never_was_mains_is_none_of_them(shop: Shop) -> None:
    shop.land(4)
    table = shop.table()
    table.append(table.schema().as_arrow().empty_table(), branch="other")
    with pytest.raises(UserError, match="main has no snapshot"):
        by_id(shop.table().metadata, shop.head("other"), shop.product)
    with pytest.raises(UserError):
        by_id(shop.table().metadata, 5, shop.product)


# --- the ledger of a table that skips ---

ledgers = st.builds(
    lambda generation, offsets: Ledger(
        "t", generation, {p: Position(at, at - 1 if at else None) for p, at in offsets.items()}, {}, {}
    ),
    st.integers(1, 2),
    st.dictionaries(st.integers(0, 3), st.integers(0, 50)),
)


@given(then=ledgers, now=ledgers)
def test_skipping_never_goes_back_and_records_each_offset_that_is_left_out(then: Ledger, now: Ledger) -> None:
    after = skipping(then, now, NOW_S)
    same = then.generation == now.generation
    for partition in then.positions.keys() | now.positions.keys():
        row = then.positions[partition].last_row if same and partition in then.positions else None
        first = then.next(partition) if same else 0
        assert after.next(partition) == max(first, now.next(partition)) or partition not in after.positions
        if partition in after.positions:
            assert after.positions[partition].last_row == row
        recorded = [offset for gap in after.accepted.get(partition, ()) for offset in range(gap.first, gap.end)]
        assert recorded == list(range(first, now.next(partition)))
    assert now.generation == after.generation or same
    assert Ledger.from_json(after.to_json()).positions == dict(after.positions)


@pytest.mark.parametrize("way", Way)
def test_topics_of_one_generation_are_told_apart_by_their_ids(shop: Shop, way: Way) -> None:
    """An earlier headrace may have given two topics the same generation: their offsets are never compared."""
    shop.land(4)
    other = replace(shop.ledger(), topic_id="another", added={})
    target = land(shop.catalog, shop.product, lambda _: Draft(other))
    assert target is not None
    land(shop.catalog, shop.product, lambda _: Draft(replace(other, topic_id="a-third")))
    with pytest.raises(UserError, match="the snapshot is of generation 1"):
        planned(shop, target, way)


def test_rows_of_an_earlier_generation_say_nothing_of_the_new_ones_offsets() -> None:
    then = Ledger("old", 1, {0: Position(500, 499)}, {}, {})
    now = Ledger("new", 2, {0: Position(30, 29)}, {}, {0: 10})
    after = skipping(then, now, NOW_S)
    assert (after.topic_id, after.generation) == ("new", 2)
    assert after.positions == {0: Position(30, None)}
    assert after.accepted == {0: (Accepted(10, 30, NOW_S),)}
