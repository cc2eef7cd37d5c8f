"""What the scanner makes of what it looks at: files that change, topics by name, tables' properties, how often."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest
from pyiceberg.table.update import SetPropertiesUpdate
from structlog.testing import capture_logs

from headrace.governance.applied import applied_ids
from headrace.governance.lake import table_state
from headrace.governance.mesh_watch import MeshWatch
from headrace.governance.observing import TableState
from headrace.governance.scanner import LEAST_REST_S, Pace, rest_s
from headrace.governance.sight import foreign_topics
from headrace.governance.waits import told_if_slow
from headrace.schemas.avro import AvroSchema
from headrace.schemas.mesh import load_mesh
from headrace.selfserve.stack import Endpoints
from tests.support.lake import Lake
from tests.support.meshes import ORDER, ORDERS, write_mesh, write_product

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.schemas.mesh import Mesh

NOWHERE = Endpoints("localhost:1", "http://localhost:1")


@pytest.fixture
def mesh(tmp_path: Path) -> Mesh:
    write_mesh(tmp_path, NOWHERE, "env.", {ORDERS: ORDER})
    return load_mesh(tmp_path, environment="cluster")


def test_a_mesh_is_loaded_anew_only_when_its_files_have_changed(mesh: Mesh) -> None:
    watch = MeshWatch(mesh)
    assert watch.current() is mesh
    write_product(mesh.root / "domains" / "shop" / "returns", "shop.returns", ORDER)
    (mesh.root / "notes.txt").write_text("no part of the mesh")
    found = watch.current()
    assert [str(product.name) for product in found.products] == [ORDERS, "shop.returns"]
    assert watch.current() is found


def test_a_mesh_with_faults_or_of_another_environment_changes_nothing(mesh: Mesh) -> None:
    watch = MeshWatch(mesh)
    contract = mesh.root / "domains" / "shop" / "orders" / "contract.odcs.yaml"
    text = contract.read_text()
    with capture_logs() as logs:
        contract.write_text("nothing: of the kind")
        assert watch.current() is mesh
        assert watch.current() is mesh
        write_mesh(mesh.root, NOWHERE, "other.", {ORDERS: ORDER})
        assert watch.current() is mesh
    # Once for each change, not for each look.
    assert [line["event"].partition(":")[0] for line in logs] == [
        "the mesh's files have faults",
        "the environment has changed",
    ]
    write_mesh(mesh.root, NOWHERE, "env.", {ORDERS: ORDER})
    contract.write_text(text.replace("1.0.0", "1.2.0"))
    os.utime(contract)
    assert watch.current().product(ORDERS).contract.version == "1.2.0"


def test_topics_of_no_product_are_those_that_nobody_accounts_for(mesh: Mesh) -> None:
    strays = {"env.stray", "env.shop.orders2", "env.shop.orders.dlq.dlq", "env.headracer"}
    known = {"env.shop.orders", "env.shop.orders.dlq", "env.governance.findings", "env.headrace.faust.x-changelog"}
    others = {"__consumer_offsets", "_schemas", "elsewhere.shop.orders", "stray"}
    assert foreign_topics(frozenset(strays | known | others), mesh) == strays


def test_without_a_prefix_the_clusters_own_topics_are_no_strays(tmp_path: Path) -> None:
    write_mesh(tmp_path, NOWHERE, '""', {ORDERS: ORDER})
    mesh = load_mesh(tmp_path, environment="cluster")
    assert foreign_topics(frozenset({"__consumer_offsets", "_schemas", "stray", "shop.orders"}), mesh) == {"stray"}


def test_a_tables_properties_are_read_whoever_wrote_them(tmp_path: Path) -> None:
    schema = AvroSchema.parse('{"type": "record", "name": "E", "fields": [{"name": "id", "type": "string"}]}')
    lake = Lake(tmp_path, schema)
    assert table_state(lake.reload()) == TableState(0, (), ())
    properties = {
        "headrace.schema-version": "3",
        "headrace.mask.email": "of-my-own",
        "headrace.applied.12": "1.0.0",
        "headrace.applied.7": "",
        "headrace.applied.x": "1.0.0",
    }
    lake.catalog.commit_table(lake.table, (), (SetPropertiesUpdate(updates=properties),))
    assert table_state(lake.reload()) == TableState(3, ("email",), (7, 12))
    assert applied_ids(lake.table) == {7, 12}


@pytest.mark.parametrize(
    ("took_s", "rest"), [(0.05, 0.95), (0.5, 0.5), (0.8, 0.8), (1.4, 1.0), (2.0, 5.0), (4.5, 30.0)]
)
def test_a_look_that_takes_longer_is_followed_by_a_longer_rest(took_s: float, rest: float) -> None:
    assert rest_s(took_s) == pytest.approx(rest)
    assert rest_s(took_s) >= LEAST_REST_S


def test_one_long_look_is_no_large_mesh() -> None:
    pace = Pace()
    # The broker was away for 12 s: in the middle of a look, and at the beginning of one that gave up.
    for took_s, complete in ((0.1, True), (12.0, True), (0.1, True), (5.0, False), (12.0, True), (0.1, True)):
        assert pace.rest_s(took_s, complete=complete) <= 1.0
    assert pace.rest_s(4.5, complete=True) <= 1.0
    assert pace.rest_s(5.0, complete=True) == pytest.approx(rest_s(4.5))
    assert pace.rest_s(5.0, complete=True) == pytest.approx(rest_s(5.0))


def test_a_block_that_does_not_end_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.governance.waits.PATIENCE_S", 0.01)
    told = threading.Event()
    with told_if_slow(lambda error: told.set() if "governance.findings" in str(error) else None, "governance.findings"):
        assert told.wait(60)
