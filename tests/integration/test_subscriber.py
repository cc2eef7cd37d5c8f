"""Subscribing to a real product: from the topic, from the table, shared, restarted, too slow."""

from __future__ import annotations

import datetime as dt
import time
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from headrace.schemas.errors import UserError
from headrace.schemas.mesh import load_mesh
from headrace.streams.admin import Admin
from headrace.streams.subscriber import Reading, Start, Subscriber
from tests.support.meshes import ORDERS, order, send
from tests.support.sinks import caught_up, events, eventually

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.schemas.mesh import Mesh
from tests.support.subscribing import ALL, committed, each_into, numbers_of, publish

GROUP = "marketing.campaigns"
# A busy machine may stand still for seconds, which must not count as slowness of the subscriber.
HASTY = "session.timeout.ms: 10000, max.poll.interval.ms: 10000"


@pytest.fixture
def group(prefix: str) -> str:
    """A consumer group that no other test uses."""
    return f"{prefix}{GROUP}"


def test_without_a_group_everything_that_is_there_is_read_each_time(mesh: Mesh) -> None:
    publish(mesh, range(100))
    for _ in range(2):
        with Subscriber(mesh, ORDERS, group=None, reading=ALL) as subscriber:
            found = list(subscriber)
        assert sorted(found, key=lambda event: event["amount"]) == [order(number) for number in range(100)]


def test_an_empty_topic_ends_at_once(mesh: Mesh, group: str) -> None:
    for name in (None, group):
        with Subscriber(mesh, ORDERS, group=name, start=Start.HISTORY, reading=ALL) as subscriber:
            assert list(subscriber) == []


def test_what_came_after_the_start_is_left_for_the_next_time(mesh: Mesh, group: str) -> None:
    publish(mesh, range(10))
    found: list[Any] = []
    with Subscriber(mesh, ORDERS, group=group, reading=ALL) as subscriber:
        for event in subscriber:
            if not found:
                publish(mesh, range(10, 20))
            found.append(event)
    assert numbers_of(found) == list(range(10))
    with Subscriber(mesh, ORDERS, group=group, reading=ALL) as subscriber:
        assert numbers_of(subscriber) == list(range(10, 20))


def test_history_comes_first_and_then_the_topic(mesh: Mesh) -> None:
    publish(mesh, range(100))
    assert caught_up(mesh).outcomes == {ORDERS: True}
    publish(mesh, range(100, 200))
    with Subscriber(mesh, ORDERS, group=None, start=Start.HISTORY, reading=ALL) as subscriber:
        found = [(event["amount"], subscriber.place.from_history) for event in subscriber if subscriber.place]
    assert sorted(found) == [(number, number < 100) for number in range(200)]


def test_what_is_masked_in_the_table_is_masked_in_history(mesh: Mesh) -> None:
    publish(mesh, [1])
    assert caught_up(mesh).outcomes == {ORDERS: True}
    publish(mesh, [3])
    with Subscriber(mesh, ORDERS, group=None, start=Start.HISTORY, reading=ALL) as subscriber:
        past, present = sorted(subscriber, key=lambda event: event["amount"])
    assert len(past["email"]) == 64
    assert present["email"] == "ann3@example.org"
    masked = Reading(until_end=True, masked=True)
    with Subscriber(mesh, ORDERS, group=None, reading=masked) as subscriber:
        first, _ = sorted(subscriber, key=lambda event: event["amount"])
    assert first["email"] == past["email"]


def test_a_handled_event_does_not_come_again_and_an_unhandled_one_does(mesh: Mesh, group: str) -> None:
    publish(mesh, range(20), partition=0)
    with Subscriber(mesh, ORDERS, group=group, reading=ALL) as subscriber:
        assert numbers_of(islice(subscriber, 5)) == list(range(5))
    # Leaving the block without an exception is what handles the last one.
    assert committed(mesh, group) == {0: 5}
    prices = dict.fromkeys(range(8), "known")
    with pytest.raises(KeyError), Subscriber(mesh, ORDERS, group=group, reading=ALL) as subscriber:
        assert all(prices[event["amount"]] for event in subscriber)
    assert committed(mesh, group) == {0: 8}
    with Subscriber(mesh, ORDERS, group=group, reading=ALL) as subscriber:
        assert numbers_of(subscriber) == list(range(8, 20))


def test_who_wants_control_commits(mesh: Mesh, group: str) -> None:
    publish(mesh, range(20), partition=0)
    by_hand = Reading(until_end=True, autocommit=False)
    with Subscriber(mesh, ORDERS, group=group, reading=by_hand) as subscriber:
        for event in subscriber:
            if event["amount"] == 10:
                subscriber.commit()
                assert committed(mesh, group) == {0: 11}
    assert committed(mesh, group) == {0: 11}


