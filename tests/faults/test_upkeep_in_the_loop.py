"""A sink that commits many small batches over a real broker keeps its files few by itself, and loses nothing."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer

from headrace.schemas.mesh import load_mesh
from headrace.selfserve.apply import apply
from headrace.sinks.upkeep import keeping
from tests.support.meshes import ORDER, ORDERS, order, query, write_mesh
from tests.support.sinks import assert_exactly_once, events, eventually, running
from tests.support.topics import table_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.meshes import Cluster
    from tests.support.sinks import Sink

# On a busy machine with others' tests beside it.
pytestmark = pytest.mark.timeout(600)

COMMITS, EVENTS = 200, 3
# A poll may cut what was sent at once into several batches, never into more than its events.
MESSAGES = COMMITS * EVENTS


def test_a_sink_keeps_its_files_few(
    cluster: Cluster, tmp_path: Path, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "EVERY_S", 0.5)
    write_mesh(tmp_path, cluster.endpoints, prefix, {ORDERS: ORDER}, commit_interval_s=0.02)
    mesh = load_mesh(tmp_path, environment="cluster")
    apply(mesh, lambda _: None)
    product = mesh.product(ORDERS)
    messages = events(mesh, product, map(order, range(MESSAGES)))
    producer = Producer({**mesh.environment.kafka_config(), "partitioner": "murmur2_random", "linger.ms": 0})
    with running(mesh, [ORDERS]) as sink:
        for start in range(0, MESSAGES, EVENTS):
            landed = len(sink.landed)
            for key, value in messages[start : start + EVENTS]:
                producer.produce(product.topic, value, key)
            assert producer.flush(60) == 0
            assert eventually(partial(_landed_more, sink, landed)), sink.logs
        assert eventually(lambda: sink.rows(ORDERS) == MESSAGES)
        assert len(sink.landed) >= COMMITS
        assert len(sink.logged("compacted", ORDERS)) >= 3
        assert not sink.logged("upkeep failed")
    table = table_of(mesh)
    # What a run leaves, and what has landed since the last one.
    assert len(list(table.scan().plan_files())) <= 8 + math.log(MESSAGES, 1.5) + COMMITS / 4
    assert query(mesh, f"SELECT count(*), count(DISTINCT id), sum(amount)::BIGINT FROM {ORDERS}") == [
        (MESSAGES, MESSAGES, MESSAGES * (MESSAGES - 1) // 2)
    ]
    assert table.scan().to_arrow().num_rows == MESSAGES
    assert_exactly_once(mesh)


def _landed_more(sink: Sink, seen: int) -> bool:
    return len(sink.landed) > seen
