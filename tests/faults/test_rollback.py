"""Tables that somebody rolls back or drops: the sink reads exactly what is missing again, or says that it cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.schemas.catalog import identifier_of, open_catalog
from tests.support.meshes import ORDER, ORDERS, ids, order, send
from tests.support.sinks import assert_exactly_once, caught_up, events, eventually, running
from tests.support.topics import expire_by_another_engine, table_of

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.schemas.mesh import Mesh
    from tests.support.meshes import Cluster

BURST = 50


def land(mesh: Mesh, burst: int, name: str = ORDERS) -> None:
    """Send and land one more burst of events."""
    product = mesh.product(name)
    numbers = range(burst * BURST, (burst + 1) * BURST)
    send(mesh, product.topic, events(mesh, product, map(order, numbers)))
    assert caught_up(mesh, name).outcomes == {name: True}


def test_what_was_rolled_back_is_read_again_and_nothing_else(mesh: Mesh) -> None:
    heads = []
    for burst in range(3):
        land(mesh, burst)
        snapshot = table_of(mesh).current_snapshot()
        assert snapshot is not None
        heads.append(snapshot.snapshot_id)
    table_of(mesh).manage_snapshots().rollback_to_snapshot(heads[0]).commit()
    assert len(ids(mesh)) == BURST

    sink = caught_up(mesh)
    assert sink.rows(ORDERS) == 2 * BURST
    assert ids(mesh) == sorted(f"o{number}" for number in range(3 * BURST))
    assert_exactly_once(mesh)


def test_rolled_back_while_the_sink_runs(mesh: Mesh) -> None:
    land(mesh, 0)
    first = table_of(mesh).current_snapshot()
    assert first is not None
    product = mesh.product(ORDERS)
    with running(mesh) as sink:
        send(mesh, product.topic, events(mesh, product, map(order, range(BURST, 2 * BURST))))
        assert eventually(lambda: sink.rows(ORDERS) == BURST)
        table_of(mesh).manage_snapshots().rollback_to_snapshot(first.snapshot_id).commit()
        # The next commit is refused; the sink starts from the ledger of the snapshot that counts now.
        send(mesh, product.topic, events(mesh, product, map(order, range(2 * BURST, 3 * BURST))))
        assert eventually(lambda: sink.rows(ORDERS) == 3 * BURST)
        (stale,) = sink.logged("another worker has moved the table: starting from its ledger")
        assert stale["what"].startswith("stale: expected [")
    assert ids(mesh) == sorted(f"o{number}" for number in range(3 * BURST))
    assert_exactly_once(mesh)


def test_snapshots_of_other_engines_are_passed_over(mesh: Mesh) -> None:
    land(mesh, 0)
    # A row-level delete by another engine: its snapshot carries no ledger.
    table_of(mesh).delete("id = 'o7'")
    land(mesh, 1)
    assert ids(mesh) == sorted(f"o{number}" for number in range(2 * BURST) if number != 7)


def test_a_dropped_table_stops_its_product_and_no_other(cluster: Cluster, tmp_path: Path, prefix: str) -> None:
    mesh = cluster.applied(tmp_path / "mesh", prefix=prefix, schemas={"shop.orders": ORDER, "shop.returns": ORDER})
    land(mesh, 0, "shop.orders")
    product = mesh.product("shop.orders")
    open_catalog(mesh.environment, mesh.domain_of(product)).drop_table(identifier_of(product))
    with running(mesh) as sink:
        assert eventually(lambda: sink.ended("shop.orders"))
        other = mesh.product("shop.returns")
        send(mesh, other.topic, events(mesh, other, map(order, range(BURST))))
        assert eventually(lambda: sink.rows("shop.returns") == BURST)
    assert sink.outcomes == {"shop.orders": False, "shop.returns": True}
    (stopped,) = sink.logged("stopped")
    assert stopped["product"] == "shop.orders"
    assert (stopped["what"], stopped["next"]) == ("the table does not exist", "run `headrace apply`")
    rows = query_one(mesh, "shop.returns")
    assert rows == BURST


def query_one(mesh: Mesh, name: str) -> int:
    """Return how many rows a table has that exists beside one that does not."""
    return int(table_of(mesh, name).scan().count())


def test_a_table_whose_history_others_expired_goes_on_from_its_property(mesh: Mesh) -> None:
    land(mesh, 0)
    expire_by_another_engine(mesh)
    land(mesh, 1)
    assert ids(mesh) == sorted(f"o{number}" for number in range(2 * BURST))
    assert_exactly_once(mesh)


def test_a_property_that_contradicts_the_rows_stops_the_product(mesh: Mesh) -> None:
    land(mesh, 0)
    table_of(mesh).delete("_kafka_offset >= 10")
    expire_by_another_engine(mesh)
    sink = caught_up(mesh)
    assert sink.outcomes == {ORDERS: False}
    (stopped,) = sink.logged("stopped")
    assert "does not agree with its rows: property 0:" in stopped["what"]
    assert "rows 0:9, 1:9" in stopped["what"]
    assert stopped["next"]
