"""What tests of subscribers do: publish, look at a group's positions, register versions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, TopicPartition

from headrace.schemas.avro import AvroSchema
from headrace.schemas.registry import Registry
from headrace.streams.subscriber import Reading
from tests.support.meshes import ORDERS, encoded, order, send
from tests.support.sinks import events

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from headrace.schemas.mesh import Mesh

ALL = Reading(until_end=True)


def publish(mesh: Mesh, numbers: Iterable[int], name: str = ORDERS, partition: int = -1) -> None:
    """Send orders with these numbers."""
    product = mesh.product(name)
    send(mesh, product.topic, events(mesh, product, map(order, numbers)), partition=partition)


def numbers_of(found: Iterable[Mapping[str, Any]]) -> list[int]:
    """Return the numbers of orders, sorted."""
    return sorted(event["amount"] for event in found)


def each_into(found: list[Any], events: Iterable[Any]) -> None:
    """Keep events as they come: what came before an error is there after it."""
    for event in events:
        found.append(event)  # noqa: PERF402 - extend would keep nothing


def committed(mesh: Mesh, group: str, name: str = ORDERS) -> dict[int, int]:
    """Return a group's positions, by partition.

    A partition of which nothing was read is left out: whether its end was seen, and noted, is a matter of time.
    """
    consumer = Consumer({**mesh.environment.kafka_config(), "group.id": group})
    try:
        topic = mesh.product(name).topic
        found = consumer.committed([TopicPartition(topic, partition) for partition in range(2)], timeout=60)
        return {place.partition: place.offset for place in found if place.offset > 0}
    finally:
        consumer.close()


def register(mesh: Mesh, schema: Mapping[str, Any], name: str = ORDERS) -> int:
    """Register one more version of a product's schema, whatever the level says, and return its id."""
    parsed = AvroSchema.parse(json.dumps(schema))
    with Registry(mesh.environment.registry_config()) as registry:
        registry.set_compatibility(mesh.product(name).subject, "NONE")
        return registry.register(mesh.product(name).subject, parsed).id


def send_as(
    mesh: Mesh, schema: Mapping[str, Any], schema_id: int, bodies: Iterable[Mapping[str, Any]], *, partition: int = -1
) -> None:
    """Send events as a version of their own."""
    parsed = AvroSchema.parse(json.dumps(schema))
    messages = [(body["id"], encoded(parsed, schema_id, body)) for body in bodies]
    send(mesh, mesh.product(ORDERS).topic, messages, partition=partition)
