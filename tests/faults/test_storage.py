"""A disk that runs full at any file of a commit: the sink waits and says so, and lands once there is room."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.amending import patient
from tests.support.faulty_storage import WRITTEN, Disk, DiskCatalog
from tests.support.meshes import ORDERS, ids, order, send
from tests.support.sinks import assert_exactly_once, events, eventually, running

if TYPE_CHECKING:
    from headrace.schemas.mesh import Mesh

FAILURES = 2


@pytest.fixture
def mesh(mesh: Mesh) -> Mesh:
    """The mesh, whose workers are missed late: nobody is killed here."""
    return patient(mesh)


@pytest.mark.parametrize("kind", WRITTEN)
@pytest.mark.parametrize("landed_before", [0, 30], ids=["first", "later"])
def test_a_full_disk_delays_a_batch_and_loses_nothing(mesh: Mesh, kind: str, landed_before: int) -> None:
    product = mesh.product(ORDERS)
    disk = Disk()
    catalog = DiskCatalog("shop", disk, **mesh.environment.catalog_properties(mesh.domain_of(product)))
    with running(mesh, catalogs={ORDERS: catalog}) as sink:
        send(mesh, product.topic, events(mesh, product, map(order, range(landed_before))))
        assert eventually(lambda: sink.rows(ORDERS) == landed_before)
        disk.fill(FAILURES, WRITTEN[kind])
        send(mesh, product.topic, events(mesh, product, map(order, range(landed_before, 100))))
        assert eventually(lambda: sink.rows(ORDERS) == 100)
    assert len(disk.met) == FAILURES
    waits = sink.logged("waiting", ORDERS)
    assert len(waits) == FAILURES
    for line in waits:
        assert "No space left on device" in line["what"]
        assert "shop.orders" in line["where"]
        assert line["next"]
    assert sink.outcomes == {ORDERS: True}
    assert ids(mesh) == sorted(f"o{number}" for number in range(100))
    assert_exactly_once(mesh)
