"""Other engines that work on a table while its sink does: they rewrite it, expire its snapshots, roll it back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from pyiceberg.exceptions import CommitFailedException

from headrace.schemas.catalog import identifier_of, open_catalog
from tests.support.meshes import ORDERS
from tests.support.sinks import running
from tests.support.storms import Transactions, assert_all_there, stormy_mesh
from tests.support.waiting import PATIENCE_S, eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pyiceberg.table import Table

    from headrace.schemas.mesh import Mesh
    from tests.support.meshes import Cluster

TIMES = 5


def table_of(mesh: Mesh) -> Table:
    product = mesh.product(ORDERS)
    return open_catalog(mesh.environment, mesh.domain_of(product)).load_table(identifier_of(product))


def compacts(table: Table) -> None:
    """Write all rows anew, in one file: other engines' snapshots carry no ledger."""
    head = table.current_snapshot()
    assert head is not None
    table.overwrite(table.scan(snapshot_id=head.snapshot_id).to_arrow())


def adds_nothing(table: Table) -> None:
    table.append(table.schema().as_arrow().empty_table())


def expires(table: Table) -> None:
    """Expire all snapshots but the newest: its parent is forgotten."""
    head = table.current_snapshot()
    old = [each.snapshot_id for each in table.snapshots() if head is not None and each.snapshot_id != head.snapshot_id]
    table.maintenance.expire_snapshots().by_ids(old).commit()


def rolls_back(table: Table) -> None:
    head = table.current_snapshot()
    parent = head.parent_snapshot_id if head is not None else None
    if parent is not None:
        table.manage_snapshots().rollback_to_snapshot(parent).commit()


def done(mesh: Mesh, work: Callable[[Table], None]) -> None:
    """Do it to the table as it is now, however often the sink comes in between."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        table = table_of(mesh)
        # pyiceberg's own retries would take up what the sink has done meanwhile, which no engine that rewrites may do.
        table.metadata.properties["commit.retry.num-retries"] = "0"
        try:
            work(table)
        except CommitFailedException:
            assert time.monotonic() < deadline_s, "the sink starves the other engine"
            continue
        return


@pytest.mark.parametrize(
    "work", [compacts, adds_nothing, expires, rolls_back], ids=lambda function: str(function.__name__)
)
def test_another_engine_on_the_table_of_a_running_sink(
    cluster: Cluster, tmp_path: Path, prefix: str, work: Callable[[Table], None]
) -> None:
    mesh = stormy_mesh(cluster, tmp_path / "mesh", prefix)
    with Transactions(mesh) as sent, running(mesh) as sink:
        for _ in range(TIMES):
            there = len(sink.landed)
            assert eventually(lambda: len(sink.landed) > there + 1), sink.logs  # noqa: B023
            done(mesh, work)
        there = len(sink.landed)
        assert eventually(lambda: len(sink.landed) > there), sink.logs
    assert sink.outcomes == {ORDERS: True}, sink.logs
    assert_all_there(mesh, sent)
