"""Topics that change under a table: made anew, cut off, grown. What cannot go on by itself says why and stops alone."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import NewPartitions  # type: ignore[attr-defined]  # public, but not listed

from headrace.sinks import glance
from headrace.streams.admin import Admin
from tests.support.meshes import ORDER, ORDERS, ids
from tests.support.sinks import assert_exactly_once, caught_up, eventually, running
from tests.support.topics import client, delete_records, ledger_of, make_anew, publish

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.schemas.mesh import Mesh
    from tests.support.meshes import Cluster

RETURNS = "shop.returns"


@pytest.fixture
def two(cluster: Cluster, tmp_path: Path, prefix: str) -> Mesh:
    """A mesh of two products, applied."""
    return cluster.applied(tmp_path / "mesh", prefix=prefix, schemas={ORDERS: ORDER, RETURNS: ORDER})


def test_a_topic_made_anew_stops_its_product_and_no_other(two: Mesh) -> None:
    product = two.product(ORDERS)
    publish(two, ORDERS, range(30))
    assert all(caught_up(two).outcomes.values())
    before, after = make_anew(two, product)
    publish(two, ORDERS, range(30, 60))
    publish(two, RETURNS, range(10))

    sink = caught_up(two)
    assert sink.outcomes == {ORDERS: False, RETURNS: True}
    (stopped,) = sink.logged("stopped")
    assert stopped["what"] == f"the topic was made anew: the table follows the topic {before}, Kafka has {after}"
    assert f"headrace accept-topic {ORDERS}" in stopped["next"]
    assert ids(two) == sorted(f"o{number}" for number in range(30))
    assert len(ids(two, RETURNS)) == 10


def test_a_topic_made_anew_under_a_running_sink_stops_it(two: Mesh) -> None:
    product = two.product(ORDERS)
    publish(two, ORDERS, range(30))
    with running(two) as sink:
        assert eventually(lambda: sink.rows(ORDERS) == 30)
        make_anew(two, product)
        publish(two, ORDERS, range(100, 160))
        assert eventually(lambda: sink.ended(ORDERS))
        assert not sink.ended(RETURNS)
        publish(two, RETURNS, range(10))
        assert eventually(lambda: sink.rows(RETURNS) == 10)
    (stopped,) = sink.logged("stopped")
    # Which of the two it notices depends on the moment: that there is none, or that there is another.
    assert stopped["what"].startswith(("the topic was made anew: ", "the topic does not exist"))
    assert ids(two) == sorted(f"o{number}" for number in range(30)), "rows of two topics were mixed"
    assert not caught_up(two, ORDERS).outcomes[ORDERS]


def test_a_topic_made_anew_is_noticed_by_who_has_none_of_its_partitions(two: Mesh) -> None:
    """Positions of the old topic say nothing of how far the table is with the new one."""
    product = two.product(ORDERS)
    publish(two, ORDERS, range(30))
    assert caught_up(two, ORDERS).outcomes == {ORDERS: True}
    make_anew(two, product)
    publish(two, ORDERS, range(30, 40))
    settings = {"group.id": f"headrace.sink.{product.topic}", "partition.assignment.strategy": "cooperative-sticky"}
    # As one that was killed: its partitions are its own until its session has run out.
    silent = Consumer({**two.environment.kafka_config(), **settings, "session.timeout.ms": 45_000})
    try:
        silent.subscribe([product.topic])
        assert eventually(lambda: silent.poll(0.1) is None and len(silent.assignment()) == product.contract.partitions)
        sink = caught_up(two, ORDERS)
    finally:
        silent.close()
    assert sink.outcomes == {ORDERS: False}
    assert sink.logged("stopped")[0]["what"].startswith("the topic was made anew: ")


def test_a_topic_made_anew_under_a_quiet_sink_with_as_many_events_stops_it(
    two: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(glance, "GLANCE_S", 0.5)
    publish(two, ORDERS, range(30))
    with running(two, [ORDERS]) as sink:
        assert eventually(lambda: sink.rows(ORDERS) == 30)
        make_anew(two, two.product(ORDERS))
        publish(two, ORDERS, range(30))
        assert eventually(lambda: sink.ended(ORDERS), within_s=60)
    assert ids(two) == sorted(f"o{number}" for number in range(30))
    assert not caught_up(two, ORDERS).outcomes[ORDERS]


def test_a_topic_that_is_deleted_under_a_quiet_sink_stops_it_and_no_other(
    two: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(glance, "GLANCE_S", 0.5)
    product = two.product(ORDERS)
    publish(two, ORDERS, range(30))
    publish(two, RETURNS, range(10))
    with running(two) as sink:
        assert eventually(lambda: sink.rows(ORDERS) == 30 and sink.rows(RETURNS) == 10)
        admin = client(two)
        admin.delete_topics([product.topic])[product.topic].result()
        assert eventually(lambda: sink.ended(ORDERS))
        assert not sink.ended(RETURNS)
    (stopped,) = sink.logged("stopped")
    assert (stopped["what"], stopped["next"]) == ("the topic does not exist", "headrace apply")
    assert len(ids(two)) == 30


def test_a_topic_made_anew_between_reading_and_committing_is_noticed(two: Mesh) -> None:
    product = two.product(ORDERS)
    publish(two, ORDERS, range(30))
    made = threading.Event()

    def observe(step: object) -> None:
        if not made.is_set():
            made.set()
            make_anew(two, product)

    with running(two, [ORDERS], observe=observe) as sink:
        assert eventually(lambda: sink.ended(ORDERS))
    assert sink.rows(ORDERS) == 0
    assert next(line["what"] for line in sink.logged("stopped")).startswith("the topic was made anew: ")


def test_a_gap_stops_its_product_with_partition_and_range_and_no_other(two: Mesh) -> None:
    product = two.product(ORDERS)
    publish(two, ORDERS, range(20), partition=0)
    publish(two, ORDERS, range(20, 40), partition=1)
    assert all(caught_up(two).outcomes.values())
    publish(two, ORDERS, range(40, 60), partition=1)
    publish(two, RETURNS, range(10))
    delete_records(two, product, {1: 25})

    sink = caught_up(two)
    assert sink.outcomes == {ORDERS: False, RETURNS: True}
    (stopped,) = sink.logged("stopped")
    assert "deleted offsets 20 to 24 of partition 1" in stopped["what"]
    assert product.topic in stopped["where"]
    assert f"headrace accept-gap {ORDERS}" in stopped["next"]
    assert len(ids(two)) == 40
    assert len(ids(two, RETURNS)) == 10


def test_what_kafka_deletes_after_it_was_committed_is_no_gap(two: Mesh) -> None:
    publish(two, ORDERS, range(20), partition=0)
    assert all(caught_up(two, ORDERS).outcomes.values())
    delete_records(two, two.product(ORDERS), {0: 20})
    publish(two, ORDERS, range(20, 30), partition=0)
    assert all(caught_up(two, ORDERS).outcomes.values())
    assert ids(two) == sorted(f"o{number}" for number in range(30))


def test_the_very_first_start_may_begin_above_zero_and_says_so(two: Mesh) -> None:
    publish(two, ORDERS, range(20), partition=0)
    delete_records(two, two.product(ORDERS), {0: 7})
    assert all(caught_up(two, ORDERS).outcomes.values())
    assert ids(two) == sorted(f"o{number}" for number in range(7, 20))
    ledger = ledger_of(two)
    assert ledger.origin == {0: 7}
    assert ledger.next(0) == 20
    assert_exactly_once(two, ORDERS)


def test_partitions_that_are_added_later_are_read_from_their_start(two: Mesh) -> None:
    product = two.product(ORDERS)
    publish(two, ORDERS, range(20))
    assert all(caught_up(two, ORDERS).outcomes.values())
    growing = client(two)
    growing.create_partitions([NewPartitions(product.topic, 4)])[product.topic].result(60)
    admin = Admin(two.environment.kafka_config())
    assert eventually(lambda: admin.topic(product.topic).partitions == 4)
    publish(two, ORDERS, range(20, 40), partition=3)
    assert all(caught_up(two, ORDERS).outcomes.values())
    assert ids(two) == sorted(f"o{number}" for number in range(40))
    assert ledger_of(two).next(3) == 20
    assert_exactly_once(two, ORDERS)
