"""Products that an operator holds while their sinks run: nothing lands, nothing is lost, and all goes on afterwards."""

from __future__ import annotations

import json
import signal
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer

from headrace.schemas.avro import AvroSchema
from headrace.schemas.catalog import open_catalog
from headrace.schemas.mesh import load_mesh
from headrace.schemas.registry import Registry
from headrace.sinks.hold import hold, release
from headrace.sinks.serve import serve
from headrace.sinks.watch import Unwatched
from tests.support.amending import patient
from tests.support.meshes import ORDER, ORDERS, encoded, ids, order, send
from tests.support.sinks import assert_exactly_once, caught_up, eventually, process, registered_id, running
from tests.support.topics import client, publish, table_of
from tests.support.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping
    from pathlib import Path

    from headrace.schemas.errors import HeadraceError
    from headrace.schemas.mesh import Mesh
    from headrace.schemas.product import Product
    from headrace.sinks.hold import Hold
    from headrace.sinks.landing import Step
    from tests.support.meshes import Cluster
    from tests.support.sinks import Sink

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
RETURNS = "shop.returns"


@pytest.fixture
def mesh(mesh: Mesh) -> Mesh:
    """The mesh, whose workers are missed late: nobody is killed here."""
    return patient(mesh)


def held(mesh: Mesh, reason: str = "its table is compacted", name: str = ORDERS) -> Hold | None:
    product = mesh.product(name)
    return hold(open_catalog(mesh.environment, mesh.domain_of(product)), product, reason, NOON)


def released(mesh: Mesh, name: str = ORDERS) -> Hold | None:
    product = mesh.product(name)
    return release(open_catalog(mesh.environment, mesh.domain_of(product)), product)


def head_of(mesh: Mesh) -> int:
    head = table_of(mesh).current_snapshot()
    assert head is not None
    return head.snapshot_id


def members(mesh: Mesh) -> set[str]:
    """Return the ids of the sink's group's members: a worker that has left and joined again has another."""
    group = mesh.product(ORDERS).sink_group
    asking = client(mesh)
    return {member.member_id for member in asking.describe_consumer_groups([group])[group].result(60).members}


@contextmanager
def producing(mesh: Mesh) -> Iterator[list[int]]:
    """Send an order every few milliseconds while the block lasts; yield the numbers sent so far."""
    product = mesh.product(ORDERS)
    schema_id = registered_id(mesh, product)
    sent: list[int] = []
    stop = threading.Event()

    def produce() -> None:
        producer = Producer({"bootstrap.servers": mesh.environment.kafka_config()["bootstrap.servers"]})
        for number in count(10_000):
            if stop.wait(0.005):
                break
            producer.produce(product.topic, encoded(product.schema, schema_id, order(number)), f"o{number}")
            sent.append(number)
        assert producer.flush(PATIENCE_S) == 0

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    try:
        yield sent
    finally:
        stop.set()
        thread.join(PATIENCE_S)


def holds(sink: Sink) -> list[MutableMapping[str, Any]]:
    """Return the lines that say that the product is held."""
    return [line for line in sink.logged("waiting") if line["what"].startswith("held ")]


def test_nothing_lands_between_hold_and_release_and_nothing_is_lost(mesh: Mesh) -> None:
    with running(mesh) as sink, producing(mesh) as sent:
        assert eventually(lambda: sink.rows(ORDERS) > 0)
        assert held(mesh) is None
        # What hold promises: from here on the table stands still, though the sink was in the middle of it.
        rows, head, so_far = ids(mesh), head_of(mesh), len(sent)
        assert eventually(lambda: bool(holds(sink)))
        assert eventually(lambda: len(sent) >= so_far + 100)
        assert (ids(mesh), head_of(mesh)) == (rows, head)
        waiting = holds(sink)[-1]
        assert waiting["what"] == "held since 2026-11-23 12:00:00 UTC: its table is compacted"
        assert waiting["next"] == f"it goes on by itself after `headrace release {ORDERS}`"
        assert eventually(lambda: len(members(mesh)) == 1), "it has left its consumer group"

        assert released(mesh) is not None
        landed = len(sink.landed)
        assert eventually(lambda: len(sink.landed) > landed)
    assert not sink.logged("another worker has moved the table: starting from its ledger"), "it dropped its batch"
    assert sink.outcomes == {ORDERS: True}
    caught_up(mesh)
    assert ids(mesh) == sorted(f"o{number}" for number in sent)
    assert_exactly_once(mesh)


