"""Reading schema ids off the logs: nothing missed, nothing read again, and what the log does not hold is forgotten."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from headrace.governance.observing import Seen
from headrace.governance.schema_ids import MAX_IDS, SchemaIds
from headrace.producers.resumable import publish_all
from headrace.streams.admin import Admin
from tests.support.meshes import ORDERS, order, send
from tests.support.sinks import eventually, registered_id

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headrace.schemas.mesh import Mesh

BUDGET_S = 60.0


@pytest.fixture
def opened(mesh: Mesh) -> Callable[[], SchemaIds]:
    """Opens a reader, as a scanner does when it begins."""
    config = mesh.environment.kafka_config()
    return lambda: SchemaIds(config, f"positions-{mesh.environment.topic_prefix}", Admin(config))


def seen_by(ids: SchemaIds, mesh: Mesh, known: Sequence[Seen] = ()) -> list[Seen]:
    topic = mesh.product(ORDERS).topic
    found = Admin(mesh.environment.kafka_config()).find(topic)
    assert ids.read(found, {topic: known}, BUDGET_S)
    return list(ids.seen(topic))


def message(schema_id: int) -> tuple[str | None, bytes | None]:
    return None, struct.pack(">bI", 0, schema_id) + b"body"


def test_ids_are_seen_with_their_first_offset_whatever_else_is_there(
    mesh: Mesh, opened: Callable[[], SchemaIds]
) -> None:
    topic = mesh.product(ORDERS).topic
    with opened() as ids:
        assert seen_by(ids, mesh) == []
        send(mesh, topic, [(None, None), (None, b""), (None, b"{}"), message(7), message(8), message(7)], partition=1)
        assert seen_by(ids, mesh) == [Seen(7, 1, 3), Seen(8, 1, 4)]
        # Transactions leave records that are no messages at the log's end.
        publish_all(mesh, ORDERS, [(number, order(number)) for number in range(20)], identity="test")
        own = registered_id(mesh, mesh.product(ORDERS))
        assert {each.schema_id for each in seen_by(ids, mesh)} == {7, 8, own}


def test_garbage_shows_a_bounded_number_of_ids(mesh: Mesh, opened: Callable[[], SchemaIds]) -> None:
    topic = mesh.product(ORDERS).topic
    send(mesh, topic, [message((1 << 32) - 1 - number) for number in range(3 * MAX_IDS)], partition=0)
    with opened() as ids:
        seen = seen_by(ids, mesh)
    assert len(seen) == MAX_IDS
    # As Avro's int holds them.
    assert min(each.schema_id for each in seen) == -MAX_IDS


def test_a_restart_goes_on_where_it_was_and_reads_again_what_was_not_published(
    mesh: Mesh, opened: Callable[[], SchemaIds]
) -> None:
    topic = mesh.product(ORDERS).topic
    send(mesh, topic, [message(7)] * 3, partition=0)
    with opened() as ids:
        published = seen_by(ids, mesh)
        ids.keep()
        kept = [TopicPartition(topic, 0)]
        assert eventually(lambda: ids.read({}, {}, BUDGET_S) and ids._consumer.committed(kept)[0].offset == 3)
    send(mesh, topic, [message(8)], partition=0)
    with opened() as ids:
        assert seen_by(ids, mesh, published) == [Seen(7, 0, 0), Seen(8, 0, 3)]
        # Nothing was kept of the second; it is read again.
    with opened() as ids:
        assert seen_by(ids, mesh, published) == [Seen(7, 0, 0), Seen(8, 0, 3)]
    with opened() as ids:
        assert seen_by(ids, mesh) == [Seen(7, 0, 0), Seen(8, 0, 3)]


def test_what_the_log_does_not_hold_any_more_is_forgotten(mesh: Mesh, opened: Callable[[], SchemaIds]) -> None:
    topic = mesh.product(ORDERS).topic
    admin = AdminClient({**mesh.environment.kafka_config()})

    def delete_below(offset: int) -> None:
        for future in admin.delete_records([TopicPartition(topic, 0, offset)]).values():
            future.result()

    send(mesh, topic, [message(7), message(8), message(7), message(8)], partition=0)
    with opened() as ids:
        assert [each.schema_id for each in seen_by(ids, mesh)] == [7, 8]
        delete_below(2)
        assert [each.schema_id for each in seen_by(ids, mesh)] == [7, 8]
        delete_below(3)
        assert [each.schema_id for each in seen_by(ids, mesh)] == [8]
    # A restart knows no last offsets, only what they lie before.
    with opened() as ids:
        assert [each.schema_id for each in seen_by(ids, mesh, [Seen(7, 0, 0), Seen(8, 0, 1)])] == [7, 8]
        delete_below(4)
        assert seen_by(ids, mesh) == []


def test_a_topic_that_is_made_anew_begins_anew(mesh: Mesh, opened: Callable[[], SchemaIds]) -> None:
    topic = mesh.product(ORDERS).topic
    asked = Admin(mesh.environment.kafka_config())
    admin = AdminClient({**mesh.environment.kafka_config()})
    send(mesh, topic, [message(7)] * 5, partition=0)
    with opened() as ids:
        assert [each.schema_id for each in seen_by(ids, mesh)] == [7]
        ids.keep()
        before = asked.topic(topic).id
        admin.delete_topics([topic])[topic].result()
        assert eventually(lambda: topic not in asked.find(topic))
        assert eventually(lambda: asked.create(topic, partitions=2, config={}))
        assert asked.topic(topic).id != before
        send(mesh, topic, [message(8)], partition=0)
        assert seen_by(ids, mesh) == [Seen(8, 0, 0)]