def test_positions_are_committed_while_events_come(mesh: Mesh, group: str) -> None:
    publish(mesh, range(10), partition=0)
    with Subscriber(mesh, ORDERS, group=group) as subscriber:
        coming = iter(subscriber)
        for _ in range(10):
            next(coming)
        publish(mesh, range(10, 200), partition=0)

        def another_and_committed() -> bool:
            next(coming)
            return committed(mesh, group).get(0, 0) >= 10

        assert eventually(another_and_committed)


def test_batches_have_the_events_columns_and_where_they_stand(mesh: Mesh, group: str) -> None:
    publish(mesh, range(100))
    assert caught_up(mesh).outcomes == {ORDERS: True}
    publish(mesh, range(100, 200))
    with Subscriber(mesh, ORDERS, group=group, start=Start.HISTORY, reading=ALL) as subscriber:
        batches = list(subscriber.batches())
    places = ["_kafka_partition", "_kafka_offset", "_kafka_timestamp", "_schema_id"]
    assert all(batch.schema.names == ["id", "amount", "email", *places] for batch in batches)
    assert sorted(number for batch in batches for number in batch.column("amount").to_pylist()) == list(range(200))
    for batch in batches:
        offsets = batch.column("_kafka_offset").to_pylist()
        assert offsets == sorted(offsets)
        assert len(set(batch.column("_kafka_partition").to_pylist())) == 1
    assert sum(committed(mesh, group).values()) == 200


def test_a_loop_that_breaks_off_leaves_the_rest_to_the_next_one(mesh: Mesh, group: str) -> None:
    publish(mesh, range(30), partition=0)
    with Subscriber(mesh, ORDERS, group=group, reading=ALL) as subscriber:
        found = [[event["amount"] for event in islice(subscriber, count)] for count in (1, 4, 25, 25)]
        with pytest.raises(UserError, match="one by one or in batches, not both"):
            subscriber.batches()
    assert found == [[0], list(range(1, 5)), list(range(5, 30)), []]


def test_a_subscriber_that_stops_in_mid_history_resumes_there(mesh: Mesh, group: str) -> None:
    publish(mesh, range(200))
    assert caught_up(mesh).outcomes == {ORDERS: True}
    publish(mesh, range(200, 300))
    found: list[int] = []
    while len(found) < 300:
        with Subscriber(mesh, ORDERS, group=group, start=Start.HISTORY, reading=ALL) as subscriber:
            some = [event["amount"] for event in islice(subscriber, 70)]
        assert some
        found += some
    assert sorted(found) == list(range(300))


def test_a_group_that_read_the_topic_goes_on_in_history_where_kafka_has_deleted(mesh: Mesh, group: str) -> None:
    publish(mesh, range(20), partition=0)
    with Subscriber(mesh, ORDERS, group=group, reading=ALL) as subscriber:
        list(islice(subscriber, 5))
    assert caught_up(mesh).outcomes == {ORDERS: True}
    deleted_before(mesh, 10)
    with (
        pytest.raises(
            UserError, match=r"Kafka has deleted offsets 5 to 9 of partition 0 before group .* read them"
        ) as told,
        Subscriber(mesh, ORDERS, group=group, reading=ALL) as subscriber,
    ):
        list(subscriber)
    assert "history" in str(told.value.hint)
    with Subscriber(mesh, ORDERS, group=group, start=Start.HISTORY, reading=ALL) as subscriber:
        assert numbers_of(subscriber) == list(range(5, 20))


def deleted_before(mesh: Mesh, offset: int) -> None:
    """Let Kafka delete what partition 0 holds before an offset, as retention does."""
    from confluent_kafka.admin import AdminClient

    topic = mesh.product(ORDERS).topic
    client = AdminClient({**mesh.environment.kafka_config()})
    for future in client.delete_records([TopicPartition(topic, 0, offset)]).values():
        future.result()
    admin = Admin(mesh.environment.kafka_config())
    assert eventually(lambda: admin.watermarks(admin.topic(topic))[0].low == offset)


def test_latest_begins_behind_what_is_there_and_keeps_that_place(mesh: Mesh, group: str) -> None:
    publish(mesh, range(10))
    with Subscriber(mesh, ORDERS, group=group, start=Start.LATEST, reading=ALL) as subscriber:
        assert list(subscriber) == []
    publish(mesh, range(10, 20))
    with Subscriber(mesh, ORDERS, group=group, start=Start.LATEST, reading=ALL) as subscriber:
        assert numbers_of(subscriber) == list(range(10, 20))