def test_a_hold_at_each_step_of_a_running_sink_keeps_the_batch_out(mesh: Mesh) -> None:
    """Between its look at the table and its commit too: the hold moves the branch's head."""
    seen: set[str] = set()

    def observe(step: Step) -> None:
        # The step that comes right behind a hold is held at the next time.
        if step not in seen and step not in ("outcome", "landed") and held(mesh, f"at {step}") is None:
            seen.add(step)

    def waits_at(step: str) -> bool:
        said = f"held since 2026-11-23 12:00:00 UTC: at {step}"
        return said in [line["what"] for line in sink.logged("waiting")]

    publish(mesh, ORDERS, range(10))
    with running(mesh, observe=observe) as sink:
        for step in ("reload", "files", "stage", "commit"):
            assert eventually(partial(waits_at, step)), f"it did not wait at {step}"
            assert not ids(mesh), f"a row landed under the hold at {step}"
            released(mesh)
        assert eventually(lambda: sink.rows(ORDERS) == 10)
    assert_exactly_once(mesh)


def test_a_hold_stops_no_other_product(cluster: Cluster, tmp_path: Path, prefix: str) -> None:
    mesh = cluster.applied(tmp_path / "mesh", prefix=prefix, schemas={ORDERS: ORDER, RETURNS: ORDER})
    held(mesh)
    publish(mesh, ORDERS, range(20))
    publish(mesh, RETURNS, range(20))
    with running(mesh) as sink:
        assert eventually(lambda: sink.rows(RETURNS) == 20)
        assert eventually(lambda: bool(sink.logged("waiting", ORDERS)))
        assert sink.rows(ORDERS) == 0
        assert not sink.logged("waiting", RETURNS)


def test_a_worker_that_joins_under_a_hold_takes_over_its_partitions(mesh: Mesh) -> None:
    """What is taken away is dropped at once: the group does not wait for the release."""
    publish(mesh, ORDERS, range(20))
    with running(mesh) as first:
        assert eventually(lambda: first.rows(ORDERS) == 20)
        held(mesh)
        publish(mesh, ORDERS, range(20, 60))
        assert eventually(lambda: bool(first.logged("waiting")))
        with running(mesh) as second:
            assert eventually(lambda: len(members(mesh)) == 2)
            publish(mesh, ORDERS, range(60, 100))
            assert len(ids(mesh)) == 20
            released(mesh)
            assert eventually(lambda: len(ids(mesh)) == 100)
            publish(mesh, ORDERS, range(100, 200))
            assert eventually(lambda: len(ids(mesh)) == 200)
        assert second.outcomes == {ORDERS: True}
    assert first.outcomes == {ORDERS: True}
    assert_exactly_once(mesh)


def test_workers_of_a_held_product_leave_each_other_in_peace(mesh: Mesh) -> None:
    """A worker that dropped its batch at a rebalance and joined again would make the next rebalance, and so on."""
    held(mesh)
    publish(mesh, ORDERS, range(40))
    with running(mesh, [ORDERS, ORDERS]) as sinks:
        assert eventually(lambda: len(members(mesh)) == 2)
        assert eventually(lambda: len(sinks.logged("waiting")) >= 2)
        there = members(mesh)
        publish(mesh, ORDERS, range(40, 80))
        assert not eventually(lambda: members(mesh) != there, within_s=3)
        released(mesh)
        assert eventually(lambda: len(ids(mesh)) == 80)
    assert_exactly_once(mesh)


def test_catching_up_waits_for_the_release(mesh: Mesh) -> None:
    held(mesh)
    publish(mesh, ORDERS, range(20))
    with running(mesh, until_caught_up=True) as sink:
        assert eventually(lambda: bool(sink.logged("waiting")))
        assert not sink.ended(ORDERS)
        released(mesh)
        assert eventually(lambda: sink.ended(ORDERS))
    assert sink.outcomes == {ORDERS: True}
    assert len(ids(mesh)) == 20


def test_a_table_rolled_back_under_a_hold_gets_again_what_it_lost(mesh: Mesh) -> None:
    publish(mesh, ORDERS, range(20))
    assert all(caught_up(mesh).outcomes.values())
    first = head_of(mesh)
    with running(mesh) as sink:
        publish(mesh, ORDERS, range(20, 40))
        assert eventually(lambda: sink.rows(ORDERS) == 20)
        held(mesh, "rolling back")
        publish(mesh, ORDERS, range(40, 60))
        assert eventually(lambda: bool(sink.logged("waiting")))
        table_of(mesh).manage_snapshots().rollback_to_snapshot(first).commit()
        assert ids(mesh) == sorted(f"o{number}" for number in range(20))
        released(mesh)
        assert eventually(lambda: len(ids(mesh)) == 60)
        (stale,) = sink.logged("another worker has moved the table: starting from its ledger")
        assert stale["what"].startswith("stale: expected [")
    assert ids(mesh) == sorted(f"o{number}" for number in range(60))
    assert_exactly_once(mesh)


