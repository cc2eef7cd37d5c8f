"""The sink against a real broker and registry, its tables read by DuckDB."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from headrace.schemas.errors import SettingsError
from headrace.sinks.serve import serve
from tests.support.meshes import ORDERS, ids, order, query, send
from tests.support.sinks import assert_exactly_once, caught_up, events, eventually, running

if TYPE_CHECKING:
    from headrace.schemas.mesh import Mesh


def publish(mesh: Mesh, numbers: range, partition: int = -1) -> None:
    product = mesh.product(ORDERS)
    send(mesh, product.topic, events(mesh, product, map(order, numbers)), partition=partition)


def test_each_event_becomes_one_masked_row(mesh: Mesh) -> None:
    publish(mesh, range(1000))
    assert serve(mesh, [], until_caught_up=True, stop=threading.Event())
    assert ids(mesh) == sorted(f"o{n}" for n in range(1000))
    emails = query(mesh, f"SELECT count(email), count(DISTINCT email), max(email) FROM {ORDERS}")
    assert emails[0][:2] == (500, 500)
    assert "@" not in emails[0][2]
    assert serve(mesh, [], until_caught_up=True, stop=threading.Event())
    assert len(ids(mesh)) == 1000


def test_metadata_columns_tell_where_a_row_came_from(mesh: Mesh) -> None:
    publish(mesh, range(10), partition=1)
    caught_up(mesh)
    rows = query(
        mesh,
        "SELECT DISTINCT _kafka_partition, _generation, min(_kafka_offset) OVER (), max(_kafka_offset) OVER (), "
        f"now() - min(_kafka_timestamp) OVER () < INTERVAL 1 HOUR FROM {ORDERS}",
    )
    assert rows == [(1, 1, 0, 9, True)]
    assert query(mesh, f"SELECT count(*) FROM {ORDERS} WHERE _kafka_key = id::BLOB") == [(10,)]


def test_without_the_secret_nothing_is_started(mesh: Mesh) -> None:
    publish(mesh, range(10))
    (mesh.root / "hmac.key").unlink()
    with pytest.raises(SettingsError) as caught:
        serve(mesh, [], until_caught_up=True, stop=threading.Event())
    assert caught.value.hint
    product = mesh.product(ORDERS)
    (mesh.root / "hmac.key").write_text("5e" * 32)
    assert query(mesh, f"SELECT count(*) FROM {ORDERS}") == [(0,)]
    consumer = Consumer({**mesh.environment.kafka_config(), "group.id": product.sink_group})
    places: list[TopicPartition] = []

    def told() -> bool:
        # Of a broker that nobody has asked for a group before, the coordinator is only being made.
        with suppress(KafkaException):
            places[:] = consumer.committed([TopicPartition(product.topic, 0)], 60)
        return bool(places)

    try:
        assert eventually(told)
        assert all(place.offset < 0 for place in places)
    finally:
        consumer.close()


def test_aborted_and_control_records_are_no_rows_and_the_position_is_behind_them(mesh: Mesh) -> None:
    product = mesh.product(ORDERS)
    config = {"bootstrap.servers": mesh.environment.kafka_config()["bootstrap.servers"]}
    producer = Producer({**config, "transactional.id": product.topic})
    producer.init_transactions(30)
    for first, commit in ((0, True), (100, False), (200, True), (300, False)):
        producer.begin_transaction()
        for key, value in events(mesh, product, map(order, range(first, first + 20))):
            producer.produce(product.topic, value, key, partition=0)
        if commit:
            producer.commit_transaction(30)
        else:
            producer.flush(30)
            producer.abort_transaction(30)
    sink = caught_up(mesh)
    assert ids(mesh) == sorted(f"o{n}" for first in (0, 200) for n in range(first, first + 20))
    # 80 events and a control record behind each transaction.
    assert sink.landed[-1][1].ledger.next(0) == 84
    assert_exactly_once(mesh)


def test_group_offsets_follow_the_table(mesh: Mesh) -> None:
    product = mesh.product(ORDERS)
    publish(mesh, range(30), partition=0)
    with running(mesh) as sink:
        assert eventually(lambda: sink.rows(ORDERS) == 30)
        consumer = Consumer({**mesh.environment.kafka_config(), "group.id": product.sink_group})
        try:
            place = TopicPartition(product.topic, 0)
            assert eventually(lambda: consumer.committed([place], 60)[0].offset == 30)
        finally:
            consumer.close()


def test_one_of_two_sinks_on_an_empty_topic_catches_up_at_once(mesh: Mesh) -> None:
    with running(mesh) as idle:
        publish(mesh, range(10))
        assert eventually(lambda: idle.rows(ORDERS) == 10)
        # It gets some of the partitions; the others' are caught up too, which the table tells.
        assert caught_up(mesh).outcomes == {ORDERS: True}


def test_a_topic_without_events_is_caught_up_for_each_of_two_sinks(mesh: Mesh) -> None:
    with running(mesh) as idle:
        assert eventually(lambda: assigned(mesh) == 2)
        assert caught_up(mesh).outcomes == {ORDERS: True}
        assert idle.rows(ORDERS) == 0


def assigned(mesh: Mesh) -> int:
    """Return how many partitions the sink's group has given to members."""
    group = mesh.product(ORDERS).sink_group
    admin = AdminClient({"bootstrap.servers": mesh.environment.kafka_config()["bootstrap.servers"]})
    described = admin.describe_consumer_groups([group])[group].result(60)
    return sum(len(member.assignment.topic_partitions) for member in described.members if member.assignment)


def test_a_stopped_sink_commits_what_it_has_read(mesh: Mesh) -> None:
    with running(mesh) as sink:
        publish(mesh, range(500))
        assert eventually(lambda: sink.rows(ORDERS) > 0)
    assert sink.outcomes == {ORDERS: True}
    assert caught_up(mesh).outcomes == {ORDERS: True}
    assert_exactly_once(mesh)