def test_a_time_begins_with_what_is_not_older(mesh: Mesh) -> None:
    publish(mesh, range(10))
    at = dt.datetime.now(tz=dt.timezone(dt.timedelta(hours=2)))
    assert eventually(lambda: time.time() > at.timestamp() + 0.01)
    publish(mesh, range(10, 20))
    with Subscriber(mesh, ORDERS, group=None, start=at, reading=ALL) as subscriber:
        assert numbers_of(subscriber) == list(range(10, 20))
    with Subscriber(mesh, ORDERS, group=None, start=at + dt.timedelta(days=1), reading=ALL) as subscriber:
        assert list(subscriber) == []


def test_two_of_a_group_share_the_partitions(mesh: Mesh, group: str) -> None:
    publish(mesh, range(100))
    with (
        Subscriber(mesh, ORDERS, group=group, reading=Reading()) as first,
        Subscriber(mesh, ORDERS, group=group, reading=Reading()) as second,
    ):
        found = two_in_turn(mesh, first, second)
    assert sorted(number for number, _, _ in found) == list(range(len(found)))
    # In the end each has one partition to itself.
    assert {(who, partition) for number, who, partition in found if number >= len(found) - 20} in (
        {("first", 0), ("second", 1)},
        {("first", 1), ("second", 0)},
    )


def two_in_turn(mesh: Mesh, first: Subscriber[Any], second: Subscriber[Any]) -> list[tuple[int, str, int]]:
    """Let two subscribers read in threads while events go on coming; return number, reader and partition of each."""
    import threading

    found: list[tuple[int, str, int]] = []

    def read(who: str, subscriber: Subscriber[Any]) -> None:
        for event in subscriber:
            assert subscriber.place is not None
            if event["amount"] < 0:
                return
            found.append((event["amount"], who, subscriber.place.partition))

    threads = [threading.Thread(target=read, args=pair, daemon=True) for pair in (("first", first), ("second", second))]
    for thread in threads:
        thread.start()
    shared = 0
    for sent in range(100, 4_000, 40):
        publish(mesh, range(sent, sent + 40))
        assert eventually(lambda sent=sent: len(found) >= sent + 40), (len(found), sent)  # type: ignore[misc]
        shared += {who for _, who, _ in found[-40:]} == {"first", "second"}
        # In the midst of the first such round a partition may have changed hands.
        if shared == 2:
            break
    product = mesh.product(ORDERS)
    for partition in range(2):
        send(mesh, product.topic, events(mesh, product, [order(-1)]), partition=partition)
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    return found


def with_kafka(mesh: Mesh, properties: str) -> Mesh:
    """Return the mesh with other Kafka properties in its environment."""
    file = mesh.root / "mesh.yaml"
    file.write_text(file.read_text().replace("session.timeout.ms: 6000", properties))
    return load_mesh(mesh.root, environment="cluster")


def test_a_slow_subscriber_is_told_and_loses_nothing(mesh: Mesh, group: str) -> None:
    publish(mesh, range(10), partition=0)
    hasty = with_kafka(mesh, HASTY)
    found: list[Any] = []

    def wait(event: Mapping[str, Any]) -> Mapping[str, Any]:
        late = time.monotonic() + (15 if event["amount"] == 4 else 0)
        assert eventually(lambda: time.monotonic() > late)
        return event

    with (
        pytest.raises(UserError, match="the subscriber was too slow") as told,
        Subscriber(hasty, ORDERS, group=group, reading=ALL) as subscriber,
    ):
        each_into(found, (wait(event) for event in subscriber))
    assert "max.poll.interval.ms" in str(told.value.hint)
    assert numbers_of(found) == list(range(5))
    with Subscriber(mesh, ORDERS, group=group, reading=ALL) as subscriber:
        again = numbers_of(subscriber)
    assert set(again) >= set(range(5, 10))


def test_a_subscriber_that_takes_its_time_for_each_event_stays_a_member(mesh: Mesh, group: str) -> None:
    publish(mesh, range(10), partition=0)
    hasty = with_kafka(mesh, HASTY)
    found = []
    with Subscriber(hasty, ORDERS, group=group, reading=ALL) as subscriber:
        for event in subscriber:
            ready = time.monotonic() + 1.2
            assert eventually(lambda ready=ready: time.monotonic() > ready)  # type: ignore[misc]
            found.append(event)
    assert numbers_of(found) == list(range(10))


def test_a_group_that_shares_in_another_way_is_refused(mesh: Mesh, group: str) -> None:
    publish(mesh, range(10))
    other = Consumer({**mesh.environment.kafka_config(), "group.id": group, "partition.assignment.strategy": "range"})
    try:
        other.subscribe([mesh.product(ORDERS).topic])
        assert eventually(lambda: bool(other.poll(0.1) is None and other.assignment()))
        with (
            pytest.raises(UserError, match="the consumer group is in use by consumers that share") as told,
            Subscriber(mesh, ORDERS, group=group, reading=ALL) as subscriber,
        ):
            list(subscriber)
        assert told.value.hint
    finally:
        other.close()
