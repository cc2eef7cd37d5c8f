"""Gaps that an operator accepts: the sink goes on behind them, the ledger keeps the record, and it lands once."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer

from headrace.governance.verify import verify
from headrace.schemas.catalog import open_catalog
from headrace.schemas.errors import ProductStopped, Unavailable
from headrace.sinks.acceptance import Gap, Gaps, accept, find_gaps
from headrace.streams.admin import Admin
from headrace.streams.ledger import Accepted, Position
from tests.support.faulty import CommitFault, Crash
from tests.support.meshes import ORDERS, ids, order
from tests.support.sinks import assert_exactly_once, caught_up, events, eventually, running
from tests.support.topics import delete_records, faulty_catalog, ledger_of, make_anew, publish, table_of

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

    from headrace.schemas.mesh import Mesh

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
NOW_S = int(NOW.timestamp())
# After these, whoever asked does not know whether it has landed.
UNSURE = {CommitFault.REFUSED, CommitFault.LOCKED, CommitFault.LATE_BEFORE_REPEAT, CommitFault.LATE_AFTER_REPEAT}


def admin_of(mesh: Mesh) -> Admin:
    return Admin(mesh.environment.kafka_config())


def found_in(mesh: Mesh, catalog: Catalog | None = None) -> Gaps:
    product = mesh.product(ORDERS)
    used = catalog or open_catalog(mesh.environment, mesh.domain_of(product))
    return find_gaps(used, product, admin_of(mesh), mesh.environment.kafka_config())


def accepted(mesh: Mesh, found: Gaps | None = None, catalog: Catalog | None = None) -> int | None:
    product = mesh.product(ORDERS)
    used = catalog or open_catalog(mesh.environment, mesh.domain_of(product))
    return accept(used, product, found or found_in(mesh), admin_of(mesh), NOW)


@pytest.fixture
def gapped(mesh: Mesh) -> Mesh:
    """A mesh whose partition 1 has lost offsets 20 to 24 of 40; partition 0 has lost nothing."""
    publish(mesh, ORDERS, range(20), partition=0)
    publish(mesh, ORDERS, range(20, 40), partition=1)
    assert all(caught_up(mesh).outcomes.values())
    publish(mesh, ORDERS, range(40, 60), partition=1)
    delete_records(mesh, mesh.product(ORDERS), {1: 25})
    return mesh


SURVIVORS = sorted(f"o{number}" for number in (*range(40), *range(45, 60)))


def test_a_sink_goes_on_behind_a_gap_that_was_accepted(gapped: Mesh) -> None:
    (stopped,) = caught_up(gapped).logged("stopped")
    assert "deleted offsets 20 to 24 of partition 1" in stopped["what"]
    assert f"headrace accept-gap {ORDERS}" in stopped["next"]

    snapshot_id = accepted(gapped)
    head = table_of(gapped).current_snapshot()
    assert head is not None
    assert head.snapshot_id == snapshot_id
    ledger = ledger_of(gapped)
    assert ledger.positions == {0: Position(20, 19), 1: Position(25, 19)}
    assert ledger.accepted == {1: (Accepted(20, 25, NOW_S),)}
    assert ledger.added == {}

    assert all(caught_up(gapped).outcomes.values())
    assert ids(gapped) == SURVIVORS
    assert ledger_of(gapped).accepted == {1: (Accepted(20, 25, NOW_S),)}, "the record stays with the ledger"
    assert_exactly_once(gapped)


def test_a_gap_tells_between_which_times_its_events_were_written(gapped: Mesh) -> None:
    (gap,) = found_in(gapped).gaps
    assert (gap.partition, gap.first, gap.end) == (1, 20, 25)
    assert gap.after_ms is not None
    assert gap.before_ms is not None
    stamps = {
        row["_kafka_offset"]: row["_kafka_timestamp"].timestamp() * 1_000
        for row in table_of(gapped).scan("_kafka_partition = 1").to_arrow().to_pylist()
    }
    assert gap.after_ms == pytest.approx(stamps[19])
    assert gap.before_ms >= gap.after_ms


def test_a_partition_of_which_nothing_is_left_has_a_gap_up_to_its_end(gapped: Mesh) -> None:
    delete_records(gapped, gapped.product(ORDERS), {1: 40})
    (gap,) = found_in(gapped).gaps
    assert (gap.first, gap.end, gap.before_ms) == (20, 40, None)
    accepted(gapped)
    publish(gapped, ORDERS, range(60, 70), partition=1)
    assert all(caught_up(gapped).outcomes.values())
    assert ids(gapped) == sorted(f"o{number}" for number in (*range(40), *range(60, 70)))
    assert_exactly_once(gapped)


def test_without_a_gap_nothing_is_accepted(mesh: Mesh) -> None:
    assert found_in(mesh) == Gaps(None, ())
    assert accepted(mesh) is None
    publish(mesh, ORDERS, range(20), partition=0)
    delete_records(mesh, mesh.product(ORDERS), {0: 5})
    assert not found_in(mesh).gaps, "the very first start begins where the log does"
    assert all(caught_up(mesh).outcomes.values())
    before = table_of(mesh).metadata_location
    assert not found_in(mesh).gaps
    assert accepted(mesh) is None
    assert table_of(mesh).metadata_location == before


def test_what_was_not_shown_is_not_accepted(gapped: Mesh) -> None:
    """Kafka goes on deleting: only the range that an operator has seen is accepted, and the sink stops at the next."""
    shown = found_in(gapped)
    delete_records(gapped, gapped.product(ORDERS), {1: 30})
    accepted(gapped, shown)
    (gap,) = found_in(gapped).gaps
    assert (gap.first, gap.end) == (25, 30)
    (stopped,) = caught_up(gapped).logged("stopped")
    assert "deleted offsets 25 to 29" in stopped["what"]
    accepted(gapped)
    assert all(caught_up(gapped).outcomes.values())
    assert ledger_of(gapped).accepted == {1: (Accepted(20, 30, NOW_S),)}, "ranges that touch become one"
    assert_exactly_once(gapped)


def test_an_acceptance_is_refused_once_the_table_has_moved(gapped: Mesh) -> None:
    shown = found_in(gapped)
    accepted(gapped, shown)
    before = table_of(gapped).metadata_location
    with pytest.raises(
        Unavailable, match=r"moved since the gap was found: stale: expected \[1:20\].*committed \[1:25\]"
    ):
        accepted(gapped, shown)
    assert table_of(gapped).metadata_location == before


def test_a_topic_made_anew_is_no_gap(gapped: Mesh) -> None:
    shown = found_in(gapped)
    make_anew(gapped, gapped.product(ORDERS))
    for attempt in (lambda: found_in(gapped), lambda: accepted(gapped, shown)):
        with pytest.raises(ProductStopped, match="made anew"):
            attempt()
    assert ledger_of(gapped).accepted == {}


def test_rolling_back_takes_an_acceptance_back(gapped: Mesh) -> None:
    head = table_of(gapped).current_snapshot()
    assert head is not None
    accepted(gapped)
    table_of(gapped).manage_snapshots().rollback_to_snapshot(head.snapshot_id).commit()
    assert [(gap.first, gap.end) for gap in found_in(gapped).gaps] == [(20, 25)]
    assert not caught_up(gapped).outcomes[ORDERS]


def test_a_worker_of_other_partitions_goes_on_while_a_gap_is_accepted(gapped: Mesh) -> None:
    """The fence asks for a batch's own partitions only."""
    accepted(gapped)
    with running(gapped) as sink:
        assert eventually(lambda: sink.rows(ORDERS) == 15)
        publish(gapped, ORDERS, range(60, 80), partition=0)
        assert eventually(lambda: sink.rows(ORDERS) == 35)
        ledger, product = ledger_of(gapped), gapped.product(ORDERS)
        nothing_yet = Gaps(ledger, [Gap(1, ledger.next(1), ledger.next(1), None, None)])
        accepted(gapped, nothing_yet)
        publish(gapped, ORDERS, range(80, 90), partition=0)
        assert eventually(lambda: sink.rows(ORDERS) == 45)
        assert not sink.logged("another worker has moved the table: starting from its ledger", str(product.name))
    assert_exactly_once(gapped)