def test_a_session_that_begins_under_a_hold_is_never_said_to_go_on(mesh: Mesh) -> None:
    told: list[str] = []

    class Diary(Unwatched):
        def running(self, product: Product) -> None:
            told.append("running")

        def waiting(self, product: Product, error: HeadraceError) -> None:
            told.append(error.what)

    held(mesh)
    stop = threading.Event()
    sink = threading.Thread(
        target=lambda: serve(mesh, [ORDERS], until_caught_up=False, stop=stop, watcher=Diary()), daemon=True
    )
    sink.start()
    assert eventually(lambda: bool(told))
    assert not eventually(lambda: "running" in told, within_s=2)
    released(mesh)
    assert eventually(lambda: "running" in told)
    stop.set()
    sink.join(PATIENCE_S)
    assert told == ["held since 2026-11-23 12:00:00 UTC: its table is compacted", "running"]


def test_a_held_sink_ends_when_it_is_told_to(mesh: Mesh, tmp_path: Path) -> None:
    held(mesh)
    publish(mesh, ORDERS, range(20))
    with process(mesh, ORDERS, tmp_path / "held.log") as sink:
        assert eventually(lambda: sink.logged("its table is compacted"))
        sink.signal(signal.SIGTERM)
        assert sink.wait() == 0
    released(mesh)
    assert all(caught_up(mesh).outcomes.values())
    assert_exactly_once(mesh)


def publish_wider(mesh: Mesh, *numbers: int) -> None:
    """Send orders of a version that the table has no room for yet."""
    product = mesh.product(ORDERS)
    wider: dict[str, Any] = {
        **ORDER,
        "fields": [*ORDER["fields"], {"name": "note", "type": ["null", "string"], "default": None}],
    }
    schema = AvroSchema.parse(json.dumps(wider))
    with Registry(mesh.environment.registry_config()) as registry:
        version = registry.register(product.subject, schema)
    send(mesh, product.topic, [(f"o{n}", encoded(schema, version.id, {**order(n), "note": "new"})) for n in numbers])


def test_a_sink_that_cannot_even_decode_ends_when_it_is_told_to(mesh: Mesh, tmp_path: Path) -> None:
    """The table cannot follow a new version while it is held, so the events wait before they are a batch."""
    publish(mesh, ORDERS, range(10))
    with process(mesh, ORDERS, tmp_path / "held.log") as sink:
        assert sink.lands()
        held(mesh)
        publish_wider(mesh, 10)
        assert eventually(lambda: sink.logged("its table is compacted"))
        sink.signal(signal.SIGTERM)
        assert sink.wait() == 0
    released(mesh)
    assert all(caught_up(mesh).outcomes.values())
    assert len(ids(mesh)) == 11
    assert_exactly_once(mesh)


def test_a_worker_joins_at_once_beside_one_that_cannot_even_decode(mesh: Mesh) -> None:
    # A worker learns with its heartbeat that another one has joined.
    file = mesh.root / "mesh.yaml"
    file.write_text(file.read_text().replace("kafka: {", "kafka: {heartbeat.interval.ms: 300, "))
    mesh = load_mesh(mesh.root, environment="cluster")
    publish(mesh, ORDERS, range(20))
    with running(mesh) as first:
        assert eventually(lambda: first.rows(ORDERS) == 20)
        held(mesh)
        publish_wider(mesh, *range(20, 40))
        assert eventually(lambda: bool(first.logged("waiting")))
        with running(mesh) as both:
            # The group would wait five minutes for one that does not let go: as long as it may take to its next poll.
            assert eventually(lambda: any("taken away" in line["what"] for line in both.logged("waiting")))
            released(mesh)
            assert eventually(lambda: len(ids(mesh)) == 40)
    assert_exactly_once(mesh)


def test_a_held_table_follows_no_version(mesh: Mesh) -> None:
    publish(mesh, ORDERS, range(10))
    assert all(caught_up(mesh).outcomes.values())
    held(mesh, "the columns are looked at")
    publish_wider(mesh, 10)
    with running(mesh) as sink:
        assert eventually(lambda: bool(holds(sink)))
        assert "the columns are looked at" in holds(sink)[-1]["what"]
        assert "note" not in table_of(mesh).schema().column_names
        released(mesh)
        assert eventually(lambda: sink.rows(ORDERS) == 1)
    assert "note" in table_of(mesh).schema().column_names
    assert_exactly_once(mesh)
