"""A product whose table is partitioned and sorted, over a real broker, with sinks that are killed."""

from __future__ import annotations

import signal
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer
from pyiceberg.exceptions import CommitFailedException

from headrace.schemas.mesh import load_mesh
from headrace.schemas.product import PartitionField
from headrace.schemas.table_layout import described_order, described_spec, layout_change
from headrace.selfserve.apply import apply
from headrace.sinks.landing import Step
from headrace.streams.subscriber import Start, Subscriber
from tests.support.meshes import ORDERS, order, query, write
from tests.support.sinks import assert_exactly_once, events, eventually, process, running
from tests.support.subscribing import ALL
from tests.support.topics import table_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pyiceberg.table import Table

    from headrace.schemas.mesh import Mesh
    from headrace.schemas.product import Contract
    from tests.support.meshes import Cluster
    from tests.support.sinks import Sink

DAYS, BUCKETS, EVENTS = 50, 4, 50_000
# A landing writes two hundred files; on a busy machine that takes many times as long as on a quiet one.
WAIT_S = 240.0
DAY_MS = 86_400_000
LAYOUT = {
    "properties: [{name: id, primaryKey: true, primaryKeyPosition: 1}]": """properties:
      - {name: _kafka_timestamp, partitioned: true, partitionKeyPosition: 1, customProperties: [
          {property: iceberg.transform, value: day}]}
      - {name: id, primaryKey: true, partitioned: true, partitionKeyPosition: 2, customProperties: [
          {property: iceberg.transform, value: "bucket[4]"}]}""",
    "value: 5, unit: s}]": "value: 5, unit: s}, {property: retention, value: 3650, unit: d}]",
    "value: 2}]": "value: 2}, {property: iceberg.sortOrder, value: [{field: amount, direction: desc}]}]",
}


def laid_out(cluster: Cluster, root: Path, prefix: str) -> Mesh:
    """Apply a mesh whose product is partitioned by day and bucket, and sorted."""
    cluster.mesh(root, prefix=prefix)
    place = root / "domains" / "shop" / "orders" / "contract.odcs.yaml"
    text = place.read_text(encoding="utf-8")
    for plain, wanted in LAYOUT.items():
        assert plain in text
        text = text.replace(plain, wanted)
    write(place, text)
    mesh = load_mesh(root, environment="cluster")
    apply(mesh, lambda _: None)
    assert moved(mesh, mesh.product(ORDERS).contract)
    return mesh


def publish(mesh: Mesh, numbers: Iterable[int]) -> None:
    """Send orders; each is stamped with one of the last days, and neighbours with days far from each other."""
    product = mesh.product(ORDERS)
    listed = list(numbers)
    now_ms = int(time.time() * 1000)
    producer = Producer({**mesh.environment.kafka_config(), "queue.buffering.max.messages": 2 * EVENTS})
    for number, (key, value) in zip(listed, events(mesh, product, map(order, listed)), strict=True):
        stamp_ms = now_ms - (number * 37 % DAYS) * DAY_MS
        producer.produce(product.topic, value, key, partition=number % 2, timestamp=stamp_ms)
    assert producer.flush(60) == 0


@pytest.mark.timeout(900)
def test_late_events_over_two_hundred_partitions_and_killed_sinks(
    cluster: Cluster, tmp_path: Path, prefix: str
) -> None:
    mesh = laid_out(cluster, tmp_path / "mesh", prefix)
    half = EVENTS // 2
    for numbers, step in ((range(half), Step.COMMIT), (range(half, EVENTS), Step.OUTCOME)):
        publish(mesh, numbers)
        with process(mesh, ORDERS, tmp_path / f"{step}.log", step=step, occurrence=1, signal="SIGKILL") as worker:
            assert worker.wait(WAIT_S) == -signal.SIGKILL, (tmp_path / f"{step}.log").read_text()
    with process(mesh, ORDERS, tmp_path / "last.log", until_caught_up=True) as worker:
        assert worker.wait(WAIT_S) == 0, (tmp_path / "last.log").read_text()
    assert_exactly_once(mesh)
    total = EVENTS * (EVENTS - 1) // 2
    sums = "SELECT count(*), count(DISTINCT id), sum(amount)::BIGINT FROM "
    assert query(mesh, sums + ORDERS) == [(EVENTS, EVENTS, total)]
    look_at_files(table_of(mesh))
    look_at_history(mesh)


def look_at_files(table: Table) -> None:
    assert described_spec(table.spec(), table.schema()) == ("day(_kafka_timestamp)", "bucket[4](id)")
    assert described_order(table.sort_order(), table.schema()) == ("amount desc nulls last",)
    tasks = list(table.scan().plan_files())
    assert {task.file.sort_order_id for task in tasks} == {table.sort_order().order_id}
    found = {(task.file.partition[0], task.file.partition[1]) for task in tasks}
    # The two halves may have been sent on two days.
    assert DAYS * BUCKETS <= len(found) <= (DAYS + 1) * BUCKETS
    day = min(day for day, _ in found)
    rows = table.scan(f"_kafka_timestamp < '{iso(day + 1)}'", selected_fields=("id", "amount", "_kafka_timestamp"))
    planned = list(rows.plan_files())
    assert {task.file.partition[0] for task in planned} == {day}
    assert rows.to_arrow().num_rows == sum(task.file.record_count for task in planned)


def iso(day: int) -> str:
    return time.strftime("%Y-%m-%dT00:00:00+00:00", time.gmtime(day * 86_400))


def look_at_history(mesh: Mesh) -> None:
    """A subscriber reads the table in the order of offsets, whatever order its files have."""
    offsets: dict[int, list[int]] = {0: [], 1: []}
    numbers = set()
    with Subscriber(mesh, ORDERS, group=None, start=Start.HISTORY, reading=ALL) as subscriber:
        for event in subscriber:
            assert subscriber.place is not None
            assert subscriber.place.from_history
            offsets[subscriber.place.partition].append(subscriber.place.offset)
            numbers.add(event["amount"])
    assert numbers == set(range(EVENTS))
    assert all(found == sorted(found) for found in offsets.values())


def test_a_table_s_layout_moves_while_its_sink_runs(mesh: Mesh) -> None:
    product = mesh.product(ORDERS)
    layouts = [(), (PartitionField("id", "bucket[4]"),), (PartitionField("_kafka_timestamp", "day"),), ()]
    with running(mesh) as sink:
        for place, partition_by in enumerate(layouts):
            contract = replace(product.contract, partition_by=partition_by)
            assert eventually(partial(moved, mesh, contract))
            publish(mesh, range(place * 500, place * 500 + 500))
            assert eventually(partial(landed, sink, place * 500 + 500))
    assert_exactly_once(mesh)
    table = table_of(mesh)
    assert {task.file.spec_id for task in table.scan().plan_files()} == {0, 1, 2}


def landed(sink: Sink, rows: int) -> bool:
    return sink.rows(ORDERS) == rows


def moved(mesh: Mesh, contract: Contract) -> bool:
    """Let the table follow a contract's layout; False if the sink was quicker."""
    table = table_of(mesh)
    change = layout_change(contract, table.schema(), table.metadata)
    try:
        table.catalog.commit_table(table, change.requirements, change.updates)
    except CommitFailedException:
        return False
    return True