@pytest.mark.parametrize("fault", CommitFault)
def test_an_acceptance_lands_once_whatever_happens_to_its_request(gapped: Mesh, fault: CommitFault) -> None:
    catalog = faulty_catalog(gapped)
    before = len(table_of(gapped).snapshots())
    found = found_in(gapped, catalog)
    catalog.fault = fault
    if fault.name.startswith("CRASH") or fault in UNSURE:
        with pytest.raises((Unavailable, Crash)):
            accepted(gapped, found, catalog)
        # It may or may not have landed: whoever asks again finds out. A late request may come before the second one.
        with suppress(Unavailable):
            accepted(gapped, found_in(gapped, catalog), catalog)
    else:
        assert accepted(gapped, found, catalog) is not None
    assert len(table_of(gapped).snapshots()) == before + 1
    assert ledger_of(gapped).accepted == {1: (Accepted(20, 25, NOW_S),)}
    assert all(caught_up(gapped).outcomes.values())
    assert ids(gapped) == SURVIVORS
    assert_exactly_once(gapped)


def test_verify_counts_nothing_of_an_accepted_gap(gapped: Mesh) -> None:
    accepted(gapped)
    caught_up(gapped)
    (audit,) = verify(gapped, [gapped.product(ORDERS)], lambda _: None).products
    (verdict,) = [verdict for verdict in audit.verdicts if verdict.partition == 1]
    assert audit.holds
    assert (verdict.events, verdict.rows, verdict.beyond_retention) == (15, 35, 20)


def test_a_gap_before_an_event_of_no_year_that_can_be_shown_is_found_all_the_same(gapped: Mesh) -> None:
    """A producer may take microseconds for milliseconds: the sink lands such an event, so the gap before it can go."""
    product = gapped.product(ORDERS)
    producer = Producer({"bootstrap.servers": gapped.environment.kafka_config()["bootstrap.servers"]})
    ((key, value),) = events(gapped, product, [order(60)])
    # A broker may be set to refuse what lies far ahead; older ones take any number.
    admin_of(gapped).set_config(product.topic, {"message.timestamp.after.max.ms": str(2**63 - 1)})
    refused = []
    producer.produce(
        product.topic,
        value,
        key,
        partition=1,
        timestamp=1_700_000_000_000_000,
        on_delivery=lambda error, _: refused.append(error),
    )
    assert producer.flush(30) == 0
    assert refused == [None]
    delete_records(gapped, product, {1: 40})
    (gap,) = found_in(gapped).gaps
    assert (gap.first, gap.end, gap.before_ms) == (20, 40, None)
    assert gap.after_ms is not None
    accepted(gapped)
    assert all(caught_up(gapped).outcomes.values())
    assert ids(gapped) == sorted(f"o{number}" for number in (*range(40), 60))
    assert_exactly_once(gapped)
