"""Kafka and the registry killed and brought up again in mid-stream: the sink waits, says what for, and goes on."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from headrace.sinks.session import STOP_S
from tests.support.meshes import ORDER, ORDERS, Cluster, encoded, ids, order, query, send
from tests.support.servers import kill
from tests.support.sinks import assert_exactly_once, caught_up, events, eventually, registered_id, running
from tests.support.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from pathlib import Path

    from headrace.selfserve.stack.embedded import EmbeddedStack
    from headrace.sinks.landing import Step


# On a busy machine with others' tests beside it.
pytestmark = pytest.mark.timeout(600)

# One stack for all of them, in one process of the test run.

BURST = 500


def up_again(stack: EmbeddedStack, own: Cluster) -> None:
    endpoints = stack.up(die_with_parent=True, progress=lambda _: None)
    assert endpoints == own.endpoints, "the servers came back elsewhere"


def test_a_broker_killed_in_mid_stream_loses_nothing(
    stack: EmbeddedStack, own: Cluster, tmp_path: Path, prefix: str
) -> None:
    mesh = own.applied(tmp_path / "mesh", prefix=prefix)
    product = mesh.product(ORDERS)
    done = threading.Event()
    bursts = 0

    def produce() -> None:
        nonlocal bursts
        messages = events(mesh, product, map(order, range(BURST)))
        while not done.is_set():
            send(mesh, product.topic, [*messages, ("poison", b"{}")])
            bursts += 1

    producer = threading.Thread(target=produce, daemon=True)
    with running(mesh) as sink:
        producer.start()
        assert eventually(lambda: sink.rows(ORDERS) > 0)
        kill(stack, "kafka")
        assert eventually(lambda: bool(sink.logged("waiting"))), sink.logs
        up_again(stack, own)
        seen, sent = sink.rows(ORDERS), bursts
        assert eventually(lambda: sink.rows(ORDERS) > seen and bursts > sent), sink.logs
        done.set()
        producer.join(PATIENCE_S)
        assert not producer.is_alive()
        assert eventually(lambda: sink.rows(ORDERS) >= bursts * BURST), sink.logs
    assert sink.outcomes == {ORDERS: True}, sink.logs
    assert all(line["where"] and line["next"] for line in sink.logged("waiting")), sink.logged("waiting")
    assert caught_up(mesh).outcomes == {ORDERS: True}
    assert_exactly_once(mesh)
    # The idempotent producer may have sent a burst again under a new identity; the topic is what counts.
    assert query(mesh, f"SELECT count(*) >= {bursts * BURST} FROM {ORDERS}") == [(True,)]


def test_a_sink_that_starts_without_a_broker_waits_for_it(
    stack: EmbeddedStack, own: Cluster, tmp_path: Path, prefix: str
) -> None:
    mesh = own.applied(tmp_path / "mesh", prefix=prefix)
    product = mesh.product(ORDERS)
    send(mesh, product.topic, events(mesh, product, map(order, range(100))))
    kill(stack, "kafka")
    with running(mesh) as sink:
        assert eventually(lambda: bool(sink.logged("waiting"))), sink.logs
        up_again(stack, own)
        assert eventually(lambda: sink.rows(ORDERS) == 100), sink.logs
    assert sink.outcomes == {ORDERS: True}
    assert_exactly_once(mesh)


def test_a_registry_killed_before_an_unseen_schema_arrives_is_waited_for(
    stack: EmbeddedStack, own: Cluster, tmp_path: Path, prefix: str
) -> None:
    mesh = own.applied(tmp_path / "mesh", prefix=prefix, schemas={ORDERS: ORDER})
    product = mesh.product(ORDERS)
    schema_id = registered_id(mesh, product)
    with running(mesh) as sink:
        kill(stack, "registry")
        send(mesh, product.topic, ((f"o{n}", encoded(product.schema, schema_id, order(n))) for n in range(100)))

        def waits() -> list[MutableMapping[str, Any]]:
            lines = sink.logged("waiting")
            return [line for line in lines if line["what"].startswith("the schema registry does not answer")]

        assert eventually(lambda: bool(waits())), sink.logs
        assert waits()[0]["where"] == own.endpoints.registry_url
        assert "headrace up" in waits()[0]["next"]
        assert sink.rows(ORDERS) == 0
        up_again(stack, own)
        assert eventually(lambda: sink.rows(ORDERS) == 100), sink.logs
    assert sink.outcomes == {ORDERS: True}
    assert ids(mesh) == sorted(f"o{number}" for number in range(100))
    assert_exactly_once(mesh)


def test_a_sink_that_waits_for_a_broker_stops_at_once(
    stack: EmbeddedStack, own: Cluster, tmp_path: Path, prefix: str
) -> None:
    mesh = own.applied(tmp_path / "mesh", prefix=prefix)
    product = mesh.product(ORDERS)
    with running(mesh) as sink:
        send(mesh, product.topic, events(mesh, product, map(order, range(100))))
        assert eventually(lambda: sink.rows(ORDERS) == 100)
        kill(stack, "kafka")
        assert eventually(lambda: bool(sink.logged("waiting"))), sink.logs
        sink.stop.set()
        assert eventually(lambda: sink.ended(ORDERS), within_s=STOP_S + 60), sink.logs
    assert sink.outcomes == {ORDERS: True}


def test_a_sink_whose_batch_cannot_land_without_a_broker_stops_within_its_time(
    stack: EmbeddedStack, own: Cluster, tmp_path: Path, prefix: str
) -> None:
    mesh = own.applied(tmp_path / "mesh", prefix=prefix)
    product = mesh.product(ORDERS)
    sent, killed = threading.Event(), threading.Event()

    def observe(step: Step) -> None:
        # Dead letters and the topic's id both need the broker; whoever sends needs it for longer than the first batch.
        assert sent.wait(PATIENCE_S)
        if not killed.is_set():
            kill(stack, "kafka")
            killed.set()

    with running(mesh, observe=observe) as sink:
        send(mesh, product.topic, [("poison", b"{}"), *events(mesh, product, map(order, range(100)))])
        sent.set()
        assert killed.wait(PATIENCE_S)
        sink.stop.set()
        # It tries to land for as long as it may, and then gives the batch up and leaves the group.
        assert eventually(lambda: sink.ended(ORDERS), within_s=STOP_S + 60), sink.logs
    assert sink.outcomes == {ORDERS: True}
    up_again(stack, own)
    assert caught_up(mesh).outcomes == {ORDERS: True}
    assert_exactly_once(mesh)
