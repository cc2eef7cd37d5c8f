"""Reading stretches of a topic: several partitions, ends in the middle, early leaving, and a start that has moved."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

from headrace.schemas.errors import NotApplied, Unavailable
from headrace.streams.admin import Admin, Watermarks
from headrace.streams.scan import Scan
from tests.support.meshes import ORDERS, send
from tests.support.topics import delete_records

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from confluent_kafka import Message

    from headrace.schemas.mesh import Mesh

ROWS = 1_200


def offsets(chunks: Iterable[tuple[int, Sequence[Message]]]) -> Mapping[int, list[int | None]]:
    found: defaultdict[int, list[int | None]] = defaultdict(list)
    for partition, messages in chunks:
        found[partition] += [message.offset() for message in messages]
    return found


def test_stretches_of_a_topic(mesh: Mesh) -> None:
    product = mesh.product(ORDERS)
    config, topic = mesh.environment.kafka_config(), product.topic
    for partition in range(2):
        send(mesh, topic, [("key", b"event")] * ROWS, partition=partition)
    delete_records(mesh, product, {0: 10})
    whole = Admin(config).watermarks(Admin(config).topic(topic))
    assert whole == {0: Watermarks(10, ROWS), 1: Watermarks(0, ROWS)}
    with Scan(config, topic, "test") as scan:
        assert (scan.low(0), scan.low(1)) == (10, 0)
        assert offsets(scan.stretches(whole)) == {0: list(range(10, ROWS)), 1: list(range(ROWS))}
        middle = {0: Watermarks(20, 30), 1: Watermarks(ROWS - 5, ROWS - 4)}
        assert offsets(scan.stretches(middle)) == {0: list(range(20, 30)), 1: [ROWS - 5]}
        assert offsets(scan.stretches({0: Watermarks(50, 50)})) == {}
        assert offsets(scan.onward({1: ROWS - 3})) == {1: list(range(ROWS - 3, ROWS))}
        first = []
        for partition, messages in scan.onward({0: 10, 1: 7}):
            first.append((partition, messages[0].offset()))
            scan.leave(partition)
            scan.leave(partition)
        assert sorted(first) == [(0, 10), (1, 7)]
        with pytest.raises(Unavailable, match="old events were deleted"):
            offsets(scan.stretches({0: Watermarks(5, ROWS)}))


def test_a_topic_that_is_not_there(mesh: Mesh) -> None:
    with Scan(mesh.environment.kafka_config(), "nothing.there", "test") as scan, pytest.raises(NotApplied):
        scan.low(0)
